// A client that openapi-typescript makes of the document, with openapi-fetch: create a conversation, ask, read, fail.
import createClient from "openapi-fetch";
import type { components, paths } from "./generated/openapi_fetch.ts";

declare const process: { argv: string[] };
const [, , baseUrl, token] = process.argv;
const chat = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });

const created = await chat.POST("/api/v1/chat/conversations", { body: {} });
if (created.error) throw new Error(created.error.detail);
const conversation: components["schemas"]["ConversationView"] = created.data;
const path = { id: conversation.id };

const posted = await chat.POST("/api/v1/chat/conversations/{id}/messages", {
  params: { path, query: { ifBusy: "queue" } },
  body: { content: "Hello." },
});
if (posted.error) throw new Error(posted.error.detail);
const cursor: string = posted.data.streamCursor;

const history = await chat.GET("/api/v1/chat/conversations/{id}/messages", { params: { path } });
const texts: string[] | undefined = history.data?.messages.map((message) => message.content);

const missing = await chat.GET("/api/v1/chat/conversations/{id}", { params: { path: { id: "nobody" } } });
const status: number | undefined = missing.error?.status;

const streamed = await chat.GET("/api/v1/chat/conversations/{id}/stream", {
  params: { path, query: { once: true }, header: { "Last-Event-ID": cursor } },
  parseAs: "stream",
});
await streamed.data?.cancel();

console.log(JSON.stringify({ content: posted.data.content, first: texts?.[0], status }));
