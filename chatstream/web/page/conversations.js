/** The list of conversations beside the chat, and the requests that it is made of. */

import { API } from "../client/api.js";
import { button, byId, element } from "./dom.js";
import { language, t } from "./words.js";

const PAGE = 30; // what fits beside a chat, and a bit

/** The REST API's conversations. Each call rejects with a `ChatError`. */
export class ConversationsAPI {
  #address;
  #token;
  #api;

  /** `token({refresh})` gives the token. */
  constructor(baseUrl, token) {
    this.#address = `${baseUrl}/api/v1/chat/conversations`;
    this.#token = token;
    this.#api = new API(this.#address, token);
  }

  page(before) {
    return this.#api.call("GET", `?limit=${PAGE}${before ? `&before=${encodeURIComponent(before)}` : ""}`);
  }

  get(id) {
    return this.#api.call("GET", `/${encodeURIComponent(id)}`);
  }

  create(conversation) {
    return this.#api.call("POST", "", conversation);
  }

  change(id, changes) {
    return this.#api.call("PATCH", `/${encodeURIComponent(id)}`, changes);
  }

  delete(id) {
    return this.#api.call("DELETE", `/${encodeURIComponent(id)}`);
  }

  /** The same while the page is being closed: the browser sends it then, and nobody sees what comes of it. */
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
  #deleted = new Set(); // ids that are shown no more, while it can still be undone
  #actions;
  #menu = byId("row-menu");
  #of = null; // the conversation that the menu is about

  /** `actions`: `open(id)`, `rename(conversation)`, `remove(conversation)`. */
  constructor(api, actions) {
    this.#api = api;
    this.#actions = actions;
    byId("older-conversations").onclick = () => this.#more().catch(() => {}); // the button stays
    byId("rename").onclick = () => this.#choose(actions.rename);
    byId("delete").onclick = () => this.#choose(actions.remove);
    this.#menu.onkeydown = (press) => this.#onMenuKey(press);
    this.#menu.ontoggle = ({ newState }) => this.#opener()?.setAttribute("aria-expanded", String(newState === "open"));
    byId("list").onscroll = () => this.#menu.hidePopover(); // it stands where its row was
  }

  /** The newest ones anew. The older ones that were loaded stay: nothing moves there but by being deleted elsewhere. */
  async load() {
    const { conversations, nextCursor } = await this.#api.page();
    const oldest = conversations.at(-1);
    const older = nextCursor === null ? [] : this.#shown.filter(({ updatedAt }) => updatedAt < oldest.updatedAt);
    this.#shown = [...conversations, ...older.filter(({ id }) => !conversations.some((newer) => newer.id === id))];
    if (older.length === 0) this.#next = nextCursor;
    this.#draw();
  }

  /** Which one is open; null for a new one. */
  mark(id) {
    this.#current = id;
    this.#draw();
  }

  get current() {
    return this.#current;
  }

  /** Show this one no more; or again. */
  hide(id, hidden) {
    if (hidden) this.#deleted.add(id);
    else this.#deleted.delete(id);
    this.#draw();
  }

  async #more() {
    const { conversations, nextCursor } = await this.#api.page(this.#next);
    // One that was used meanwhile has moved up, and might come twice.
    this.#shown.push(...conversations.filter(({ id }) => !this.#shown.some((shown) => shown.id === id)));
    this.#next = nextCursor;
    this.#draw();
  }

  #draw() {
    const focused = document.activeElement?.closest?.("#conversations [data-id]")?.dataset.id;
    const wasLink = document.activeElement?.localName === "a";
    const groups = Map.groupBy(
      this.#shown.filter(({ id }) => !this.#deleted.has(id)),
      ({ updatedAt }) => groupOf(new Date(updatedAt)),
    );
    byId("conversations").replaceChildren(...Array.from(groups, ([name, all]) => this.#group(name, all)));
    byId("older-conversations").hidden = this.#next === null;
    if (focused) this.#row(focused)?.querySelector(wasLink ? "a" : "button").focus();
  }

  #group(name, all) {
    const rows = element("ul", {}, ...all.map((conversation) => this.#item(conversation)));
    return element("section", { ariaLabel: name }, element("h2", {}, name), rows);
  }

  #item(conversation) {
    const { id } = conversation;
    const name = titleOf(conversation);
    const link = element("a", { href: `?conversation=${encodeURIComponent(id)}`, textContent: name, title: name, dir: "auto" });
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
    const row = element("li", {}, link, more);
    row.dataset.id = id;
    if (id === this.#current) {
      row.className = "current";
      link.ariaCurrent = "page";
    }
    return row;
  }

  // The menu of a row -----------------------------------------------------------------------------------------------

  #openMenu(conversation, at) {
    this.#of = conversation;
    this.#menu.showPopover();
    // Below its button, or above it where there is no room; and never past an edge.
    const { top, bottom, right } = at.getBoundingClientRect();
    const { width, height } = this.#menu.getBoundingClientRect();
    const below = bottom + height < innerHeight;
    this.#menu.style.left = `${Math.max(4, right - width)}px`;
    this.#menu.style.top = `${below ? bottom : top - height}px`;
    byId("rename").focus();
  }

  #onMenuKey(press) {
    const items = [...this.#menu.children];
    const place = items.indexOf(document.activeElement);
    const to = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: -1 }[press.key];
    if (press.key === "Tab") this.#menu.hidePopover();
    if (to === undefined) return;
    press.preventDefault();
    items.at(to % items.length).focus();
  }

  #choose(action) {
    this.#menu.hidePopover();
    const { id, title } = this.#of;
    action({ id, title });
  }

  #opener() {
    return this.#of && this.#row(this.#of.id)?.querySelector("button");
  }

  #row(id) {
    return byId("conversations").querySelector(`[data-id="${CSS.escape(id)}"]`);
  }
}

/** Under which heading one stands that was used at this time: by calendar days here, not by hours. */
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

/** What a conversation is called. */
export function titleOf({ title, id }) {
  return title || t("Conversation {id}", { id });
}
