"use client";
// A whole chat in React with useChatSSE. The conversation was created: POST /api/v1/chat/conversations {"id": "123"}
// <Chat server="https://your.server" id="123" token={() => token} />

import { ChatError, type ChatMessage, type ToolCallPart } from "chatstream";
import { useChatSSE } from "chatstream/use-chat-sse";
import { useEffect, useRef, useState } from "react";
import { Asking } from "./asking";

type Props = {
  server: string;
  id: string;
  token: () => string | Promise<string>;
  /** Functions for the tools that the app carries out, by the tool's name. */
  tools?: Record<string, (given: unknown) => unknown>;
};

export function Chat({ server, id, token, tools = {} }: Props) {
  const { status, error, transcript, isStreaming, send, stop, regenerate, connect, decide, answerTool, answerQuestion } = useChatSSE({
    baseUrl: server,
    conversationId: id,
    accessToken: token, // or a string; a new one is used from the next request on, and the text stays
    history: true, // load the earlier messages first, with retries
  });
  const [draft, setDraft] = useState("");
  const [refusal, setRefusal] = useState<string | null>(null);

  const attempt = async (action: () => Promise<unknown>) => {
    setRefusal(null);
    try {
      await action();
      return true;
    } catch (problem) {
      const known = problem instanceof ChatError;
      setRefusal(known ? (problem.fields?.["content"] ?? problem.message) : String(problem));
      return false;
    }
  };
  const ask = async () => {
    if (await attempt(() => send(draft, { ifBusy: "interrupt" }))) setDraft("");
  };

  // A call that waits for the app is carried out here, once; after a reload, too.
  const begun = useRef(new Set<string>());
  const own = transcript.flatMap(calls).filter(({ state, name }) => state === "awaiting_client" && tools[name]);
  useEffect(() => {
    for (const { toolCallId, name, arguments: given } of own) {
      if (begun.current.has(toolCallId)) continue;
      begun.current.add(toolCallId);
      const carryOut = async () => tools[name]?.(JSON.parse(given));
      const answered = carryOut().then((output) => ({ output: output ?? null }), (problem) => ({ error: String(problem) }));
      void attempt(async () => answerTool(toolCallId, await answered));
    }
  }, [own]);

  return (
    <>
      <ol>
        {transcript.map((message) => (
          <li key={message.id} className={message.role}>
            <p>{message.content}</p>
            {calls(message).map(({ toolCallId, name, arguments: given, state, output, message: words, question }) => (
              <section key={toolCallId} aria-label={name}>
                <code>
                  {name} {given}
                </code>{" "}
                {state === "awaiting_approval" ? (
                  <>
                    <button onClick={() => void attempt(() => decide(toolCallId, "approve"))}>Approve</button>
                    <button onClick={() => void attempt(() => decide(toolCallId, "deny"))}>Deny</button>
                  </>
                ) : question ? (
                  <Asking {...question} message={words} answer={(id, given) => void attempt(() => answerQuestion(toolCallId, { question: id, ...given }))} />
                ) : (
                  <output>{output === undefined ? state : JSON.stringify(output)}</output>
                )}
              </section>
            ))}
            {message.role === "assistant" && message.status === "stopped" && <small>Stopped.</small>}
          </li>
        ))}
      </ol>
      <p role="status">{refusal ?? error ?? status}</p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void ask();
        }}
      >
        <input aria-label="Your message" value={draft} onChange={(event) => setDraft(event.target.value)} />
        <button disabled={draft.trim() === ""}>Send</button>
        <button type="button" disabled={!isStreaming} onClick={() => void attempt(() => stop())}>
          Stop
        </button>
        <button type="button" disabled={isStreaming || transcript.length === 0} onClick={() => void attempt(() => regenerate())}>
          Answer again
        </button>
        {status === "disconnected" && (
          <button type="button" onClick={connect}>
            Connect
          </button>
        )}
      </form>
    </>
  );
}

/** The tools that an answer has called. */
function calls(message: ChatMessage): ToolCallPart[] {
  const parts = message.role === "assistant" ? (message.parts ?? []) : [];
  return parts.filter((part) => part.type === "tool_call");
}
