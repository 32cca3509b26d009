/** The list of conversations beside the chat, and its requests to the server. */

import { Conversations } from "../client/conversations.js";
import { button, byId, element } from "./dom.js";
import { marked } from "./marks.js";
import { Menu } from "./menu.js";
import { language, t } from "./words.js";

const PAGE = 30; // conversations per page: a bit more than fits on the screen
const STATES = { running: "An answer is being written", waiting: "Waits for you" };

/** The REST API's conversations, as the page needs them. */
export class ConversationsAPI extends Conversations {
  #address;
  #token;

  /** `token({refresh})` gives the token. */
  constructor(baseUrl, token) {
    super({ baseUrl, token });
    this.#address = `${baseUrl}/api/v1/chat/conversations`;
    this.#token = token;
  }

  /** Like `delete`, while the page is being closed: the browser still sends it, and the response is ignored. */
  async deleteOnClosing(id) {
    const headers = { Authorization: `Bearer ${await this.#token({})}` };
    fetch(`${this.#address}/${encodeURIComponent(id)}`, { method: "DELETE", keepalive: true, headers }).catch(() => {});
  }
}

export class ConversationList {
  #api;
  #shown = [];
  #next = null;
  #current = null;
  #deleted = new Set(); // ids of hidden conversations, whose deletion can still be undone
  #sought = ""; // what is searched for
  #searching = false; // a search is running; the old results are still shown
  #complete = true; // whether the server has searched all conversations
  #actions;
  #menu = new Menu(byId("row-menu"), () => this.#opener());
  #of = null; // the conversation of the open menu

  /** `actions`: `open(id)`, `rename(conversation)`, `remove(conversation)`, `found(count, {sought, more, complete})`. */
  constructor(api, actions) {
    this.#api = api;
    this.#actions = actions;
    byId("older-conversations").onclick = () => this.#more().catch(() => {}); // the button stays
    byId("rename").onclick = () => this.#choose(actions.rename);
    byId("delete").onclick = ({ detail }) => this.#choose(actions.remove, { byKeyboard: detail === 0 });
    byId("list").onscroll = () => this.#menu.close(); // its row has moved
    byId("conversations").onkeydown = (press) => this.#onKey(press);
  }

