/** A recommendation in an answer. Its fields are defined by the server's plug-in. */
export interface Recommendation {
  readonly [name: string]: any;
}

/** Something else that a plug-in of the server found in an answer. `kind` is its type, `message` describes it in words. */
export interface Annotation {
  readonly kind: string;
  readonly id: string;
  readonly message: string;
  readonly data: { readonly [name: string]: unknown };
}

export interface Usage {
  promptTokens: number;
  completionTokens: number;
  totalTokens: number;
  /** `exact`: the model's final count. `partial`: its count so far. `estimated`: from the length of the texts. */
  source: "exact" | "partial" | "estimated";
  /** Cached tokens of the prompt, and reasoning tokens of the completion, if the model reports them. */
  cachedTokens?: number;
  reasoningTokens?: number;
  /** In millionths of the operator's currency, if the price is known. */
  costMicros?: number;
}

/** Why an answer failed. `error` is a stable code, `message` is for people; `retryable`: `regenerate` may help. */
export interface AnswerError {
  error: string;
  message: string;
  retryable: boolean;
  requestId: string | null;
  /** The wait before a retry, if the model's server named one, counted from the answer's end. */
  retryAfterMs?: number | null;
}

/** `waiting`: the answer waits for a decision about a tool call, or for the app's result, and has not ended. */
export type AnswerStatus = "streaming" | "waiting" | "complete" | "stopped" | "failed" | "interrupted";

export type Rating = "up" | "down";

export interface UserMessage {
  readonly id: string;
  readonly role: "user";
  readonly content: string;
  /** RFC 3339. */
  readonly timestamp: string;
  /** If it was edited: the ids of all versions, including this one, oldest first. `showBranch` shows another one. */
  readonly siblings?: readonly string[];
}

/** The state of a tool call; null while the model still writes its arguments. */
export type ToolCallState =
  | "ready"
  | "awaiting_approval"
  | "approved"
  | "denied"
  | "expired"
  | "awaiting_client"
  | "awaiting_input"
  | "answered"
  | "running"
  | "done"
  | "unknown"
  | null;

/** A tool's question to the user: for an object that the JSON Schema describes, or to open a page. */
export interface ToolQuestion {
  /** The question's id, unique within the call. */
  readonly id: string;
  readonly schema?: { readonly [keyword: string]: unknown };
  readonly url?: string;
}

/** A tool that the model calls. */
export interface ToolCallPart {
  readonly type: "tool_call";
  readonly toolCallId: string;
  readonly name: string;
  /** JSON text; incomplete while `state` is null. */
  readonly arguments: string;
  readonly state: ToolCallState;
  /** The time limit for the decision or the answer; RFC 3339. */
  readonly expiresAt?: string;
  readonly decidedBy?: string;
  /** For people: what it will do or asks, how far it is, why it was denied, what is not known. */
  readonly message?: string;
  /** The tool's question, in the state `awaiting_input`; its text is the `message`. */
  readonly question?: ToolQuestion;
  /** The result: any JSON value. With `failed`, an error message. */
  readonly output?: unknown;
  readonly failed?: boolean;
  /** The result was too large: `output` is its beginning, as text. */
  readonly truncated?: boolean;
}

/** A tool call after a decision or an answer. */
export interface DecidedCall extends Omit<ToolCallPart, "type"> {
  readonly messageId: string;
  readonly status: AnswerStatus;
  readonly streamCursor: string;
}

/** A part of an answer. Later servers may send other types: ignore those that you do not know. */
export type AnswerPart =
  | { readonly type: "text"; readonly text: string }
  /** The model's reasoning, if the server shows it. */
  | { readonly type: "reasoning"; readonly text: string }
  | ToolCallPart
  /** Data of a plug-in of the server, to be shown at this place. `kind` is its type. The text continues after it. */
  | { readonly type: "data"; readonly kind: string; readonly id: string; readonly data: unknown };

