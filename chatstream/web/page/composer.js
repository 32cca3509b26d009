/** Where the reader writes: sends, stops, and keeps what could not be sent. */

import { byId } from "./dom.js";

export class Composer {
  #field = byId("text");
  #actions;
  #busy = false; // an answer is running
  #unsent = null; // {text, key}: what failed; the same key again makes no second message
  #place = "new"; // the conversation that the draft belongs to
  #passes = false; // the notice is about the connection, and over when that is back

  /** `actions`: `send(text, key)`, which rejects with a `ChatError`, and `stop()`. */
  constructor(actions) {
    this.#actions = actions;
    byId("composer").onsubmit = (submission) => {
      submission.preventDefault();
      this.#send();
    };
    this.#field.onkeydown = (key) => {
      if (key.key !== "Enter" || key.shiftKey || key.isComposing) return; // an input method's Enter chooses a word
      key.preventDefault();
      this.#send();
    };
    this.#field.oninput = () => {
      this.#keepDraft();
      this.#draw();
    };
    byId("stop").onclick = () => actions.stop();
    byId("send-again").onclick = () => this.#send();
    this.#draw();
  }

  set busy(busy) {
    const hadFocus = document.activeElement === byId("stop") || document.activeElement === byId("send");
    this.#busy = busy;
    this.#draw();
    if (hadFocus) this.#field.focus(); // its button has gone
  }

  /** Another conversation, with its own draft; what is being sent goes along. */
  set place(place) {
    if (this.#field.readOnly) localStorage.removeItem(draftKey(this.#place));
    this.#place = place;
    if (this.#field.readOnly) this.#keepDraft();
    else this.#field.value = localStorage.getItem(draftKey(place)) ?? "";
    this.#draw();
  }

  focus() {
    this.#field.focus();
  }

  /** Send what an example says. */
  use(text) {
    this.#field.value = text;
    this.#keepDraft();
    this.#send();
  }

  /** Say what is wrong; null takes it back. If it `passes`, so does the notice when the connection is back. */
  notice(message, { again = false, passes = false } = {}) {
    this.#passes = passes;
    byId("notice").hidden = message === null;
    byId("notice").firstElementChild.textContent = message ?? "";
    byId("send-again").hidden = !again;
  }

  /** The connection is back. */
  passed() {
    if (this.#passes) this.notice(null);
  }

  #keepDraft() {
    if (this.#field.value) localStorage.setItem(draftKey(this.#place), this.#field.value);
    else localStorage.removeItem(draftKey(this.#place));
  }

  async #send() {
    const text = this.#field.value;
    if (this.#busy || this.#field.readOnly || text.trim() === "") return;
    if (this.#unsent?.text !== text) this.#unsent = { text, key: uniqueKey() };
    this.notice(null);
    this.#field.readOnly = true;
    this.#draw();
    try {
      await this.#actions.send(text, this.#unsent.key);
      this.#field.value = "";
      this.#keepDraft();
      this.#unsent = null;
    } catch (error) {
      this.notice(`It was not sent. ${error.message}`, { again: true });
    } finally {
      this.#field.readOnly = false;
      this.#draw();
      this.#field.focus();
    }
  }

  #draw() {
    byId("send").hidden = this.#busy;
    byId("stop").hidden = !this.#busy;
    this.#field.rows = this.#field.value.split("\n").length; // where there is no `field-sizing`
    byId("send").disabled = this.#field.readOnly || this.#field.value.trim() === "";
  }
}

function draftKey(place) {
  return `chatstream.draft.${place}`;
}

/** 128 random bits in hexadecimal; randomUUID is missing where there is no TLS. */
export function uniqueKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
