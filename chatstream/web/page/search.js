/** The search field above the list of conversations. */

import { byId, composes } from "./dom.js";
import { t } from "./words.js";

const PAUSE = 250; // ms without typing before the search starts: half-typed words should not be searched

export class Search {
  #field = byId("search");
  #timer = 0;
  #actions;

  /** `actions`: `search(text)` ("" for all); `first()` opens the first result; `down()` focuses the list; `leave()`. */
  constructor(actions) {
    this.#actions = actions;
    this.#field.oninput = () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#go(), this.text ? PAUSE : 0);
    };
    this.#field.onkeydown = (press) => this.#onKey(press);
  }

  get text() {
    return this.#field.value.trim();
  }

  focus() {
    this.#field.focus();
    this.#field.select();
  }

  /** Show how many conversations contain the words `sought`: `count`, or more than that if `more` is set. */
  show(count, { sought, more, complete }) {
    const none = sought !== "" && count === 0;
    byId("none-found").hidden = !none;
    if (none) byId("none-found").textContent = t("No chat has all of these words.");
    const words = more ? "Found: more than {count}" : "Found: {count}";
    byId("search-status").textContent = sought ? t(words, { count }) : "";
    byId("search-incomplete").hidden = complete;
  }

  /** Show why the search has failed. */
  fail(message) {
    byId("none-found").textContent = message;
    byId("none-found").hidden = false;
  }

  #go() {
    clearTimeout(this.#timer);
    return this.#actions.search(this.text);
  }

  async #onKey(press) {
    if (composes(press)) return;
    if (press.key === "Escape") {
      press.preventDefault(); // the page's Escape key, which stops the answer, must not act here
      const had = this.#field.value !== "";
      this.#field.value = "";
      if (had) await this.#go();
      else this.#actions.leave();
    } else if (press.key === "ArrowDown") {
      press.preventDefault();
      this.#actions.down();
    } else if (press.key === "Enter" && this.text) {
      press.preventDefault();
      await this.#go();
      this.#actions.first();
    }
  }
}