/** The newest attempt at answering a user message. */
export interface AssistantMessage {
  readonly id: string;
  readonly role: "assistant";
  /** The text so far; complete once `status` is final. */
  readonly content: string;
  readonly status: AnswerStatus;
  /** Whether the answer has not ended: `status` is `streaming` or `waiting`. */
  readonly streaming: boolean;
  /** 1 for the first attempt; each `regenerate` adds one. */
  readonly attempt: number;
  /** The id of the user message; null in the rare case that it is unknown. */
  readonly replyTo: string | null;
  readonly finishReason: string | null;
  readonly usage: Usage | null;
  readonly error: AnswerError | null;
  readonly recommendations: readonly Recommendation[];
  /** Set only if there are any. */
  readonly annotations?: readonly Annotation[];
  /** In the order in which they began. Set only if the answer has more than text. */
  readonly parts?: readonly AnswerPart[];
  /** The server's name of the model that answered. In the history always; in the stream only if there are several models. */
  readonly model?: string;
  /** The user's rating, if any. */
  readonly rating?: Rating;
  /** If there are several attempts: the ids of all, including this one, oldest first. `showBranch` shows another one. */
  readonly siblings?: readonly string[];
  /** The conversation has become too long: from this answer on, this many of its oldest messages are not sent to the model. */
  readonly contextTrimmed?: { readonly dropped: number };
  /** The time of the newest event; RFC 3339. */
  readonly timestamp: string;
}

export type ChatMessage = UserMessage | AssistantMessage;

/** An event of the stream, as received. Later servers may send other types: ignore them. */
export type ChatEvent = { timestamp: string } & (
  | { type: "connected"; conversationId: string; resumed: boolean; activeMessageId: string | null; head?: string }
  | { type: "heartbeat" }
  /** `parent` is set only if the conversation has several branches: the id of the message before this one. */
  | { type: "user_message"; messageId: string; content: string; parent?: string | null }
  /** Another branch is shown from now on. It ends with the message `head`, or with the newest answer to it. */
  | { type: "branch"; head: string }
  /** An answer was rated, on any device; null: the rating was removed. */
  | { type: "rating"; messageId: string; rating: Rating | null }
  /** The conversation has a new title, from the user or from the model. */
  | { type: "title"; title: string | null }
  /** A queued question was taken back. */
  | { type: "withdrawn"; messageId: string }
  | { type: "llm_chunk"; messageId: string; replyTo: string; attempt: number; offset: number; content: string }
  /** The next piece of the model's reasoning; `offset` counts within this part. */
  | { type: "reasoning_chunk"; messageId: string; replyTo: string; attempt: number; offset: number; content: string }
  /** The model calls a tool: the next piece of the call's arguments. */
  | { type: "tool_call"; messageId: string; replyTo: string; attempt: number; toolCallId: string; name: string; arguments: string }
  /** The new state of a call. If `arguments` is set, it is complete. */
  | ({ type: "tool_state"; messageId: string; replyTo: string; attempt: number; state: ToolCallState; arguments?: string } & Pick<
      ToolCallPart,
      "toolCallId" | "name" | "expiresAt" | "decidedBy" | "message" | "question"
    >)
  | {
      type: "tool_result";
      messageId: string;
      replyTo: string;
      attempt: number;
      toolCallId: string;
      output: unknown;
      failed: boolean;
      truncated: boolean;
    }
  /** The conversation has become too long: from this answer on, its oldest `dropped` messages are not sent to the model. */
  | { type: "context_trimmed"; messageId: string; replyTo: string; attempt: number; dropped: number }
  | {
      type: "llm_complete";
      messageId: string;
      replyTo: string;
      attempt: number;
      content: string;
      status: Exclude<AnswerStatus, "streaming" | "waiting">;
      finishReason: string | null;
      usage: Usage | null;
      parts?: readonly AnswerPart[];
      /** The model that answered, if there are several. */
      model?: string;
    }
  /** Data of a plug-in, at this place of the answer; a later event with the same `kind` and `id` replaces it. */
  | { type: "data"; messageId: string; replyTo: string; attempt: number; kind: string; id: string; data: unknown }
  /** Something found in the answer: a recommendation, or, with a `kind`, another annotation. */
  | { type: "system"; message: string; metadata: Recommendation; kind?: undefined; id?: undefined }
  | { type: "system"; message: string; metadata: { readonly [name: string]: unknown }; kind: string; id: string }
  | (AnswerError & { type: "error"; messageId: string | null })
);

