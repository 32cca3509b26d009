// The transcript of a conversation, with repeated, late or cut events.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Transcript } from "./node_modules/chatstream/client/transcript.js";

const timestamp = "2026-11-22T10:40:00.123Z";
const asked = (messageId, content = messageId) => ({ type: "user_message", timestamp, messageId, content });
const chunk = (offset, content, about = {}) => ({
  type: "llm_chunk", timestamp, messageId: "a1", replyTo: "u1", attempt: 1, offset, content, ...about,
});
const data = (id, value) => ({ type: "data", timestamp, messageId: "a1", replyTo: "u1", attempt: 1, kind: "odds_update", id, data: value });
const complete = (content, about = {}) => ({
  type: "llm_complete", timestamp, messageId: "a1", replyTo: "u1", attempt: 1, content,
  status: "complete", finishReason: "stop", usage: null, ...about,
});
const failed = (messageId, code = "upstream_timeout") => ({
  type: "error", timestamp, messageId, error: code, message: "No.", retryable: true, requestId: "r", retryAfterMs: null,
});
const bet = (betId) => ({ type: "system", timestamp, message: "…", metadata: { betId, odds: 2.1, oddsText: "2.10" } });
const stored = (id, content, about = {}) => ({
  id, role: "assistant", content, createdAt: timestamp, replyTo: "u1", attempt: 1, status: "complete",
  finishReason: "stop", usage: null, error: null, recommendations: [], ...about,
});
const posted = (id) => ({ id, role: "user", content: id, createdAt: timestamp });

function after(...events) {
  const transcript = new Transcript(100);
  const news = events.map((event) => transcript.apply(event));
  return { transcript, news, shown: transcript.messages.map(({ id, content, status }) => [id, content, status]) };
}

test("an answer grows, and is what its end says", () => {
  const { transcript, news } = after(asked("u1", "Who?"), chunk(0, "Arse"), chunk(4, "nal"), complete("Arsenal."), bet("b1"));
  assert.deepEqual(news, [true, true, true, true, true]);
  assert.deepEqual(transcript.messages, [
    { id: "u1", role: "user", content: "Who?", timestamp },
    {
      id: "a1", role: "assistant", content: "Arsenal.", status: "complete", streaming: false, attempt: 1, replyTo: "u1",
      finishReason: "stop", usage: null, error: null, recommendations: [bet("b1").metadata], timestamp,
    },
  ]);
});

test("data stands where it was told, is replaced there, and is known when it comes again", () => {
  const all = [asked("u1"), chunk(0, "Hel"), data("m1", 2.1), chunk(3, "lo"), data("m1", 2.2), chunk(5, "!"), data("m2", 0)];
  const { transcript, news } = after(...all, chunk(0, "Hel"), chunk(3, "lo!"), data("m2", 0));
  assert.deepEqual(news.slice(-3), [false, false, false]);
  const part = (id, value) => ({ type: "data", kind: "odds_update", id, data: value });
  const parts = [{ type: "text", text: "Hel" }, part("m1", 2.2), { type: "text", text: "lo!" }, part("m2", 0)];
  assert.deepEqual(transcript.messages.at(-1).parts, parts);
  assert.equal(transcript.messages.at(-1).content, "Hello!");
  assert.equal(transcript.apply(complete("Hello!", { parts })), true);
  assert.equal(transcript.apply(data("m1", 3)), false);
  assert.deepEqual(transcript.messages.at(-1).parts, parts);
});

test("data may be all that there is so far", () => {
  const { transcript } = after(asked("u1"), data("m1", { odds: 2 }));
  const { content, parts, streaming } = transcript.messages.at(-1);
  assert.deepEqual([content, parts.length, streaming], ["", 1, true]);
});

