/** Undo: delays an action, so that the user can cancel it. It is carried out later, or when the page is closed. */

import { byId, element } from "./dom.js";
import { t } from "./words.js";

const OFFERED = 8_000; // ms: time to read a line, see the mistake, and find the button

export class Undo {
  #pending = null; // {commit, revert}
  #timer = 0;

  constructor() {
    const toast = byId("undo");
    byId("undo-button").onclick = () => this.now();
    toast.onkeydown = (press) => {
      if (press.key !== "Escape") return;
      press.preventDefault(); // here Escape leaves the button, and must not stop an answer
      byId("new-chat").focus();
    };
    // The time does not run while the button has the pointer or the focus.
    for (const type of ["pointerenter", "focusin"]) toast.addEventListener(type, () => clearTimeout(this.#timer));
    for (const type of ["pointerleave", "focusout"]) toast.addEventListener(type, () => this.#pending && this.#wait());
    addEventListener("pagehide", () => this.#take()?.commit({ closing: true }));
  }

  /** Undo, if that is still possible: whether it was. */
  now() {
    const pending = this.#take();
    pending?.revert();
    return pending !== null;
  }

  /**
   * `text` has `{title}`. `commit({closing})` carries the action out; `revert()` takes it back. An earlier action is
   * carried out at once. `focus`: move the focus to the button.
   */
  offer(text, title, actions, { focus = false } = {}) {
    this.#take()?.commit({ closing: false });
    this.#pending = actions;
    const [before, after] = t(text).split("{title}");
    byId("undo").firstElementChild.replaceChildren(before, element("bdi", { title }, title), after);
    byId("undo").hidden = false;
    this.#wait();
    if (focus) byId("undo-button").focus(); // after the time has begun: the focus stops it
  }

  #wait() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#take()?.commit({ closing: false }), OFFERED);
  }

  #take() {
    clearTimeout(this.#timer);
    const pending = this.#pending;
    this.#pending = null;
    byId("undo").hidden = true;
    return pending;
  }
}
