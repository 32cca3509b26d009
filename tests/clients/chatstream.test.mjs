// The client's connections, delays, retries and tokens, with a scripted fetch and a simulated clock.
import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { ChatStream, reconnectDelay } from "chatstream";

const frame = (event, id) => `${id ? `id: ${id}\n` : ""}data: ${JSON.stringify({ timestamp: "2026-11-22T10:40:00.123Z", ...event })}\n\n`;
const connected = frame({ type: "connected", conversationId: "c", resumed: false, activeMessageId: null });
const problem = (error, retryable = true, retryAfterMs = null) =>
  frame({ type: "error", message: "No.", error, retryable, requestId: "r", messageId: null, retryAfterMs });
const refusal = (status, code, headers = {}) =>
  new Response(JSON.stringify({ detail: "No.", code, requestId: "r" }), { status, headers });

/** A response that sends these frames; `end()` ends it. */
function stream(...frames) {
  let controller;
  const body = new ReadableStream({ start: (given) => void (controller = given) });
  const response = new Response(body, { headers: { "Content-Type": "text/event-stream; charset=utf-8" } });
  const send = (...more) => more.forEach((text) => controller.enqueue(new TextEncoder().encode(text)));
  send(...frames);
  return Object.assign(response, { send, end: () => controller.close(), controller: () => controller });
}

const ended = (...frames) => {
  const response = stream(...frames);
  response.end();
  return response;
};

/** A chat whose n-th request gets the n-th answer: a Response, or an Error that is thrown. */
function chatWith(answers, options = {}) {
  const requests = [];
  const fetch = async (url, init) => {
    requests.push({ url, ...init });
    const answer = answers.shift();
    if (!answer) return new Promise((_, reject) => init.signal.addEventListener("abort", () => reject(init.signal.reason)));
    if (answer instanceof Error) throw answer;
    init.signal?.addEventListener("abort", () => {
      try {
        answer.controller?.().error(init.signal.reason);
      } catch {} // it has ended
    });
    return answer;
  };
  const chat = new ChatStream({ baseUrl: "https://chat.example/", conversationId: "c/1", token: "t", fetch, ...options });
  const told = { states: [], errors: [], events: [] };
  chat.on("state", (state) => told.states.push(state));
  chat.on("error", (error) => told.errors.push(error.code));
  chat.on("event", (event) => told.events.push(event.type));
  open.push(chat);
  return { chat, requests, told };
}

/** Run all pending microtasks and immediate callbacks. */
const settle = async () => {
  for (let i = 0; i < 50; i++) await new Promise(setImmediate);
};

const pass = async (milliseconds) => {
  await settle();
  elapsed += milliseconds;
  mock.timers.tick(milliseconds);
  await settle();
};

let elapsed = 0; // by the clock that nobody sets
let skew; // of the other one

const open = [];
beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout"] });
  mock.method(Math, "random", () => 0);
  mock.method(performance, "now", () => elapsed);
  mock.method(Date, "now", () => 1_800_000_000_000 + elapsed + skew);
  skew = 0;
});
afterEach(async () => {
  open.splice(0).forEach((chat) => chat.disconnect());
  await settle();
  mock.timers.reset();
  mock.restoreAll();
});

test("the waiting doubles, has a bound, and is never less than asked", () => {
  assert.deepEqual([1, 2, 3, 4, 5, 9, 99].map((attempt) => reconnectDelay(attempt, 2000, () => 0)), [
    2000, 4000, 8000, 16000, 30000, 30000, 30000,
  ]);
  assert.equal(reconnectDelay(1, 2000, () => 1), 3000);
  assert.equal(reconnectDelay(3, 60_000, () => 0), 60_000);
});

test("it opens, goes on from its cursor when the stream ends, and closes", async () => {
  const { chat, requests, told } = chatWith([
    ended(`retry: 1000\n${connected}`, frame({ type: "user_message", messageId: "u", content: "Hi" }, "u.user")),
    stream(connected),
  ]);
  chat.connect();
  assert.equal(chat.state, "connecting");
  await settle();
  assert.deepEqual(told.states, ["connecting", "open", "reconnecting"]);
  assert.equal(chat.cursor, "u.user");
  await pass(999);
  assert.equal(requests.length, 1);
  await pass(1);
  assert.equal(chat.state, "open");
  assert.equal(requests[0].url, "https://chat.example/api/v1/chat/conversations/c%2F1/stream?frames=lean");
  assert.deepEqual(requests[0].headers, { Accept: "text/event-stream", Authorization: "Bearer t" });
  assert.equal(requests[1].headers["Last-Event-ID"], "u.user");
  chat.disconnect();
  assert.equal(chat.state, "closed");
  assert.equal(requests[1].signal.aborted, true);
  await pass(100_000);
  assert.equal(requests.length, 2);
  assert.deepEqual(told.errors, []);
});