test("what a plug-in found besides is no recommendation", () => {
  const about = { kind: "ticket", id: "t1", message: "A ticket was opened" };
  const found = { type: "system", timestamp, ...about, metadata: { ticket: 7 } };
  const { transcript, news } = after(asked("u1"), chunk(0, "Hi"), complete("Hi"), bet("b1"), found, found);
  const { recommendations, annotations } = transcript.messages.at(-1);
  assert.deepEqual(recommendations, [bet("b1").metadata]);
  assert.deepEqual(annotations, [{ ...about, data: { ticket: 7 } }]);
  assert.deepEqual(news.slice(-2), [true, false]);
  transcript.load([posted("u1"), stored("a1", "Hi", { annotations })]);
  assert.deepEqual(transcript.messages.at(-1).annotations, annotations);
  assert.equal(transcript.apply(found), false);
});

test("what comes twice is shown once", () => {
  const events = [asked("u1"), chunk(0, "Arse"), chunk(4, "nal"), complete("Arsenal"), bet("b1"), bet("b2")];
  const { transcript } = after(...events);
  const { messages } = transcript;
  assert.deepEqual(events.map((event) => transcript.apply(event)), events.map(() => false));
  assert.deepEqual(transcript.messages, messages);
});

test("text is joined by code points, wherever it was cut", () => {
  const text = "a😀b👨‍👩‍👧ä🏴c";
  const points = Array.from(text);
  for (let seen = 0; seen <= points.length; seen++) {
    for (let from = 0; from <= seen; from++) {
      const events = [chunk(0, points.slice(0, seen).join("")), chunk(from, points.slice(from).join(""))];
      const { transcript } = after(...events.filter(({ content }) => content));
      assert.equal(transcript.messages[0].content, text, `seen ${seen}, again from ${from}`);
    }
  }
});

test("a gap is closed by what comes from the beginning, at the latest by the end", () => {
  const { transcript, shown } = after(chunk(4, "nal"));
  assert.deepEqual(shown, [["a1", "nal", "streaming"]]);
  transcript.apply(chunk(0, "Arsenal,"));
  assert.equal(transcript.messages[0].content, "Arsenal,");
  assert.deepEqual(after(chunk(4, "nal"), complete("Arsenal")).shown, [["a1", "Arsenal", "complete"]]);
});

test("an answer that ended shorter than what another process had said stays as it ended", () => {
  const { transcript, shown } = after(chunk(0, "Arsenal, I"), complete("Arsenal"), chunk(10, " guess"));
  assert.deepEqual(shown, [["a1", "Arsenal", "complete"]]);
  assert.equal(transcript.apply(chunk(7, ", I guess")), false);
});

test("the newest attempt is shown, and an older one cannot come back", () => {
  const second = { messageId: "a2", attempt: 2 };
  const { transcript, shown } = after(
    asked("u1"), chunk(0, "First"), failed("a1"), complete("First", { status: "failed" }), chunk(0, "Second", second),
  );
  assert.deepEqual(shown, [["u1", "u1", undefined], ["a2", "Second", "streaming"]]);
  assert.equal(transcript.apply(chunk(5, ", again")), false);
  assert.equal(transcript.apply(complete("First")), false);
  assert.deepEqual(transcript.messages.map(({ id }) => id), ["u1", "a2"]);
});

test("an answer that ends before its first word is shown with its error", () => {
  const { transcript } = after(asked("u1"), failed("a1"));
  const { status, replyTo, error, streaming } = transcript.messages[1];
  assert.deepEqual([status, replyTo, streaming], ["failed", "u1", false]);
  assert.deepEqual(error, { error: "upstream_timeout", message: "No.", retryable: true, requestId: "r" });
  transcript.apply(failed("a2", "answer_interrupted"));
  assert.deepEqual(transcript.messages.slice(1).map(({ id, status }) => [id, status]), [["a2", "interrupted"]]);
  assert.equal(transcript.apply(failed("a2", "answer_interrupted")), false);
  transcript.apply(chunk(0, "Better", { messageId: "a3", attempt: 3 }));
  assert.deepEqual(transcript.messages.slice(1).map(({ id, error }) => [id, error]), [["a3", null]]);
});

