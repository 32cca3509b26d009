/** Requests to the REST API, with the token or whoever gives one. Each rejects with a `ChatError`. */

import { ChatError } from "./chat-error.js";

// The server answers within five seconds whatever its database does; the rest is for a phone's network.
const REQUEST_TIMEOUT_MS = 15_000;

export class API {
  /** A token, or a function that returns or promises one: `({refresh}) => …`, with `refresh` if the last was refused. */
  token;
  #address;
  #fetch;

  /** `address` is what stands before the paths. */
  constructor(address, token, fetch = globalThis.fetch) {
    this.#address = address;
    this.token = token;
    this.#fetch = fetch;
  }

  /** Whether another token can be had. */
  get renewable() {
    return typeof this.token === "function";
  }

  async accessToken(refresh) {
    const token = this.renewable ? await this.token({ refresh }) : this.token;
    if (token) return token;
    throw new ChatError("An access token is required.", { code: "unauthenticated", retryable: false, status: 401 });
  }

  /** The JSON that is answered, or null if there is none. */
  async call(method, path, body, refresh = false) {
    const headers = { Authorization: `Bearer ${await this.accessToken(refresh)}` };
    if (body) headers["Content-Type"] = "application/json";
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), REQUEST_TIMEOUT_MS);
    const request = { method, headers, body: body && JSON.stringify(body), signal: abort.signal };
    const fetch = this.#fetch; // a browser's is no method of ours
    try {
      const response = await fetch(this.#address + path, request);
      if (response.ok) return response.status === 204 ? null : await response.json();
      if (response.status !== 401 || refresh || !this.renewable) throw await ChatError.fromResponse(response);
    } catch (error) {
      throw ChatError.from(error);
    } finally {
      clearTimeout(timer);
    }
    return this.call(method, path, body, true);
  }
}