test("it waits longer each time, as long as told, and from the beginning once it was open", async () => {
  const { chat, requests, told } = chatWith([
    new TypeError("no route"), refusal(502), refusal(429, "rate_limited", { "Retry-After": "20" }),
    ended(problem("too_many_streams", true, 40_000)), new Response("<html>", { headers: { "Content-Type": "text/html" } }),
    ended(connected), stream(connected),
  ]);
  chat.connect();
  await settle();
  let count = 1;
  for (const wait of [2000, 4000, 20_000, 40_000, 30_000, 2000]) {
    await pass(wait - 1);
    assert.equal(requests.length, count, `after ${count}`);
    await pass(1);
    assert.equal(requests.length, ++count);
  }
  assert.deepEqual(told.errors, ["connection_failed", "http_502", "rate_limited", "too_many_streams", "not_a_stream"]);
  assert.equal(chat.state, "open");
  assert.equal(chat.error, null);
});

test("a proxy that stands in for a restarting server says when to come back, and nothing else", async () => {
  const { chat, requests, told } = chatWith([ended("retry: 5000\n\n"), stream(connected)]);
  chat.connect();
  await pass(4999);
  assert.deepEqual([requests.length, told.states], [1, ["connecting", "reconnecting"]]);
  await pass(1);
  assert.deepEqual([requests.length, chat.state, told.errors], [2, "open", []]);
});

test("a pause longer than a timer can wait is as long as one can", async () => {
  const { chat, requests } = chatWith([ended(problem("too_many_streams", true, 2 ** 40)), stream(connected)]);
  chat.connect();
  await pass(2 ** 31 - 2);
  assert.equal(requests.length, 1);
  await pass(1);
  assert.deepEqual([requests.length, chat.state], [2, "open"]);
});

test("it gives up after so many tries in a row", async () => {
  const failures = Array.from({ length: 9 }, () => new TypeError("no route"));
  const { chat, requests, told } = chatWith(failures, { maxReconnectAttempts: 2, reconnectDelay: 10 });
  chat.connect();
  for (let i = 0; i < 9; i++) await pass(1000);
  assert.equal(requests.length, 3);
  assert.equal(chat.state, "closed");
  assert.equal(told.errors.at(-1), "connection_lost");
  assert.equal(chat.error.code, "connection_lost");
});

for (const [status, code] of [[400, "invalid_request"], [403, undefined], [404, "not_found"]]) {
  test(`${status} is the end`, async () => {
    const { chat, requests, told } = chatWith([refusal(status, code)]);
    chat.connect();
    await pass(100_000);
    assert.equal(requests.length, 1);
    assert.deepEqual([chat.state, chat.error.status, chat.error.retryable], ["closed", status, false]);
    assert.deepEqual(told.errors, [code ?? `http_${status}`]);
  });
}

test("so is a conversation that was deleted", async () => {
  const { chat, requests } = chatWith([ended(connected, problem("conversation_deleted", false))]);
  chat.connect();
  await pass(100_000);
  assert.deepEqual([requests.length, chat.state, chat.error.code], [1, "closed", "conversation_deleted"]);
});

test("401: a fresh token, at once, and only once", async () => {
  const asked = [];
  const token = async (why) => `t${asked.push(why.refresh)}`;
  const { chat, requests } = chatWith([refusal(401), ended(connected), refusal(401), refusal(401)], { token });
  chat.connect();
  await pass(1);
  assert.deepEqual(requests.map(({ headers }) => headers.Authorization), ["Bearer t1", "Bearer t2"]);
  await pass(2000);
  await pass(1);
  assert.deepEqual(asked, [false, true, false, true]);
  await pass(100_000);
  assert.deepEqual([requests.length, chat.state, chat.error.status], [4, "closed", 401]);
});

test("401 with a token that is a string: closed until there is another", async () => {
  const { chat, requests } = chatWith([refusal(401, "invalid_token"), stream(connected)]);
  chat.connect();
  await pass(100_000);
  assert.deepEqual([requests.length, chat.state], [1, "closed"]);
  chat.setToken("t");
  assert.equal(chat.state, "closed");
  chat.setToken("new");
  await settle();
  assert.deepEqual([requests[1].headers.Authorization, chat.state], ["Bearer new", "open"]);
});

test("inline functions, a new one with each rendering, do not storm a server that refuses them all", async () => {
  const { chat, requests } = chatWith(Array.from({ length: 99 }, () => refusal(401, "invalid_token")), { token: () => "t" });
  let asked = 0;
  let told = 0;
  // As a component does: each event renders it, and each rendering passes a new function.
  for (const type of ["state", "error"]) {
    chat.on(type, () => setTimeout(() => chat.setToken(() => (asked++, "t"))) && told++);
  }
  chat.connect();
  for (let i = 0; i < 600; i++) {
    await pass(100);
    if (i % 2) chat.setToken(() => (asked++, "t"));
  }
  assert.equal(chat.state, "closed");
  assert.equal(requests.length, 2, "one, and one with a fresh token");
  assert.ok(asked <= 62, `asked ${asked} times in a minute`);
  assert.ok(told < 10);
});

test("a function that gives another token opens the stream again; wrong ones less and less often", async () => {
  const { chat, requests } = chatWith(Array.from({ length: 99 }, () => refusal(401)));
  let number = 0;
  chat.on("state", (state) => state === "closed" && setTimeout(() => chat.setToken(() => `wrong ${number++}`)));
  chat.connect();
  for (let i = 0; i < 600; i++) await pass(100);
  assert.ok(requests.length >= 5 && requests.length <= 14, `${requests.length} requests in a minute`);
  const accepted = chatWith([refusal(401), stream(connected)]);
  accepted.chat.connect();
  await settle();
  accepted.chat.setToken(() => "t");
  await pass(1000);
  assert.equal(accepted.chat.state, "closed", "the one that was refused");
  accepted.chat.setToken(() => "better");
  await pass(1000);
  assert.deepEqual([accepted.requests.length, accepted.chat.state], [2, "open"]);
});