test("a message is where the server has it, also if we knew it before", () => {
  const { transcript } = after(asked("u1"), chunk(0, "One"));
  assert.equal(transcript.add(posted("u3")), true, "sent from here, while the answer runs");
  assert.deepEqual(transcript.messages.map(({ id }) => id), ["u1", "a1", "u3"]);
  transcript.apply(complete("One"));
  transcript.apply(asked("u2")); // another device was first
  assert.equal(transcript.apply(asked("u3")), true);
  assert.deepEqual(transcript.messages.map(({ id }) => id), ["u1", "a1", "u2", "u3"]);
  assert.equal(transcript.apply(asked("u3")), false);
  assert.equal(transcript.add(posted("u3")), false);
});

test("history, and the stream that joins it", () => {
  const transcript = new Transcript(100);
  transcript.load([posted("u1"), stored("a1", "Ars😀", { status: "streaming" })]);
  transcript.apply(chunk(4, "enal"));
  assert.equal(transcript.messages[1].content, "Ars😀enal");
  transcript.load([posted("u1"), stored("a1", "Old"), stored("a2", "New", { attempt: 2 }), posted("u2")]);
  assert.deepEqual(transcript.messages.map(({ content }) => content), ["u1", "New", "u2"]);
  assert.equal(transcript.apply(complete("New", { messageId: "a2", attempt: 2 })), false);
});

test("an earlier page is put before, without what has a newer attempt", () => {
  const transcript = new Transcript(100);
  transcript.load([stored("a2", "New", { attempt: 2 }), posted("u2")]);
  transcript.load([posted("u1"), stored("a1", "Old")], { before: true });
  assert.deepEqual(transcript.messages.map(({ id }) => id), ["u1", "a2", "u2"]);
});

test("the same array until something changes, and never a changed message", () => {
  const { transcript } = after(asked("u1"), chunk(0, "One"));
  const before = transcript.messages;
  transcript.apply({ type: "heartbeat", timestamp });
  transcript.apply(chunk(0, "One"));
  assert.equal(transcript.messages, before);
  transcript.apply(chunk(3, " two"));
  assert.equal(before[1].content, "One");
  assert.notEqual(transcript.messages, before);
  assert.equal(transcript.messages[0], before[0]);
});

test("only so many messages are kept", () => {
  const transcript = new Transcript(3);
  for (let i = 0; i < 10; i++) transcript.apply(asked(`u${i}`));
  assert.deepEqual(transcript.messages.map(({ id }) => id), ["u7", "u8", "u9"]);
});

const thought = (offset, content, about = {}) => ({ ...chunk(offset, content, about), type: "reasoning_chunk" });
const REASONING = { type: "reasoning", text: "Hm 👩‍👩‍👧." };
const HI = { type: "text", text: "Hi" };

test("what a model thinks is a part of its own, and no text", () => {
  const { transcript } = after(asked("u1"), thought(0, "Hm "), thought(3, "👩‍👩‍👧."));
  assert.deepEqual(transcript.messages.at(-1).parts, [REASONING]);
  assert.equal(transcript.messages.at(-1).content, "");
  transcript.apply(chunk(0, "H"));
  transcript.apply(chunk(1, "i"));
  assert.deepEqual(transcript.messages.at(-1).parts, [REASONING, HI]);
  assert.equal(transcript.messages.at(-1).content, "Hi");
  transcript.apply(complete("Hi", { parts: [REASONING, HI] }));
  assert.deepEqual(transcript.messages.at(-1).parts, [REASONING, HI]);
});

