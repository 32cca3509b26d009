// The AI SDK's useChat in React's test renderer, driven by a test: what is rendered and called back goes out as a line of
// JSON each, calls come in the same way. Nothing but the transport knows that it talks to chatstream.
import { createInterface } from "node:readline";

import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";
import { createElement, useEffect } from "react";
import { create } from "react-test-renderer";

globalThis.IS_REACT_ACT_ENVIRONMENT = false; // what comes from the server comes when it comes

const { url, token, ...props } = JSON.parse(process.argv[2]);

// What the README says:
const api = `${url}/api/v1/chat/conversations`;
const query = "?format=ui-message-stream";
const transport = new DefaultChatTransport({
  headers: () => ({ Authorization: `Bearer ${token}` }),
  prepareSendMessagesRequest: ({ id, messages, trigger, headers }) => {
    if (trigger === "regenerate-message") return { api: `${api}/${id}/regenerate${query}`, headers, body: {} };
    const { id: clientMessageId, parts } = messages.at(-1);
    const content = parts.map((part) => (part.type === "text" ? part.text : "")).join("");
    return { api: `${api}/${id}/messages${query}`, headers, body: { content, clientMessageId } };
  },
  prepareReconnectToStreamRequest: ({ id, headers }) => ({ api: `${api}/${id}/stream${query}`, headers }),
});

const print = (line) => console.log(JSON.stringify(line));

let chat;
function Chat({ mounted, ...props }) {
  chat = useChat({
    ...props,
    transport,
    onData: (part) => print({ data: part }),
    onError: (error) => print({ error: error.message }),
    onFinish: ({ isAbort, isDisconnect, isError, finishReason }) =>
      print({ finished: { isAbort, isDisconnect, isError, finishReason } }),
  });
  const { status, messages, error } = chat;
  useEffect(() => print({ status, messages, error: error?.message ?? null }), [status, messages, error]);
  useEffect(() => mounted(), []);
  return null;
}

let root;
const CALLS = {
  // React renders when it gets to it, and only then there is something to call.
  mount: (more) => new Promise((mounted) => (root = create(createElement(Chat, { ...props, ...more, mounted })))),
  unmount: () => root.unmount(),
  send: (text) => void chat.sendMessage({ text }),
  regenerate: () => void chat.regenerate(),
  resume: () => void chat.resumeStream(),
  stop: () => chat.stop(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...values] = JSON.parse(line);
  print({ result: (await CALLS[name](...values)) ?? null });
}