for (const [name, again] of [
  ["connects again", (chat) => chat.connect()],
  ["gives the same kind of wrong token", (chat, n) => chat.setToken(`wrong ${n}`)],
  ["loads the history again", (chat) => chat.connect({ history: true })],
]) {
  test(`an application that ${name} at once, whenever it is refused, waits a second, then two`, async () => {
    const { chat, requests } = chatWith(Array.from({ length: 99 }, () => refusal(401)));
    let number = 0;
    chat.on("state", (state) => state === "closed" && setTimeout(() => again(chat, number++)));
    chat.connect();
    await settle();
    const times = [elapsed];
    for (let i = 0; i < 150; i++) {
      await pass(50);
      while (times.length < requests.length) times.push(elapsed);
    }
    const pauses = times.slice(1).map((time, index) => time - times[index]);
    assert.ok(pauses.length >= 2 && pauses[0] >= 1000 && pauses[1] >= 2000, String(pauses));
  });
}

test("a token function that throws is named as what failed, with its error, and asked again with pauses", async () => {
  const down = new Error("token server down");
  let asked = 0;
  const { chat, requests, told } = chatWith([], { token: async () => (asked++, Promise.reject(down)) });
  chat.connect();
  await settle();
  assert.deepEqual([chat.error.code, chat.error.cause, chat.error.retryable], ["token_failed", down, true]);
  for (let i = 0; i < 60; i++) await pass(1000);
  assert.equal(requests.length, 0);
  assert.ok(asked <= 6, `asked ${asked} times in a minute`);
  assert.deepEqual(new Set(told.errors), new Set(["token_failed"]));
  const sent = assert.rejects(chat.send("Hi"), { code: "token_failed", cause: down });
  for (let i = 0; i < 5; i++) await pass(2000);
  await sent;
});

test("a token function that throws at once is the same", async () => {
  const broken = new TypeError("session is null");
  const { chat } = chatWith([], {
    token: () => {
      throw broken;
    },
  });
  chat.connect();
  await settle();
  assert.deepEqual([chat.state, chat.error.code, chat.error.cause], ["reconnecting", "token_failed", broken]);
});

test("a token function that never answers ends, and is asked again; a slow one is asked once for all", async () => {
  const asked = [];
  const token = () => new Promise((resolve) => asked.push(resolve));
  const { chat, requests } = chatWith([stream(connected), Response.json({ status: "stopped" })], { token });
  chat.connect();
  await pass(14_999);
  assert.deepEqual([asked.length, chat.state], [1, "connecting"]);
  await pass(1);
  assert.deepEqual([chat.state, chat.error.code, chat.error.cause.name], ["reconnecting", "token_failed", "TimeoutError"]);
  await pass(2000);
  const stopped = chat.stop();
  await settle();
  assert.equal(asked.length, 2);
  asked[1]("late");
  assert.equal((await stopped).status, "stopped");
  assert.deepEqual(requests.map(({ headers }) => headers.Authorization), ["Bearer late", "Bearer late"]);
  assert.equal(chat.state, "open");
});

test("a stop says how much of the text has come here, in code points, unless the app knows better", async () => {
  const chunk = { type: "llm_chunk", messageId: "a", replyTo: "u", attempt: 1, offset: 0, content: "So 🏉 far" };
  const stopped = () => Response.json({ status: "stopped" });
  const { chat, requests } = chatWith([stopped(), stream(connected, frame(chunk, "a.8")), stopped(), stopped(), stopped()]);
  await chat.stop(); // nothing is known to run
  chat.connect();
  await settle();
  for (const options of [undefined, { seenLength: 4 }, { seenLength: null }]) await chat.stop(options);
  const bodies = requests.filter(({ url }) => url.endsWith("/stop")).map(({ body }) => body && JSON.parse(body));
  assert.deepEqual(bodies, [
    undefined,
    { messageId: "a", seenLength: 8 },
    { messageId: "a", seenLength: 4 },
    { messageId: "a", seenLength: null },
  ]);
});

test("closed while a slow token comes: nothing is asked of the server", async () => {
  let give;
  const { chat, requests } = chatWith([], { token: () => new Promise((resolve) => (give = resolve)) });
  chat.connect();
  await settle();
  chat.disconnect();
  give("t");
  await pass(1000);
  assert.deepEqual([requests.length, chat.state], [0, "closed"]);
});

test("a token that expires is replaced without a pause, unless that would be a loop", async () => {
  const asked = [];
  const token = (why) => `t${asked.push(why.refresh)}`;
  const first = stream(connected);
  const { chat, requests, told } = chatWith([first, ended(connected, problem("token_expired")), stream(connected)], { token });
  chat.connect();
  await pass(10_000);
  first.send(problem("token_expired"));
  first.end();
  await pass(1);
  assert.deepEqual(asked, [false, true]);
  await pass(1999);
  assert.equal(requests.length, 2);
  await pass(1);
  assert.deepEqual([requests.length, chat.state], [3, "open"]);
  assert.deepEqual(told.errors, []);
});