test("thoughts that come twice are shown once, wherever they were cut", () => {
  const points = Array.from(REASONING.text);
  for (let cut = 0; cut <= points.length; cut++) {
    const { transcript } = after(asked("u1"), thought(0, points.slice(0, cut).join("")));
    transcript.apply(thought(0, REASONING.text)); // without a cursor, from the beginning
    transcript.apply(thought(1, points.slice(1).join("")));
    assert.deepEqual(transcript.messages.at(-1).parts, [REASONING]);
  }
  const { transcript } = after(asked("u1"), thought(0, "Hm 👩‍👩‍👧."), chunk(0, "H"), thought(0, "Hm 👩‍👩‍👧."), chunk(0, "Hi"));
  assert.deepEqual(transcript.messages.at(-1).parts, [REASONING, HI]);
});

test("a history in mid-thought goes on", () => {
  const transcript = new Transcript(100);
  transcript.load([posted("u1"), stored("a1", "", { status: "streaming", parts: [{ type: "reasoning", text: "Hm " }] })]);
  transcript.apply(thought(3, "👩‍👩‍👧."));
  transcript.apply(chunk(0, "Hi"));
  assert.deepEqual(transcript.messages.at(-1).parts, [REASONING, HI]);
});

test("a second thought comes after the text before it", () => {
  const { transcript } = after(asked("u1"), thought(0, "Hm."), chunk(0, "Hi"), thought(0, "No."), chunk(2, "\n\nYes"));
  assert.deepEqual(transcript.messages.at(-1).parts.map(({ text }) => text), ["Hm.", "Hi", "No.", "\n\nYes"]);
  assert.equal(transcript.messages.at(-1).content, "Hi\n\nYes");
});

test("an answer that is text alone has no parts", () => {
  const { transcript } = after(asked("u1"), chunk(0, "Hi"), complete("Hi"));
  assert.equal("parts" in transcript.messages.at(-1), false);
});

// Branches -------------------------------------------------------------------------------------------------------------

const ids = (transcript) => transcript.messages.map(({ id }) => id);
const history = [posted("u1"), stored("a1", "One."), posted("u2"), stored("a2", "Two.", { replyTo: "u2" })];

test("a question that goes on from an earlier message takes the place of what was shown behind that", () => {
  const transcript = new Transcript(100);
  transcript.load(history);
  assert.equal(transcript.parentOf("u2"), "a1");
  assert.equal(transcript.parentOf("u1"), null);
  assert.equal(transcript.apply({ ...asked("u3"), parent: "a1" }), true);
  assert.deepEqual(ids(transcript), ["u1", "a1", "u3"]);
  assert.deepEqual(transcript.messages.at(-1).siblings, ["u2", "u3"]);
  assert.equal(transcript.apply(chunk(0, "Three.", { messageId: "a3", replyTo: "u3" })), true);
  assert.equal(transcript.apply({ ...asked("u4"), parent: null }), true);
  assert.deepEqual(ids(transcript), ["u4"]);
  assert.deepEqual(transcript.messages[0].siblings, ["u1", "u4"]);
  assert.equal(transcript.stale, false);
});

test("what belongs to a branch that is not shown is not shown", () => {
  const transcript = new Transcript(100);
  transcript.load(history, { branched: true });
  assert.equal(transcript.apply(chunk(0, "Elsewhere", { messageId: "a9", replyTo: "u9" })), false);
  assert.equal(transcript.apply(complete("Elsewhere.", { messageId: "a9", replyTo: "u9" })), false);
  assert.deepEqual(ids(transcript), ["u1", "a1", "u2", "a2"]);
  transcript.apply({ ...asked("u10"), parent: "a9" });
  assert.equal(transcript.stale, true); // the history knows
});

