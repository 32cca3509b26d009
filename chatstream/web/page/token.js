/**
 * Gets the token: from the page's address (printed by the server, or set by the sign-in), from another tab of this
 * browser, or typed by the user. It is kept only in the open tabs.
 */

import { byId } from "./dom.js";
import { forgetDrafts } from "./drafts.js";
import { facts } from "./facts.js";
import { t } from "./words.js";

const KEY = "chatstream.token";
const LEFT = "chatstream.left"; // storage key: set by leaving for the sign-in or signing out, until a token is accepted
const HANDOVER = 300; // ms to wait for a token from another tab, which takes 1-2 ms; a frozen tab never answers

const TOKEN = /^[\w.~+/-]+=*$/; // the characters that a header can carry (RFC 6750, b64token)

/**
 * The token in a text that the user pasted: a token, `Bearer` and a token, or an address with a token, possibly over
 * several lines.
 */
export function tokenIn(text) {
  const visible = text.replace(/[\u200b-\u200d\u2060\ufeff]/g, "").trim();
  const line = visible.replace(/^Bearer\s+/i, "").replace(/\s*[\r\n]+\s*/g, "");
  return new URLSearchParams(line.replace(/^[^#]*#?/, "")).get("token") ?? line;
}

/** Take the token from the address and remove it there, so that no history, bookmark or screenshot has it. */
function fromAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  const token = given && tokenIn(given);
  if (token) history.replaceState(null, "", location.pathname + location.search);
  return token;
}

/** Whether the token has expired, by its own `exp`. */
function hasExpired(token) {
  try {
    const { exp } = JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
    return exp * 1000 <= Date.now();
  } catch {
    return false; // not a JWT that this page can read
  }
}

export class Token {
  #token;
  #isUntried = false; // from the address and unchecked: sent to other tabs only once the server has accepted it
  #refused = null; // the last token that the server did not accept
  #asking = null; // promise of the token: all callers of `get` wait for the same one
  #take = () => {}; // called with a token that another tab has
  #tabs = new BroadcastChannel("chatstream.sign-in");
  #accepts;

  /** `accepts(token)` asks the server whether the token is valid. It rejects if the server cannot be reached. */
  constructor(accepts) {
    this.#accepts = accepts;
    this.#tabs.onmessage = ({ data }) => this.#heard(data);
    const given = fromAddress();
    if (given && !TOKEN.test(given)) this.#refused = given; // no request can carry it: the server is not asked
    else if (given) this.#token = given;
    else this.#token = sessionStorage.getItem(KEY);
    if (given && this.#token) {
      this.#isUntried = true;
      sessionStorage.setItem(KEY, given);
    }
    addEventListener("hashchange", () => {
      if (new URLSearchParams(location.hash.slice(1)).has("token")) location.reload(); // a pasted address with a token
    });
  }

  /** Return the token. If there is none, or it was refused, get one from another tab or ask the user. */
  async get({ refresh = false } = {}) {
    if (this.#token && !refresh) return this.#token;
    this.#asking ??= this.#another().finally(() => (this.#asking = null));
    return this.#asking;
  }

  /** Note that the server has accepted the token. */
  accepted() {
    sessionStorage.removeItem(LEFT);
    if (!this.#isUntried) return;
    this.#isUntried = false;
    this.#tabs.postMessage({ token: this.#token });
  }

  /** Sign out, in all tabs. */
  forget() {
    this.#tabs.postMessage({ signedOut: true });
    signOut();
  }

  async #another() {
    this.#refused = this.#token ?? this.#refused;
    this.#isUntried = false;
    this.#token = (await this.#fromOtherTabs()) ?? (await this.#ask());
    return this.#token;
  }

  #keep(token) {
    this.#token = token;
    sessionStorage.setItem(KEY, token);
    this.#tabs.postMessage({ token });
  }

  #heard({ wanted, token, signedOut }) {
    if (signedOut) signOut();
    else if (wanted && this.#token && !this.#isUntried && !this.#asking) this.#tabs.postMessage({ token: this.#token });
    else if (token && token !== this.#refused) {
      this.#token = token;
      sessionStorage.setItem(KEY, token);
      this.#take(token);
    }
  }

  #fromOtherTabs() {
    return new Promise((resolve) => {
      this.#take = resolve;
      this.#tabs.postMessage({ wanted: true });
      setTimeout(() => resolve(null), HANDOVER);
    });
  }

  #ask() {
    return facts.loginUrl ? this.#askElsewhere(facts.loginUrl) : this.#askHere();
  }

  /**
   * Open the sign-in page, which sends the user back to this address with a token. If they came back without a valid
   * one, or have signed out, show a button first, so that the page does not redirect in a loop.
   */
  #askElsewhere(loginUrl) {
    const leave = () => {
      sessionStorage.setItem(LEFT, "yes");
      sessionStorage.removeItem(KEY);
      const to = new URL(loginUrl, document.baseURI);
      to.searchParams.set("return_to", location.href.replace(/#.*/, ""));
      location.replace(to); // not in the history: "back" must not lead to this redirect again
    };
    if (sessionStorage.getItem(LEFT)) {
      showDoor("elsewhere");
      byId("elsewhere-reason").textContent = this.#refused ? problemOf(this.#refused) : "";
      byId("go").onclick = leave;
      byId("go").focus();
    } else if (document.visibilityState === "visible") {
      leave();
    } else {
      // Only the visible tab opens the sign-in. The others get the token from it.
      document.addEventListener("visibilitychange", () => this.#asking && leave(), { once: true });
    }
    return new Promise((resolve) => {
      this.#take = (token) => {
        showDoor(null);
        resolve(token);
      };
    });
  }

  /** Show a form until the user enters a token that the server accepts. The page behind it stays unchanged. */
  #askHere() {
    const form = byId("sign-in");
    const field = byId("token");
    const say = (problem) => (byId("door-error").textContent = problem);
    showDoor("sign-in");
    say(this.#refused ? problemOf(this.#refused) : "");
    field.focus();
    return new Promise((resolve) => {
      const enter = (token) => {
        field.value = "";
        showDoor(null);
        resolve(token);
      };
      this.#take = enter; // another tab has signed in
      form.onsubmit = async (submission) => {
        submission.preventDefault();
        const token = tokenIn(field.value);
        try {
          if (!TOKEN.test(token) || !(await this.#accepts(token))) {
            say(problemOf(token));
            return;
          }
        } catch (error) {
          say(error.message);
          return;
        }
        this.#keep(token);
        enter(token);
      };
    });
  }
}

/** Show one of the two ways to sign in instead of the chat; null shows the chat. */
function showDoor(way) {
  for (const id of ["sign-in", "elsewhere"]) byId(id).hidden = id !== way;
  byId("door").hidden = way === null;
  byId("chat").hidden = way !== null;
}

function problemOf(token) {
  if (facts.loginUrl) return hasExpired(token) ? t("Your sign-in has expired.") : t("The server does not accept this sign-in.");
  if (hasExpired(token)) return t("This token has expired. Paste a new one.");
  return t("The server does not accept this token. Paste another one.");
}

function signOut() {
  sessionStorage.setItem(LEFT, "yes");
  sessionStorage.removeItem(KEY);
  forgetDrafts();
  location.reload();
}
