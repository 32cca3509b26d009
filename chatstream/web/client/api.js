/** Sends requests to the REST API with a token. All methods reject with a `ChatError`. */

import { ChatError } from "./chat-error.js";

// Time limit of a request. The server answers within five seconds; the rest is for a slow mobile network.
const REQUEST_TIMEOUT_MS = 15_000;
// Time limit of the token function, which may send a request or ask the user.
const TOKEN_TIMEOUT_MS = 15_000;

export class API {
  /** A token, or a function that returns or promises one: `({refresh}) => …`, with `refresh` if the last was refused. */
  token;
  /** The last used token; null if there was none. */
  used = null;
  #asking = new Map(); // running calls of the token function, by `refresh`
  #address;
  #fetch;

  /** `address`: the URL before the paths. */
  constructor(address, token, fetch = globalThis.fetch) {
    this.#address = address;
    this.token = token;
    this.#fetch = fetch;
  }

  /** Whether a new token can be requested. */
  get renewable() {
    return typeof this.token === "function";
  }

  /** The token for the next request. Concurrent callers share one call of the token function. */
  async accessToken(refresh) {
    this.used = (this.renewable ? await this.#ask(refresh) : this.token) || null;
    if (this.used) return this.used;
    throw new ChatError("An access token is required.", { code: "unauthenticated", retryable: false, status: 401 });
  }

  #ask(refresh) {
    const { token } = this;
    const asked = this.#asking.get(refresh);
    if (asked?.token === token) return asked.promise;
    const promise = inTime(async () => token({ refresh }))
      .catch((cause) => {
        if (cause instanceof ChatError) throw cause;
        throw new ChatError("The access token could not be had.", { code: "token_failed", retryable: true, cause });
      })
      .finally(() => this.#asking.get(refresh)?.promise === promise && this.#asking.delete(refresh));
    this.#asking.set(refresh, { token, promise });
    return promise;
  }

  /** Send a request. Returns the response's JSON, or null if it has no body. */
  async call(method, path, body, refresh = false) {
    const headers = { Authorization: `Bearer ${await this.accessToken(refresh)}` };
    if (body) headers["Content-Type"] = "application/json";
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), REQUEST_TIMEOUT_MS);
    const request = { method, headers, body: body && JSON.stringify(body), signal: abort.signal };
    const fetch = this.#fetch; // a browser's `fetch` must not be called as our method
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

/** The result of `work`; rejects with a `TimeoutError` if it takes too long. */
function inTime(work) {
  let timer;
  const late = new Promise((_, reject) => {
    const error = Object.assign(new Error("It took too long."), { name: "TimeoutError" });
    timer = setTimeout(() => reject(error), TOKEN_TIMEOUT_MS);
  });
  return Promise.race([work(), late]).finally(() => clearTimeout(timer));
}
