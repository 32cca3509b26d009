/**
 * Decides which tabs of this browser keep their stream open. Over HTTP/1.1, all tabs of a browser share six connections
 * to a server, and each open stream takes one: with six streams no tab can send a request.
 *
 * A tab closes its stream when it is hidden and no answer runs in it, or when `MOST` other tabs were used after it. It
 * reopens the stream at its cursor, without losing events, when it is shown or used.
 */

import { uniqueKey } from "./composer.js";

const MOST = 3; // open streams of all tabs; three connections remain, since a page sends three requests at once
const HIDDEN = 1_000; // ms before a hidden tab closes its stream, so that quick switching of tabs reopens none
const LOOK = 5_000; // ms between two polls without a stream; below the server's grace for answers without viewers
const LOOKS = 1_000; // ms that a poll keeps the stream open: missed events come immediately
const USES = ["focusin", "pointerdown", "keydown", "input"];

export class Tabs {
  #chat = null;
  #resting = false; // whether the stream is closed
  #id = uniqueKey();
  #ahead = new Set(); // tabs with a stream that were used after this one
  #channel = new BroadcastChannel("chatstream.tabs");
  #timer = 0; // timer of the next step: close the stream, poll, or end a poll
  #onchange;

  /** `onchange()` is called when `resting` has changed. */
  constructor(onchange) {
    this.#onchange = onchange;
    this.#channel.onmessage = ({ data }) => this.#heard(data);
    for (const type of USES) addEventListener(type, () => this.use(), { capture: true, passive: true });
    addEventListener("focus", () => this.use());
    addEventListener("pageshow", ({ persisted }) => persisted && this.use());
    addEventListener("pagehide", () => this.#channel.postMessage({ left: this.#id }));
    document.addEventListener("visibilitychange", () => (hidden() ? this.consider() : this.use()));
  }

  /** Whether the stream is closed to save connections. */
  get resting() {
    return this.#resting;
  }

  /** Set the open conversation, with its history; null for none. Opens its stream, or polls if the tab is hidden. */
  open(chat) {
    clearTimeout(this.#timer);
    this.#chat = chat;
    this.#resting = false;
    if (!chat) return;
    this.#resting = hidden(); // the tab was opened in the background
    if (this.#resting) this.#look();
    else this.#hold();
  }

  /** Note that the user uses this tab: it gets its stream back. */
  use() {
    if (!this.#chat || (!this.#resting && this.#ahead.size === 0)) return;
    this.#hold();
  }

  /** Decide again whether to close the stream: the conversation or the tab's visibility has changed. */
  consider() {
    if (!this.#chat) return;
    if (this.#resting) {
      if (this.#chat.state === "open") this.#after(LOOKS, () => this.#rest());
    } else if (hidden() && !this.#chat.streaming) {
      this.#after(HIDDEN, () => hidden() && !this.#chat.streaming && this.#rest());
    }
  }

  #hold() {
    clearTimeout(this.#timer);
    this.#ahead.clear();
    this.#channel.postMessage({ used: this.#id });
    this.#resume();
  }

  #resume() {
    this.#resting = false;
    this.#onchange();
    this.#chat.connect();
  }

  #rest() {
    this.#resting = true;
    this.#chat.disconnect();
    this.#channel.postMessage({ left: this.#id });
    this.#onchange();
    // Poll if the tab is visible, to keep it up to date, or if an answer runs, as the server stops one without viewers.
    if (!hidden() || this.#chat.streaming) this.#after(LOOK, () => this.#look());
  }

  #look() {
    this.#chat.connect();
    this.consider();
  }

  #heard({ used, left }) {
    if (used) this.#ahead.add(used);
    this.#ahead.delete(left);
    if (!this.#chat) return;
    if (!this.#resting && this.#ahead.size >= MOST) this.#rest();
    else if (this.#resting && !hidden() && this.#ahead.size < MOST) this.#resume();
  }

  #after(milliseconds, what) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(what, milliseconds);
  }
}

function hidden() {
  return document.visibilityState === "hidden";
}
