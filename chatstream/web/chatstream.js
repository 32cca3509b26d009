/**
 * A conversation of a chatstream server: sends, streams, stops, and loses nothing when the connection does.
 *
 *     const chat = new ChatStream({ baseUrl: "https://chat.example", conversationId: "123", token });
 *     chat.on("messages", () => render(chat.messages));
 *     chat.connect({ history: true });
 *     await chat.send("Who wins?");
 *
 * For browsers, React Native and Node.js; it has no dependencies. Types and their meaning: chatstream.d.ts.
 */

import { API } from "./client/api.js";
import { ChatError } from "./client/chat-error.js";
import { Conversations } from "./client/conversations.js";
import { codePoints, Transcript } from "./client/transcript.js";
import { readByEventSource, readByFetch } from "./client/transports.js";

export { ChatError, Conversations };

// Before the first try to reconnect, unless the server has sent a `retry:`; it doubles up to the second number.
const RECONNECT_DELAY_MS = 2_000;
const MAX_RECONNECT_DELAY_MS = 30_000;
// Before a stream is opened again after a token was refused, by whoever: an application that does so at once, or gives
// another wrong token, would otherwise do it as often as it can. It doubles with each refusal.
const REFUSED_DELAY_MS = 1_000;
// Two and a half of the server's heartbeats, of 15 s: two may be late, or lost with a proxy's buffer.
const SILENCE_MS = 37_500;
// A message is sent at most so often: the waiting between is 0.5, 1 and 2 s, about what a failover takes.
const SENDS = 4;
const SEND_DELAY_MS = 500;
const MAX_SEND_DELAY_MS = 5_000;
// The longest that a timer can wait; a longer one would not wait at all.
const MAX_TIMER_MS = 2 ** 31 - 1;
// Messages kept in memory: as many as a person scrolls through, some megabytes at worst.
const MAX_MESSAGES = 1_000;
// The most that the server gives in one page.
const PAGE = 200;

/** How long to wait before the `attempt`-th try, in ms: doubled each time, up to half as much again, so that clients that
 * lost the same server come back one by one; never less than `base`. */
export function reconnectDelay(attempt, base, random = Math.random) {
  return Math.min(base * 2 ** (attempt - 1), Math.max(base, MAX_RECONNECT_DELAY_MS)) * (1 + random() / 2);
}

export class ChatStream {
  #options;
  #conversation; // its address
  #api;
  #transcript;
  #listeners = { state: new Set(), messages: new Set(), event: new Set(), error: new Set() };
  #state = "closed";
  #error = null;
  #cursor;
  #earlier = null; // what the REST API calls `nextCursor`
  #historyCursor = null; // where the history ended when it was loaded
  #head = null; // of the branch that is shown, where there are several
  #loading = null; // a promise of the history, while it is asked for
  #connectWhenLoaded = false;
  // Of the stream:
  #session = null; // from `connect` to `disconnect`, an AbortController
  #connection = null; // one of its connections, likewise
  #attempts = 0; // since a connection was open
  #retry; // what the server asks for, in ms
  #tokenRefused = false; // and none was accepted since
  #waitsForToken = false; // closed for want of a good one
  #refusals = 0; // how often that was so in a row
  #notBefore = 0; // the earliest time to open the stream again, by `now`
  #asksAgain = false; // for a token, while closed for want of one
  #mayHaveMissed = false; // events that have no cursor, since the history was loaded
  #historyWanted = false; // before the stream is opened
  #farewell = null; // why the server is about to close the connection
  #openedAt = 0; // by `now`, as all of these
  #heardAt = 0;
  #heardAtByTheClock = 0; // of the wall, which also runs while a phone sleeps
  #wake = null; // ends the waiting for the next try

