/** The token: from the address that the server printed, or from whoever opened the page. It stays in this tab. */

import { byId } from "./dom.js";

const KEY = "chatstream.token";

/** Out of the address at once: no history, no bookmark and no screenshot shall have it. */
function fromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) history.replaceState(null, "", location.pathname + location.search);
  return token;
}

export class Token {
  #token;
  #asking = null; // the promise that everybody who needs a token waits for

  constructor() {
    this.#token = fromAddress() ?? sessionStorage.getItem(KEY);
    if (this.#token) sessionStorage.setItem(KEY, this.#token);
    addEventListener("hashchange", () => {
      if (new URLSearchParams(location.hash.slice(1)).has("token")) location.reload(); // somebody pasted a new address
    });
  }

  /** The token; if there is none, or it was refused, the one that is asked for now. */
  async get({ refresh = false } = {}) {
    if (this.#token && !refresh) return this.#token;
    this.#asking ??= this.#ask(this.#token ? "That token is not good any more. Another one, please." : "");
    return this.#asking;
  }

  forget() {
    sessionStorage.removeItem(KEY);
    location.reload();
  }

  #ask(problem) {
    byId("chat").hidden = true;
    byId("door").hidden = false;
    byId("door-error").textContent = problem;
    const form = byId("sign-in");
    const field = byId("token");
    field.focus();
    return new Promise((resolve) => {
      form.onsubmit = (submission) => {
        submission.preventDefault();
        // The whole address may be pasted, and whatever was selected with it.
        this.#token = field.value.trim().replace(/^.*#token=/, "").replace(/^Bearer\s+/i, "");
        field.value = "";
        sessionStorage.setItem(KEY, this.#token);
        byId("door").hidden = true;
        byId("chat").hidden = false;
        this.#asking = null;
        resolve(this.#token);
      };
    });
  }
}
