/** The list of conversations beside the chat, and the requests that it is made of. */

import { API } from "../client/api.js";
import { button, byId, element } from "./dom.js";

const PAGE = 30; // what fits beside a chat, and a bit

/** The REST API's conversations. Each call rejects with a `ChatError`. */
export class ConversationsAPI {
  #api;

  /** `token({refresh})` gives the token. */
  constructor(baseUrl, token) {
    this.#api = new API(`${baseUrl}/api/v1/chat/conversations`, token);
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
}

export class ConversationList {
  #api;
  #shown = [];
  #next = null;
  #current = null;
  #actions;

  /** `actions`: `open(id)`, `rename(conversation)`, `remove(conversation)`. */
  constructor(api, actions) {
    this.#api = api;
    this.#actions = actions;
    byId("older-conversations").onclick = () => this.#more().catch(() => {}); // the button stays
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

  async #more() {
    const { conversations, nextCursor } = await this.#api.page(this.#next);
    // One that was used meanwhile has moved up, and might come twice.
    this.#shown.push(...conversations.filter(({ id }) => !this.#shown.some((shown) => shown.id === id)));
    this.#next = nextCursor;
    this.#draw();
  }

  #draw() {
    byId("conversations").replaceChildren(...this.#shown.map((conversation) => this.#item(conversation)));
    byId("older-conversations").hidden = this.#next === null;
  }

  #item(conversation) {
    const { id, title } = conversation;
    const name = titleOf(conversation);
    const link = element("a", { href: `?conversation=${encodeURIComponent(id)}`, textContent: name, title: name, dir: "auto" });
    link.onclick = (click) => {
      if (click.ctrlKey || click.metaKey || click.shiftKey) return; // a tab or a window of its own
      click.preventDefault();
      this.#actions.open(id);
    };
    if (id !== this.#current) return element("li", {}, link);
    link.ariaCurrent = "page";
    const small = (name_, label, onclick) => button({ className: "icon-button", name: name_, label, onclick });
    return element(
      "li",
      { className: "current" },
      link,
      small("edit", "Rename", () => this.#actions.rename({ id, title })),
      small("delete", "Delete", () => this.#actions.remove({ id, title })),
    );
  }
}

/** What a conversation is called. */
export function titleOf({ title, id }) {
  return title || `Conversation ${id}`;
}