test("the versions of a queued question that the history does not show are not told again", () => {
  const shown = { ...posted("u4"), siblings: ["u2", "u3", "u4"] }; // u2 was queued before there were branches
  const load = (...views) => {
    const transcript = new Transcript(100);
    transcript.load([posted("u1"), stored("a1", "One.", { status: "streaming" }), ...views], { branched: true });
    return transcript;
  };
  const replayed = [asked("u2"), asked("u5"), { ...asked("u3"), parent: "a1" }, { ...asked("u4"), parent: "a1" }];
  const newest = load(shown);
  newest.apply(complete("One."));
  assert.deepEqual(replayed.map((event) => newest.apply(event)), [false, false, false, false]);
  assert.deepEqual(ids(newest), ["u1", "a1", "u4"]);
  const oldest = load({ ...shown, id: "u2" }, posted("u5"));
  replayed.forEach((event) => oldest.apply(event));
  assert.deepEqual(ids(oldest), ["u1", "a1", "u2", "u5"]);
  assert.deepEqual([newest.stale, oldest.stale], [false, false]);
  newest.apply({ ...asked("u6"), parent: "a1" }); // a new version
  assert.deepEqual(newest.messages.at(-1).siblings, ["u2", "u3", "u4", "u6"]);
  assert.equal(newest.parentOf("u2"), "a1");
});

test("an answer on another branch is what a question waits for", () => {
  const running = (id) => ({ type: "connected", timestamp, resumed: true, activeMessageId: id });
  const elsewhere = { messageId: "a9", replyTo: "u9" };
  const load = (...views) => {
    const transcript = new Transcript(100);
    transcript.load([...history, ...views], { branched: true });
    return transcript;
  };
  const transcript = load();
  transcript.apply(running("a9"));
  transcript.add({ ...posted("u3"), parent: "a2" });
  assert.deepEqual([transcript.busyElsewhere, transcript.queued], [true, true]);
  transcript.apply(failed("a9"));
  transcript.apply(complete("", { ...elsewhere, status: "failed" }));
  assert.deepEqual([transcript.busyElsewhere, ids(transcript).at(-1)], [false, "u3"]);
  transcript.apply(chunk(0, "Elsewhere", elsewhere));
  assert.equal(transcript.busyElsewhere, true);
  transcript.apply({ ...asked("u3"), parent: "a2" }); // it is asked
  assert.equal(transcript.busyElsewhere, false);
  transcript.apply(running("a3")); // nothing is known of this answer yet
  assert.equal(transcript.busyElsewhere, false);
  const later = load(posted("u3")); // loaded while it waits
  later.apply(running("a9"));
  assert.equal(later.busyElsewhere, true);
});

test("while a branch is looked at, only its continuation is added", () => {
  const transcript = new Transcript(100);
  transcript.load(history, { looks: true });
  const others = [asked("u7"), { ...asked("u8"), parent: "a1" }, chunk(0, "Again", { messageId: "b2", replyTo: "u2", attempt: 2 })];
  assert.deepEqual(others.map((event) => transcript.apply(event)), [false, false, false]);
  assert.deepEqual([ids(transcript), transcript.stale, transcript.looks], [["u1", "a1", "u2", "a2"], false, true]);
  transcript.apply({ ...asked("u3"), parent: "a2" });
  transcript.apply(chunk(0, "Three", { messageId: "a3", replyTo: "u3" }));
  assert.deepEqual([ids(transcript).slice(4), transcript.looks], [["u3", "a3"], false]);
});

test("an earlier attempt stays shown while a later one, which the history knows, is written", () => {
  const transcript = new Transcript(100);
  const siblings = ["a1", "b1"];
  transcript.load([posted("u1"), stored("a1", "One.", { siblings })], { branched: true });
  transcript.apply(chunk(0, "Two", { messageId: "b1", attempt: 2 }));
  assert.deepEqual([ids(transcript), transcript.messages[1].siblings, transcript.busyElsewhere], [["u1", "a1"], siblings, true]);
  transcript.apply(complete("Two.", { messageId: "b1", attempt: 2 }));
  assert.deepEqual([ids(transcript), transcript.busyElsewhere], [["u1", "a1"], false]);
  transcript.apply(chunk(0, "Three", { messageId: "c1", attempt: 3 })); // it began after the history
  assert.deepEqual([ids(transcript), transcript.messages[1].siblings], [["u1", "c1"], ["a1", "b1", "c1"]]);
});

