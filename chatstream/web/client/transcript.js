/**
 * Builds the list of messages from the history and the events. Repeated or late events change nothing: text is placed
 * by the number of code points before it, answers are ordered by attempt, messages and recommendations are known by id.
 * An answer with more than text (reasoning, tool calls) has `parts`.
 */

export class Transcript {
  // Entries by id, in the order of the conversation. Each has the shown message (replaced, never mutated), the number
  // of code points so far, `placed`: whether its position is confirmed by the server, and `loaded`: by the history.
  #entries = new Map();
  #shown = null; // the list of messages; null after a change, until somebody reads it
  #changes = 0;
  #completed = null; // the answer that the next recommendation belongs to
  #limit;
  #previous; // id of the message before the first one; null: none, undefined: unknown
  #branched = false; // the conversation has several branches, of which one is shown
  #looks = false; // the shown branch is not the conversation's present one: only its own continuation is added to it
  #elsewhere = null; // the running answer, if it is on another branch
  /** Whether an event does not fit the shown messages: it is of another branch, and the history must be loaded. */
  stale = false;

  /** @param {number} limit most messages to keep; the oldest are dropped */
  constructor(limit) {
    this.#limit = limit;
  }

  /** The messages, oldest first. The same array until something changes. */
  get messages() {
    return (this.#shown ??= Object.freeze(Array.from(this.#entries.values(), (entry) => entry.message)));
  }

  /** The number of changes so far. If it has not changed, `messages` is still the same array; reading the number does
   * not build that array. */
  get changes() {
    return this.#changes;
  }

  #touch() {
    this.#shown = null;
    this.#changes++;
  }

  clear() {
    this.#entries.clear();
    this.#completed = null;
    this.#touch();
    this.#previous = undefined;
    this.stale = false;
  }

  get branched() {
    return this.#branched;
  }

  /** Whether the shown branch is looked at, and not the conversation's present one. */
  get looks() {
    return this.#looks;
  }

  /** Whether an answer runs on a branch that is not shown. */
  get busyElsewhere() {
    return this.#elsewhere !== null && !this.#entries.has(this.#elsewhere);
  }

  /** The id of the message that the user message `id`, or the shown version of it, continues; null if it is the first
   * one, undefined if unknown. */
  parentOf(id) {
    const isVersion = ({ siblings }) => siblings?.includes(id);
    const index = this.messages.findIndex((message) => message.role === "user" && (message.id === id || isVersion(message)));
    return index > 0 ? this.messages[index - 1].id : index === 0 ? this.#previous : undefined;
  }

