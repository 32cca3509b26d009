// Our client, driven by a test: calls come in and events go out as lines of JSON.
import { createInterface } from "node:readline";

import { ChatStream } from "chatstream";
import { EventSource } from "eventsource";
import reactNativeSSE from "react-native-sse";

import { XMLHttpRequest } from "./xml-http-request.mjs";

globalThis.XMLHttpRequest = XMLHttpRequest; // React Native has one
const SOURCES = { eventsource: EventSource, "react-native-sse": reactNativeSSE.default };

const print = (line) => console.log(JSON.stringify(line));

const { tokens: given, eventSource, ...options } = JSON.parse(process.argv[2]);
let tokens = given; // the first token, and the later ones
const chat = new ChatStream({
  ...options,
  token({ refresh }) {
    if (refresh) tokens.shift();
    return tokens[0];
  },
  transport: eventSource ? "eventsource" : "fetch",
  EventSource: SOURCES[eventSource],
});
chat.on("state", (state) => print({ state }));
chat.on("error", ({ code, status, messageId }) => print({ error: code, status, messageId }));
chat.on("event", (event, { cursor, repeated }) => print({ event, cursor, repeated }));

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...values] = JSON.parse(line);
  try {
    if (name === "tokens") print({ result: (tokens = values) });
    else print({ result: typeof chat[name] === "function" ? ((await chat[name](...values)) ?? null) : chat[name] });
  } catch (error) {
    print({ rejected: error.code ?? String(error) });
  }
}
chat.disconnect();
