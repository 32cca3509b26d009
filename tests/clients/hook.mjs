// useChatSSE in React's test renderer, driven by a test: what is rendered and called back goes out as a line of JSON each,
// new props and calls come in the same way. Under StrictMode, which mounts everything twice.
import { createInterface } from "node:readline";

import { useChatSSE } from "chatstream/use-chat-sse";
import { createElement, StrictMode, useEffect } from "react";
import { create } from "react-test-renderer";

globalThis.IS_REACT_ACT_ENVIRONMENT = false; // what comes from the server comes when it comes

const print = (line) => console.log(JSON.stringify(line));
const callbacks = Object.fromEntries(
  ["onConnect", "onDisconnect", "onMessage", "onError"].map((name) => [
    name,
    (value = null) => print({ callback: name, value }),
  ]),
);

let hook;
let mounted;
const rendered = new Promise((resolve) => (mounted = resolve));
function Chat(props) {
  hook = useChatSSE({ ...props, ...callbacks });
  useEffect(() => print({ shown: hook }));
  useEffect(() => mounted(), []);
  return null;
}

const element = (props) => createElement(StrictMode, null, createElement(Chat, props));
let props = JSON.parse(process.argv[2]);
const root = create(element(props));
await rendered; // React does it when it gets to it, and only then there is something to call

const CALLS = {
  props: (changes) => root.update(element((props = { ...props, ...changes }))),
  unmount: () => root.unmount(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...values] = JSON.parse(line);
  try {
    print({ result: (await (CALLS[name] ?? hook[name])(...values)) ?? null });
  } catch (error) {
    print({ rejected: error.code ?? String(error) });
  }
}
root.unmount();
