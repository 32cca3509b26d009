/**
 * What the user has begun to write and has not sent: drafts, edits of questions, instructions. It is kept in the browser
 * until they sign out. Each tab has its own, also after a reload or a sign-in; a new tab begins with the newest one.
 */

const PREFIX = "chatstream.draft.";

export class Drafts {
  /** The open conversation, or "new". */
  open = "new";

  constructor() {
    // Another tab has sent or removed this text. What is in the box stays there.
    addEventListener("storage", ({ key, oldValue, newValue }) => {
      if (!key?.startsWith(PREFIX) || newValue !== null || sessionStorage.getItem(key) !== oldValue) return;
      if (!belongs(key.slice(PREFIX.length), this.open)) sessionStorage.removeItem(key);
    });
  }

  /** The text, or null. `name`: a conversation's id or "new" for its draft; with `/` and more for what belongs to it. */
  get(name) {
    return sessionStorage.getItem(PREFIX + name) ?? localStorage.getItem(PREFIX + name);
  }

  /** Keep a text; "" or null removes it. */
  set(name, text) {
    const known = this.get(name);
    this.setHere(name, text || null);
    if (text) localStorage.setItem(PREFIX + name, text);
    else if (localStorage.getItem(PREFIX + name) === known) localStorage.removeItem(PREFIX + name); // else it is another tab's
  }

  /** Keep a text, which may be empty, for this tab alone; null removes it. */
  setHere(name, text) {
    if (text === null) sessionStorage.removeItem(PREFIX + name);
    else sessionStorage.setItem(PREFIX + name, text);
  }

  /** Remove all that belongs to a conversation. */
  forget(id) {
    remove((name) => belongs(name, id));
  }
}

export function forgetDrafts() {
  remove(() => true);
}

function belongs(name, id) {
  return name === id || name.startsWith(`${id}/`);
}

function remove(isMeant) {
  for (const storage of [sessionStorage, localStorage]) {
    for (const key of Object.keys(storage)) if (key.startsWith(PREFIX) && isMeant(key.slice(PREFIX.length))) storage.removeItem(key);
  }
}