  /** Reload the newest page. The older pages stay as they are: their rows change only if deleted elsewhere. */
  async load() {
    const sought = this.#sought;
    const { conversations, nextCursor, complete = true } = await this.#page();
    if (sought !== this.#sought) return; // another search has begun meanwhile
    this.#complete = complete;
    const oldest = conversations.at(-1);
    const kept = this.#searching || nextCursor === null ? [] : this.#shown;
    const older = kept.filter(({ updatedAt }) => updatedAt < oldest.updatedAt);
    this.#searching = false;
    this.#shown = [...conversations, ...older.filter(({ id }) => !conversations.some((newer) => newer.id === id))];
    if (older.length === 0) this.#next = nextCursor;
    this.#draw();
  }

  /** Show only the conversations that contain `text`; all of them for an empty text. */
  async search(text) {
    if (text === this.#sought) return;
    this.#sought = text;
    this.#searching = true;
    this.#next = null;
    byId("older-conversations").hidden = true;
    await this.load();
  }

  get sought() {
    return this.#sought;
  }

  /** The server's data of a listed conversation; undefined if it is not listed. */
  about(id) {
    return this.#shown.find((shown) => shown.id === id);
  }

  /** Move the focus to the first conversation. */
  focus() {
    byId("conversations").querySelector("a")?.focus();
  }

  /** Move the focus to the row of a conversation: its link, or its `button`. */
  focusRow(id, what = "a") {
    (this.#row(id)?.querySelector(what) ?? byId("new-chat")).focus();
  }

  openFirst() {
    byId("conversations").querySelector("a")?.click();
  }

  /** Mark the open conversation; null for a new one. */
  mark(id) {
    this.#current = id;
    this.#draw();
  }

  get current() {
    return this.#current;
  }

  /** Whether this conversation is hidden. */
  hides(id) {
    return this.#deleted.has(id);
  }

  /** Hide this conversation, or show it again. */
  hide(id, hidden) {
    if (hidden) this.#deleted.add(id);
    else this.#deleted.delete(id);
    this.#draw();
  }

  async #more() {
    const sought = this.#sought;
    const { conversations, nextCursor } = await this.#page(this.#next);
    if (sought !== this.#sought) return; // another search has begun meanwhile
    // A conversation used meanwhile has moved to the top, and would be listed twice.
    this.#shown.push(...conversations.filter(({ id }) => !this.#shown.some((shown) => shown.id === id)));
    this.#next = nextCursor;
    this.#draw();
  }

  #page(before) {
    const options = { limit: PAGE, before };
    return this.#sought ? this.#api.search(this.#sought, options) : this.#api.list(options);
  }

  /** Arrow keys: move through the list, and from its top into the search field. */
  #onKey(press) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[press.key];
    if (!step || press.target.localName !== "a") return;
    press.preventDefault();
    const links = [...byId("conversations").querySelectorAll("a")];
    const to = links.indexOf(press.target) + step;
    (to < 0 ? byId("search") : links[Math.min(to, links.length - 1)]).focus();
  }

  #draw() {
    const focused = document.activeElement?.closest?.("#conversations [data-id]")?.dataset.id;
    const wasLink = document.activeElement?.localName === "a";
    const groups = Map.groupBy(
      this.#shown.filter(({ id }) => !this.#deleted.has(id)),
      ({ updatedAt }) => groupOf(new Date(updatedAt)),
    );
    byId("conversations").replaceChildren(...Array.from(groups, ([name, all]) => this.#group(name, all)));
    const older = byId("older-conversations");
    const hadFocus = document.activeElement === older;
    older.hidden = this.#next === null;
    if (hadFocus && older.hidden) [...byId("conversations").querySelectorAll("a")].at(-1)?.focus();
    if (!this.#searching) this.#actions.found(this.#shown.length, { sought: this.#sought, more: this.#next !== null, complete: this.#complete });
    if (focused) this.#row(focused)?.querySelector(wasLink ? "a" : "button").focus();
  }

  #group(name, all) {
    const rows = element("ul", {}, ...all.map((conversation) => this.#item(conversation)));
    return element("section", { ariaLabel: name }, element("h2", {}, name), rows);
  }

  #item(conversation) {
    const { id } = conversation;
    const name = titleOf(conversation);
    const link = element("a", { href: `?conversation=${encodeURIComponent(id)}`, title: name, dir: "auto" }, ...marked(name, this.#sought));
    link.onclick = (click) => {
      if (click.ctrlKey || click.metaKey || click.shiftKey) return; // a tab or a window of its own
      click.preventDefault();
      this.#actions.open(id);
    };
    const more = button({
      className: "icon-button",
      name: "more",
      label: t("Options of {name}", { name }),
      onclick: ({ currentTarget }) => this.#openMenu(conversation, currentTarget),
    });
    more.ariaExpanded = "false";
    more.setAttribute("aria-controls", "row-menu");
    const row = element("li", {}, link, ...this.#mark(conversation), more);
    row.dataset.id = id;
    if (id === this.#current) {
      row.className = "current";
      link.ariaCurrent = "page";
    }
    return row;
  }

  /** The mark of a conversation: an answer runs, waits, or is unread. */
  #mark({ id, state, unread }) {
    const label = STATES[state] ?? (unread && id !== this.#current ? "Not read yet" : null);
    if (!label) return [];
    const mark = element("span", { className: "mark", role: "img", ariaLabel: t(label), title: t(label) });
    mark.dataset.state = STATES[state] ? state : "unread";
    return [mark];
  }

  // The menu of a row -----------------------------------------------------------------------------------------------

  #openMenu(conversation, at) {
    this.#of = conversation;
    this.#menu.open(at);
  }

  #choose(action, how) {
    this.#menu.close();
    const { id, title } = this.#of;
    action({ id, title }, how);
  }

  #opener() {
    return this.#of && this.#row(this.#of.id)?.querySelector("button");
  }

  #row(id) {
    return byId("conversations").querySelector(`[data-id="${CSS.escape(id)}"]`);
  }
}

/** The heading for a conversation last used at this time: by local calendar days, not by hours. */
function groupOf(time) {
  const today = new Date();
  today.setHours(0, 0, 0, 0);
  const from = (days) => new Date(today.getFullYear(), today.getMonth(), today.getDate() - days);
  if (time >= today) return t("Today");
  if (time >= from(1)) return t("Yesterday");
  if (time >= from(7)) return t("Previous 7 days");
  if (time >= from(30)) return t("Previous 30 days");
  return time.toLocaleDateString(language, { month: "long", year: "numeric" });
}

/** The beginning of `text` of up to `most` code points, without a part of what is read as one character, as 👨‍👩‍👧. */
export function fitting(text, most) {
  let end = 0;
  let left = most;
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    left -= [...segment].length;
    if (left < 0) break;
    end += segment.length;
  }
  return end > 0 ? text.slice(0, end) : [...text].slice(0, most).join("");
}

/** The first `most` characters of `text`, cut between words if possible. */
export function beginning(text, most) {
  const whole = fitting(text, most);
  if (whole === text) return text;
  const cut = fitting(text, most - 1);
  const end = cut.search(/\s+\S*$/u);
  return `${end > cut.length / 2 ? cut.slice(0, end) : cut}…`; // a text without spaces has one word
}

/** The title of a conversation, or a replacement for a missing one. */
export function titleOf({ title, id }) {
  return title || t("Conversation {id}", { id });
}
