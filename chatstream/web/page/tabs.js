/**
 * Decides which tabs of this browser keep their stream open. Over HTTP/1.1, all tabs of a browser share six connections
 * to a server, and each open stream takes one: with six streams no tab can send a request.
 *
 * A tab gives up its stream when it is hidden and no answer runs in it, or when `MOST` others have been used since. It
 * goes on from its cursor, exactly, as soon as it is shown or used.
 */

import { uniqueKey } from "./composer.js";

const MOST = 3; // streams of all tabs; the other three connections are for requests, and a page asks three at once
const HIDDEN = 1_000; // ms before a hidden tab gives up: whoever only passes through the tabs opens no new streams
const LOOK = 5_000; // ms between two looks of a resting tab: well within the grace in which the server waits for viewers
const LOOKS = 1_000; // ms that a look lasts: what was missed comes at once
const USES = ["focusin", "pointerdown", "keydown", "input"];

export class Tabs {
  #chat = null;
  #resting = false; // without its stream
  #id = uniqueKey();
  #ahead = new Set(); // tabs with a stream that were used after this one
  #channel = new BroadcastChannel("chatstream.tabs");
  #timer = 0; // of the next thing to do: give up, look, or end a look
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

  /** Whether the stream is given up for now. */
  get resting() {
    return this.#resting;
  }

  /** Another conversation is open, with its history; its stream is opened, unless nobody looks. Null: none is. */
  open(chat) {
    clearTimeout(this.#timer);
    this.#chat = chat;
    this.#resting = false;
    if (!chat) return;
    this.#resting = hidden(); // opened in the background
    if (this.#resting) this.#look();
    else this.#hold();
  }

  /** Somebody uses this tab. */
  use() {
    if (!this.#chat || (!this.#resting && this.#ahead.size === 0)) return;
    this.#hold();
  }

  /** Something has changed in the conversation, or in who looks at it. */
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
    // What is visible must not be out of date, and an answer that nobody watches would be cut.
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
