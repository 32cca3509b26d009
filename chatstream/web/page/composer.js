/** The message box: sends and stops, and keeps a text that could not be sent. */

import { byId, composes, countDown, directionOf } from "./dom.js";
import { facts } from "./facts.js";
import { language, t } from "./words.js";

const LOOKED_AT = 300; // characters in which the direction is looked for: 'dir="auto"' goes through all of a long text, for seconds
const COUNTED = 0.9; // show the characters left from this share of the longest message on

export class Composer {
  #field = byId("text");
  #actions;
  #busy = false; // an answer is running
  #editing = null; // the id of the question that is being edited
  #drafts; // also has the edits, each under the id of its question
  #unsent = new Map(); // by place: the message that is being sent or has failed; its key makes a retry safe
  #place = "new"; // the open conversation: its draft is in the box
  #endCounting = () => {}; // ends the countdown until sending is allowed again
  #passes = false; // the notice is about the connection: remove it when that is back

  /** `actions`: `send(text, key, edited)`, which rejects with a `ChatError`, `stop()`, and `lastQuestion()`, a message or
   * nothing. `edited` is the id of the question that is sent again with another text, if it is. */
  constructor(actions, drafts) {
    this.#actions = actions;
    this.#drafts = drafts;
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
      if (key.key === "Escape" && this.#editing && !composes(key)) {
        key.preventDefault(); // here Escape ends editing, and must not stop the answer
        this.endEditing();
      }
      if (key.key !== "Enter" || key.shiftKey || composes(key)) return; // an input method's Enter chooses a word
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

  /**
   * Switch to another conversation and its draft, or the edit that was left there. A message that is being sent stays
   * with its own conversation; the one that begins a conversation, whose id is its key, moves there.
   */
  set place(place) {
    const left = this.#place;
    const message = this.#unsent.get(left);
    this.#place = this.#drafts.open = place;
    if (message?.sending && message.key === place) {
      this.#unsent.delete(left);
      this.#unsent.set(place, message);
      Object.assign(message, { from: left, place }); // also kept as a draft there until it is sent: the page may be reloaded
      this.#keepDraft();
      this.#keepKey(message);
    } else {
      this.#hideEdit();
      this.#showDraft();
      const id = this.#drafts.get(`${place}/editing`);
      const text = id && this.#drafts.get(`${place}/edit/${id}`);
      if (text) this.#showEdit({ id, text });
    }
    this.#draw();
  }

  /** The open conversation is gone: what was written in it goes into a new chat. */
  gone() {
    const left = this.#place;
    const names = ["new", left, `${left}/edit/${this.#editing}`];
    const texts = new Set(names.map((name) => this.#drafts.get(name)).filter((text) => text?.trim()));
    if (this.#unsent.has(left)) this.#unsent.get(left).place = "new"; // it will fail
    this.forget(left);
    this.#drafts.set("new", [...texts].join("\n\n"));
  }

  /** A conversation is deleted. */
  forget(id) {
    this.#unsent.delete(id);
    this.#drafts.forget(id);
  }

  focus() {
    this.#field.focus();
  }

  /** Start editing a question, to send it again with another text. The present text is kept as a draft. */
  edit({ id, content }) {
    if (this.#field.readOnly) return;
    this.#showEdit({ id, text: this.#drafts.get(`${this.#place}/edit/${id}`) ?? content });
    this.#draw();
    this.focus();
  }

  /** Cancel editing. */
  endEditing() {
    if (this.#field.readOnly) return; // it is being sent
    this.#leaveEditing();
    this.#showDraft();
    this.#draw();
    this.focus();
  }

  /** A question was taken back: put its text into the box, unless another text is being written. */
  returned({ id, content }) {
    const edit = `${this.#place}/edit/${id}`;
    const text = this.#drafts.get(edit) ?? content; // the edited text becomes a new question
    const edited = this.#editing === id;
    if (edited) this.#stopEditing();
    else if (!this.#editing && this.#field.value === "") this.#field.value = text;
    this.#drafts.set(edit, null);
    this.#keepDraft();
    this.#draw();
    this.focus();
  }

  #showEdit({ id, text }) {
    this.#editing = id;
    this.#drafts.setHere(`${this.#place}/editing`, id);
    this.#field.value = text;
    byId("editing").hidden = false;
  }

  #showDraft() {
    const text = this.#drafts.get(this.#place) ?? "";
    const isBeingSent = [...this.#unsent.values()].some((message) => message.from === this.#place && message.text === text);
    this.#field.value = isBeingSent ? "" : text;
  }

  /** Editing ends: the question was sent, or it was cancelled. */
  #leaveEditing() {
    if (this.#editing) this.#drafts.set(`${this.#place}/edit/${this.#editing}`, null);
    this.#drafts.setHere(`${this.#place}/editing`, null);
    this.#hideEdit();
  }

  /** The question that is being edited is gone: its new text becomes a draft, below the one that there may be. */
  #stopEditing() {
    const texts = [this.#drafts.get(this.#place), this.#field.value];
    this.#leaveEditing();
    this.#field.value = texts.filter(Boolean).join("\n\n");
    this.#keepDraft();
  }

  #hideEdit() {
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
    this.#drafts.set(this.#editing ? `${this.#place}/edit/${this.#editing}` : this.#place, this.#field.value);
  }

  /** Keep the key of a message until it is sent: after a reload, the same text is not stored twice. */
  #keepKey({ text, edited, key, place }) {
    this.#drafts.setHere(`${place}/sending`, JSON.stringify({ text, edited, key }));
  }

  async #send() {
    const text = this.#field.value;
    if (this.#field.readOnly || text.trim() === "" || this.#tooLong) return;
    const edited = this.#editing;
    const failed = this.#unsent.get(this.#place) ?? JSON.parse(this.#drafts.get(`${this.#place}/sending`));
    const again = failed?.text === text && failed.edited === edited;
    const message = again ? failed : { text, edited, key: uniqueKey() };
    Object.assign(message, { place: this.#place, sending: true });
    this.#unsent.set(this.#place, message);
    this.#keepKey(message);
    this.notice(null);
    this.#draw();
    try {
      await this.#actions.send(text, message.key, edited);
      this.#remove(message);
    } catch (error) {
      this.#forgetCopy(message);
      if (error.retryable === false) this.#forgetKey(message);
      if (error.status === 404 && edited && edited === this.#editing && message.place === this.#place) this.#stopEditing();
      this.#showFailure(error, message);
    } finally {
      message.sending = false;
      if (message.place === this.#place) {
        this.#draw();
        this.#field.focus();
      }
    }
  }

  /** A message was sent: remove its text, from the box or from the drafts. */
  #remove(message) {
    const { text, edited, place } = message;
    this.#forgetKey(message);
    this.#forgetCopy(message);
    if (edited) this.#drafts.set(`${place}/edit/${edited}`, null);
    else if (this.#drafts.get(place) === text) this.#drafts.set(place, null);
    if (place !== this.#place) return;
    this.#leaveEditing();
    this.#showDraft();
  }

  #forgetKey(message) {
    if (this.#unsent.get(message.place) === message) this.#unsent.delete(message.place);
    this.#drafts.setHere(`${message.place}/sending`, null);
  }

  /** The message that begins a conversation is no draft of a new chat any more. */
  #forgetCopy(message) {
    const { from, text } = message;
    if (!from) return;
    message.from = null;
    if (this.#drafts.get(from) === text) this.#drafts.set(from, null);
    this.#drafts.setHere(`${from}/sending`, null);
  }

  #showFailure(error, { place }) {
    const [what] = Object.values(error.fields ?? {});
    const problem = what ?? t(error.message);
    if (place !== this.#place) {
      this.notice(t("A message of another chat was not sent, and is a draft there. {problem}", { problem }));
      return;
    }
    const message = what ? t("It was not sent: {problem}.", { problem }) : t("It was not sent. {problem}", { problem });
    // The server would refuse the same text again.
    this.notice(message, { again: error.retryable !== false, waitMs: error.retryAfterMs ?? 0 });
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
    this.#field.dir = directionOf(this.#field.value.slice(0, LOOKED_AT)) ?? "ltr";
    const empty = this.#field.value.trim() === "";
    this.#field.readOnly = this.#unsent.get(this.#place)?.sending ?? false;
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

/** 128 random bits in hexadecimal; `randomUUID` is missing on pages without TLS. */
export function uniqueKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