/** The error of a request, a connection or an answer. `message` is for people. */
export class ChatError extends Error {
  /** Stable: the server's codes, `http_<status>` of a proxy, `connection_failed`, `connection_lost`, `not_a_stream`,
   * `protocol`, `token_failed` (your token function threw, or took too long: `cause`), `unsupported`. */
  readonly code: string;
  /** Whether a retry can help. A stream retries by itself; after an error that is not retryable, it is `closed`. */
  readonly retryable: boolean;
  /** The HTTP status, if there was one. */
  readonly status: number | null;
  /** The server's description of the error, if there is one; then it is also the `message`. */
  readonly detail: string | null;
  /** The errors of the request's fields, if any: `{content: "at most 32000 characters"}`. */
  readonly fields: Readonly<Record<string, string>> | null;
  readonly retryAfterMs: number | null;
  /** The server's log has the details under this id. */
  readonly requestId: string | null;
  /** The failed answer; null for requests and connections. */
  readonly messageId: string | null;
  /** The exception that caused it: from `fetch` or from your token function. */
  readonly cause?: unknown;
}

/** `closed` → `connect()` → `connecting` → `open` ⇄ `reconnecting`; `closed` after `disconnect()`, or when retrying cannot help. */
export type ChatState = "connecting" | "open" | "reconnecting" | "closed";

/** A token, or a function that is called before each request. `refresh`: the last token has expired or was refused, so get a
 * new one. The function has 15 s. If it throws, the error is `token_failed` with that `cause`. It may be written inline. */
export type TokenSource = string | ((why: { refresh: boolean }) => string | Promise<string>);

/** The required part of an EventSource: a browser's, npm's `eventsource`, `react-native-sse`. */
export interface EventSourceLike {
  addEventListener(type: any, listener: (event: any) => void): void;
  close(): void;
}

/** A conversation. Null means the server's default. */
export interface Conversation {
  id: string;
  title: string | null;
  systemPrompt: string | null;
  model: string | null;
  background: boolean;
  createdAt: string;
  updatedAt: string;
}

/** A conversation in a list. */
export interface ListedConversation extends Conversation {
  /** Whether an answer runs in it, or waits for a decision. Later servers may have other states. */
  state: "idle" | "running" | "waiting";
  /** An answer has ended while no device watched, and was not read since. */
  unread: boolean;
}

export interface ConversationPage {
  conversations: ListedConversation[];
  /** The `before` of the next page; null if this is the last one. */
  nextCursor: string | null;
  /** For a search: false while the server still indexes older conversations; search again later. */
  complete?: boolean;
}

export interface NewConversation {
  /** By default the server makes one. With your own id the request is safe to repeat: the second one gets a 409. */
  id?: string;
  title?: string | null;
  systemPrompt?: string | null;
  model?: string | null;
  background?: boolean;
  /** The model writes a title after the first answer. It replaces `title`, unless the user has renamed the conversation. */
  autoTitle?: boolean;
}

/** The conversations of a user. All methods reject with a `ChatError`. */
export class Conversations {
  constructor(options: { baseUrl?: string; token: TokenSource; fetch?: typeof globalThis.fetch });
  setToken(token: TokenSource): void;
  /** Most recently active first. `before` is the `nextCursor` of the page before. */
  list(options?: { limit?: number; before?: string | null }): Promise<ConversationPage>;
  /** The conversations whose title or messages contain all words of `text`, or words that begin with them. */
  search(text: string, options?: { limit?: number; before?: string | null }): Promise<ConversationPage>;
  get(id: string): Promise<Conversation>;
  create(conversation?: NewConversation): Promise<Conversation>;
  /** Null removes the title. */
  rename(id: string, title: string | null): Promise<Conversation>;
  change(
    id: string,
    changes: { title?: string | null; systemPrompt?: string | null; model?: string | null; background?: boolean },
  ): Promise<Conversation>;
  /** Delete it with its messages; this cannot be undone. */
  delete(id: string): Promise<null>;
  /** All its messages in the form of the REST API, oldest first: of the shown branch, of the branch that ends with the message
   * `leaf`, or of all branches. */
  messages(id: string, options?: { branches?: "all"; leaf?: string | null }): Promise<Record<string, unknown>[]>;
  /** The same page by page, the newest page first. */
  pages(id: string, options?: { branches?: "all"; leaf?: string | null }): AsyncGenerator<Record<string, unknown>[], void>;
}