test("another attempt knows the earlier ones, also when they are no longer shown", () => {
  const transcript = new Transcript(100);
  transcript.load([posted("u1"), stored("a1", "One.", { siblings: ["a1", "b1"] }), stored("b1", "Two.", { attempt: 2, siblings: ["a1", "b1"] })]);
  assert.deepEqual(ids(transcript), ["u1", "b1"]);
  transcript.apply(chunk(0, "Three", { messageId: "c1", attempt: 3 }));
  assert.deepEqual(transcript.messages.at(-1).siblings, ["a1", "b1", "c1"]);
});

test("a rating is shown, and taken back", () => {
  const transcript = new Transcript(100);
  transcript.load([posted("u1"), stored("a1", "One.", { rating: "up" })]);
  assert.equal(transcript.messages[1].rating, "up");
  transcript.rate("a1", null);
  assert.equal("rating" in transcript.messages[1], false);
  transcript.rate("gone", "up");
  // On another device.
  assert.equal(transcript.apply({ type: "rating", timestamp, messageId: "a1", rating: "down" }), true);
  assert.equal(transcript.messages[1].rating, "down");
  const shown = transcript.messages;
  transcript.apply({ type: "rating", timestamp, messageId: "a1", rating: "down" });
  transcript.apply({ type: "rating", timestamp, messageId: "gone", rating: "up" });
  assert.equal(transcript.messages, shown);
  transcript.apply({ type: "rating", timestamp, messageId: "a1", rating: null });
  assert.equal("rating" in transcript.messages[1], false);
});

test("what a message goes on from is known where the messages before it are not shown", () => {
  const transcript = new Transcript(2);
  transcript.load(history, { previous: "u0" });
  assert.equal(transcript.parentOf("u2"), "a1"); // the oldest ones were dropped
  transcript.clear();
  transcript.apply(asked("u7"));
  assert.equal(transcript.parentOf("u7"), undefined);
});

test("that messages are left out of the context is known of the answer with which it began", () => {
  const trimmed = { type: "context_trimmed", timestamp, messageId: "a1", replyTo: "u1", attempt: 1, dropped: 12 };
  const { transcript, news } = after(asked("u1"), trimmed, trimmed, chunk(0, "Hi"), complete("Hi"));
  assert.deepEqual(news, [true, true, false, true, true]);
  assert.deepEqual(transcript.messages[1].contextTrimmed, { dropped: 12 });
  const loaded = new Transcript(100);
  loaded.load([posted("u1"), stored("a1", "Hi", { contextTrimmed: { dropped: 12 } })]);
  assert.deepEqual(loaded.messages[1].contextTrimmed, { dropped: 12 });
});

const about = { timestamp, messageId: "a1", replyTo: "u1", attempt: 1, toolCallId: "a1.1" };
const piece = (text) => ({ type: "tool_call", name: "pay", arguments: text, ...about });
const state = (now, facts = {}) => ({ type: "tool_state", name: "pay", state: now, ...facts, ...about });
const result = (output, facts = {}) => ({ type: "tool_result", output, failed: false, truncated: false, ...facts, ...about });
const ready = state("ready", { arguments: '{"a":1}' });
const asking = state("awaiting_approval", { expiresAt: timestamp });

test("a call is put together from its steps, between the texts", () => {
  const { transcript, news } = after(asked("u1"), chunk(0, "Hm."), piece(""), piece('{"a"'), piece(":1}"), ready, state("running"));
  assert.ok(news.every(Boolean));
  const call = { type: "tool_call", toolCallId: "a1.1", name: "pay", arguments: '{"a":1}', state: "running" };
  assert.deepEqual(transcript.messages[1].parts, [{ type: "text", text: "Hm." }, call]);
  transcript.apply(result({ ok: true }));
  transcript.apply(chunk(3, "\n\nPaid."));
  assert.deepEqual(transcript.messages[1].parts, [
    { type: "text", text: "Hm." },
    { ...call, state: "done", output: { ok: true }, failed: false },
    { type: "text", text: "\n\nPaid." },
  ]);
});

