/**
 * Restores whole events from lean ones. With `?frames=lean` a chunk leaves out the fields that follow from the chunk
 * before it, two thirds of its bytes; a server that does not know the parameter sends whole chunks. See "Lean frames"
 * in the server's documentation.
 */

import { codePoints } from "./transcript.js";

const CHUNKS = ["llm_chunk", "reasoning_chunk"];
// A cursor inside an answer: the answer's id and a position. Behind any other cursor, an answer begins with a whole chunk.
const INSIDE = /^(.+)\.[0-9]+$/;

export class LeanFrames {
  #last = null; // the last chunk, whole

  /** The history was loaded: the next chunk continues that. */
  forget() {
    this.#last = null;
  }

  /** Whether lean frames can be requested for the stream after `cursor`: if its first chunk continues a message, that
   * message must be known. */
  canFollow(cursor, messages) {
    const [, id] = INSIDE.exec(cursor ?? "") ?? [];
    return id === undefined || id === this.#last?.messageId || messages.some((message) => message.id === id);
  }

  /** The event with all of its fields; null if it continues an unknown message. `id`: its frame's; `messages`: those
   * known so far. A lean chunk has the time of the chunk before it. */
  whole(event, id, messages) {
    if (!CHUNKS.includes(event.type)) return event;
    if (event.messageId !== undefined) return (this.#last = event);
    const messageId = INSIDE.exec(id)?.[1] ?? this.#last?.messageId;
    const before = this.#last?.messageId === messageId ? this.#last : loaded(event.type, messageId, messages);
    if (!before) return null;
    this.#last = { ...before, ...event, offset: before.offset + codePoints(before.content) };
    return this.#last;
  }
}

/** The text of a loaded message that a chunk of this type continues, as if it had come in one chunk. */
function loaded(type, messageId, messages) {
  const message = messages.find(({ id }) => id === messageId);
  if (!message) return null;
  const { replyTo, attempt, timestamp } = message;
  const content = type === "llm_chunk" ? message.content : (message.parts?.findLast((part) => part.type === "reasoning")?.text ?? "");
  return { timestamp, content, messageId, replyTo, attempt, offset: 0 };
}