  /** Replace the shown messages by messages from the REST API, or put these before them. `previous`: the id of the
   * message right before them. `branched`: the conversation has several branches. `looks`: see
   * the property. */
  load(views, { before = false, previous = null, branched = false, looks = false } = {}) {
    const after = before ? [...this.#entries] : [];
    const completed = before ? this.#completed : null;
    this.clear();
    this.#previous = previous;
    this.#branched = branched || looks || (before && this.#branched);
    if (!before) this.#looks = looks;
    for (const view of views) this.add(view, { placed: true });
    for (const [id, entry] of after) {
      if (entry.message.role === "assistant") this.#supersede(entry.message.replyTo, entry.message.attempt);
      this.#entries.set(id, entry);
    }
    this.#touch();
    this.#completed = completed ?? this.#completed;
  }

  /** Add one message from the REST API; false if it is shown already. */
  add(view, { placed = false } = {}) {
    if (this.#entries.has(view.id)) return false;
    if (!placed) this.#looks = false; // it was sent from here, and has made the shown branch the present one
    if (view.role === "user") {
      const before = placed ? undefined : this.#goOnFrom(view.parent, { known: false });
      const place = view.siblings ? { siblings: view.siblings } : besides(before, view.id);
      this.#put({ id: view.id, role: "user", content: view.content, timestamp: view.createdAt, ...place }, { placed, loaded: placed });
      return true;
    }
    const older = this.#supersede(view.replyTo, view.attempt);
    if (older === false) return false;
    const place = view.siblings ? { siblings: view.siblings } : besides(older, view.id);
    const { id, content, status, attempt, replyTo, finishReason, usage, error, createdAt: timestamp } = view;
    const more = { parts: view.parts, rating: view.rating, model: view.model, ...place };
    if (view.contextTrimmed) more.contextTrimmed = view.contextTrimmed;
    const recommendations = [...view.recommendations];
    if (view.annotations) more.annotations = view.annotations;
    this.#put(
      answer({ id, content, status, attempt, replyTo, finishReason, usage, error, recommendations, timestamp, ...more }),
      { length: codePoints(content) },
    );
    if (status !== "streaming" && status !== "waiting") this.#completed = id;
    return true;
  }

  /** Set the user's rating of the answer `id`; null removes it. */
  rate(id, rating) {
    const entry = this.#entries.get(id);
    if (entry && (entry.message.rating ?? null) !== rating) this.#change(entry, { rating: rating ?? undefined });
  }

  /** A message was taken back; false if it is not shown. */
  remove(id) {
    const known = this.#entries.delete(id);
    if (known) this.#touch();
    return known;
  }

  /** Whether a question waits behind an answer that runs. */
  get queued() {
    if (this.busyElsewhere) return this.messages.at(-1)?.role === "user";
    const running = this.messages.findLastIndex(({ streaming }) => streaming);
    return running !== -1 && this.messages.slice(running).some(({ role }) => role === "user");
  }

  /** Apply an event of the stream; false if it changed nothing. */
  apply(event) {
    switch (event.type) {
      case "user_message":
        return this.#onUserMessage(event);
      case "llm_chunk":
        return this.#onChunk(event);
      case "reasoning_chunk":
        return this.#onReasoning(event);
      case "data":
        return this.#onData(event);
      case "tool_call":
      case "tool_state":
      case "tool_result":
        return this.#onTool(event);
      case "connected":
        if (!event.resumed) this.#forgetPieces();
        this.#onRunning(event.activeMessageId);
        return true;
      case "context_trimmed":
        return this.#onContextTrimmed(event);
      case "llm_complete":
        return this.#onComplete(event);
      case "system":
        return this.#onSystem(event);
      case "withdrawn":
        return this.remove(event.messageId);
      case "rating":
        this.rate(event.messageId, event.rating);
        return true;
      case "error":
        return event.messageId === null || this.#onError(event);
      default:
        return true;
    }
  }

  #onUserMessage({ messageId: id, content, timestamp, parent }) {
    const known = this.#entries.get(id);
    if (known?.placed || (!known && this.#isElsewhere(id, parent))) return false;
    this.#looks = false; // it continues the shown branch
    this.#runsElsewhere(null); // its turn has come
    this.#entries.delete(id); // its right position is here, after all earlier messages
    const before = this.#goOnFrom(parent, { known: true });
    this.#put(known?.message ?? { id, role: "user", content, timestamp, ...besides(before, id) });
    return true;
  }

  /** Whether a user message that is not shown is on another branch. The history knows it, since it is a version of a
   * shown message, or is of a time before there were branches: only then messages have no `parent`. */
  #isElsewhere(id, parent) {
    if (this.#looks && parent !== this.messages.at(-1)?.id) return true;
    if (this.#branched && parent === undefined) return true;
    return this.messages.some(({ siblings }) => siblings?.includes(id));
  }

  /** The stream begins while the answer `id` runs, or none. It may be the answer to the last question, which is shown
   * with its first word; but the history that has that question has its answer, too. */
  #onRunning(id) {
    const last = [...this.#entries.values()].at(-1);
    const isAwaited = last?.message.role === "user" && !last.loaded;
    this.#runsElsewhere(this.#branched && id && !this.#entries.has(id) && !isAwaited ? id : null);
  }

  #runsElsewhere(id) {
    if (this.#elsewhere === id) return;
    this.#elsewhere = id;
    this.#touch();
  }

  /** A message continues `parent`: drop the messages shown after `parent`, which are of another branch. Returns the
   * message that was in its place, if any. `known`: all earlier messages have been received. */
  #goOnFrom(parent, { known }) {
    if (parent === undefined) return undefined;
    this.#branched = true;
    const ids = [...this.#entries.keys()];
    const index = ids.indexOf(parent);
    if (parent !== this.#previous && index === -1) {
      if (known) this.stale = true;
      return undefined;
    }
    const [replaced] = ids.slice(index + 1).map((id) => this.#entries.get(id).message);
    for (const id of ids.slice(index + 1)) this.#entries.delete(id);
    this.#touch();
    return replaced?.role === "user" ? replaced : undefined;
  }

  #onChunk(event) {
    const entry = this.#answerOf(event);
    const end = event.offset + codePoints(event.content);
    if (!entry || !entry.message.streaming || end <= entry.length) return false;
    // After a gap (a foreign cursor, `clear`), text is missing until `llm_complete` brings the whole text.
    const more = withoutFirst(event.content, Math.max(0, entry.length - event.offset));
    const content = event.offset === 0 ? event.content : entry.message.content + more;
    const parts = entry.message.parts && longer(entry.message.parts, "text", more);
    this.#change(entry, { content, parts, timestamp: event.timestamp }, end);
    return true;
  }

  #onReasoning({ offset, content, timestamp, ...about }) {
    const entry = this.#answerOf({ ...about, timestamp });
    if (!entry || !entry.message.streaming) return false;
    const { content: said } = entry.message;
    const known = entry.message.parts ?? (said === "" ? [] : [{ type: "text", text: said }]);
    // A connection without a cursor repeats the answer from its beginning; match the part by how it begins.
    const again = (part) => part.type === "reasoning" && (part.text.startsWith(content) || content.startsWith(part.text));
    const index = offset === 0 ? known.findLastIndex(again) : known.findLastIndex(({ type }) => type === "reasoning");
    const before = known[index]?.text ?? "";
    const more = withoutFirst(content, Math.max(0, codePoints(before) - offset));
    if (more === "") return false;
    const parts =
      index === -1
        ? [...known, { type: "reasoning", text: more }]
        : known.map((part, place) => (place === index ? { type: "reasoning", text: before + more } : part));
    this.#change(entry, { parts, timestamp });
    return true;
  }

  #onData({ kind, id, data, timestamp, ...about }) {
    const entry = this.#answerOf({ ...about, timestamp });
    if (!entry || !entry.message.streaming) return false;
    const { content: said } = entry.message;
    const known = entry.message.parts ?? (said === "" ? [] : [{ type: "text", text: said }]);
    const index = known.findIndex((part) => part.type === "data" && part.kind === kind && part.id === id);
    const part = { type: "data", kind, id, data };
    if (index !== -1 && JSON.stringify(known[index].data) === JSON.stringify(data)) return false;
    const parts = index === -1 ? [...known, part] : known.map((one, place) => (place === index ? part : one));
    this.#change(entry, { parts, timestamp });
    return true;
  }

  /** An event of a tool call: a piece of its arguments, its state, or its result. */
  #onTool({ type, toolCallId, name, arguments: given, timestamp, messageId, replyTo, attempt, ...facts }) {
    const entry = this.#answerOf({ messageId, replyTo, attempt, timestamp });
    if (!entry || !entry.message.streaming) return false;
    const { content: said } = entry.message;
    const known = entry.message.parts ?? (said === "" ? [] : [{ type: "text", text: said }]);
    const before = known.find((part) => part.toolCallId === toolCallId);
    const now = before ?? { type: "tool_call", toolCallId, name, arguments: "", state: null };
    if (type === "tool_call" && now.state !== null) return false; // a repeated event
    const after = changed(now, type, given, facts);
    if (before && JSON.stringify(before) === JSON.stringify(after)) return false;
    const parts = before ? known.map((part) => (part === before ? after : part)) : [...known, after];
    this.#change(entry, { parts, status: parts.some(waits) ? "waiting" : "streaming", timestamp });
    return true;
  }

