/** The message box: sends and stops, and keeps a text that could not be sent. */

import { byId, countDown } from "./dom.js";
import { facts } from "./facts.js";
import { language, t } from "./words.js";

const COUNTED = 0.9; // show the characters left from this share of the longest message on

export class Composer {
  #field = byId("text");
  #actions;
  #busy = false; // an answer is running
  #editing = null; // the id of the question that is being edited
  #unsent = null; // {text, key} of a failed message; the same key makes a retry safe
  #place = "new"; // the conversation that the draft belongs to
  #endCounting = () => {}; // ends the countdown until sending is allowed again
  #passes = false; // the notice is about the connection: remove it when that is back

  /** `actions`: `send(text, key, edited)`, which rejects with a `ChatError`, `stop()`, and `lastQuestion()`, a message or
   * nothing. `edited` is the id of the question that is sent again with another text, if it is. */
  constructor(actions) {
    this.#actions = actions;
    byId("composer").onsubmit = (submission) => {
      submission.preventDefault();
      this.#send();
    };
    this.#field.onkeydown = (key) => {
      if (key.key === "ArrowUp" && this.#field.value === "") {
        key.preventDefault();
        const last = actions.lastQuestion();
        if (last) this.edit(last);
      }
      if (key.key === "Escape" && this.#editing && !key.isComposing) {
        key.preventDefault(); // here Escape ends editing, and must not stop the answer
        this.endEditing();
      }
      if (key.key !== "Enter" || key.shiftKey || key.isComposing) return; // an input method's Enter chooses a word
      key.preventDefault();
      this.#send();
    };
    this.#field.oninput = () => {
      this.#keepDraft();
      this.#draw();
    };
    byId("stop").onclick = () => actions.stop();
    byId("cancel-editing").onclick = () => this.endEditing();
    byId("send-again").onclick = () => this.#send();
    this.#draw();
  }

  set busy(busy) {
    if (busy === this.#busy) return; // set with each chunk
    const hadFocus = document.activeElement === byId("stop") || document.activeElement === byId("send");
    this.#busy = busy;
    this.#draw();
    if (hadFocus) this.#field.focus(); // its button has gone
  }

  /** Switch to another conversation and its draft. A message that is being sent moves along. */
  set place(place) {
    if (this.#field.readOnly) localStorage.removeItem(draftKey(this.#place));
    else this.#leaveEditing();
    this.#place = place;
    if (this.#field.readOnly) this.#keepDraft();
    else this.#field.value = localStorage.getItem(draftKey(place)) ?? "";
    this.#draw();
  }

  focus() {
    this.#field.focus();
  }

  /** Start editing a question, to send it again with another text. The present text is kept as a draft. */
  edit({ id, content }) {
    if (this.#field.readOnly) return;
    this.#editing = id;
    this.#field.value = content;
    byId("editing").hidden = false;
    this.#draw();
    this.focus();
  }

  /** Cancel editing. */
  endEditing() {
    this.#leaveEditing();
    this.#field.value = localStorage.getItem(draftKey(this.#place)) ?? "";
    this.#draw();
    this.focus();
  }

  /** A question was taken back: put its text into the box, unless another text is being written. */
  returned({ id, content }) {
    const edited = this.#editing === id;
    if (edited) this.#leaveEditing(); // the edited text becomes a new question
    if (!edited && !this.#editing && this.#field.value === "") this.#field.value = content;
    this.#keepDraft();
    this.#draw();
    this.focus();
  }

  #leaveEditing() {
    this.#editing = null;
    byId("editing").hidden = true;
  }

  /** Send an example's text. */
  use(text) {
    this.#field.value = text;
    this.#keepDraft();
    this.#send();
  }

  /** Show a problem; null removes it. `passes`: also remove it when the connection is back. */
  notice(message, { again = false, passes = false, waitMs = 0 } = {}) {
    this.#passes = passes;
    this.#endCounting();
    const end = performance.now() + (again ? waitMs : 0);
    this.#endCounting = countDown(byId("send-again"), end, (time) => (time ? t("Send again in {time}", { time }) : t("Send again")));
    byId("notice").hidden = message === null;
    byId("notice").firstElementChild.textContent = t(message ?? "");
    byId("send-again").hidden = !again;
  }

  /** The connection is back. */
  passed() {
    if (this.#passes) this.notice(null);
  }

  #keepDraft() {
    if (this.#editing) return; // the draft is of another message
    if (this.#field.value) localStorage.setItem(draftKey(this.#place), this.#field.value);
    else localStorage.removeItem(draftKey(this.#place));
  }

  async #send() {
    const text = this.#field.value;
    if (this.#field.readOnly || text.trim() === "" || this.#tooLong) return;
    const edited = this.#editing;
    if (this.#unsent?.text !== text || this.#unsent.edited !== edited) this.#unsent = { text, edited, key: uniqueKey() };
    this.notice(null);
    this.#field.readOnly = true;
    this.#draw();
    try {
      await this.#actions.send(text, this.#unsent.key, edited);
      this.#leaveEditing();
      this.#field.value = edited ? (localStorage.getItem(draftKey(this.#place)) ?? "") : "";
      this.#keepDraft();
      this.#unsent = null;
    } catch (error) {
      const [what] = Object.values(error.fields ?? {});
      const message = what ? t("It was not sent: {problem}.", { problem: what }) : t("It was not sent. {problem}", { problem: t(error.message) });
      // The server would refuse the same text again.
      this.notice(message, { again: error.retryable !== false, waitMs: error.retryAfterMs ?? 0 });
    } finally {
      this.#field.readOnly = false;
      this.#draw();
      this.#field.focus();
    }
  }

  get #tooLong() {
    return codePoints(this.#field.value) > facts.contentCharacters;
  }

  #draw() {
    const most = facts.contentCharacters;
    const length = codePoints(this.#field.value);
    const count = byId("count");
    count.hidden = length < COUNTED * most;
    count.textContent = t("{length} of {most} characters", { length: length.toLocaleString(language), most: most.toLocaleString(language) });
    count.classList.toggle("too-long", length > most);
    const empty = this.#field.value.trim() === "";
    byId("send").hidden = this.#busy && empty; // in mid-answer, there is something to send only once it is written
    byId("send").ariaLabel = t(this.#busy ? "Ask next" : "Send");
    byId("stop").hidden = !this.#busy;
    this.#field.rows = this.#field.value.split("\n").length; // for browsers without CSS `field-sizing`
    byId("send").disabled = this.#field.readOnly || empty || this.#tooLong;
  }
}

/** The number of code points, as the server counts; `length` counts some of them twice. */
function codePoints(text) {
  let pairs = 0;
  for (let i = 0; i < text.length; i++) if (text.codePointAt(i) > 0xffff) pairs++;
  return text.length - pairs;
}

function draftKey(place) {
  return `chatstream.draft.${place}`;
}

/** 128 random bits in hexadecimal; `randomUUID` is missing on pages without TLS. */
export function uniqueKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