test("closed by hand, a new token opens nothing", async () => {
  const { chat, requests } = chatWith([refusal(401)]);
  chat.connect();
  await settle();
  chat.disconnect();
  chat.setToken("new");
  await settle();
  assert.deepEqual([requests.length, chat.state], [1, "closed"]);
});

test("no token, no request", async () => {
  const { chat, requests } = chatWith([], { token: () => null });
  chat.connect();
  await pass(1);
  assert.deepEqual([requests.length, chat.state, chat.error.code], [0, "closed", "unauthenticated"]);
  await assert.rejects(chat.send("Hi"), { code: "unauthenticated" });
});

test("a token that cannot be had now is asked for again", async () => {
  const answers = [() => Promise.reject(new Error("offline")), () => "t"];
  const { chat, requests } = chatWith([stream(connected)], { token: () => answers.shift()() });
  chat.connect();
  await pass(2000);
  assert.deepEqual([requests.length, chat.state], [1, "open"]);
});

test("a connection that says nothing is given up; one that says anything is not", async () => {
  const first = stream(connected);
  const { chat, requests } = chatWith([first]);
  chat.connect();
  await pass(37_000);
  first.send(": a comment\n\n");
  await pass(37_000);
  assert.equal(requests.length, 1);
  await pass(500);
  assert.deepEqual([chat.state, requests[0].signal.aborted], ["reconnecting", true]);
  await pass(2000); // and one that is not even answered
  assert.equal(requests.length, 2);
  await pass(37_500);
  await pass(4000);
  assert.equal(requests.length, 3);
});

test("a clock that is set back or forward is not silence, nor does it hide any", async () => {
  const first = stream(connected);
  const { chat, requests } = chatWith([first, stream(connected)]);
  chat.connect();
  await settle();
  skew = -3_600_000;
  await pass(37_000);
  assert.equal(requests[0].signal.aborted, false);
  await pass(500);
  assert.equal(requests[0].signal.aborted, true);
  await pass(2000);
  assert.equal(chat.state, "open");
  skew = 3_600_000;
  await pass(1000);
  assert.equal(requests[1].signal.aborted, false);
});

test("a phone that slept: its own clock stood still, the wall's did not", async () => {
  const { chat, requests } = chatWith([stream(connected), stream(connected)]);
  chat.connect();
  await settle();
  skew = 60_000;
  chat.connect(); // what an application calls when it is looked at again
  await pass(2000);
  assert.deepEqual([requests[0].signal.aborted, requests.length, chat.state], [true, 2, "open"]);
});

test("offline, back online, looked at again: it neither trusts a dead connection nor waits any longer", async (t) => {
  const page = Object.assign(new EventTarget(), { visibilityState: "hidden" });
  const window = new EventTarget();
  Object.assign(globalThis, {
    document: page,
    addEventListener: window.addEventListener.bind(window),
    removeEventListener: window.removeEventListener.bind(window),
  });
  t.after(() => ["document", "addEventListener", "removeEventListener"].forEach((name) => delete globalThis[name]));
  const failures = Array.from({ length: 5 }, () => new TypeError("offline"));
  const { chat, requests } = chatWith([stream(connected), ...failures]);
  chat.connect();
  await settle();
  window.dispatchEvent(new Event("online"));
  await settle();
  assert.deepEqual([requests.length, chat.state], [1, "open"]);
  window.dispatchEvent(new Event("offline"));
  await settle();
  assert.deepEqual([requests[0].signal.aborted, chat.state], [true, "reconnecting"]);
  window.dispatchEvent(new Event("online"));
  await settle();
  assert.equal(requests.length, 2);
  page.dispatchEvent(new Event("visibilitychange"));
  await settle();
  assert.equal(requests.length, 2, "hidden still");
  page.visibilityState = "visible";
  page.dispatchEvent(new Event("visibilitychange"));
  await settle();
  assert.equal(requests.length, 3);
  chat.connect();
  await settle();
  assert.equal(requests.length, 4, "and that is what one calls elsewhere");
  chat.disconnect();
  window.dispatchEvent(new Event("online"));
  await settle();
  assert.equal(requests.length, 4);
});

test("without a network no tries are counted", async (t) => {
  Object.defineProperty(navigator, "onLine", { value: false, configurable: true });
  t.after(() => delete navigator.onLine);
  const failures = Array.from({ length: 9 }, () => new TypeError("offline"));
  const { chat, requests } = chatWith(failures, { maxReconnectAttempts: 2, reconnectDelay: 10 });
  chat.connect();
  for (let i = 0; i < 6; i++) await pass(10);
  assert.deepEqual([requests.length, chat.state], [7, "reconnecting"]);
});

test("what a frame means is the frame's affair: bad ones cost nothing", async () => {
  const { chat, told } = chatWith([stream(connected, "data: {\n\n", "data: null\n\n", frame({ type: "news" }), frame({ type: "heartbeat" }))]);
  chat.connect();
  await settle();
  assert.deepEqual([told.events, told.errors], [["connected", "news", "heartbeat"], ["protocol", "protocol"]]);
  assert.equal(chat.state, "open");
});

