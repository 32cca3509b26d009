/** A user's conversations: list, search, create, rename, delete. */

import { API } from "./api.js";

export class Conversations {
  #address;
  #api;

  constructor({ baseUrl = "", token, fetch = globalThis.fetch?.bind(globalThis) }) {
    this.#address = `${baseUrl.replace(/\/+$/, "")}/api/v1/chat/conversations`;
    this.#api = new API(this.#address, token, fetch);
  }

  setToken(token) {
    this.#api.token = token;
  }

  list({ limit, before } = {}) {
    return this.#api.call("GET", query({ limit, before }));
  }

  search(text, { limit, before } = {}) {
    return this.#api.call("GET", query({ q: text, limit, before }));
  }

  get(id) {
    return this.#api.call("GET", path(id));
  }

  create(conversation = {}) {
    return this.#api.call("POST", "", conversation);
  }

  rename(id, title) {
    return this.change(id, { title });
  }

  change(id, changes) {
    return this.#api.call("PATCH", path(id), changes);
  }

  delete(id) {
    return this.#api.call("DELETE", path(id));
  }

  async messages(id, options) {
    const all = [];
    for await (const page of this.pages(id, options)) all.unshift(...page);
    return all;
  }

  async *pages(id, { branches, leaf } = {}) {
    let before = null;
    do {
      const page = await this.#api.call("GET", `${path(id)}/messages${query({ limit: PAGE, before, branches, leaf })}`);
      yield page.messages;
      before = page.nextCursor;
    } while (before !== null);
  }
}

const PAGE = 200; // conversations per page: the server's maximum

const path = (id) => `/${encodeURIComponent(id)}`;

function query(parameters) {
  const set = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null);
  return set.map(([name, value], index) => `${index ? "&" : "?"}${name}=${encodeURIComponent(value)}`).join("");
}