  constructor(options) {
    const fetch = options.fetch ?? globalThis.fetch?.bind(globalThis);
    this.#options = {
      maxReconnectAttempts: Infinity,
      silenceTimeout: SILENCE_MS,
      EventSource: globalThis.EventSource,
      ...options,
      fetch,
      transport: transportOf(options),
      tickets: options.tickets ?? true,
    };
    if (this.#options.transport === "eventsource" && !this.#options.EventSource) {
      throw new TypeError("This platform has no EventSource: pass one, for React Native that of react-native-sse.");
    }
    const base = (options.baseUrl ?? "").replace(/\/+$/, "");
    this.#conversation = `${base}/api/v1/chat/conversations/${encodeURIComponent(options.conversationId)}`;
    this.#api = new API(this.#conversation, options.token, fetch);
    this.#cursor = options.cursor ?? null;
    this.#transcript = new Transcript(options.maxMessages ?? MAX_MESSAGES);
  }

  get state() {
    return this.#state;
  }

  get error() {
    return this.#error;
  }

  get cursor() {
    return this.#cursor;
  }

  get messages() {
    return this.#transcript.messages;
  }

  get streaming() {
    const newest = this.messages.at(-1);
    return newest !== undefined && (newest.role === "user" || newest.streaming);
  }

  get hasEarlier() {
    return this.#earlier !== null;
  }

  on(type, listener) {
    const listeners = this.#listeners[type];
    if (!listeners) throw new TypeError(`There is no event "${type}".`);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }

  // The stream -------------------------------------------------------------------------------------------------------

  connect({ history = false } = {}) {
    const loads = history && this.#historyCursor === null && !this.#historyWanted;
    if (loads) this.#historyWanted = true;
    if (this.#loading) {
      this.#connectWhenLoaded = true;
      this.#setState("connecting");
    } else if (this.#session && !loads) {
      this.#hurry();
    } else {
      this.#session?.abort();
      this.#session = new AbortController();
      this.#attempts = 0;
      this.#error = null;
      this.#tokenRefused = this.#waitsForToken = false;
      this.#setState("connecting");
      this.#stayConnected(this.#session);
    }
  }

  disconnect() {
    this.#close();
  }

  #close({ waitsForToken = false } = {}) {
    this.#session?.abort();
    this.#session = null;
    this.#connectWhenLoaded = false;
    this.#waitsForToken = waitsForToken;
    this.#setState("closed");
  }

  setToken(token) {
    if (token === this.#api.token) return;
    this.#api.token = token;
    if (typeof token !== "function") {
      this.#tokenRefused = false;
      if (this.#waitsForToken) this.connect();
    } else if (this.#waitsForToken) {
      this.#askAgain();
    }
  }

  /** Open the stream if the function has another token than the one that was refused: a new function may be the old one,
   * written where a component is rendered. */
  async #askAgain() {
    if (this.#asksAgain) return;
    this.#asksAgain = true;
    const refused = this.#api.used;
    let asked;
    try {
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, this.#notBefore - now())));
      if (!this.#waitsForToken) return;
      asked = this.#api.token;
      const token = await this.#api.accessToken(false);
      if (this.#waitsForToken && token !== refused) this.connect();
    } catch {
      // there is none: a later function may have one
    } finally {
      this.#asksAgain = false;
      if (this.#waitsForToken) {
        this.#api.used = refused;
        this.#notBefore = now() + REFUSED_DELAY_MS;
        if (asked && asked !== this.#api.token) this.#askAgain();
      }
    }
  }

  clear() {
    this.#transcript.clear();
    this.#emit("messages", this.messages);
  }

  async #stayConnected(session) {
    const unlisten = this.#listenToTheWorld();
    session.signal.addEventListener("abort", unlisten);
    while (!session.signal.aborted) {
      if (now() < this.#notBefore) await this.#pause(this.#notBefore - now(), session.signal, { patient: true });
      if (session.signal.aborted) return;
      const problem = await this.#oneConnection(session);
      if (session.signal.aborted) return;
      const delay = this.#delayAfter(problem);
      if (session.signal.aborted) return; // by a listener
      if (delay === null) {
        // Without one, or with the one that was refused, it is of no use to try again.
        this.#close({ waitsForToken: problem?.status === 401 });
        return;
      }
      this.#setState("reconnecting");
      await this.#pause(delay, session.signal);
    }
  }

  /** One connection, to its end; what it ended with, or null if it just ended. */
  async #oneConnection(session) {
    const connection = new AbortController();
    this.#connection = connection;
    const end = () => connection.abort();
    session.signal.addEventListener("abort", end);
    this.#farewell = null;
    const unwatch = this.#watchSilence(connection);
    try {
      if (this.#historyWanted) await this.#loadPage(PAGE, connection.signal);
      if (!connection.signal.aborted) await this.#read(connection.signal);
      return this.#farewell;
    } catch (error) {
      return this.#farewell ?? ChatError.from(error);
    } finally {
      unwatch();
      this.#mayHaveMissed = true;
      session.signal.removeEventListener("abort", end);
      connection.abort();
    }
  }

  async #read(signal) {
    const { transport, fetch, EventSource, tickets } = this.#options;
    const reader = {
      signal,
      onSign: () => this.#onSign(),
      onRetry: (milliseconds) => (this.#retry = milliseconds),
      onFrame: (frame) => signal.aborted || this.#onFrame(frame),
    };
    if (transport === "fetch") {
      const headers = { Authorization: `Bearer ${await this.#api.accessToken(this.#tokenRefused)}` };
      if (this.#cursor) headers["Last-Event-ID"] = this.#cursor;
      if (!signal.aborted) await readByFetch({ ...reader, fetch, url: `${this.#conversation}/stream`, headers });
      return;
    }
    // Its reconnections would carry the header, but ours are new ones, and the first has only the query.
    const query = this.#cursor ? [`last_event_id=${encodeURIComponent(this.#cursor)}`] : [];
    if (tickets) query.push(`ticket=${encodeURIComponent((await this.#ask("POST", "/stream-tickets")).ticket)}`);
    else query.push(`access_token=${encodeURIComponent(await this.#api.accessToken(this.#tokenRefused))}`);
    if (signal.aborted) return;
    try {
      await readByEventSource({ ...reader, EventSource, url: `${this.#conversation}/stream?${query.join("&")}` });
    } catch (error) {
      await this.#ask("GET", ""); // an EventSource does not say why it was refused; this fails for the same reason
      throw error;
    }
  }

  /** A request that the stream needs. One that is refused was made with a fresh token already. */
  async #ask(method, path) {
    try {
      return await this.#api.call(method, path);
    } catch (error) {
      if (error.status === 401) this.#tokenRefused = true;
      throw error;
    }
  }

  #onFrame({ data, id }) {
    const event = parse(data);
    if (!event) {
      this.#report(new ChatError("An event is not one of ours.", { code: "protocol", retryable: true }));
      return;
    }
    this.#farewell = null; // whatever it was, it has passed
    const shown = this.messages;
    const repeated = !this.#transcript.apply(event);
    if (id) this.#cursor = id;
    if (event.type === "connected") this.#onConnected(event);
    if (event.type === "error") this.#onError(event);
    if (event.type === "user_message" && event.parent !== undefined) this.#head = event.messageId;
    if (event.type === "branch") this.#onBranch(event.head);
    if (this.#transcript.stale) this.#reload();
    this.#emit("event", event, { cursor: this.#cursor, repeated });
    if (this.messages !== shown) this.#emit("messages", this.messages);
  }

  /** All who watch are shown another branch. It is in the history, unless it only goes on in another way. */
  #onBranch(head) {
    if (head === this.#head) return;
    this.#head = head;
    if (this.messages.findLast(({ role }) => role === "user")?.id !== head) this.#reload();
  }

  #reload() {
    this.#transcript.stale = false;
    if (this.#historyCursor === null) return; // it was never asked for
    this.history().catch((error) => {
      this.#report(error);
      this.#historyWanted = true; // with the next connection, which is due
      this.#connection?.abort();
    });
  }

  #onConnected({ resumed, head }) {
    this.#openedAt = now();
    this.#attempts = this.#refusals = 0;
    this.#tokenRefused = false;
    this.#error = null;
    this.#setState("open");
    // The cursor was too old to resume the stream: what was missed is in the history. Loaded once only, even if the
    // history's own cursor cannot be resumed, either.
    const behind = !resumed && this.#historyCursor !== null && this.#historyCursor !== this.#cursor;
    // What waits may have been taken back meanwhile.
    const uncertain = this.#mayHaveMissed && this.#historyCursor !== null && this.#transcript.queued;
    if (behind || uncertain || (head !== undefined && head !== this.#head)) this.#reload();
  }

  #onError(event) {
    const error = ChatError.fromEvent(event);
    if (error.messageId !== null) {
      this.#emit("error", error);
      return;
    }
    this.#farewell = error;
    // The server will close it, too, but not every EventSource would tell. One problem may pass: the answer that cannot
    // be stored yet comes on this very connection, once it is.
    if (error.code !== "storage_unavailable") this.#connection.abort();
  }

  /** How long to wait after `problem` before the next try, in ms; null to give up. A token's end is no problem yet. */
  #delayAfter(problem) {
    const { maxReconnectAttempts, reconnectDelay: base = this.#retry ?? RECONNECT_DELAY_MS } = this.#options;
    if (problem?.code === "token_expired") {
      this.#tokenRefused = true;
      return Math.max(0, base - (now() - this.#openedAt)); // the connection itself was the waiting
    }
    if (problem?.status === 401 && !this.#tokenRefused) {
      this.#tokenRefused = true;
      if (this.#api.renewable) return 0; // once, with a fresh one
    }
    if (problem?.status === 401 && this.#api.used) {
      this.#notBefore = now() + reconnectDelay(++this.#refusals, REFUSED_DELAY_MS);
    }
    if (problem) this.#report(problem);
    if (problem && !problem.retryable) return null;
    if (globalThis.navigator?.onLine !== false) this.#attempts++; // without a network nothing was tried
    if (this.#attempts > maxReconnectAttempts) {
      this.#report(new ChatError("The connection is lost.", { code: "connection_lost", retryable: false, cause: problem }));
      return null;
    }
    return Math.max(reconnectDelay(Math.max(1, this.#attempts), base), problem?.retryAfterMs ?? 0);
  }

  /** `patient`: nothing ends it but its time and `signal`. */
  #pause(milliseconds, signal, { patient = false } = {}) {
    return new Promise((resolve) => {
      const timer = setTimeout(end, Math.min(milliseconds, MAX_TIMER_MS));
      if (!patient) this.#wake = end;
      signal.addEventListener("abort", end);
      function end() {
        clearTimeout(timer);
        signal.removeEventListener("abort", end);
        resolve();
      }
    });
  }

  #onSign() {
    this.#heardAt = now();
    this.#heardAtByTheClock = Date.now();
  }

  /** End a connection on which nothing is heard: a network that was changed, a server that is gone. */
  #watchSilence(connection) {
    this.#onSign();
    let timer;
    const look = () => {
      const left = this.#heardAt + this.#options.silenceTimeout - now();
      if (left > 0) timer = setTimeout(look, left);
      else connection.abort();
    };
    look();
    return () => clearTimeout(timer);
  }

  /** Now is a good time: end the waiting, and a connection that has been silent for too long. */
  #hurry() {
    this.#wake?.();
    const silent = Math.max(now() - this.#heardAt, Date.now() - this.#heardAtByTheClock);
    if (silent > this.#options.silenceTimeout) this.#connection?.abort();
  }

  /** A browser says when the network is gone or back, and when the page is looked at again; elsewhere, call `connect`. */
  #listenToTheWorld() {
    const { document } = globalThis;
    const onOffline = () => this.#connection?.abort(); // most browsers would leave it open, and silent
    const onOnline = () => this.#hurry();
    const onVisible = () => document.visibilityState === "visible" && this.#hurry();
    globalThis.addEventListener?.("offline", onOffline);
    globalThis.addEventListener?.("online", onOnline);
    document?.addEventListener?.("visibilitychange", onVisible);
    return () => {
      globalThis.removeEventListener?.("offline", onOffline);
      globalThis.removeEventListener?.("online", onOnline);
      document?.removeEventListener?.("visibilitychange", onVisible);
    };
  }

  // REST -------------------------------------------------------------------------------------------------------------

  history({ limit = PAGE } = {}) {
    return (this.#loading ??= this.#load(limit));
  }

  async #load(limit) {
    // What the stream would say meanwhile is in the page, or comes after it.
    this.#connectWhenLoaded = this.#session !== null;
    this.#session?.abort();
    this.#session = null;
    if (this.#connectWhenLoaded) this.#setState("connecting");
    try {
      await this.#loadPage(limit);
    } finally {
      this.#loading = null;
      if (this.#connectWhenLoaded) this.connect();
    }
    return this.messages;
  }

  async #loadPage(limit, signal) {
    const page = await this.#ask("GET", `/messages?limit=${limit}`);
    if (signal?.aborted) return; // what was asked for anew meanwhile is newer
    this.#historyWanted = this.#mayHaveMissed = false;
    this.#head = page.head ?? null;
    this.#transcript.load(page.messages, { previous: page.previous, branched: page.head !== undefined });
    this.#cursor = this.#historyCursor = page.streamCursor;
    this.#earlier = page.nextCursor;
    this.#emit("messages", this.messages);
  }

  async earlier({ limit = PAGE } = {}) {
    if (this.#earlier === null) return this.messages;
    const leaf = this.#transcript.branched ? this.messages[0]?.id : undefined; // also if another one is shown by now
    const page = await this.#api.call("GET", `/messages${query({ limit, before: this.#earlier, leaf })}`);
    this.#transcript.load(page.messages, { before: true, previous: page.previous });
    this.#earlier = page.nextCursor;
    this.#emit("messages", this.messages);
    return this.messages;
  }

  async send(content, { clientMessageId = randomId(), ifBusy, background = this.#options.background, parent } = {}) {
    const path = `/messages${query({ ifBusy, background })}`;
    for (let sent = 1; ; sent++) {
      try {
        const message = await this.#api.call("POST", path, { content, clientMessageId, parent });
        if (message.parent !== undefined) this.#head = message.id;
        if (!ifBusy) this.#cursor ??= message.streamCursor; // nothing runs that the stream has yet to bring
        if (this.#transcript.add(message)) this.#emit("messages", this.messages);
        return message;
      } catch (error) {
        // The key makes it safe: what was stored is not stored again. A rate is for the caller to wait for.
        const delay = Math.max(reconnectDelay(sent, SEND_DELAY_MS), error.retryAfterMs ?? 0);
        if (!error.retryable || error.status === 429 || sent === SENDS || delay > MAX_SEND_DELAY_MS) throw error;
        await new Promise((resolve) => setTimeout(resolve, delay));
      }
    }
  }

  async edit(messageId, content, options) {
    if (this.#transcript.parentOf(messageId) === undefined) await this.history();
    const parent = this.#transcript.parentOf(messageId);
    if (parent !== undefined) return this.send(content, { ...options, parent });
    throw new ChatError("No message of the user's with this id is shown.", { code: "not_found", retryable: false });
  }

  async takeBack(messageId) {
    await this.#api.call("DELETE", `/messages/${encodeURIComponent(messageId)}`).catch((error) => {
      if (error.status !== 404) throw error; // it is gone
    });
    if (this.#transcript.remove(messageId)) this.#emit("messages", this.messages);
  }

  async showBranch(messageId) {
    await this.#api.call("PATCH", "", { head: messageId });
    return this.history();
  }

  async rate(messageId, rating) {
    const rated = await this.#api.call("PUT", "/rating", { messageId, rating });
    this.#transcript.rate(messageId, rating);
    this.#emit("messages", this.messages);
    return rated;
  }

  async decide(toolCallId, decision, { reason } = {}) {
    return this.#decide(toolCallId, { decision, reason });
  }

  async answerTool(toolCallId, { output, error }) {
    return this.#decide(toolCallId, error === undefined ? { output: output ?? null } : { error });
  }

  /** The same again does no harm; so it may be tried again by whoever got no answer. */
  async #decide(toolCallId, body) {
    const call = await this.#api.call("POST", `/tool-calls/${encodeURIComponent(toolCallId)}`, body);
    const shown = this.messages;
    this.#transcript.decided(call);
    if (this.messages !== shown) this.#emit("messages", this.messages);
    return call;
  }

  async continueAnswer({ messageId, ...options } = {}) {
    return this.#again({ ...options, body: { continue: true, messageId } });
  }

  async stop({ seenLength } = {}) {
    const running = this.messages.findLast((message) => message.streaming);
    const seen = seenLength === undefined && running ? codePoints(running.content) : seenLength;
    const asked = running || seen !== undefined ? { messageId: running?.id, seenLength: seen } : undefined;
    return this.#api.call("POST", "/stop", asked);
  }

  async regenerate({ messageId, ...options } = {}) {
    return this.#again({ ...options, body: messageId === undefined ? undefined : { messageId } });
  }

  async #again({ ifBusy, background = this.#options.background, body }) {
    const answer = await this.#api.call("POST", `/regenerate${query({ ifBusy, background })}`, body);
    if (this.#isNewest(answer.replyTo) && this.#transcript.add(answer)) this.#emit("messages", this.messages);
    return answer;
  }

  /** An attempt at an older message begins another branch, which an event of the stream says. */
  #isNewest(messageId) {
    return [messageId, undefined].includes(this.messages.findLast(({ role }) => role === "user")?.id);
  }

  // Telling ----------------------------------------------------------------------------------------------------------

  #setState(state) {
    if (this.#state === state) return;
    this.#state = state;
    this.#emit("state", state);
  }

  #report(error) {
    this.#error = error;
    this.#emit("error", error);
  }

  #emit(type, ...values) {
    for (const listener of [...this.#listeners[type]]) {
      try {
        listener(...values);
      } catch (error) {
        queueMicrotask(() => {
          throw error; // it is the page's, and must not end the stream
        });
      }
    }
  }
}

/** What is set of `parameters`, as a query: a server of the version before takes no notice of one that it does not know. */
function query(parameters) {
  const set = Object.entries(parameters).filter(([, value]) => value !== undefined);
  return set.map(([name, value], index) => `${index ? "&" : "?"}${name}=${encodeURIComponent(value)}`).join("");
}

/** Milliseconds since some time, by a clock that nobody sets. */
function now() {
  return globalThis.performance?.now?.() ?? Date.now();
}

/** The event, or null if it is none: every one is an object with a type. */
function parse(data) {
  try {
    const event = JSON.parse(data);
    return typeof event?.type === "string" ? event : null;
  } catch {
    return null;
  }
}

/** fetch can be read while it comes everywhere but in React Native. */
function transportOf({ transport = "auto", fetch }) {
  if (transport !== "auto") return transport;
  return fetch || "body" in (globalThis.Response?.prototype ?? {}) ? "fetch" : "eventsource";
}

/** Unique within a conversation is enough. React Native and pages without TLS have no randomUUID. */
function randomId() {
  const { crypto } = globalThis;
  return crypto?.randomUUID?.() ?? `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
}
