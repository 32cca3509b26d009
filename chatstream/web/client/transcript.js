/**
 * What a conversation looks like, put together from its history and its events. Exact whatever comes twice or late: text
 * by the code points before it, answers by their attempt, messages and recommendations by their id. What a model thinks
 * is in `parts`, which an answer has where there is more than text in it.
 */

export class Transcript {
  // By id, in the order of the conversation. Each has the message as it is shown (replaced, never changed), the code
  // points of its text so far, and whether its place is the server's (`placed`) or only ours, until its event comes.
  #entries = new Map();
  #shown = null;
  #completed = null; // the answer to which the next recommendation belongs
  #limit;

  /** @param {number} limit how many messages are kept; the oldest go first */
  constructor(limit) {
    this.#limit = limit;
  }

  /** The messages, oldest first. The same array until something changes. */
  get messages() {
    return (this.#shown ??= Object.freeze(Array.from(this.#entries.values(), (entry) => entry.message)));
  }

  clear() {
    this.#entries.clear();
    this.#shown = this.#completed = null;
  }

  /** Show messages as the REST API describes them, and nothing else; or put them before what is shown. */
  load(views, { before = false } = {}) {
    const after = before ? [...this.#entries] : [];
    const completed = before ? this.#completed : null;
    this.clear();
    for (const view of views) this.add(view, { placed: true });
    for (const [id, entry] of after) {
      if (entry.message.role === "assistant") this.#supersede(entry.message.replyTo, entry.message.attempt);
      this.#entries.set(id, entry);
    }
    this.#shown = null;
    this.#completed = completed ?? this.#completed;
  }

  /** Add one message as the REST API describes it; false if it is there already. */
  add(view, { placed = false } = {}) {
    if (this.#entries.has(view.id)) return false;
    if (view.role === "user") {
      this.#put({ id: view.id, role: "user", content: view.content, timestamp: view.createdAt }, { placed });
      return true;
    }
    if (!this.#supersede(view.replyTo, view.attempt)) return false;
    const { id, content, status, attempt, replyTo, finishReason, usage, error, parts, model, createdAt: timestamp } = view;
    const recommendations = [...view.recommendations];
    this.#put(
      answer({ id, content, status, attempt, replyTo, finishReason, usage, error, recommendations, timestamp, parts, model }),
      { length: codePoints(content) },
    );
    if (status !== "streaming") this.#completed = id;
    return true;
  }

  /** Take in an event of the stream; false if it said nothing new. */
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
      case "llm_complete":
        return this.#onComplete(event);
      case "system":
        return this.#onSystem(event);
      case "error":
        return event.messageId === null || this.#onError(event);
      default:
        return true;
    }
  }

  #onUserMessage({ messageId: id, content, timestamp }) {
    const known = this.#entries.get(id);
    if (known?.placed) return false;
    this.#entries.delete(id); // its place is here: after what was said before it, elsewhere perhaps
    this.#put(known?.message ?? { id, role: "user", content, timestamp });
    return true;
  }

  #onChunk(event) {
    const entry = this.#answerOf(event);
    const end = event.offset + codePoints(event.content);
    if (!entry || !entry.message.streaming || end <= entry.length) return false;
    // Past a gap (a cursor from elsewhere, `clear`) the text goes on without what is missing, up to `llm_complete`.
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
    // Told from its beginning again, after a connection without a cursor, it is the part that begins in the same way.
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

  #onComplete(event) {
    const entry = this.#answerOf(event);
    if (!entry) return false;
    this.#completed = event.messageId;
    if (entry.ended) return false;
    const { content, status, finishReason, usage, parts, timestamp } = event;
    this.#change(entry, { content, status, finishReason, usage, parts, timestamp }, codePoints(content));
    entry.ended = true;
    return true;
  }

  #onSystem({ metadata }) {
    const entry = this.#entries.get(this.#completed);
    if (!entry || metadata.betId === undefined) return true; // a plug-in's own data is for those who listen for it
    const { recommendations } = entry.message;
    if (recommendations.some(({ betId }) => betId === metadata.betId)) return false;
    this.#change(entry, { recommendations: [...recommendations, metadata] });
    return true;
  }

  #onError({ messageId, timestamp, error: code, message, retryable, requestId }) {
    let entry = this.#entries.get(messageId);
    if (!entry) {
      // It ended before its first word. Which question it answered is not said: the newest, in the order of the log.
      const replyTo = this.messages.findLast(({ role }) => role === "user")?.id ?? null;
      const attempt = 1 + (this.messages.findLast((one) => one.replyTo === replyTo)?.attempt ?? 0);
      entry = this.#answerOf({ messageId, replyTo, attempt, timestamp });
    }
    if (entry.message.error) return false;
    const status = code === "answer_interrupted" ? "interrupted" : "failed";
    this.#change(entry, { status, error: { error: code, message, retryable, requestId } });
    this.#completed = messageId;
    return true;
  }

  /** The entry of an event's answer, made if need be; null if a newer attempt has taken its place. */
  #answerOf({ messageId: id, replyTo, attempt, timestamp }) {
    const known = this.#entries.get(id);
    if (known) return known;
    if (!this.#supersede(replyTo, attempt)) return null;
    return this.#put(answer({ id, content: "", status: "streaming", attempt, replyTo, recommendations: [], timestamp }));
  }

  /** Make room for an attempt at answering `replyTo`; false if a newer one is shown. */
  #supersede(replyTo, attempt) {
    const older = replyTo && this.messages.find((one) => one.role === "assistant" && one.replyTo === replyTo);
    if (!older) return true;
    if (older.attempt > attempt) return false;
    this.#entries.delete(older.id);
    return true;
  }

  #put(message, { length = 0, placed = true } = {}) {
    const entry = { message, length, placed, ended: message.role === "assistant" && !message.streaming };
    this.#entries.set(message.id, entry);
    if (this.#entries.size > this.#limit) this.#entries.delete(this.#entries.keys().next().value);
    this.#shown = null;
    return entry;
  }

  #change(entry, changes, length = entry.length) {
    entry.message = answer({ ...entry.message, ...changes });
    entry.length = length;
    this.#shown = null;
  }
}

function answer({ id, finishReason = null, usage = null, error = null, parts, model, ...rest }) {
  const streaming = rest.status === "streaming";
  return { id, role: "assistant", ...rest, streaming, finishReason, usage, error, ...(parts && { parts }), ...(model && { model }) };
}

/** The parts with more text of a type at their end. */
function longer(parts, type, more) {
  const last = parts.at(-1);
  if (last?.type !== type) return [...parts, { type, text: more }];
  return [...parts.slice(0, -1), { type, text: last.text + more }];
}

/** Unicode code points, as the server counts; a string's length counts the larger ones twice. */
function codePoints(text) {
  let pairs = 0;
  for (let i = 0; i < text.length; i++) if (text.codePointAt(i) > 0xffff) pairs++;
  return text.length - pairs;
}

function withoutFirst(text, count) {
  let index = 0;
  while (count-- > 0 && index < text.length) index += text.codePointAt(index) > 0xffff ? 2 : 1;
  return text.slice(index);
}
