"use client";
// A whole chat with the AI SDK's useChat, of `ai` 5, 6 or 7: history, resume, stop, another answer, tools and approvals,
// errors. Copy it and change it: <Chat server="https://your.server" id="my-first" token={() => token} />

import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport, type UIMessage } from "ai";
import { useEffect, useMemo, useRef, useState } from "react";
import { Asking, type Answer, type Question } from "./asking";

/** The metadata that the server adds to a message. Every message of the server has some; an ended answer has a
 * `status`. */
type Metadata = {
  createdAt?: string;
  replyTo?: string;
  /** `waiting` until all calls in `waitsFor` are decided or answered; `streaming` as soon as the answer continues. */
  status?: "complete" | "stopped" | "failed" | "interrupted" | "waiting" | "streaming";
  error?: { code: string } | null;
  waitsFor?: WaitingCall[];
};
/** A call that a person must approve, that asks a person something, or that the app carries out. */
export type WaitingCall = {
  toolCallId: string;
  toolName: string;
  state: "awaiting_approval" | "awaiting_client" | "awaiting_input";
  expiresAt?: string;
  /** A text for people, if the tool has one: what the call will do, or what it asks. */
  message?: string;
  question?: Question;
};
/** The response to a waiting call. */
export type Said = { toolCallId: string } & (
  | { decision: "approve" | "deny"; reason?: string }
  | { output: unknown }
  | { error: string }
  | ({ question: string } & Answer)
);
export type Message = UIMessage<Metadata>;
type History = { messages: Message[]; streamCursor: string | null };
type Props = {
  server: string;
  id: string;
  token: () => string | Promise<string>;
  /** Functions for the tools that the app carries out, by the tool's name; also called after a reload. */
  tools?: Record<string, (input: unknown) => unknown>;
};

const FORMAT = "format=ui-message-stream"; // read by every `ai` from 5.0.0 on; with `&version=6` or `7` as that has it
// With `background`, only `stop` ends an answer, so a user who comes back finds all of it. Otherwise it is cut 15 s
// after the last viewer has left.
const ASKED = `${FORMAT}&background=true`;

/** A permanent refusal of the server; its message is for people. */
export class Refusal extends Error {
  stale = false; // what was said to a call came too late: somebody else did, or its time is over
}

/** The responses that `addToolApprovalResponse` and `addToolOutput` (`addToolResult` in ai 5) have put into a waiting
 * message. */
export function said(message: Message | undefined): Said[] {
  type Call = { toolCallId: string; state: string; output?: unknown; errorText?: string; approval?: { approved?: boolean; reason?: string } };
  const calls = (message?.parts ?? []).filter((part) => "toolCallId" in part) as unknown as Call[];
  return (message?.metadata?.waitsFor ?? []).flatMap(({ toolCallId, state: awaiting }): Said[] => {
    const { state, output, errorText, approval } = calls.find((call) => call.toolCallId === toolCallId) ?? {};
    if (awaiting === "awaiting_approval") {
      if (approval?.approved === undefined) return [];
      const { reason } = approval;
      return [approval.approved ? { toolCallId, decision: "approve" } : { toolCallId, decision: "deny", ...(reason && { reason }) }];
    }
    if (state === "output-available") return [{ toolCallId, output: output ?? null }];
    return state === "output-error" ? [{ toolCallId, error: errorText || "failed" }] : [];
  });
}

/** The requests for one conversation. */
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
    // The SDK only posts or resumes. When it resumes, it would append repeated text to the text that it has.
    if (String(address).startsWith(`${url}/stream?`)) init = { ...init, method: "GET", body: null };
    let response = await ask(address, init);
    const decides = String(address).startsWith(`${url}/tool-calls/`);
    if (response.status === 404 && init?.method === "POST" && !decides) {
      // useChat makes ids by itself: the first message creates the conversation. If two do so at once, one gets 409.
      await ask(conversations, { method: "POST", body: JSON.stringify({ id }) });
      response = await ask(address, init);
    }
    // 204: no answer comes. Return an empty stream, since ai 5.0 would wait for ever.
    if (response.status === 204) return new Response("data: [DONE]\n\n");
    if (response.ok) return response;
    const { detail }: { detail?: string } = await response.json().catch(() => ({})); // a proxy answers in HTML
    const words = detail ?? `The server answered ${response.status}.`;
    if (response.status >= 500) throw new Error(words);
    throw Object.assign(new Refusal(words), { stale: decides && [404, 409, 410].includes(response.status) });
  };

  return {
    url,
    request,
    history: async (): Promise<History> => {
      const response = await ask(`${url}/ui-messages?${FORMAT}`);
      if (response.status === 404) return { messages: [], streamCursor: null }; // not created yet
      if (!response.ok) throw new Error(`The server answered ${response.status}.`);
      return response.json();
    },
  };
}

