"use client";
// A whole chat with the AI SDK's useChat, of `ai` 5, 6 or 7: history, resume, stop, another answer, errors.
// Copy it and change it: <Chat server="https://your.server" id="my-first" token={() => token} />

import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport, type UIMessage } from "ai";
import { useEffect, useMemo, useRef, useState } from "react";

/** What the server adds to a message: all that comes from it has some, and an answer that has ended has a `status`. */
type Metadata = {
  createdAt?: string;
  replyTo?: string;
  status?: "complete" | "stopped" | "failed" | "interrupted";
  error?: { code: string } | null;
};
export type Message = UIMessage<Metadata>;
type History = { messages: Message[]; streamCursor: string | null };
type Props = { server: string; id: string; token: () => string | Promise<string> };

const FORMAT = "format=ui-message-stream"; // read by every `ai` from 5.0.0 on
// Only `stop` ends an answer: whoever comes back finds all of it. Without this it is cut 15 s after everyone has left.
const ASKED = `${FORMAT}&background=true`;

/** The server said no, and would say so again; its words are for people. */
export class Refusal extends Error {}

/** One conversation's requests. */
export function api({ server, id, token }: Props) {
  const conversations = `${server}/api/v1/chat/conversations`;
  const url = `${conversations}/${encodeURIComponent(id)}`;

  const ask = async (address: RequestInfo | URL, init: RequestInit = {}) => {
    const headers = new Headers(init.headers);
    headers.set("Authorization", `Bearer ${await token()}`);
    if (init.body) headers.set("Content-Type", "application/json");
    return fetch(address, { ...init, headers });
  };

  const request = async (address: RequestInfo | URL, init?: RequestInit) => {
    let response = await ask(address, init);
    if (response.status === 404 && init?.method === "POST") {
      // useChat makes ids by itself: the first message creates the conversation. If two do so at once, one gets 409.
      await ask(conversations, { method: "POST", body: JSON.stringify({ id }) });
      response = await ask(address, init);
    }
    // Nothing comes: a stream without an answer, since ai 5.0 would wait for one for ever.
    if (response.status === 204) return new Response("data: [DONE]\n\n");
    if (response.ok) return response;
    const { detail }: { detail?: string } = await response.json().catch(() => ({})); // a proxy answers in HTML
    const words = detail ?? `The server answered ${response.status}.`;
    throw response.status < 500 ? new Refusal(words) : new Error(words);
  };

  return {
    url,
    request,
    history: async (): Promise<History> => {
      const response = await ask(`${url}/ui-messages`);
      if (response.status === 404) return { messages: [], streamCursor: null }; // not created yet
      if (!response.ok) throw new Error(`The server answered ${response.status}.`);
      return response.json();
    },
  };
}