test("an answer that cannot be stored yet comes on the same connection", async () => {
  const response = stream(connected, problem("storage_unavailable"));
  const { chat, requests, told } = chatWith([response]);
  chat.connect();
  await settle();
  assert.deepEqual([chat.state, requests[0].signal.aborted], ["open", false]);
  response.send(frame({ type: "heartbeat" }));
  response.end();
  await settle();
  assert.deepEqual([chat.state, told.errors], ["reconnecting", []]);
});

test("closed by a listener, nothing more is told", async () => {
  const { chat, told } = chatWith([stream(connected + frame({ type: "user_message", messageId: "u", content: "Hi" }, "u.user"))]);
  chat.on("event", () => chat.disconnect());
  chat.connect();
  await settle();
  assert.deepEqual([told.events, chat.cursor, chat.messages], [["connected"], null, []]);
});

test("a message is sent again under the same key, and shown once", async () => {
  const message = { id: "u", role: "user", content: "Hi", createdAt: "now", streamCursor: "u.user" };
  const { chat, requests } = chatWith([
    new TypeError("reset"), refusal(503, "storage_unavailable", { "Retry-After": "2" }), Response.json(message, { status: 201 }),
  ]);
  const sent = chat.send("Hi", { ifBusy: "queue" });
  await pass(500);
  assert.equal(requests.length, 2);
  await pass(1999);
  assert.equal(requests.length, 2);
  await pass(1);
  assert.deepEqual(await sent, message);
  assert.deepEqual(chat.messages.map(({ id }) => id), ["u"]);
  assert.equal(chat.streaming, true);
  const bodies = new Set(requests.map(({ body }) => body));
  assert.equal(bodies.size, 1);
  assert.match(JSON.parse([...bodies][0]).clientMessageId, /^[0-9a-f-]{36}$/);
  assert.ok(requests.every(({ url }) => url.endsWith("/messages?ifBusy=queue")));
});

for (const [status, code] of [[409, "answer_in_progress"], [422, "invalid_content"], [429, "rate_limited"]]) {
  test(`a message that gets ${status} is not sent again`, async () => {
    const { chat, requests } = chatWith([refusal(status, code)]);
    await assert.rejects(chat.send("Hi"), { name: "ChatError", status, code, requestId: "r", message: "No." });
    assert.equal(requests.length, 1);
  });
}

test("a refusal says what is wrong with each field; a proxy's page says nothing", async () => {
  const body = { detail: "Not acceptable.", code: "invalid_content", requestId: "r", errors: { content: "at most 32000 characters" } };
  const { chat } = chatWith([new Response(JSON.stringify(body), { status: 422 }), new Response("<html>", { status: 413 })]);
  await assert.rejects(chat.send("Hi"), {
    message: "Not acceptable.", detail: "Not acceptable.", fields: { content: "at most 32000 characters" },
  });
  await assert.rejects(chat.send("Hi"), { message: "The server answered 413.", detail: null, fields: null });
});

test("four times is enough, and so is a server that wants a long pause", async () => {
  const { chat, requests } = chatWith(Array.from({ length: 4 }, () => refusal(503)));
  const sent = assert.rejects(chat.send("Hi"), { status: 503 });
  await settle();
  for (const wait of [500, 1000, 2000]) await pass(wait);
  await sent;
  assert.equal(requests.length, 4);
  await assert.rejects(chatWith([refusal(503, "unavailable", { "Retry-After": "60" })]).chat.send("Hi"), { retryAfterMs: 60_000 });
});

test("a request that is not answered ends", async () => {
  const { chat } = chatWith([]);
  const stopped = assert.rejects(chat.stop(), { code: "connection_failed" });
  await settle();
  await pass(15_000);
  await stopped;
});

test("a request refreshes the token too, once", async () => {
  const asked = [];
  const token = (why) => `t${asked.push(why.refresh)}`;
  const { chat, requests } = chatWith([refusal(401), Response.json({ status: "stopped" }), refusal(401), refusal(401)], { token });
  assert.deepEqual(await chat.stop(), { status: "stopped" });
  await assert.rejects(chat.stop(), { status: 401 });
  assert.deepEqual(asked, [false, true, false, true]);
  assert.equal(requests.length, 4);
});

test("history closes an open stream while it loads, and goes on from there", async () => {
  const page = { messages: [{ id: "u", role: "user", content: "Hi", createdAt: "now" }], nextCursor: "7", streamCursor: "u.user" };
  const earlier = { messages: [{ id: "s", role: "user", content: "Oh", createdAt: "now" }], nextCursor: null, streamCursor: null };
  const { chat, requests } = chatWith([stream(connected), Response.json(page), stream(connected), Response.json(earlier)]);
  chat.connect();
  await settle();
  await chat.history({ limit: 1 });
  await settle();
  assert.deepEqual([requests[0].signal.aborted, chat.state, chat.hasEarlier], [true, "open", true]);
  assert.equal(requests[2].headers["Last-Event-ID"], "u.user");
  await chat.earlier();
  assert.ok(requests[3].url.endsWith("/messages?limit=200&before=7"));
  assert.deepEqual([chat.messages.map(({ id }) => id), chat.hasEarlier], [["s", "u"], false]);
});

