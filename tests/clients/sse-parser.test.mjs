// The parser, by the list of the web platform's own tests (eventsource/format-*, event-data and their like).
import assert from "node:assert/strict";
import { test } from "node:test";

import { SSEParser } from "./node_modules/chatstream/client/sse-parser.js";

const bytes = (text) => new TextEncoder().encode(text);

function parse(...pieces) {
  const parser = new SSEParser();
  return { events: pieces.flatMap((piece) => parser.push(piece)), retry: parser.retry };
}

const message = (data, id = "") => ({ type: "message", data, id });

const CASES = {
  "an event": ["data: msg\n\n", [message("msg")]],
  "lines are joined by LF": ["data:\ndata: one\ndata\n\n", [message("\none\n")]],
  "a field without a value is an event with empty data": ["data\n\ndata:\n\n", [message(""), message("")]],
  "no data, no event": ["event: test\n\n: comment\n\n\n\n", []],
  "CRLF, CR and LF end lines": ["data:1\r\rdata:2\r\n\r\ndata:3\n\ndata:4\r\n\rdata:5\n\r", [1, 2, 3, 4, 5].map((n) => message(`${n}`))],
  "a CRLF is one end of line": ["data: 1\r\ndata: 2\r\n\r\n", [message("1\n2")]],
  "one byte order mark is taken away": ["\uFEFFdata: 1\n\n", [message("1")]],
  "of two only the first": ["\uFEFF\uFEFFdata: 1\n\ndata: 2\n\n", [message("2")]],
  "and none later": ["data: 1\n\n\uFEFFdata: 2\n\ndata: 3\n\n", [message("1"), message("3")]],
  "one space is taken away": ["data: 1\ndata:  2\ndata:3\ndata:\t4\n\n", [message("1\n 2\n3\n\t4")]],
  "unknown fields and comments": [":data: 0\ndata:1\n data: 2\nDATA: 3\ndata : 4\nx\n:\n\n", [message("1")]],
  "an event's type, once": ["event: a\ndata: 1\n\ndata: 2\n\nevent: b\nevent:\ndata: 3\n\n", [
    { type: "a", data: "1", id: "" }, message("2"), message("3")]],
  "an id stays": ["id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\n", [message("a", "1"), message("b", "1"), message("c", "2")]],
  "an id without data counts": ["id: 1\n\ndata: a\n\n", [message("a", "1")]],
  "an empty id resets": ["id: 1\ndata: a\n\nid\ndata: b\n\n", [message("a", "1"), message("b")]],
  "an id with NUL is none": ["id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n", [message("a", "1"), message("b", "1")]],
  "NUL in data is data": ["data:\0\n\n", [message("\0")]],
  "what has no end is no event": ["data: 1\n\ndata: 2\n", [message("1")]],
  "letters of two, three and four bytes": ["data: ä€😀\n\n", [message("ä€😀")]],
};

for (const [name, [text, events]] of Object.entries(CASES)) {
  test(name, () => {
    const whole = bytes(text);
    assert.deepEqual(parse(whole).events, events, "in one piece");
    assert.deepEqual(parse(...Array.from(whole, (byte) => Uint8Array.of(byte))).events, events, "byte by byte");
    for (let cut = 0; cut <= whole.length; cut++) {
      assert.deepEqual(parse(whole.subarray(0, cut), whole.subarray(cut)).events, events, `cut at ${cut}`);
    }
  });
}

test("retry is digits, and needs no data", () => {
  assert.equal(parse(bytes("retry: 1500\n\n")).retry, 1500);
  assert.equal(parse(bytes("retry:7\ndata: 1\n\n")).retry, 7);
  for (const bad of ["retry: 1.5", "retry: -1", "retry: 1s", "retry:", "retry: 0x10", "retry"]) {
    assert.equal(parse(bytes(`${bad}\n\n`)).retry, undefined, bad);
  }
});

test("bytes that are not UTF-8 cost no more than themselves", () => {
  assert.deepEqual(parse(bytes("data: a"), Uint8Array.of(0xff), bytes("b\n\n")).events, [message("a\uFFFDb")]);
});

test("an event without an end is not kept for ever", () => {
  const parser = new SSEParser();
  const megabyte = bytes("x".repeat(1_000_000));
  assert.throws(() => {
    for (let i = 0; i <= 20; i++) parser.push(megabyte);
  }, RangeError);
  assert.throws(() => {
    const lines = bytes(`data: ${"x".repeat(1_000_000)}\n`);
    for (let i = 0; i <= 20; i++) parser.push(lines);
  }, RangeError);
});