/** useChat on chatstream. An answer whose connection breaks is gone on with; `stop` ends it for all who watch. */
export function useConversation({ server, id, token, history }: Props & { history: History }) {
  const newestToken = useRef(token); // an inline function is a new one each time; the transport stays
  useEffect(() => void (newestToken.current = token));
  const cursor = useRef(history.streamCursor); // the stream has what comes after it
  const tries = useRef(0);
  const left = useRef(false); // by `leave`, which the server does not hear of

  const [conversation, transport] = useMemo(() => {
    const conversation = api({ server, id, token: () => newestToken.current() });
    const { url, request } = conversation;
    const transport = new DefaultChatTransport<Message>({
      fetch: request,
      prepareSendMessagesRequest: ({ messages, trigger }) => {
        if (trigger === "regenerate-message") return { api: `${url}/regenerate?ifBusy=interrupt&${ASKED}`, body: {} };
        const last = messages.at(-1);
        if (last?.role !== "user") throw new Refusal("There is no message to send."); // the answer's, not ours
        const content = last.parts.map((part) => (part.type === "text" ? part.text : "")).join("");
        // Sent again under the same key, a message is stored once, and its answer is told from the beginning.
        return { api: `${url}/messages?ifBusy=interrupt&${ASKED}`, body: { content, clientMessageId: last.id } };
      },
      prepareReconnectToStreamRequest: () => ({
        api: `${url}/stream?${FORMAT}${cursor.current ? `&last_event_id=${cursor.current}` : ""}`,
      }),
    });
    return [conversation, transport] as const;
  }, [server, id]);

  const chat = useChat<Message>({ id, messages: history.messages, transport });
  const { messages, setMessages, sendMessage, resumeStream, status, error } = chat;
  const last = messages.at(-1);
  const idle = status === "ready" || status === "error";
  // One that was interrupted without an error is given again by itself.
  const ended =
    last?.metadata?.status !== undefined && (last.metadata.status !== "interrupted" || Boolean(last.metadata.error));
  const broken = idle && last !== undefined && !ended && !(error instanceof Refusal) && !left.current;

  useEffect(() => {
    if (ended) tries.current = 1;
    if (!broken) return;
    // A page that was just opened goes on at once; after that, clients that lost the same server come back one by one.
    const pause = tries.current === 0 ? 0 : Math.min(500 * 2 ** tries.current, 30_000) * (1 + Math.random() / 2);
    const timer = setTimeout(() => {
      tries.current++;
      if (last.role === "assistant") {
        cursor.current = `${last.metadata?.replyTo}.user`; // behind the question: all of its answer comes again,
        setMessages(messages.slice(0, -1)); // so that ai 5 would show its beginning twice
      }
      void (last.metadata ? resumeStream() : sendMessage());
    }, pause);
    return () => clearTimeout(timer);
  }, [broken, ended, last, error]);

  const leave = () => {
    left.current = true;
    return chat.stop();
  };
  return {
    ...chat,
    broken,
    leave,
    /** The stream then ends by itself, with what was stored. */
    stop: () => conversation.request(`${conversation.url}/stop`, { method: "POST" }).then(() => {}, leave),
    send: (text: string) => {
      left.current = false;
      return sendMessage({ text });
    },
    regenerate: () => {
      left.current = false;
      return chat.regenerate();
    },
  };
}

export function Chat(props: Props) {
  const [history, setHistory] = useState<History>();
  const [problem, setProblem] = useState<string>();
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let here = true;
    const load = async () => {
      try {
        const loaded = await api(props).history();
        if (here) setHistory(loaded);
      } catch (error) {
        if (!here) return;
        setProblem(String(error));
        timer = setTimeout(load, 2_000);
      }
    };
    void load();
    return () => {
      here = false;
      clearTimeout(timer);
    };
  }, [props.server, props.id]);
  if (!history) return <p role="status">{problem ?? "Loading…"}</p>;
  return <Conversation key={props.id} {...props} history={history} />;
}

function Conversation(props: Props & { history: History }) {
  const { messages, status, error, broken, send, stop, regenerate } = useConversation(props);
  const [draft, setDraft] = useState("");
  const busy = status === "submitted" || status === "streaming";
  return (
    <>
      <ol>
        {messages.map(({ id, role, parts, metadata }) => (
          <li key={id} className={role}>
            {parts.map((part, index) => (part.type === "text" ? <p key={index}>{part.text}</p> : null))}
            {metadata?.status === "stopped" && <small>Stopped.</small>}
          </li>
        ))}
      </ol>
      <p role="status">{broken ? "Connecting again…" : error?.message}</p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          setDraft("");
          void send(draft);
        }}
      >
        <input aria-label="Your message" value={draft} onChange={(event) => setDraft(event.target.value)} />
        <button disabled={busy || draft.trim() === ""}>Send</button>
        <button type="button" disabled={!busy} onClick={() => void stop()}>
          Stop
        </button>
        <button type="button" disabled={busy || messages.length === 0} onClick={() => void regenerate()}>
          Answer again
        </button>
      </form>
    </>
  );
}