test("connect({ history: true }) loads and connects, however often it has to try", async () => {
  const page = { messages: [{ id: "u", role: "user", content: "Hi", createdAt: "now" }], nextCursor: null, streamCursor: "u.user" };
  const { chat, requests, told } = chatWith([
    new TypeError("offline"), refusal(503, "storage_unavailable", { "Retry-After": "7" }), Response.json(page), refusal(502),
    stream(connected), stream(connected),
  ]);
  chat.connect({ history: true });
  await pass(2000);
  await pass(6999);
  assert.equal(requests.length, 2);
  await pass(1);
  assert.deepEqual(chat.messages.map(({ id }) => id), ["u"]);
  await pass(9000);
  assert.equal(chat.state, "open");
  chat.disconnect();
  chat.connect({ history: true });
  await settle();
  const paths = requests.map(({ url }) => url.slice(url.lastIndexOf("/") + 1));
  assert.deepEqual(paths, ["messages?limit=200", "messages?limit=200", "messages?limit=200", "stream?frames=lean", "stream?frames=lean", "stream?frames=lean"]);
  assert.ok(requests.slice(3).every(({ headers }) => headers["Last-Event-ID"] === "u.user"));
  assert.deepEqual(told.errors, ["connection_failed", "storage_unavailable", "http_502"]);
});

test("what comes at once is one change of the messages, however many chunks it is and however long the chat", async () => {
  const page = { messages: [], nextCursor: null, streamCursor: "k.start" };
  for (let i = 0; i < 500; i++) page.messages.push({ id: `u${i}`, role: "user", content: "Hi", createdAt: "2026-11-22T10:40:00Z" });
  const opened = stream(connected);
  const { chat } = chatWith([Response.json(page), opened]);
  await chat.history();
  chat.connect();
  await settle();
  const told = [];
  chat.on("event", ({ offset }) => told.push(offset));
  chat.on("messages", (messages) => told.push(messages.at(-1).content.length));
  const chunk = (offset) => frame({ type: "llm_chunk", content: "ab", messageId: "a", replyTo: "u499", attempt: 1, offset }, `a.${offset}`);
  opened.send(Array.from({ length: 100 }, (_, index) => chunk(2 * index)).join(""));
  await settle();
  opened.send(chunk(200));
  await settle();
  assert.deepEqual(told, [...Array.from({ length: 100 }, (_, index) => 2 * index), 200, 200, 202]);
  const shown = chat.messages;
  opened.send(chunk(200)); // once more
  await settle();
  assert.equal(chat.messages, shown);
  assert.equal(told.length, 104);
});

test("a stream without a pause lets the browser draw", async () => {
  const opened = stream(connected);
  const { chat } = chatWith([opened]);
  let yields = 0;
  globalThis.scheduler = { yield: async () => void yields++ };
  mock.method(performance, "now", () => (elapsed += 5));
  chat.connect();
  opened.send(...Array.from({ length: 20 }, (_, offset) => frame({ type: "llm_chunk", content: "a", messageId: "a", replyTo: "u", attempt: 1, offset })));
  await settle();
  delete globalThis.scheduler;
  assert.equal(chat.messages.at(-1).content, "a".repeat(20));
  assert.ok(yields >= 5, `${yields}`);
});

test("connect({ history: true }) on an open stream loads what came before it, and goes on", async () => {
  const page = { messages: [], nextCursor: null, streamCursor: "k.start" };
  const { chat, requests } = chatWith([stream(connected), Response.json(page), stream(connected)]);
  chat.connect();
  await settle();
  chat.connect({ history: true });
  chat.connect({ history: true });
  await settle();
  assert.deepEqual([requests.length, requests[0].signal.aborted, chat.state], [3, true, "open"]);
  assert.equal(requests[2].headers["Last-Event-ID"], "k.start");
});

test("a history that there is not is the end of it", async () => {
  const { chat, requests } = chatWith([refusal(404, "not_found")]);
  chat.connect({ history: true });
  await pass(100_000);
  assert.deepEqual([requests.length, chat.state, chat.error.code], [1, "closed", "not_found"]);
});

test("connected or closed while the history loads: that is how it goes on", async () => {
  const page = () => Response.json({ messages: [], nextCursor: null, streamCursor: "k.start" });
  const { chat, requests, told } = chatWith([page(), stream(connected), page()]);
  const loaded = Promise.all([chat.history(), chat.history()]);
  chat.connect();
  await loaded;
  await settle();
  assert.deepEqual(requests.map(({ headers }) => headers["Last-Event-ID"]), [undefined, "k.start"]);
  const again = chat.history();
  assert.equal(chat.state, "connecting");
  chat.disconnect();
  await again;
  await settle();
  assert.deepEqual([requests.length, told.states], [3, ["connecting", "open", "connecting", "closed"]]);
});

const said = (id, role, more) => ({ id, role, content: id, createdAt: "now", ...(role === "user" ? {} : { status: "complete", attempt: 1, recommendations: [] }), ...more });

