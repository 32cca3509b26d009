// useChatSSE in React's test renderer, driven by a test: new props and calls come in, and renderings and callbacks go
// out, as lines of JSON. It runs under StrictMode, which mounts everything twice.
import { createInterface } from "node:readline";

import { useChatSSE } from "chatstream/use-chat-sse";
import { createElement, StrictMode, useEffect, version } from "react";
import { create } from "react-test-renderer";

globalThis.IS_REACT_ACT_ENVIRONMENT = false; // what comes from the server comes when it comes

const print = (line) => console.log(JSON.stringify(line));
const callbacks = Object.fromEntries(
  ["onConnect", "onDisconnect", "onMessage", "onError"].map((name) => [
    name,
    (value = null, error) => print({ callback: name, value, code: error?.code }),
  ]),
);

const countedFetch = (url, init) => {
  print({ request: String(url) });
  return fetch(url, init);
};

print({ version });
let hook;
let mounted;
const rendered = new Promise((resolve) => (mounted = resolve));
function Chat(props) {
  // As people write it: an inline function, a new one at each rendering.
  const accessToken = props.inlineToken ? () => props.inlineToken : props.accessToken;
  hook = useChatSSE({ ...props, ...callbacks, accessToken, fetch: countedFetch });
  useEffect(() => print({ shown: hook }));
  useEffect(() => mounted(), []);
  return null;
}

const element = (props) => createElement(StrictMode, null, createElement(Chat, props));
let props = JSON.parse(process.argv[2]);
const root = create(element(props));
await rendered; // React renders some time later; only then the hook's functions exist

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