export interface ChatStreamOptions {
  /** The server, e.g. `https://chat.example`; by default the server of the page. */
  baseUrl?: string;
  conversationId: string;
  token: TokenSource;
  /** `auto`: `fetch` if it can stream (everywhere except React Native's own), else `eventsource`. */
  transport?: "auto" | "fetch" | "eventsource";
  /** With an EventSource: get a one-time ticket before each connection (the default), so that no token is in a URL, where logs
   * could contain it. */
  tickets?: boolean;
  /** Whether answers finish even if nobody watches. False: an answer is cut some 15 s after its last viewer has left. The
   * default is the conversation's setting. */
  background?: boolean;
  /** An earlier `chat.cursor`: the stream continues right after it. `history()` sets it, too. */
  cursor?: string | null;
  /** Failed tries in a row before it gives up. Infinite by default. */
  maxReconnectAttempts?: number;
  /** The delay before the first retry, in ms; it doubles up to 30 s. By default the server's `retry:`. */
  reconnectDelay?: number;
  /** A connection that is silent for this time, in ms, is closed and opened again. By default 2.5 heartbeats: 37,500. */
  silenceTimeout?: number;
  /** The most messages in memory; the oldest are dropped. By default 1,000. */
  maxMessages?: number;
  fetch?: typeof globalThis.fetch;
  EventSource?: new (url: string, options?: any) => EventSourceLike;
}

export interface ChatListeners {
  /** `chat.state` has changed. */
  state: (state: ChatState) => void;
  /** `chat.messages` has changed. */
  messages: (messages: readonly ChatMessage[]) => void;
  /** An event was received. `repeated`: it changed nothing. */
  event: (event: ChatEvent, about: { cursor: string | null; repeated: boolean }) => void;
  /** A connection failed (if `retryable`, it is tried again; else `chat.state` becomes `closed`), or an answer failed
   * (`messageId` is its id). */
  error: (error: ChatError) => void;
}

export interface SendOptions {
  clientMessageId?: string;
  ifBusy?: "queue" | "interrupt";
  background?: boolean;
}

export interface SentMessage {
  id: string;
  role: "user";
  content: string;
  createdAt: string;
  parent?: string | null;
  streamCursor: string;
}

export interface RegenerateOptions {
  messageId?: string;
  ifBusy?: "interrupt";
  background?: boolean;
}

export interface BegunAnswer {
  id: string;
  replyTo: string;
  attempt: number;
  streamCursor: string;
}

/** One conversation. Nothing happens before `connect()` or a request. */
export class ChatStream {
  constructor(options: ChatStreamOptions);

  readonly state: ChatState;
  /** The last error of the connection; null after `connect()`, and once it is open. */
  readonly error: ChatError | null;
  /** The position of the last received event in the conversation's log; opaque. */
  readonly cursor: string | null;
  /** The known messages, oldest first. The same array with the same objects until something changes. */
  readonly messages: readonly ChatMessage[];
  /** An answer is being written, or awaited. */
  readonly streaming: boolean;
  /** Whether `earlier()` can load more messages. */
  readonly hasEarlier: boolean;
  /** The last message of the branch that is looked at (`lookAt`); null if the conversation's present branch is shown. */
  readonly lookedAt: string | null;
  /** Whether an answer runs on a branch that is not shown. Questions wait for its end. */
  readonly busyElsewhere: boolean;

  /** Add a listener. The returned function removes it. */
  on<Type extends keyof ChatListeners>(type: Type, listener: ChatListeners[Type]): () => void;

