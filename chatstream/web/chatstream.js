/**
 * Client for one conversation of a chatstream server: sends, streams, stops; resumes without loss after a disconnect.
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
import { LeanFrames } from "./client/lean-frames.js";
import { codePoints, Transcript } from "./client/transcript.js";
import { readByEventSource, readByFetch } from "./client/transports.js";

export { ChatError, Conversations };

// Delay before the first reconnection, unless the server has sent `retry:`; doubled with each try, up to the maximum.
const RECONNECT_DELAY_MS = 2_000;
const MAX_RECONNECT_DELAY_MS = 30_000;
// Delay before the stream is opened again after a refused token; doubled with each refusal. Otherwise an application
// that calls `connect` at once, or always gives a wrong token, would send requests without a pause.
const REFUSED_DELAY_MS = 1_000;
// A stream that is silent for this long is dead: 2.5 heartbeats of 15 s, since two may be late or held by a proxy.
const SILENCE_MS = 37_500;
// Tries to send a message, with pauses of 0.5, 1 and 2 s: about the length of a database failover.
const SENDS = 4;
const SEND_DELAY_MS = 500;
const MAX_SEND_DELAY_MS = 5_000;
// The longest delay of `setTimeout`; with a longer one the timer fires at once.
const MAX_TIMER_MS = 2 ** 31 - 1;
// Maximum number of messages in memory: as many as a person scrolls through, some megabytes at worst.
const MAX_MESSAGES = 1_000;
// Messages per page of the history: the server's maximum.
const PAGE = 200;

/** Delay before reconnection number `attempt`, in ms: at least `base`, doubled each time, plus up to 50 % jitter, so
 * that the clients of a restarted server do not all come back at once. */
export function reconnectDelay(attempt, base, random = Math.random) {
  return Math.min(base * 2 ** (attempt - 1), Math.max(base, MAX_RECONNECT_DELAY_MS)) * (1 + random() / 2);
}

export class ChatStream {
  #options;
  #conversation; // the conversation's URL
  #api;
  #transcript;
  #lean = new LeanFrames();
  #listeners = { state: new Set(), messages: new Set(), event: new Set(), error: new Set() };
  #state = "closed";
  #error = null;
  #cursor;
  #earlier = null; // cursor of the next older page, the REST API's `nextCursor`
  #historyCursor = null; // stream cursor at the end of the loaded history
  #head = null; // last message of the conversation's present branch, if there are several branches
  #leaf = null; // last message of the branch that is looked at; null: the present one is shown
  #loading = null; // promise of the history while it is loading
  #loads = 0; // the number of times that the history was loaded
  #connectWhenLoaded = false;
  // State of the stream:
  #session = null; // AbortController that lives from `connect` to `disconnect`
  #connection = null; // AbortController of the present connection
  #attempts = 0; // tries since a connection was last open
  #retry; // the server's `retry:`, in ms
  #tokenRefused = false; // the last token was refused
  #waitsForToken = false; // closed until there is a new token
  #refusals = 0; // refused tokens in a row
  #notBefore = 0; // earliest time to open the stream again, by `now()`
  #asksAgain = false; // asking for a token while closed
  #mayHaveMissed = false; // events without a cursor may have been missed
  #historyWanted = false; // load the history before opening the stream
  #farewell = null; // the server's reason for closing this connection soon
  #openedAt = 0; // by `now()`, like `#heardAt`
  #heardAt = 0;
  #heardAtByTheClock = 0; // by `Date.now()`, which also runs while a phone sleeps
  #wake = null; // function that ends the pause before the next try

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

  get lookedAt() {
    return this.#transcript.looks ? (this.messages.at(-1)?.id ?? null) : null;
  }