/** useChat on chatstream. After a broken connection it resumes the answer; `stop` ends the answer for all viewers. */
export function useConversation({ server, id, token, history, tools }: Props & { history: History }) {
  const newestToken = useRef(token); // an inline function is a new one each time; the transport stays
  useEffect(() => void (newestToken.current = token));
  const cursor = useRef(history.streamCursor); // the stream has what comes after it
  const tries = useRef(0);
  const left = useRef(false); // by `leave`, which the server does not hear of
  const done = useRef(new Set<string>()); // what was said to calls, or is being worked out for them

  const [conversation, transport] = useMemo(() => {
    const conversation = api({ server, id, token: () => newestToken.current() });
    const { url, request } = conversation;
    const watched = () => `${url}/stream?${FORMAT}${cursor.current ? `&last_event_id=${cursor.current}` : ""}`;
    const transport = new DefaultChatTransport<Message>({
      fetch: request,
      prepareSendMessagesRequest: async ({ messages, trigger, body }) => {
        if (trigger === "regenerate-message") return { api: `${url}/regenerate?ifBusy=interrupt&${ASKED}`, body: {} };
        if (body?.["again"]) return { api: watched(), body: {} };
        const last = messages.at(-1);
        if (last?.role !== "user") {
          // The last message is an answer that waits: something is said to its calls, and it goes on.
          const answers = (body?.["said"] as Said[] | undefined) ?? said(last);
          const [newest, ...others] = answers.reverse();
          if (!newest) throw new Refusal("There is no message to send.");
          for (const { toolCallId, ...one } of others) {
            await request(`${url}/tool-calls/${toolCallId}`, { method: "POST", body: JSON.stringify(one) });
          }
          const { toolCallId, ...one } = newest;
          return { api: `${url}/tool-calls/${toolCallId}?${ASKED}`, body: one };
        }
        const content = last.parts.map((part) => (part.type === "text" ? part.text : "")).join("");
        // Sent again under the same key, a message is stored once, and its answer is told from the beginning.
        return { api: `${url}/messages?ifBusy=interrupt&${ASKED}`, body: { content, clientMessageId: last.id } };
      },
      prepareReconnectToStreamRequest: () => ({ api: watched() }),
    });
    return [conversation, transport] as const;
  }, [server, id]);

  const chat = useChat<Message>({
    id,
    messages: history.messages,
    transport,
    // Send the responses of `addToolApprovalResponse` and `addToolOutput`, once.
    sendAutomaticallyWhen: ({ messages }) => {
      const news = said(messages.at(-1)).map((one) => JSON.stringify(one)).filter((one) => !done.current.has(one));
      news.forEach((one) => done.current.add(one));
      return news.length > 0;
    },
  });
  const { messages, setMessages, sendMessage, status, error } = chat;
  const last = messages.at(-1);
  const idle = status === "ready" || status === "error";
  const ended = hasEnded(last?.metadata) && !(last?.metadata?.status === "waiting" && error);
  const refused = error instanceof Refusal && !error.stale;
  const broken = idle && last !== undefined && !refused && !left.current && (!ended || error instanceof Refusal);
  const waitsFor = idle && !broken && last?.metadata?.status === "waiting" ? last.metadata.waitsFor : undefined;

  /** Request the last answer again, or a missing one. */
  const again = () => {
    if (last?.role === "assistant") {
      cursor.current = `${last.metadata?.replyTo}.user`; // behind the question: all of its answer comes again,
      setMessages(messages.slice(0, -1)); // so that its beginning would be shown twice
    }
    done.current.clear();
    return last?.metadata ? sendMessage(undefined, { body: { again: true } }) : sendMessage();
  };
  useEffect(() => {
    if (ended) tries.current = 1;
    if (!broken) return;
    // A page that was just opened resumes at once. Later retries are delayed at random, so that clients of a restarted
    // server do not all return at once.
    const pause = tries.current === 0 ? 0 : Math.min(500 * 2 ** tries.current, 30_000) * (1 + Math.random() / 2);
    const timer = setTimeout(() => {
      tries.current++;
      void again();
    }, pause);
    return () => clearTimeout(timer);
  }, [broken, ended, last, error]);

  /** Respond to waiting calls; works with every version of `ai`. */
  const say = (...said: Said[]) => {
    left.current = false;
    return sendMessage(undefined, { body: { said } });
  };
  useEffect(() => {
    const own = waitsFor?.filter((call) => call.state === "awaiting_client" && tools?.[call.toolName] && !done.current.has(call.toolCallId));
    if (!own?.length) return;
    const carryOut = async ({ toolCallId, toolName }: WaitingCall): Promise<Said> => {
      done.current.add(toolCallId);
      const part = last?.parts.find((one) => "toolCallId" in one && one.toolCallId === toolCallId);
      try {
        return { toolCallId, output: (await tools?.[toolName]?.(part && "input" in part ? part.input : {})) ?? null };
      } catch (problem) {
        return { toolCallId, error: String(problem) };
      }
    };
    void Promise.all(own.map(carryOut)).then((answers) => say(...answers));
  }, [waitsFor]);

  const leave = () => {
    left.current = true;
    return chat.stop();
  };
  return {
    ...chat,
    broken,
    /** The calls that the last answer waits for. */
    waitsFor,
    leave,
    /** Stop the answer. Its stream then ends by itself with the stored text; the stream of a waiting answer has ended
     * before. */
    stop: () =>
      conversation.request(`${conversation.url}/stop`, { method: "POST" }).then(() => waitsFor && again(), leave),
    send: (text: string) => {
      left.current = false;
      // Results of earlier calls are not awaited any more.
      if (last && waitsFor) setMessages([...messages.slice(0, -1), { ...last, metadata: { ...last.metadata, status: "stopped", waitsFor: [] } }]);
      return sendMessage({ text });
    },
    regenerate: () => {
      left.current = false;
      return chat.regenerate();
    },
    /** Approve or deny a call. With ai 6 and 7 `addToolApprovalResponse({ id: toolCallId, approved })` does it, too. */
    decide: (toolCallId: string, decision: "approve" | "deny", reason?: string) =>
      say({ toolCallId, decision, ...(reason && { reason }) }),
    /** Send the result of a call that the app carries out. From ai 5.0.60 on, `addToolOutput` does it, too. */
    answerTool: (toolCallId: string, answer: { output: unknown } | { error: string }) => say({ toolCallId, ...answer }),
    /** Answer a tool's question to the user; `waitsFor` has the question. */
    answerQuestion: (toolCallId: string, question: string, answer: Answer) => say({ toolCallId, question, ...answer }),
  };
}