test("an edit of a message goes on from where that is, shown or not", async () => {
  const shown = { messages: [said("u1", "user"), said("a1", "assistant", { replyTo: "u1" }), said("u3", "user", { siblings: ["u2", "u3"] })] };
  const page = () => Response.json({ ...shown, head: "u3", nextCursor: null, streamCursor: "u3.user" });
  const one = (id, previous) => Response.json({ messages: [said(id, "user")], previous, nextCursor: null });
  const sent = (id) => Response.json(said(id, "user", { parent: "p" }));
  const { chat, requests } = chatWith([page(), sent("u4"), page(), one("u9", "a8"), sent("u5"), page(), one("u8"), sent("u6"), page(), one("u1")]);
  await chat.history();
  await chat.edit("u2", "Now"); // another device has edited it
  await chat.edit("u9", "Now"); // of another branch
  await chat.edit("u8", "Now"); // the first message of one
  await assert.rejects(chat.edit("gone", "Now"), { code: "not_found" }); // an older server ignores `leaf`
  const bodies = requests.filter(({ method }) => method === "POST").map(({ body }) => JSON.parse(body).parent);
  assert.deepEqual(bodies, ["a1", "a8", null]);
});

test("a branch is looked at without changing the conversation, and what is sent goes on from it", async () => {
  const page = (...messages) => Response.json({ messages, head: "u9", nextCursor: null, streamCursor: "a9.end" });
  const old = () => page(said("u1", "user"), said("a1", "assistant", { replyTo: "u1" }));
  const now = () => page(said("u9", "user"));
  const begun = Response.json(said("b1", "assistant", { replyTo: "u1", attempt: 2, status: "streaming" }));
  const { chat, requests } = chatWith([now(), old(), refusal(404), now(), old(), begun, now(), old(), Response.json(said("u2", "user", { parent: "a1" })), now()]);
  const asked = () => [requests.at(-1).method, requests.at(-1).url.split("/c%2F1")[1], requests.at(-1).body];
  await chat.history();
  await chat.lookAt("a1");
  assert.deepEqual([chat.messages.map(({ id }) => id), chat.lookedAt], [["u1", "a1"], "a1"]);
  await chat.history(); // what was looked at is gone
  assert.deepEqual(chat.messages.map(({ id }) => id), ["u9"]);
  await chat.lookAt("a1");
  await chat.regenerate();
  assert.deepEqual(asked(), ["POST", "/regenerate", '{"messageId":"u1"}']);
  await chat.history();
  await chat.lookAt("a1");
  await chat.send("Go on", { clientMessageId: "k" });
  assert.equal(JSON.parse(requests.at(-1).body).parent, "a1");
  assert.deepEqual([chat.messages.map(({ id }) => id), chat.lookedAt], [["u1", "a1", "u2"], null]);
  await chat.history();
  assert.deepEqual(asked(), ["GET", "/messages?limit=200", undefined]);
});

test("a late response to what was sent does not show its branch again", async () => {
  const siblings = ["a1", "b1"];
  const first = (known) => said("a1", "assistant", { replyTo: "u1", ...known });
  const page = (known, head) => Response.json({ messages: [said("u1", "user"), first(known)], head, nextCursor: null, streamCursor: "a1.end" });
  const responses = []; // functions that let a response arrive
  const late = () => new Promise((resolve) => responses.push(resolve));
  const { chat } = chatWith([page({}, "u1"), late(), page({}, "a1"), late(), page({ siblings }, "a1"), Response.json(said("u3", "user", { parent: "a1" }))]);
  await chat.history();
  const shown = () => chat.messages.map(({ id }) => id);
  const respondAfterwards = async (sent, response) => {
    await chat.history(); // another device has gone back to the first branch meanwhile
    responses.shift()(response);
    await sent;
    assert.deepEqual(shown(), ["u1", "a1"]);
  };
  await respondAfterwards(chat.edit("u1", "Now"), Response.json(said("u2", "user", { parent: null })));
  await respondAfterwards(chat.regenerate(), Response.json(said("b1", "assistant", { replyTo: "u1", attempt: 2, status: "streaming" })));
  await chat.send("Go on");
  assert.deepEqual(shown(), ["u1", "a1", "u3"]);
});

test("the newest attempt is loaded if the conversation shows it again, and an earlier one is shown", async () => {
  const siblings = ["a1", "b1"];
  const page = (answer, head) => Response.json({ messages: [said("u1", "user"), answer], head, nextCursor: null, streamCursor: "b1.0" });
  const first = said("a1", "assistant", { replyTo: "u1", siblings });
  const second = said("b1", "assistant", { replyTo: "u1", siblings, attempt: 2, status: "streaming" });
  const shown = (head) => frame({ type: "branch", head });
  const { chat, requests } = chatWith([page(first, "a1"), stream(connected, shown("u1")), page(second, "u1"), stream(connected, shown("u1"))]);
  await chat.history();
  chat.connect();
  await settle();
  assert.deepEqual([requests.length, chat.messages.at(-1).id], [4, "b1"]);
});

test("a platform that cannot stream needs an EventSource", () => {
  assert.throws(() => new ChatStream({ conversationId: "c", token: "t", transport: "eventsource" }), /pass one/);
});

test("too far behind, and the history fails: it is loaded with the next connection", async () => {
  const page = (id) => Response.json({ messages: [], nextCursor: null, streamCursor: `${id}.user` });
  const message = frame({ type: "user_message", messageId: "u2", content: "Hi" }, "u2.user");
  const { chat, requests } = chatWith([
    page("u1"), ended(connected, message), stream(connected), refusal(503), stream(connected), page("u9"), stream(connected),
  ]);
  await chat.history();
  chat.connect();
  for (let i = 0; i < 4; i++) await pass(2000);
  assert.deepEqual([requests.length, requests.at(-1).headers["Last-Event-ID"], chat.state], [7, "u9.user", "open"]);
});

