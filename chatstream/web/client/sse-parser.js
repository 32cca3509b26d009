/**
 * Parses Server-Sent Events (HTML standard, section 9.2.6) from bytes in chunks that may end anywhere.
 */

// The longest event. An answer has at most 3,000,000 characters, each at worst six in JSON (\u0000), plus the envelope.
const MAX_CHARACTERS = 20_000_000;

export class SSEParser {
  /** Milliseconds, from the last `retry:` line. */
  retry = undefined;
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true }); // else it would remove a second BOM as well
  #line = ""; // the incomplete last line
  #afterCR = false; // a CR was last: skip an LF that follows
  #begun = false;
  #data = "";
  #type = "";
  #id = ""; // the last `id:`; it also holds for later frames without one

  /**
   * Add bytes; returns the events that they complete. An event without its final blank line is dropped.
   * @param {Uint8Array} bytes
   * @returns {{type: string, data: string, id: string}[]}
   * @throws {RangeError} when an event is longer than any server would send
   */
  push(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === "") return [];
    if (!this.#begun && text[0] === "\uFEFF") text = text.slice(1);
    this.#begun = true;
    let start = this.#afterCR && text[0] === "\n" ? 1 : 0;
    this.#afterCR = text.endsWith("\r");
    const events = [];
    const lineEnd = /\r\n|\r|\n/g;
    lineEnd.lastIndex = start;
    for (let match; (match = lineEnd.exec(text)); start = lineEnd.lastIndex) {
      this.#take(this.#line + text.slice(start, match.index), events);
      this.#line = "";
    }
    this.#line += text.slice(start);
    if (this.#line.length + this.#data.length > MAX_CHARACTERS) throw new RangeError("An event is too long.");
    return events;
  }

  #take(line, events) {
    if (line === "") {
      if (this.#data !== "") {
        events.push({ type: this.#type || "message", data: this.#data.slice(0, -1), id: this.#id });
      }
      this.#data = this.#type = "";
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "data") this.#data += value + "\n";
    else if (field === "event") this.#type = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^[0-9]+$/.test(value)) this.retry = Number(value);
  }
}