  get busyElsewhere() {
    return this.#transcript.busyElsewhere;
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

  /** Open the stream if the token function returns another token than the refused one. A changed function may return
   * the same token: React components create a new function at each render. */
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
      if (session.signal.aborted) return; // a listener has called `disconnect`
      if (delay === null) {
        // Without a token, or with the refused one, trying again is useless.
        this.#close({ waitsForToken: problem?.status === 401 });
        return;
      }
      this.#setState("reconnecting");
      await this.#pause(delay, session.signal);
    }
  }

  /** Run one connection to its end. Returns its error, or null for a normal end. */
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
      onFrames: (frames) => this.#onFrames(frames, signal),
    };
    if (transport === "fetch") {
      const headers = { Authorization: `Bearer ${await this.#api.accessToken(this.#tokenRefused)}` };
      if (this.#cursor) headers["Last-Event-ID"] = this.#cursor;
      const url = `${this.#conversation}/stream${query({ frames: this.#frames() })}`;
      if (!signal.aborted) await readByFetch({ ...reader, fetch, url, headers });
      return;
    }
    // An EventSource sends the cursor as a header only when it reconnects by itself. We always open a new one, so the
    // cursor goes into the query.
    const credential = tickets
      ? { ticket: (await this.#ask("POST", "/stream-tickets")).ticket }
      : { access_token: await this.#api.accessToken(this.#tokenRefused) };
    if (signal.aborted) return;
    const asked = query({ last_event_id: this.#cursor ?? undefined, frames: this.#frames(), ...credential });
    try {
      await readByEventSource({ ...reader, EventSource, url: `${this.#conversation}/stream${asked}` });
    } catch (error) {
      await this.#ask("GET", ""); // an EventSource hides why it was refused; this fails for the same reason
      throw error;
    }
  }

  /** The form of chunks to ask for: lean, where they can be read. */
  #frames() {
    return this.#lean.canFollow(this.#cursor, this.messages) ? "lean" : undefined;
  }

  /** A request that the stream needs. If it is refused, it was made with a fresh token. */
  async #ask(method, path) {
    try {
      return await this.#api.call(method, path);
    } catch (error) {
      if (error.status === 401) this.#tokenRefused = true;
      throw error;
    }
  }

  /** Apply the events of one network read. A fast model's chunks come by the hundred: `messages` is emitted once for all. */
  #onFrames(frames, signal) {
    const { changes } = this.#transcript;
    for (const frame of frames) if (!signal.aborted) this.#onFrame(frame);
    if (this.#transcript.changes !== changes) this.#emit("messages", this.messages);
  }

  #onFrame({ data, id }) {
    const parsed = parse(data);
    const event = parsed && this.#lean.whole(parsed, id, this.messages);
    if (!event) {
      this.#report(new ChatError("Unexpected event from the server.", { code: "protocol", retryable: true }));
      return;
    }
    this.#farewell = null; // connected again: the reason of the last disconnection no longer holds
    const repeated = !this.#transcript.apply(event);
    if (id) this.#cursor = id;
    if (event.type === "connected") this.#onConnected(event);
    if (event.type === "error") this.#onError(event);
    if (event.type === "user_message" && event.parent !== undefined && !repeated) this.#head = event.messageId;
    if (event.type === "branch") this.#onBranch(event.head);
    if (this.#transcript.stale) this.#reload();
    this.#emit("event", event, { cursor: this.#cursor, repeated });
  }

  /** The conversation now shows another branch. Load it, unless the loaded messages only continue differently. */
  #onBranch(head) {
    if (head === this.#head) return;
    this.#head = head;
    if (this.#transcript.looks) return;
    const { id, role, siblings = [id] } = this.messages.at(-1) ?? {};
    const isOlder = role === "assistant" && siblings.at(-1) !== id; // below a question, the newest attempt is to be shown
    if (isOlder || this.messages.findLast((message) => message.role === "user")?.id !== head) this.#reload();
  }

  #reload() {
    this.#transcript.stale = false;
    if (this.#historyCursor === null) return; // no history was loaded
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
    // The cursor was too old to resume the stream, so load the history. Only once, even if its cursor is refused, too.
    const behind = !resumed && this.#historyCursor !== null && this.#historyCursor !== this.#cursor;
    // Waiting messages may have been taken back meanwhile.
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
    // Close the connection: the server does so, too, but some EventSources do not report it. Keep it open only for an
    // answer that cannot be stored yet: its events come on this connection once it is stored.
    if (error.code !== "storage_unavailable") this.#connection.abort();
  }

  /** Delay in ms before the next try after `problem`; null to give up. An expired token is renewed first. */
  #delayAfter(problem) {
    const { maxReconnectAttempts, reconnectDelay: base = this.#retry ?? RECONNECT_DELAY_MS } = this.#options;
    if (problem?.code === "token_expired") {
      this.#tokenRefused = true;
      return Math.max(0, base - (now() - this.#openedAt)); // the time that the connection was open counts
    }
    if (problem?.status === 401 && !this.#tokenRefused) {
      this.#tokenRefused = true;
      if (this.#api.renewable) return 0; // once, with a fresh token
    }
    if (problem?.status === 401 && this.#api.used) {
      this.#notBefore = now() + reconnectDelay(++this.#refusals, REFUSED_DELAY_MS);
    }
    if (problem) this.#report(problem);
    if (problem && !problem.retryable) return null;
    if (globalThis.navigator?.onLine !== false) this.#attempts++; // offline, nothing was tried
    if (this.#attempts > maxReconnectAttempts) {
      this.#report(new ChatError("The connection is lost.", { code: "connection_lost", retryable: false, cause: problem }));
      return null;
    }
    return Math.max(reconnectDelay(Math.max(1, this.#attempts), base), problem?.retryAfterMs ?? 0);
  }

  /** Wait `ms`. `patient`: only the time or `signal` ends it, not `#wake`. */
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

  /** Abort a connection that has been silent for too long: the network has changed, or the server is gone. */
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

  /** Try now: end the pause before the next try, and a connection that has been silent for too long. */
  #hurry() {
    this.#wake?.();
    const silent = Math.max(now() - this.#heardAt, Date.now() - this.#heardAtByTheClock);
    if (silent > this.#options.silenceTimeout) this.#connection?.abort();
  }

  /** In a browser, react to `online`, `offline` and visibility events. Elsewhere, the application calls `connect`. */
  #listenToTheWorld() {
    const { document } = globalThis;
    const onOffline = () => this.#connection?.abort(); // most browsers would keep the dead connection open
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

  async #load(limit, leaf) {
    // Events that come meanwhile are in the loaded page, or come after its cursor.
    this.#connectWhenLoaded = this.#session !== null;
    this.#session?.abort();
    this.#session = null;
    if (this.#connectWhenLoaded) this.#setState("connecting");
    try {
      await this.#loadPage(limit, undefined, leaf);
    } finally {
      this.#loading = null;
      if (this.#connectWhenLoaded) this.connect();
    }
    return this.messages;
  }

  async #loadPage(limit, signal, leaf = this.#transcript.looks ? this.#leaf : null) {
    let page;
    try {
      page = await this.#ask("GET", `/messages${query({ limit, leaf: leaf ?? undefined })}`);
    } catch (error) {
      if (leaf === null || error.status !== 404) throw error;
      return this.#loadPage(limit, signal, null); // the message that was looked at was taken back
    }
    if (signal?.aborted) return; // a newer load has replaced this one
    this.#loads++;
    this.#historyWanted = this.#mayHaveMissed = false;
    this.#head = page.head ?? null;
    this.#transcript.load(page.messages, { previous: page.previous, branched: page.head !== undefined, looks: leaf !== null });
    this.#lean.forget();
    this.#cursor = this.#historyCursor = page.streamCursor;
    this.#earlier = page.nextCursor;
    this.#emit("messages", this.messages);
  }

  async earlier({ limit = PAGE } = {}) {
    if (this.#earlier === null) return this.messages;
    const leaf = this.#transcript.branched ? this.messages[0]?.id : undefined; // load earlier messages of this branch
    const page = await this.#api.call("GET", `/messages${query({ limit, before: this.#earlier, leaf })}`);
    this.#transcript.load(page.messages, { before: true, previous: page.previous });
    this.#earlier = page.nextCursor;
    this.#emit("messages", this.messages);
    return this.messages;
  }

  async send(content, { clientMessageId = randomId(), ifBusy, background = this.#options.background, ...to } = {}) {
    const path = `/messages${query({ ifBusy, background })}`;
    const { parent = this.lookedAt ?? undefined } = to;
    const loads = this.#loads;
    for (let sent = 1; ; sent++) {
      try {
        const message = await this.#api.call("POST", path, { content, clientMessageId, parent });
        if (!ifBusy) this.#cursor ??= message.streamCursor; // only if no running answer is still to come on the stream
        const continues = [undefined, this.messages.at(-1)?.id].includes(message.parent);
        if (!continues && loads !== this.#loads) return message; // the loaded history, or the stream after it, says what is shown
        if (message.parent !== undefined) this.#head = message.id;
        if (this.#transcript.add(message)) this.#emit("messages", this.messages);
        return message;
      } catch (error) {
        // Safe to repeat: with the same key the server stores the message once. The caller waits out a rate limit.
        const delay = Math.max(reconnectDelay(sent, SEND_DELAY_MS), error.retryAfterMs ?? 0);
        if (!error.retryable || error.status === 429 || sent === SENDS || delay > MAX_SEND_DELAY_MS) throw error;
        await new Promise((resolve) => setTimeout(resolve, delay));
      }
    }
  }

  async edit(messageId, content, options) {
    if (this.#transcript.parentOf(messageId) === undefined) await this.history();
    const shown = this.#transcript.parentOf(messageId);
    const parent = shown === undefined ? await this.#parentElsewhere(messageId) : shown;
    return this.send(content, { ...options, parent });
  }

  /** The `parent` of a user message of any branch; null if it is the first one. */
  async #parentElsewhere(messageId) {
    const { messages, previous = null } = await this.#api.call("GET", `/messages${query({ limit: 1, leaf: messageId })}`);
    if (messages[0]?.id === messageId && messages[0].role === "user") return previous;
    throw new ChatError("No message of the user's with this id is shown.", { code: "not_found", retryable: false });
  }

  async takeBack(messageId) {
    await this.#api.call("DELETE", `/messages/${encodeURIComponent(messageId)}`).catch((error) => {
      if (error.status !== 404) throw error; // 404: it is already gone
    });
    if (this.#transcript.remove(messageId)) this.#emit("messages", this.messages);
  }

  async showBranch(messageId) {
    await this.#api.call("PATCH", "", { head: messageId });
    return this.#showFrom(null);
  }

  async lookAt(messageId) {
    return this.#showFrom(messageId);
  }

  /** Load the branch that ends with the message `leaf`; null: the conversation's present one. */
  async #showFrom(leaf) {
    await this.#loading?.catch(() => {}); // it loads another branch
    this.#leaf = leaf;
    return (this.#loading ??= this.#load(PAGE, leaf));
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

  async answerQuestion(toolCallId, { question, action = "accept", content }) {
    return this.#decide(toolCallId, { question, action, content });
  }

  /** A request that is safe to repeat, so it is tried again if no response came. */
  async #decide(toolCallId, body) {
    const call = await this.#api.call("POST", `/tool-calls/${encodeURIComponent(toolCallId)}`, body);
    const shown = this.messages;
    this.#transcript.decided(call);
    if (this.messages !== shown) this.#emit("messages", this.messages);
    return call;
  }

  async continueAnswer({ messageId, ...options } = {}) {
    const shown = this.#transcript.looks ? this.messages.findLast(({ role }) => role === "assistant")?.id : undefined;
    return this.#again({ ...options, body: { continue: true, messageId: messageId ?? shown } });
  }

  async stop({ seenLength } = {}) {
    const running = this.messages.findLast((message) => message.streaming);
    const seen = seenLength === undefined && running ? codePoints(running.content) : seenLength;
    const asked = running || seen !== undefined ? { messageId: running?.id, seenLength: seen } : undefined;
    return this.#api.call("POST", "/stop", asked);
  }

  async regenerate({ messageId, ...options } = {}) {
    const shown = this.#transcript.looks ? this.messages.findLast(({ role }) => role === "user")?.id : undefined;
    const asked = messageId ?? shown;
    return this.#again({ ...options, body: asked === undefined ? undefined : { messageId: asked } });
  }

  async #again({ ifBusy, background = this.#options.background, body }) {
    const loads = this.#loads;
    const answer = await this.#api.call("POST", `/regenerate${query({ ifBusy, background })}`, body);
    if (loads !== this.#loads) return answer; // as in `send`
    if (this.#isNewest(answer.replyTo) && this.#transcript.add(answer)) this.#emit("messages", this.messages);
    return answer;
  }

  /** A new attempt at an older message begins a branch; an event of the stream reports it. */
  #isNewest(messageId) {
    return [messageId, undefined].includes(this.messages.findLast(({ role }) => role === "user")?.id);
  }

  // Events ----------------------------------------------------------------------------------------------------------

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
          throw error; // a listener's error must not end the stream
        });
      }
    }
  }
}

/** The set ones of `parameters` as a query string. Servers of earlier versions ignore unknown parameters. */
function query(parameters) {
  const set = Object.entries(parameters).filter(([, value]) => value !== undefined);
  return set.map(([name, value], index) => `${index ? "&" : "?"}${name}=${encodeURIComponent(value)}`).join("");
}

/** The time in ms of a monotonic clock. */
function now() {
  return globalThis.performance?.now?.() ?? Date.now();
}

/** The parsed event; null if it is not an object with a `type`. */
function parse(data) {
  try {
    const event = JSON.parse(data);
    return typeof event?.type === "string" ? event : null;
  } catch {
    return null;
  }
}

/** Whether `fetch` can stream a response's body: everywhere but in React Native. */
function transportOf({ transport = "auto", fetch }) {
  if (transport !== "auto") return transport;
  return fetch || "body" in (globalThis.Response?.prototype ?? {}) ? "fetch" : "eventsource";
}

/** A random key, unique within a conversation. `randomUUID` is missing in React Native and on pages without TLS. */
function randomId() {
  const { crypto } = globalThis;
  return crypto?.randomUUID?.() ?? `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
}