test("too far behind to be told by the stream: the history is loaded again, once", async () => {
  const page = (id) =>
    Response.json({ messages: [{ id, role: "user", content: "Hi", createdAt: "now" }], nextCursor: null, streamCursor: `${id}.user` });
  const message = frame({ type: "user_message", messageId: "u2", content: "Hi" }, "u2.user");
  const { chat, requests } = chatWith([page("u1"), ended(connected, message), stream(connected), page("u9"), stream(connected)]);
  await chat.history();
  chat.connect();
  await pass(2000);
  assert.deepEqual(requests.map(({ headers }) => headers["Last-Event-ID"]), [undefined, "u1.user", "u2.user", undefined, "u9.user"]);
  assert.deepEqual([chat.messages.map(({ id }) => id), chat.state], [["u9"], "open"]);
});

test("without a history, what was sent from here is where it goes on", async () => {
  const { chat, requests } = chatWith([stream(connected), Response.json({ id: "u", role: "user", streamCursor: "u.user" })]);
  chat.connect();
  await settle();
  await chat.send("Hi");
  requests[0].signal.dispatchEvent(new Event("abort")); // the connection breaks
  await pass(2000);
  assert.equal(requests[2].headers["Last-Event-ID"], "u.user");
});

test("an event that there is not", () => {
  assert.throws(() => chatWith([]).chat.on("mesages", () => {}), TypeError);
});

const whole = (offset, content, more) =>
  ({ type: "llm_chunk", content, messageId: "a", replyTo: "u", attempt: 2, offset, ...more });
const lean = (position, content, type = "llm_chunk") => `id: a.${position}\ndata: ${JSON.stringify({ type, content })}\n\n`;

test("lean chunks become whole events, also behind a cursor, and beside thoughts", async () => {
  const { chat, requests } = chatWith([
    ended(connected, frame({ ...whole(0, "Hm"), type: "reasoning_chunk" }, "a.2"), lean(3, "m", "reasoning_chunk"),
      frame(whole(0, "🏆 So"), "a.7"), lean(9, " f")),
    stream(frame({ type: "connected", resumed: true }), lean(11, "ar")),
  ], { reconnectDelay: 1 });
  const chunks = [];
  chat.on("event", ({ timestamp, ...event }) => event.type.endsWith("_chunk") && chunks.push(event));
  chat.connect();
  await pass(1);
  assert.equal(requests[1].headers["Last-Event-ID"], "a.9");
  assert.ok(requests.every(({ url }) => url.endsWith("/stream?frames=lean")));
  assert.deepEqual(chunks, [
    { ...whole(0, "Hm"), type: "reasoning_chunk" }, { ...whole(2, "m"), type: "reasoning_chunk" },
    whole(0, "🏆 So"), whole(4, " f"), whole(6, "ar"),
  ]);
  assert.equal(chat.messages[0].content, "🏆 So far");
  assert.deepEqual(chat.messages[0].parts, [{ type: "reasoning", text: "Hmm" }, { type: "text", text: "🏆 So far" }]);
});

test("lean chunks go on from a loaded history, and nobody asks for them behind the cursor of an unknown answer", async () => {
  const answer = { id: "a", role: "assistant", content: "🏆 So", status: "streaming", attempt: 2, replyTo: "u", recommendations: [], createdAt: "2026-11-22T10:40:00.123Z" };
  const page = new Response(JSON.stringify({ messages: [answer], streamCursor: "a.4", nextCursor: null }));
  const { chat, requests } = chatWith([page, stream(frame({ type: "connected", resumed: true }), lean(6, " f"), lean(8, "ar"))]);
  chat.connect({ history: true });
  await settle();
  assert.ok(requests[1].url.endsWith("/stream?frames=lean"));
  assert.equal(chat.messages[0].content, "🏆 So far");

  const strange = chatWith([
    ended(frame({ type: "connected", resumed: true }), frame(whole(4, " f"), "a.6")), stream(lean(8, "ar")),
  ], { cursor: "a.4", reconnectDelay: 1 });
  strange.chat.connect();
  await pass(1);
  assert.deepEqual(strange.requests.map(({ url }) => url.split("/stream")[1]), ["", "?frames=lean"]);
  assert.equal(strange.chat.messages[0].content, " far");

  const afterOne = chatWith([stream(connected)], { cursor: "a.complete" });
  afterOne.chat.connect();
  await settle();
  assert.ok(afterOne.requests[0].url.endsWith("?frames=lean"));
});

test("a history that is loaded in mid-answer is ahead of the chunks before it", async () => {
  const answer = { id: "a", role: "assistant", content: "So far", status: "streaming", attempt: 2, replyTo: "u", recommendations: [], createdAt: "2026-11-22T10:40:00.123Z" };
  const page = new Response(JSON.stringify({ messages: [answer], streamCursor: "a.6", nextCursor: null }));
  const { chat } = chatWith([
    stream(connected, frame(whole(0, "So"), "a.2")), page, stream(frame({ type: "connected", resumed: true }), lean(8, ", ")),
  ]);
  chat.connect();
  await settle();
  await chat.history();
  await settle();
  assert.equal(chat.messages[0].content, "So far, ");
});
