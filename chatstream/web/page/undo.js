/** Undo: delays an action, so that the user can cancel it. It is carried out later, or when the page is closed. */

import { byId } from "./dom.js";

const OFFERED = 8_000; // ms: time to read a line, see the mistake, and find the button

export class Undo {
  #pending = null; // {commit, revert}
  #timer = 0;

  constructor() {
    const toast = byId("undo");
    byId("undo-button").onclick = () => {
      const { revert } = this.#take();
      revert();
    };
    // The time does not run while the button has the pointer or the focus.
    for (const type of ["pointerenter", "focusin"]) toast.addEventListener(type, () => clearTimeout(this.#timer));
    for (const type of ["pointerleave", "focusout"]) toast.addEventListener(type, () => this.#pending && this.#wait());
    addEventListener("pagehide", () => this.#take()?.commit({ closing: true }));
  }

  /** `commit({closing})` carries the action out; `revert()` takes it back. An earlier action is carried out at once. */
  offer(message, actions) {
    this.#take()?.commit({ closing: false });
    this.#pending = actions;
    byId("undo").firstElementChild.textContent = message;
    byId("undo").hidden = false;
    this.#wait();
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
