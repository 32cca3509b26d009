/** Draws the messages of the open conversation from `ChatStream`'s list. */

import { allLoaded, card } from "./cards.js";
import { Calls } from "./calls.js";
import { button, byId, countDown, element, redraw, sparing, Tail } from "./dom.js";
import { Groups } from "./groups.js";
import { copyText, Prose } from "./prose.js";
import { Thinking } from "./thinking.js";
import { attempts, focusVersion, isCut, thumbs, underQuestion } from "./versions.js";
import { language, t } from "./words.js";

export const ENDINGS = {
  stopped: "You stopped it",
  interrupted: "The answer was interrupted",
  length: "Cut off at the maximum length",
  content_filter: "Stopped by the content filter",
};
const SPOKEN_AFTER = 300; // ms before an ended answer is announced, so that its last events are announced together
const SPOKEN = 4_000; // maximum number of characters of an answer that a screen reader reads aloud

export class MessagesView {
  #items = new Map(); // by id: {message, last, waits, root, prose?, after}
  #actions;
  #messages = [];
  #hasEarlier = false;
  #busyElsewhere = false;
  #first = null; // id of the first message
  #groups = new Groups(byId("messages"));
  #speaking = 0; // timer of the next announcement
  #tail = new Tail(byId("scroller"), {
    isEmpty: () => this.#items.size === 0,
    onchange: (following) => (byId("to-end").hidden = following),
  });
  #draw = sparing(() => {
    this.#redraw();
    this.#afterwards?.();
    this.#afterwards = null;
  });
  #afterwards = null;
  #cards = new WeakMap(); // by box of cards: the data drawn in it, as JSON

  /**
   * `actions`: `regenerate()`; `goOn()` continues the last answer; `askAnew()` asks the last question in a new chat;
   * `edit(question)`; `takeBack(question)` withdraws a queued one; `show(id, step)` shows another version of a message;
   * `rate(id, rating)`; `decide(toolCallId, decision)`;
   * `answer(toolCallId, answer)`.
   */
  constructor(actions) {
    this.#actions = actions;
    byId("to-end").onclick = () => {
      this.toEnd();
      byId("scroller").focus({ preventScroll: true }); // the button has gone
    };
  }

  /** `hasEarlier`: there are messages before these, which can be loaded. `busyElsewhere`: an answer runs on another branch. */
  show(messages, { hasEarlier = false, busyElsewhere = false } = {}) {
    this.#messages = messages;
    this.#hasEarlier = hasEarlier;
    this.#busyElsewhere = busyElsewhere;
    this.#draw();
  }

  /** Call the function once the current messages are drawn. */
  whenDrawn(then) {
    this.#afterwards = then;
    this.#draw();
  }

  /** Clear the list for another conversation. */
  clear() {
    this.#items.clear();
    byId("messages").replaceChildren();
    this.#messages = [];
    this.#hasEarlier = this.#busyElsewhere = false;
    this.#first = null;
    clearTimeout(this.#speaking);
    this.#tail.toEnd();
    byId("announcer").textContent = "";
  }

  toEnd() {
    this.#tail.toEnd();
  }

  goTo(element) {
    this.#tail.goTo(element);
  }

  /** Move the focus to the version `id` of a message, which is now shown. */
  focusVersion(id, step) {
    this.#redraw();
    const item = this.#items.get(id);
    if (item) focusVersion(item.root, step);
  }

  /** Announce an ended answer to screen readers. Call this at each of its last events: they are announced together. */
  announce(id) {
    clearTimeout(this.#speaking);
    this.#speaking = setTimeout(async () => {
      this.#redraw();
      await allLoaded();
      const item = this.#items.get(id);
      if (item) announce(item.root, item.message);
    }, SPOKEN_AFTER);
  }

  #redraw() {
    const list = byId("messages");
    const hadFocus = list.contains(document.activeElement);
    const last = this.#messages.at(-1);
    // A question without an answer is pending: its answer begins when a client opens the stream, if not before. While
    // another answer runs, maybe on another branch, the question is queued.
    const runs = ({ role, streaming }) => (this.#busyElsewhere ? role === "assistant" : streaming);
    const running = this.#messages.findLastIndex(runs);
    const isBusy = this.#busyElsewhere || running !== -1;
    const isPending = last?.role === "user" && !isBusy;
    const pending = isPending ? [{ id: "pending", role: "assistant", status: "streaming", content: "" }] : [];
    const wanted = [...this.#messages, ...pending];
    const ids = new Set(wanted.map(({ id }) => id));
    for (const id of this.#items.keys()) if (!ids.has(id)) this.#items.delete(id);
    const older = byId("older-messages");
    const moves = wanted[0]?.id !== this.#first || older.hidden === this.#hasEarlier;
    const anchor = moves ? list.firstElementChild : null; // only then: a chunk needs no layout here
    const before = anchor?.getBoundingClientRect().top;
    if (older.hidden === this.#hasEarlier) {
      const isFocused = document.activeElement === older;
      older.hidden = !this.#hasEarlier;
      if (isFocused && older.hidden) byId("scroller").focus({ preventScroll: true });
    }
    this.#first = wanted[0]?.id;
    const roots = wanted.map((message, index) => {
      const waits = isBusy && index > running && message.role === "user";
      return this.#item(message, { last: message === last, waits }).root;
    });
    this.#groups.show(roots);
    // The focused button has gone: the keyboard goes on from the messages, not from the top of the page.
    if (hadFocus && document.activeElement === document.body) byId("scroller").focus({ preventScroll: true });
    // Older messages were added above, or the button for them has gone: keep the scroll position of what is being read.
    if (anchor?.isConnected) byId("scroller").scrollTop += anchor.getBoundingClientRect().top - before;
    this.#tail.follow();
  }

  #item(message, { last, waits }) {
    const item = this.#items.get(message.id);
    if (item?.message === message && item.last === last && item.waits === waits) return item;
    const drawn = item ?? this.#make(message);
    if (message.role === "assistant") this.#drawAnswer(drawn, message, last);
    else {
      redraw(drawn.after, ...underQuestion(message, this.#actions), ...(waits ? this.#queued(message) : [when(message)]));
    }
    Object.assign(drawn, { message, last, waits });
    this.#items.set(message.id, drawn);
    return drawn;
  }

  #queued(message) {
    const onclick = () => this.#actions.takeBack(message);
    const back = button({ className: "quiet-button", name: "close", label: t("Take back the question"), text: t("Take back"), onclick });
    return [element("span", { className: "chip" }, t("Will be asked next")), back];
  }

  #make({ role, content }) {
    if (role === "user") {
      const body = element("div", { className: "body", dir: "auto", textContent: content });
      const after = element("p", { className: "after" });
      return { root: element("div", { className: "message user", role: "listitem" }, heading(t("You")), body, after), after };
    }
    const body = element("div", { className: "prose" });
    const cards = element("div", { className: "cards" });
    const after = element("div");
    const thinking = new Thinking(() => announceOnce(t("The model thinks")));
    const note = element("p", { className: "quiet", hidden: true }, t("Earlier messages are no longer told to the model."));
    const calls = new Calls({ decide: this.#actions.decide, answer: this.#actions.answer, announce: announceOnce });
    const root = element("div", { className: "message assistant", role: "listitem" }, heading(t("Answer")), note, thinking.root, calls.root, body, cards, after);
    return { root, note, thinking, calls, prose: new Prose(body, () => this.#tail.follow()), cards, after };
  }

  /** Redraw only what has changed: with each chunk, only the growing block. */
  #drawAnswer({ root, note, thinking, calls, prose, cards, after }, message, last) {
    note.toggleAttribute("hidden", !message.contextTrimmed); // setting `hidden` changes the page even if the value is the same
    const { content, status, parts = [] } = message;
    const { streaming } = message.id === "pending" ? { streaming: true } : message;
    const called = parts.filter(({ type }) => type === "tool_call");
    calls.show(called);
    root.classList.toggle("writing", status === "streaming");
    const thoughts = parts.filter(({ type }) => type === "reasoning").map(({ text }) => text);
    thinking.show(thoughts.join("\n\n"), { runs: streaming && parts.at(-1)?.type === "reasoning" });
    prose.show(content, { whole: !streaming });
    const told = parts.filter(({ type }) => type === "data");
    const recommended = (message.recommendations ?? []).map((data) => ({ kind: "recommendation", data }));
    this.#showCards(cards, [...told, ...recommended, ...(message.annotations ?? [])]);
    const waits = streaming && content === "" && !thoughts.length && !told.length && !called.length;
    if (!streaming) redraw(after, ...this.#failure(message, last), this.#foot(message, last));
    else if (waits !== after.hasChildNodes()) after.replaceChildren(...(waits ? [waiting()] : []));
  }

  #showCards(root, found) {
    const said = JSON.stringify(found);
    if (found.length === 0 ? !root.hasChildNodes() : this.#cards.get(root) === said) return;
    this.#cards.set(root, said);
    root.replaceChildren(...found.map(card));
    allLoaded().then(() => this.#tail.follow());
  }

  #failure(answer, last) {
    const { error } = answer;
    if (!error) return [];
    const { message, error: code, retryable, requestId, retryAfterMs } = error;
    const facts = element("small", {}, requestId ? t("{code} · request {id}", { code, id: requestId }) : code);
    const box = element("div", { className: "failure" }, element("p", {}, t(message), facts));
    const offer = (textContent, onclick) => {
      const made = element("button", { type: "button", className: "small-button", textContent, onclick });
      if (last) box.append(made);
      return made;
    };
    if (isCut(answer)) offer(t("Continue"), this.#actions.goOn);
    if (retryable) {
      const again = offer(t("Try again"), this.#actions.regenerate);
      // The server's clock may differ: never wait longer than the server has asked for.
      const left = Math.min(retryAfterMs ?? 0, Date.parse(answer.timestamp) + (retryAfterMs ?? 0) - Date.now());
      countDown(again, performance.now() + left, (time) => (time ? t("Try again in {time}", { time }) : t("Try again")));
    }
    else if (code === "context_too_long") offer(t("Start a new chat with this message"), this.#actions.askAnew);
    return [box];
  }

  #foot(message, last) {
    const foot = element("div", { className: "foot" });
    const small = (name, label, text, onclick) => foot.append(button({ className: "quiet-button", name, label, text, onclick }));
    foot.append(...attempts(message, this.#actions));
    if (message.content) {
      small("copy", t("Copy the answer"), t("Copy"), ({ currentTarget }) => copyText(message.content, currentTarget));
    }
    if (last && !message.error && isCut(message)) small("next", t("Continue the answer"), t("Continue"), this.#actions.goOn);
    if (last && !message.error) {
      const [label, text] = message.status === "complete" ? ["Regenerate the answer", "Regenerate"] : ["Try again", "Try again"];
      small("retry", t(label), t(text), this.#actions.regenerate);
    }
    if (message.content) foot.append(...thumbs(message, this.#actions));
    const how = [howItEnded(message), tokens(message.usage)].filter(Boolean).join(" · ");
    foot.append(element("span", { className: "how" }, when(message), how && ` · ${how}`));
    return foot;
  }
}

/** The time of a message, with the date if it is not today. */
function when({ timestamp }) {
  const time = new Date(timestamp);
  const today = time.toDateString() === new Date().toDateString();
  const day = today ? {} : { day: "numeric", month: "short", year: isThisYear(time) ? undefined : "numeric" };
  const textContent = time.toLocaleString(language, { ...day, hour: "numeric", minute: "2-digit" });
  const title = time.toLocaleString(language, { dateStyle: "full", timeStyle: "short" });
  return element("time", { dateTime: timestamp, title, textContent });
}

function isThisYear(time) {
  return time.getFullYear() === new Date().getFullYear();
}

function heading(text) {
  return element("h2", { className: "sr-only", textContent: text });
}

function waiting() {
  return element("p", { className: "thinking" }, element("span", { className: "sr-only" }, t("Waiting for the model")), element("i"), element("i"), element("i"));
}

function howItEnded({ status, finishReason, content, error }) {
  if (ENDINGS[status] && !error) return t(ENDINGS[status]);
  if (ENDINGS[finishReason]) return t(ENDINGS[finishReason]);
  return content === "" && !error ? t("The model returned an empty answer") : "";
}

function tokens(usage) {
  if (!usage) return "";
  const { promptTokens, completionTokens, source } = usage;
  const words = source === "partial" ? "{in} tokens in, at least {out} out" : "{in} tokens in, {out} out";
  return t(words, { in: promptTokens, out: completionTokens });
}

function announceOnce(text) {
  byId("announcer").textContent = text;
}

/** Announce a whole answer to screen readers, once: reading each token would never end. */
function announce(root, message) {
  const cards = Array.from(root.querySelectorAll(".cards :is(h3, p, dt, dd)"), ({ textContent }) => textContent);
  const parts = [t("Answer:"), root.querySelector(".prose").innerText, ...cards, message.error && t(message.error.message), howItEnded(message)];
  byId("announcer").textContent = parts.filter(Boolean).join(" ").slice(0, SPOKEN);
}