test("a call that waits makes its answer wait, until it is decided here or elsewhere", () => {
  const { transcript } = after(asked("u1"), piece(""), piece('{"a":1}'), ready, asking);
  const answer = () => transcript.messages[1];
  assert.deepEqual([answer().status, answer().streaming], ["waiting", true]);
  transcript.decided({ messageId: "a1", toolCallId: "a1.1", state: "approved", decidedBy: "u" });
  assert.deepEqual([answer().status, answer().parts[0].state], ["streaming", "approved"]);
  transcript.apply(state("approved", { decidedBy: "u" }));
  transcript.apply(state("running"));
  transcript.apply(result("paid"));
  // A slower device gets the present state.
  transcript.decided({ messageId: "a1", toolCallId: "a1.1", state: "approved", decidedBy: "u" });
  assert.deepEqual(answer().parts[0].state, "done");
});

test("what a tool asks is there as long as it waits for that, however it is answered", () => {
  const asks = (id) => state("awaiting_input", { message: `Which ${id}?`, question: { id, schema: { type: "object" } }, expiresAt: timestamp });
  const { transcript } = after(asked("u1"), piece(""), ready, state("running"), asks("1"));
  const answer = () => transcript.messages[1];
  const shown = () => [answer().status, answer().parts[0].state, answer().parts[0].message, answer().parts[0].question?.id];
  assert.deepEqual(shown(), ["waiting", "awaiting_input", "Which 1?", "1"]);
  const next = { messageId: "a1", toolCallId: "a1.1", state: "awaiting_input", message: "Which 2?", question: { id: "2" } };
  transcript.decided(next); // the same call asks on
  assert.deepEqual(shown(), ["waiting", "awaiting_input", "Which 2?", "2"]);
  for (const event of [state("answered"), asks("2")]) transcript.apply(event);
  transcript.apply(state("answered"));
  assert.deepEqual(shown(), ["streaming", "answered", undefined, undefined]);
  transcript.apply(asks("3"));
  transcript.apply(result("gone", { failed: true }));
  assert.deepEqual([answer().parts[0].state, answer().parts[0].question], ["done", undefined]);
});

test("a call that was denied stays so, whatever the model is told", () => {
  const { transcript } = after(asked("u1"), piece(""), ready, asking, state("denied"), result("Not carried out", { failed: true }));
  assert.deepEqual([transcript.messages[1].parts[0].state, transcript.messages[1].parts[0].failed], ["denied", true]);
});

test("a call that is told again from its beginning is there once", () => {
  const { transcript } = after(asked("u1"), piece(""), piece('{"a"'), { type: "connected", timestamp, resumed: false });
  for (const event of [piece(""), piece('{"a":1}'), ready, asking]) transcript.apply(event);
  const before = transcript.messages[1].parts;
  assert.deepEqual([before.length, before[0].arguments, before[0].state], [1, '{"a":1}', "awaiting_approval"]);
  transcript.apply({ type: "connected", timestamp, resumed: false });
  for (const event of [piece(""), piece('{"a":1}'), ready, asking]) transcript.apply(event);
  assert.deepEqual(transcript.messages[1].parts, before);
});

test("an answer that waits in the history goes on when it is decided", () => {
  const { transcript } = after();
  const call = { type: "tool_call", toolCallId: "a1.1", name: "pay", arguments: "{}", state: "awaiting_approval" };
  transcript.load([posted("u1"), stored("a1", "", { status: "waiting", parts: [call] })]);
  assert.equal(transcript.messages[1].streaming, true);
  for (const event of [state("approved"), state("running"), result("paid"), chunk(0, "Paid."), complete("Paid.")]) {
    assert.equal(transcript.apply(event), true);
  }
  assert.deepEqual([transcript.messages[1].status, transcript.messages[1].content], ["complete", "Paid."]);
});
