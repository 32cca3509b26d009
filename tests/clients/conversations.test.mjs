// The list of conversations: the request of each call, and its result.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";

import { ChatError, Conversations } from "chatstream";

import { tidyUp } from "./node_modules/chatstream/examples/conversations.js";

let asked = [];
let answers = [];
const server = createServer(async (request, response) => {
  let body = "";
  for await (const part of request) body += part;
  asked.push([request.method, request.url, request.headers.authorization, body && JSON.parse(body)]);
  const [status, document] = answers.shift() ?? [200, { conversations: [], nextCursor: null }];
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(document && JSON.stringify(document));
});
let baseUrl;
const ALL = "/api/v1/chat/conversations";

before(async () => {
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  baseUrl = `http://127.0.0.1:${server.address().port}/`;
});
after(() => server.close());
beforeEach(() => {
  asked = [];
  answers = [];
});

test("the example", async () => {
  answers = [[201, { id: "a/b" }], [200, { conversations: [{ title: "Beans" }], nextCursor: null }], [200, {}], [204, null]];
  assert.deepEqual(await tidyUp({ baseUrl, token: "t" }), ["Beans"]);
  assert.deepEqual(asked, [
    ["POST", ALL, "Bearer t", { autoTitle: true }],
    ["GET", `${ALL}?q=coffee`, "Bearer t", ""],
    ["PATCH", `${ALL}/a%2Fb`, "Bearer t", { title: "Coffee" }],
    ["DELETE", `${ALL}/a%2Fb`, "Bearer t", ""],
  ]);
});

test("what is searched for is only text", async () => {
  const conversations = new Conversations({ baseUrl, token: () => "t" });
  await conversations.search("a&limit=1#?/ ü", { limit: 5, before: "1-2" });
  await conversations.list();
  assert.deepEqual(
    asked.map(([, url]) => url),
    [`${ALL}?q=a%26limit%3D1%23%3F%2F%20%C3%BC&limit=5&before=1-2`, ALL],
  );
});

test("all messages, page by page, oldest first", async () => {
  answers = [[200, { messages: [3, 4], nextCursor: "3" }], [200, { messages: [1, 2], nextCursor: null }]];
  assert.deepEqual(await new Conversations({ baseUrl, token: "t" }).messages("1"), [1, 2, 3, 4]);
  assert.equal(asked[1][1], `${ALL}/1/messages?limit=200&before=3`);
});

test("a refusal is a ChatError", async () => {
  answers = [[422, { detail: "There is nothing to search for.", code: "invalid_content", errors: { q: "must have a letter" } }]];
  const refused = await new Conversations({ baseUrl, token: "t" }).search("?").catch((error) => error);
  assert.ok(refused instanceof ChatError);
  assert.deepEqual([refused.status, refused.fields], [422, { q: "must have a letter" }]);
});
