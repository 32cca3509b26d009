/** What was done can be undone for a while: it is really done when that is over, or when the page is closed. */

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
    // Nobody is hurried who has the button under the pointer, or the focus on it.
    for (const type of ["pointerenter", "focusin"]) toast.addEventListener(type, () => clearTimeout(this.#timer));
    for (const type of ["pointerleave", "focusout"]) toast.addEventListener(type, () => this.#pending && this.#wait());
    addEventListener("pagehide", () => this.#take()?.commit({ closing: true }));
  }

  /** `commit({closing})` does it; `revert()` takes it back. What was offered before is done now. */
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
