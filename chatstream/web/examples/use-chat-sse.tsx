"use client";
// A whole chat in React with useChatSSE. The conversation was created: POST /api/v1/chat/conversations {"id": "123"}
// <Chat server="https://your.server" id="123" token={() => token} />

import { ChatError } from "chatstream";
import { useChatSSE } from "chatstream/use-chat-sse";
import { useState } from "react";

type Props = { server: string; id: string; token: () => string | Promise<string> };

export function Chat({ server, id, token }: Props) {
  const { status, error, transcript, isStreaming, send, stop, regenerate, connect } = useChatSSE({
    baseUrl: server,
    conversationId: id,
    accessToken: token, // or a string; a new one is used from the next request on, and the text stays
    history: true, // what was said before, asked for until it is there
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

  return (
    <>
      <ol>
        {transcript.map((message) => (
          <li key={message.id} className={message.role}>
            <p>{message.content}</p>
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