  /** Open the stream and keep it open. If it waits before a retry, try now. With `history`, load the newest messages first,
   * if they are not loaded yet; this is retried like the stream. */
  connect(options?: { history?: boolean }): void;
  /** Close the stream. The messages and the cursor stay, so `connect()` continues without a gap. */
  disconnect(): void;
  /** Use this token from now on. If the stream was closed because its token was refused, it is opened with another token: at
   * the earliest one second after the refusal, then two, and so on. */
  setToken(token: TokenSource): void;
  /** Remove all messages; the cursor stays. */
  clear(): void;

  /** Load the newest messages (200, or `limit`); they replace the shown ones. The stream continues right after them, whether
   * it is open already or is opened later. After that, the history is loaded again by itself if the stream has missed more
   * than it can resume (100 messages).
   * @throws {ChatError} as all that follow */
  history(options?: { limit?: number }): Promise<readonly ChatMessage[]>;
  /** Load the messages before the shown ones, if `hasEarlier`. */
  earlier(options?: { limit?: number }): Promise<readonly ChatMessage[]>;
  /** Send a message. It is tried up to four times with the same key, so it is stored once. While an answer runs, it is refused
   * (`answer_in_progress`) unless `ifBusy` is set. */
  send(
    content: string,
    options?: SendOptions & { parent?: string | null },
  ): Promise<SentMessage>;
  /** Send the user message `messageId` again with another text. This begins a new branch of the conversation, which is shown
   * from then on. The old one can be shown again (`siblings`). */
  edit(messageId: string, content: string, options?: SendOptions): Promise<SentMessage>;
  /** Take back a queued question. Rejects with `not_queued` once its own answer has begun. */
  takeBack(messageId: string): Promise<void>;
  /** Show the branch through this message, to all viewers of the conversation. */
  showBranch(messageId: string): Promise<readonly ChatMessage[]>;
  /** Show the branch that ends with this message, here only. It stays shown until `showBranch`, or until `send`,
   * `regenerate` or `continueAnswer`, which go on from what is shown. */
  lookAt(messageId: string): Promise<readonly ChatMessage[]>;
  /** Begin a new attempt that continues the text of the newest answer, or of the answer `messageId`. Rejects with
   * `nothing_to_continue` if that answer was not cut. */
  continueAnswer(options?: RegenerateOptions): Promise<BegunAnswer>;
  /** Store the user's rating of an answer; null removes it. */
  /** Approve or deny a waiting tool call; the model gets the `reason` for a denial. The first decision counts: repeating it
   * changes nothing, a different one rejects with `already_decided`, a late one with `call_expired`. */
  decide(toolCallId: string, decision: "approve" | "deny", options?: { reason?: string }): Promise<DecidedCall>;
  /** Send the result of a call that the app carries out, or its `error`; only once. */
  answerTool(toolCallId: string, answer: { output: unknown } | { error: string }): Promise<DecidedCall>;
  /** Answer a tool's question to the user, by the question's id; only once. `content`, only with `accept`, must match the
   * question's schema, else it rejects with `invalid_content`. */
  answerQuestion(
    toolCallId: string,
    answer: { question: string; action?: "accept" | "decline" | "cancel"; content?: { readonly [name: string]: unknown } },
  ): Promise<DecidedCall>;
  rate(messageId: string, rating: Rating | null): Promise<{ messageId: string; rating: Rating | null }>;
  /** End the running answer. Its text is cut, on all devices, to the text received here; or to `seenLength` code points, if
   * your app shows less, for example with a typing animation; with null, nothing is cut. Rejects with `no_answer_running` if
   * none runs. `usage` covers all generated text. */
  stop(options?: { seenLength?: number | null }): Promise<{
    messageId: string;
    status: AnswerStatus;
    contentLength: number;
    upstreamCancelled: boolean;
    usage: Usage | null;
  }>;
  /** Answer the newest message again, or the user message `messageId`. */
  regenerate(options?: RegenerateOptions): Promise<BegunAnswer>;
}

/** The delay before retry number `attempt`, in ms: `base`, doubled each time, plus up to 50 % at random. */
export function reconnectDelay(attempt: number, base: number, random?: () => number): number;
