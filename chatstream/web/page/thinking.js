/** The model's reasoning, folded above its answer; the reader can unfold it. */

import { element } from "./dom.js";
import { t } from "./words.js";

const OPEN = "chatstream.thinking"; // "open": the reader has unfolded running reasoning, so show the next one unfolded

export class Thinking {
  root = element("details", { className: "thoughts", hidden: true });
  #summary = element("summary");
  #text = element("div", { className: "thought", dir: "auto" });
  #onbegin;
  #since = 0; // time when the reasoning began, if the page was open then
  #seconds = 0; // its duration
  #runs = false;

  /** `onbegin` is called once, when the reasoning begins while the page is open. */
  constructor(onbegin) {
    this.#onbegin = onbegin;
    this.root.append(this.#summary, this.#text);
    this.#summary.onclick = () => {
      if (this.#runs) localStorage.setItem(OPEN, this.root.open ? "" : "open"); // the state after this click
    };
  }

  /** `runs`: the reasoning is still running. */
  show(text, { runs }) {
    this.root.toggleAttribute("hidden", text === "");
    if (text === "") return;
    if (runs && !this.#runs) this.#begin();
    if (!runs && this.#runs) this.#end();
    if (this.#text.textContent !== text) this.#text.textContent = text;
    const title = this.#title();
    if (this.#summary.textContent !== title) this.#summary.textContent = title;
  }

  #begin() {
    this.#runs = true;
    if (!this.#since) this.#onbegin();
    this.#since = performance.now() - this.#seconds * 1000;
    this.root.open = localStorage.getItem(OPEN) === "open";
  }

  #end() {
    this.#runs = false;
    this.#seconds = (performance.now() - this.#since) / 1000;
    this.root.open = false;
  }

  #title() {
    if (this.#runs) return t("Thinking…");
    return this.#since ? t("Thought for {seconds} s", { seconds: Math.max(1, Math.round(this.#seconds)) }) : t("Thought");
  }
}