  /** Apply the server's response to a decision on a tool call. */
  decided({ messageId, toolCallId, state, expiresAt, decidedBy, message, question, output, failed, truncated }) {
    const entry = this.#entries.get(messageId);
    if (!entry?.message.streaming || !entry.message.parts) return;
    const facts = Object.fromEntries(
      Object.entries({ state, expiresAt, decidedBy, message, question, output, failed, truncated }).filter(
        ([, fact]) => fact !== undefined,
      ),
    );
    const parts = entry.message.parts.map((part) =>
      part.toolCallId === toolCallId && waits(part) ? { ...withoutQuestion(part), ...facts } : part,
    );
    this.#change(entry, { parts, status: parts.some(waits) ? "waiting" : "streaming" });
  }

  /** A connection without a cursor repeats the answer from its beginning, with all pieces of arguments. */
  #forgetPieces() {
    for (const entry of this.#entries.values()) {
      if (!entry.message.streaming || !entry.message.parts) continue;
      const parts = entry.message.parts.map((part) =>
        part.type === "tool_call" && part.state === null ? { ...part, arguments: "" } : part,
      );
      this.#change(entry, { parts });
    }
  }

  #onContextTrimmed({ dropped, timestamp, ...about }) {
    const entry = this.#answerOf({ ...about, timestamp });
    if (!entry || entry.message.contextTrimmed) return false;
    this.#change(entry, { contextTrimmed: { dropped }, timestamp });
    return true;
  }

  #onComplete(event) {
    const entry = this.#answerOf(event);
    if (!entry) {
      if (this.#elsewhere === event.messageId) this.#runsElsewhere(null);
      return false;
    }
    this.#completed = event.messageId;
    if (entry.ended) return false;
    const { content, status, finishReason, usage, parts, timestamp, model = entry.message.model } = event;
    this.#change(entry, { content, status, finishReason, usage, parts, timestamp, model }, codePoints(content));
    entry.ended = true;
    return true;
  }

  #onSystem({ kind, id, message, metadata }) {
    const entry = this.#entries.get(this.#completed);
    if (!entry) return true;
    // Without a kind it is a recommendation, the only kind in the protocol's first version.
    const name = kind === undefined ? "recommendations" : "annotations";
    const found = kind === undefined ? metadata : { kind, id, message, data: metadata };
    const known = entry.message[name] ?? [];
    if (known.some((one) => JSON.stringify(one) === JSON.stringify(found))) return false;
    this.#change(entry, { [name]: [...known, found] });
    return true;
  }

  #onError({ messageId, timestamp, error: code, message, retryable, requestId, retryAfterMs }) {
    if (messageId === this.#elsewhere && this.busyElsewhere) {
      this.#runsElsewhere(null);
      return false;
    }
    let entry = this.#entries.get(messageId);
    if (!entry) {
      // The answer failed before its first word. The event does not name its question: take the newest one.
      const replyTo = this.messages.findLast(({ role }) => role === "user")?.id ?? null;
      const attempt = 1 + (this.messages.findLast((one) => one.replyTo === replyTo)?.attempt ?? 0);
      entry = this.#answerOf({ messageId, replyTo, attempt, timestamp });
    }
    if (entry.message.error) return false;
    const status = code === "answer_interrupted" ? "interrupted" : "failed";
    const later = retryAfterMs ? { retryAfterMs } : {};
    this.#change(entry, { status, timestamp, error: { error: code, message, retryable, requestId, ...later } });
    this.#completed = messageId;
    return true;
  }

  /** The entry of an event's answer, created if missing; null if it is on another branch, or if a newer attempt is shown. */
  #answerOf({ messageId: id, replyTo, attempt, timestamp }) {
    const known = this.#entries.get(id);
    if (known) return known;
    const isShown = this.#looks ? replyTo === this.messages.at(-1)?.id : this.#entries.has(replyTo);
    const chosen = this.#answerTo(replyTo); // a history that knows a newer attempt, and has this one, was asked for this one
    if ((this.#branched && replyTo && !isShown) || (chosen?.siblings?.includes(id) && chosen.attempt < attempt)) {
      this.#runsElsewhere(id);
      return null; // it is of another branch
    }
    const older = this.#supersede(replyTo, attempt);
    if (older === false) return null;
    const place = besides(older, id);
    return this.#put(answer({ id, content: "", status: "streaming", attempt, replyTo, recommendations: [], timestamp, ...place }));
  }

  /** The shown answer to the user message `id`. */
  #answerTo(id) {
    return id ? this.messages.find((one) => one.role === "assistant" && one.replyTo === id) : undefined;
  }

  /** Remove an older attempt at `replyTo` for a new one; returns the older one, or false if a newer one is shown. */
  #supersede(replyTo, attempt) {
    const older = this.#answerTo(replyTo);
    if (!older) return undefined;
    if (older.attempt > attempt) return false;
    this.#entries.delete(older.id);
    return older;
  }

  #put(message, { length = 0, placed = true, loaded = false } = {}) {
    const entry = { message, length, placed, loaded, ended: message.role === "assistant" && !message.streaming };
    this.#entries.set(message.id, entry);
    if (this.#entries.size > this.#limit) {
      this.#previous = this.#entries.keys().next().value;
      this.#entries.delete(this.#previous);
    }
    this.#touch();
    return entry;
  }

  #change(entry, changes, length = entry.length) {
    entry.message = answer({ ...entry.message, ...changes });
    entry.length = length;
    this.#touch();
  }
}

