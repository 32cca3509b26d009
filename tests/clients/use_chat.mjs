// useChat of one AI SDK version, as used in examples/use-chat.tsx, in React's test renderer, driven by a test: calls
// come in, and renderings and callbacks go out, as lines of JSON.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

import { createElement, StrictMode, useEffect } from "react";
import { create } from "react-test-renderer";

import { aiSDK, bundle } from "./bundle.mjs";

globalThis.IS_REACT_ACT_ENVIRONMENT = false; // what comes from the server comes when it comes

const { version, format, ...props } = JSON.parse(process.argv[2]);
const print = (line) => console.log(JSON.stringify(line));

// A directory beside the packages, so that it finds the same React as this script.
const directory = await mkdtemp(new URL("./node_modules/.use-chat-", import.meta.url).pathname);
const source = await bundle('export * from "chatstream/examples/use-chat.tsx";', {
  alias: { ...aiSDK(version), "chatstream/examples/use-chat.tsx": "./node_modules/chatstream/examples/use-chat.tsx" },
  external: ["react", "react/*"],
});
await writeFile(`${directory}/use-chat.mjs`, format ? source.replaceAll("format=ui-message-stream", format) : source);
const { useConversation, api } = await import(pathToFileURL(`${directory}/use-chat.mjs`));
await rm(directory, { recursive: true });

let chat;
function Probe(given) {
  chat = useConversation(given);
  const { status, messages, error, broken, waitsFor } = chat;
  useEffect(
    () => print({ status, messages, broken, error: error?.message ?? null, waitsFor: waitsFor ?? null }),
    [status, messages, error, broken, waitsFor],
  );
  useEffect(() => given.mounted(), []);
  return null;
}

// The app's tools: the result of each tool, by its name.
const tools = Object.fromEntries(
  Object.entries(props.tools ?? {}).map(([name, output]) => [
    name,
    async (input) => {
      print({ carriedOut: name, input });
      if (output === null) throw new Error("no camera");
      return output;
    },
  ]),
);
const conversation = { ...props, token: () => props.token, tools };
let root;
const CALLS = {
  history: () => api(conversation).history(),
  // React renders some time later; only then the hook's functions exist.
  mount: async (history) => {
    const shown = history ?? (await api(conversation).history());
    await new Promise((mounted) => {
      root = create(createElement(StrictMode, null, createElement(Probe, { ...conversation, history: shown, mounted })));
    });
  },
  unmount: () => root.unmount(),
  send: (text) => void chat.send(text),
  repost: () => void chat.sendMessage().catch((error) => print({ thrown: error.message })),
  regenerate: () => void chat.regenerate(),
  resume: () => chat.resumeStream(),
  stop: () => chat.stop(),
  leave: () => chat.leave(), // which is the SDK's own stop
  decide: (...given) => void chat.decide(...given),
  answerTool: (...given) => void chat.answerTool(...given),
  answerQuestion: (...given) => void chat.answerQuestion(...given),
  // The SDK's own, as an app's components call them.
  addToolApprovalResponse: (given) => void chat.addToolApprovalResponse(given),
  addToolOutput: (given) => void (chat.addToolOutput ?? chat.addToolResult)(given),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...values] = JSON.parse(line);
  print({ result: (await CALLS[name](...values)) ?? null });
}