/** Whether the answer has ended. One that was interrupted without an error is generated again by itself. */
function hasEnded({ status, error }: Metadata = {}) {
  if (status === undefined || status === "streaming") return false;
  return status !== "interrupted" || Boolean(error);
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
  const { messages, status, error, broken, waitsFor, send, stop, regenerate, decide, answerQuestion } = useConversation(props);
  const [draft, setDraft] = useState("");
  const busy = status === "submitted" || status === "streaming";
  return (
    <>
      <ol>
        {messages.map(({ id, role, parts, metadata }) => (
          <li key={id} className={role}>
            {parts.map((part, index) => {
              if (part.type === "text") return <p key={index}>{part.text}</p>;
              if (part.type !== "dynamic-tool") return null;
              const asked = waitsFor?.find((call) => call.toolCallId === part.toolCallId);
              return (
                <section key={index} aria-label={part.toolName}>
                  <code>
                    {part.toolName} {JSON.stringify(part.input)}
                  </code>{" "}
                  {asked?.state === "awaiting_approval" ? (
                    <>
                      {asked.message && <p>{asked.message}</p>}
                      <button onClick={() => void decide(part.toolCallId, "approve")}>Approve</button>
                      <button onClick={() => void decide(part.toolCallId, "deny")}>Deny</button>
                    </>
                  ) : asked?.question ? (
                    <Asking {...asked.question} message={asked.message} answer={(id, given) => void answerQuestion(part.toolCallId, id, given)} />
                  ) : (
                    <output>{outcome(part)}</output>
                  )}
                </section>
              );
            })}
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
        <button type="button" disabled={!busy && !waitsFor} onClick={() => void stop()}>
          Stop
        </button>
        <button type="button" disabled={busy || messages.length === 0} onClick={() => void regenerate()}>
          Answer again
        </button>
      </form>
    </>
  );
}

/** The outcome of a call as text; ai 6 and 7 have more states than 5. */
function outcome({ state, output, errorText }: { state: string; output?: unknown; errorText?: string }) {
  if (state === "output-available") return JSON.stringify(output);
  if (state === "output-error") return errorText;
  return state === "output-denied" ? "not carried out" : "…";
}