function answer({ id, finishReason = null, usage = null, error = null, parts, rating, model, ...rest }) {
  const streaming = rest.status === "streaming" || rest.status === "waiting";
  const more = { ...(parts && { parts }), ...(rating && { rating }), ...(model && { model }) };
  return { id, role: "assistant", ...rest, streaming, finishReason, usage, error, ...more };
}

/** The siblings of a message that replaces another one. */
function besides(other, id) {
  if (!other || other.id === id) return {};
  const known = other.siblings ?? [other.id];
  return { siblings: known.includes(id) ? known : [...known, id] };
}

const STATES = ["awaiting_approval", "awaiting_client", "awaiting_input"];

/** Whether a tool call waits for a decision, an answer of the user or a result of the client. */
function waits({ type, state }) {
  return type === "tool_call" && STATES.includes(state);
}

/** The tool call with the changes of another event. */
function changed(part, type, given, facts) {
  if (type === "tool_call") return { ...part, arguments: part.arguments + given };
  if (type === "tool_state") {
    const { message, ...before } = withoutQuestion(part); // a `message` holds for one state only
    return { ...before, ...facts, arguments: given ?? part.arguments };
  }
  const { output, failed, truncated, because } = facts;
  const state = because ?? (["denied", "expired"].includes(part.state) ? part.state : "done");
  const { message, ...before } = withoutQuestion(part);
  const why = state === "done" || message === undefined ? {} : { message };
  return { ...before, ...why, state, output, failed, ...(truncated && { truncated }) };
}

function withoutQuestion({ question, ...part }) {
  return part;
}

/** The parts, with text of a type appended. */
function longer(parts, type, more) {
  const last = parts.at(-1);
  if (last?.type !== type) return [...parts, { type, text: more }];
  return [...parts.slice(0, -1), { type, text: last.text + more }];
}

/** Unicode code points, as the server counts; a string's length counts the larger ones twice. */
export function codePoints(text) {
  let pairs = 0;
  for (let i = 0; i < text.length; i++) if (text.codePointAt(i) > 0xffff) pairs++;
  return text.length - pairs;
}

function withoutFirst(text, count) {
  let index = 0;
  while (count-- > 0 && index < text.length) index += text.codePointAt(index) > 0xffff ? 2 : 1;
  return text.slice(index);
}
