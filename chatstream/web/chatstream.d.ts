/** What an answer recommends. What is in it, the server's plug-in says that found it. */
export interface Recommendation {
  readonly [name: string]: any;
}

/** Something else that the server's app found in an answer: what it is, `kind` says, and `message` in words. */
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
  /** Counted by the model, to its end or so far; or reckoned from the length of the texts. */
  source: "exact" | "partial" | "estimated";
  /** Of the prompt, and of the completion, where the model says so. */
  cachedTokens?: number;
  reasoningTokens?: number;
  /** In millionths of the operator's currency, where a price is known. */
  costMicros?: number;
}

/** Why an answer ended badly. `error` is a stable code, `message` is for people; `retryable`: `regenerate` may help. */
export interface AnswerError {
  error: string;
  message: string;
  retryable: boolean;
  requestId: string | null;
  /** When trying again can help, if the model's server said so: counted from the answer's end. */
  retryAfterMs?: number | null;
}

/** `waiting`: for somebody's decision about a call, or for the app's answer to one; it has not ended. */
export type AnswerStatus = "streaming" | "waiting" | "complete" | "stopped" | "failed" | "interrupted";

export type Rating = "up" | "down";

export interface UserMessage {
  readonly id: string;
  readonly role: "user";
  readonly content: string;
  /** RFC 3339. */
  readonly timestamp: string;
  /** Where it was edited: the ids of all versions, this one among them, oldest first. `showBranch` shows another one. */
  readonly siblings?: readonly string[];
}

/** Where a call stands; null while the model still writes its arguments. */
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

/** What a tool asks the user: something that the JSON Schema describes, an object; or to open a page. */
export interface ToolQuestion {
  /** Which of the call's questions it is. */
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
  /** Until when somebody may decide or answer; RFC 3339. */
  readonly expiresAt?: string;
  readonly decidedBy?: string;
  /** For people: what it will do or asks, how far it is, why it was denied, what is not known. */
  readonly message?: string;
  /** What the tool asks the user, with `awaiting_input`; its words are the `message`. */
  readonly question?: ToolQuestion;
  /** What came of it: any JSON; with `failed`, why nothing did. */
  readonly output?: unknown;
  readonly failed?: boolean;
  /** `output` is only the beginning, as text. */
  readonly truncated?: boolean;
}

/** A call, as it is after a decision or an answer. */
export interface DecidedCall extends Omit<ToolCallPart, "type"> {
  readonly messageId: string;
  readonly status: AnswerStatus;
  readonly streamCursor: string;
}

/** What an answer is made of. More types may be added: ignore those that you do not know. */
export type AnswerPart =
  | { readonly type: "text"; readonly text: string }
  /** What the model thinks; there only if the server shows it. */
  | { readonly type: "reasoning"; readonly text: string }
  | ToolCallPart
  /** Something of the server's app, to be shown here: what it is, its `kind` says. Text goes on behind it. */
  | { readonly type: "data"; readonly kind: string; readonly id: string; readonly data: unknown };

/** The newest attempt at answering a user message. */
export interface AssistantMessage {
  readonly id: string;
  readonly role: "assistant";
  /** The text so far; all of it once `status` is final. */
  readonly content: string;
  readonly status: AnswerStatus;
  /** It has not ended: `status` is `streaming` or `waiting`. */
  readonly streaming: boolean;
  /** 1 for the first; `regenerate` makes another. */
  readonly attempt: number;
  /** The id of the user message; null in the rare case that it is not known. */
  readonly replyTo: string | null;
  readonly finishReason: string | null;
  readonly usage: Usage | null;
  readonly error: AnswerError | null;
  readonly recommendations: readonly Recommendation[];
  /** There only if there are any. */
  readonly annotations?: readonly Annotation[];
  /** In the order in which they began; there only where the answer is more than text. */
  readonly parts?: readonly AnswerPart[];
  /** Which model answered, as the server calls it. Live it is said where there are several, in the history always. */
  readonly model?: string;
  /** What its user thinks of it, if they said so. */
  readonly rating?: Rating;
  /** Where there are several attempts: the ids of all, this one among them, oldest first. `showBranch` shows another one. */
  readonly siblings?: readonly string[];
  /** From this answer on the model is not told so many of the oldest messages: the conversation has become too long. */
  readonly contextTrimmed?: { readonly dropped: number };
  /** RFC 3339; of the newest event. */
  readonly timestamp: string;
}

export type ChatMessage = UserMessage | AssistantMessage;

/** What the stream says, as it came. Types that are not here may be added to the protocol: ignore them. */
export type ChatEvent = { timestamp: string } & (
  | { type: "connected"; conversationId: string; resumed: boolean; activeMessageId: string | null; head?: string }
  | { type: "heartbeat" }
  /** `parent` is there in a conversation with several branches: what the message goes on from. */
  | { type: "user_message"; messageId: string; content: string; parent?: string | null }
  /** Another branch is shown from now on: the one that ends with the message `head`, or the newest answer to it. */
  | { type: "branch"; head: string }
  /** An attempt is rated, on whichever device; null: no longer. */
  | { type: "rating"; messageId: string; rating: Rating | null }
  /** The conversation has another title: the user's, or one that the model made. */
  | { type: "title"; title: string | null }
  /** A question that waited for its turn was taken back. */
  | { type: "withdrawn"; messageId: string }
  | { type: "llm_chunk"; messageId: string; replyTo: string; attempt: number; offset: number; content: string }
  /** What the model thinks; `offset` counts within this thought. */
  | { type: "reasoning_chunk"; messageId: string; replyTo: string; attempt: number; offset: number; content: string }
  /** The model calls a tool, or the next piece of the call's arguments has come. */
  | { type: "tool_call"; messageId: string; replyTo: string; attempt: number; toolCallId: string; name: string; arguments: string }
  /** Where a call stands; `arguments` are whole where they are there. */
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
  /** The conversation has become too long: from this answer on the model is not told its oldest `dropped` messages. */
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
      /** Which model answered, where there are several. */
      model?: string;
    }
  /** Something of the server's app, at this place of the answer; the same `kind` and `id` again replaces it. */
  | { type: "data"; messageId: string; replyTo: string; attempt: number; kind: string; id: string; data: unknown }
  /** What was found in the answer: a recommendation, or, with a `kind`, whatever the server's app finds. */
  | { type: "system"; message: string; metadata: Recommendation; kind?: undefined; id?: undefined }
  | { type: "system"; message: string; metadata: { readonly [name: string]: unknown }; kind: string; id: string }
  | (AnswerError & { type: "error"; messageId: string | null })
);

/** A request, a connection or an answer that went wrong. `message` is for people. */
export class ChatError extends Error {
  /** Stable: the server's codes, `http_<status>` of a proxy, `connection_failed`, `connection_lost`, `not_a_stream`,
   * `protocol`, `token_failed` (your token function threw, or took too long: `cause`), `unsupported`. */
  readonly code: string;
  /** Whether trying again can help. A stream does by itself; after one that cannot be helped it is `closed`. */
  readonly retryable: boolean;
  /** The HTTP status, if there was one. */
  readonly status: number | null;
  /** What the server said is wrong with the request, if it did; then it is the `message`, too. */
  readonly detail: string | null;
  /** What is wrong with each field of it, if that is what is wrong: `{content: "at most 32000 characters"}`. */
  readonly fields: Readonly<Record<string, string>> | null;
  readonly retryAfterMs: number | null;
  /** Under which the server's log has the details. */
  readonly requestId: string | null;
  /** The answer that went wrong; null for requests and connections. */
  readonly messageId: string | null;
  /** What was thrown below it: by `fetch`, by your token function. */
  readonly cause?: unknown;
}

/** `closed` → `connect()` → `connecting` → `open` ⇄ `reconnecting`; `closed` by `disconnect()` or when all is in vain. */
export type ChatState = "connecting" | "open" | "reconnecting" | "closed";

/** A function is asked before each request. With `refresh` the server has refused the last one, or it has expired: get a
 * new one. It has 15 s; what it throws is the `cause` of a `ChatError` `token_failed`. It may be written inline. */
export type TokenSource = string | ((why: { refresh: boolean }) => string | Promise<string>);

/** What is used of an EventSource: a browser's, npm's `eventsource`, `react-native-sse`. */
export interface EventSourceLike {
  addEventListener(type: any, listener: (event: any) => void): void;
  close(): void;
}

/** A conversation; null stands for the server's default. */
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
  /** Whether an answer runs in it, or waits for somebody's decision. A later server may say more. */
  state: "idle" | "running" | "waiting";
  /** An answer has ended while nobody watched, on any device, and was not read since. */
  unread: boolean;
}

export interface ConversationPage {
  conversations: ListedConversation[];
  /** The `before` of the next page; null if this is the last one. */
  nextCursor: string | null;
  /** Of a search: false while older conversations have yet to be made ready for it; search again then. */
  complete?: boolean;
}

export interface NewConversation {
  /** By default the server makes one. Of your own choice it makes the request safe to repeat: the second is a 409. */
  id?: string;
  title?: string | null;
  systemPrompt?: string | null;
  model?: string | null;
  background?: boolean;
  /** The model writes a title after the first answer, in place of `title`, unless it is renamed before. */
  autoTitle?: boolean;
}

/** The conversations of a user. All methods reject with a `ChatError`. */
export class Conversations {
  constructor(options: { baseUrl?: string; token: TokenSource; fetch?: typeof globalThis.fetch });
  setToken(token: TokenSource): void;
  /** Most recently active first. `before` is the `nextCursor` of the page before. */
  list(options?: { limit?: number; before?: string | null }): Promise<ConversationPage>;
  /** Those in whose title or messages all words of `text` stand, or words that begin so. */
  search(text: string, options?: { limit?: number; before?: string | null }): Promise<ConversationPage>;
  get(id: string): Promise<Conversation>;
  create(conversation?: NewConversation): Promise<Conversation>;
  /** Null: it has no title any more. */
  rename(id: string, title: string | null): Promise<Conversation>;
  change(
    id: string,
    changes: { title?: string | null; systemPrompt?: string | null; model?: string | null; background?: boolean },
  ): Promise<Conversation>;
  /** With its messages, for good. */
  delete(id: string): Promise<null>;
  /** All messages of it, as the server has them, oldest first: those of the branch that is shown, or of all. */
  messages(id: string, options?: { branches?: "all" }): Promise<Record<string, unknown>[]>;
  /** The same page by page, the newest page first. */
  pages(id: string, options?: { branches?: "all" }): AsyncGenerator<Record<string, unknown>[], void>;
}

export interface ChatStreamOptions {
  /** The server, e.g. `https://chat.example`; by default the page's own. */
  baseUrl?: string;
  conversationId: string;
  token: TokenSource;
  /** `auto`: `fetch` where it can stream, which is everywhere but in React Native's own fetch; else `eventsource`. */
  transport?: "auto" | "fetch" | "eventsource";
  /** With an EventSource: ask for a one-time ticket before each connection (the default), so that no token stands in an
   * address, where logs see it. */
  tickets?: boolean;
  /** Answers to what is sent finish though nobody watches: a phone in the pocket finds the whole of them, and pays once.
   * False: they are cut some 15 s after the last viewer has left. By default as the conversation has it. */
  background?: boolean;
  /** Where to go on, from an earlier `chat.cursor`; `history()` sets it. */
  cursor?: string | null;
  /** Tries in a row before it gives up. Infinite by default. */
  maxReconnectAttempts?: number;
  /** Before the first try again, in ms; it doubles up to 30 s. By default what the server asks for. */
  reconnectDelay?: number;
  /** A connection that says nothing for so long, in ms, is given up. By default 2.5 heartbeats: 37,500. */
  silenceTimeout?: number;
  /** Messages kept; the oldest go first. By default 1,000. */
  maxMessages?: number;
  fetch?: typeof globalThis.fetch;
  EventSource?: new (url: string, options?: any) => EventSourceLike;
}

export interface ChatListeners {
  /** `chat.state` has changed. */
  state: (state: ChatState) => void;
  /** `chat.messages` has changed. */
  messages: (messages: readonly ChatMessage[]) => void;
  /** An event came. `repeated`: what it says was known already. */
  event: (event: ChatEvent, about: { cursor: string | null; repeated: boolean }) => void;
  /** A connection failed (it is tried again, or `chat.state` is about to be `closed`: see `retryable`), or an answer did
   * (`messageId` is set). */
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
  /** The last thing that went wrong with the connection; null from the next `connect()` on, and once it is open. */
  readonly error: ChatError | null;
  /** The place in the conversation's log of the last event seen; opaque. */
  readonly cursor: string | null;
  /** What is known of the conversation, oldest first. The same array, of the same objects, until something changes. */
  readonly messages: readonly ChatMessage[];
  /** An answer is being written, or awaited. */
  readonly streaming: boolean;
  /** `earlier()` has more to show. */
  readonly hasEarlier: boolean;

  /** Listen; what it returns ends it. */
  on<Type extends keyof ChatListeners>(type: Type, listener: ChatListeners[Type]): () => void;

  /** Open the stream and keep it open; if it is waiting to try again, try now. With `history` the newest messages are
   * loaded first, unless they were before; that is tried again like the stream itself, as long as it may help. */
  connect(options?: { history?: boolean }): void;
  /** Close it. The text and the cursor stay: `connect()` goes on without a gap. */
  disconnect(): void;
  /** From now on this token. A stream that was closed for want of a good one is opened: for another string, or for a
   * function that returns another one than was refused. Not sooner than a second after the refusal, then two, and so on. */
  setToken(token: TokenSource): void;
  /** Forget all messages; the cursor stays. */
  clear(): void;

  /** Load the newest messages (200, or `limit`) in place of those shown. The stream joins without a gap, whether it was
   * open before, or is opened meanwhile or later. From then on it is done again whenever the stream cannot tell all that
   * was missed (more than 100 messages).
   * @throws {ChatError} as all that follow */
  history(options?: { limit?: number }): Promise<readonly ChatMessage[]>;
  /** Load those before, if `hasEarlier`. */
  earlier(options?: { limit?: number }): Promise<readonly ChatMessage[]>;
  /** Send a message. Tried up to four times, under one key, so that it is stored once. While an answer runs: refused
   * (`answer_in_progress`) unless `ifBusy` says otherwise. */
  send(
    content: string,
    options?: SendOptions & { parent?: string | null },
  ): Promise<SentMessage>;
  /** Send the message `messageId`, which is shown, with another text. That begins a branch of the conversation, which is
   * shown from then on; the old one stays within reach (`siblings`). */
  edit(messageId: string, content: string, options?: SendOptions): Promise<SentMessage>;
  /** Take back a question that waits behind a running answer. Rejects with `not_queued` once its own answer has begun. */
  takeBack(messageId: string): Promise<void>;
  /** Show the branch that goes on from a message, to all who watch the conversation. */
  showBranch(messageId: string): Promise<readonly ChatMessage[]>;
  /** Another attempt that goes on from the text of the newest answer, or of the answer `messageId`, which was cut.
   * Rejects with `nothing_to_continue` if it was not. */
  continueAnswer(options?: RegenerateOptions): Promise<BegunAnswer>;
  /** Store what the user thinks of an answer; null takes it back. */
  /** Agree to a call that waits for it, or do not; the model is told the `reason` why not. The first decision counts: the
   * same again is no other one, another one rejects with `already_decided`, one that is too late with `call_expired`. */
  decide(toolCallId: string, decision: "approve" | "deny", options?: { reason?: string }): Promise<DecidedCall>;
  /** What came of a call that the app carries out itself, or why nothing did. Once. */
  answerTool(toolCallId: string, answer: { output: unknown } | { error: string }): Promise<DecidedCall>;
  /** Answer what a tool asks the user, by the question's id. `content`, with `accept` alone, is what its schema describes.
   * Once; rejects with `invalid_content` if it does not match. */
  answerQuestion(
    toolCallId: string,
    answer: { question: string; action?: "accept" | "decline" | "cancel"; content?: { readonly [name: string]: unknown } },
  ): Promise<DecidedCall>;
  rate(messageId: string, rating: Rating | null): Promise<{ messageId: string; rating: Rating | null }>;
  /** End the running answer. Its text is kept as far as it has come here, for all devices; or `seenLength` code points of
   * it, where less is shown, as by an animation of typing; or, with null, all that the server has. Rejects with
   * `no_answer_running` if none runs. `usage` is of all that was generated. */
  stop(options?: { seenLength?: number | null }): Promise<{
    messageId: string;
    status: AnswerStatus;
    contentLength: number;
    upstreamCancelled: boolean;
    usage: Usage | null;
  }>;
  /** Another answer to the newest message, or to the user message `messageId`. */
  regenerate(options?: RegenerateOptions): Promise<BegunAnswer>;
}

/** How long the `attempt`-th try waits, in ms: `base`, doubled each time, and up to half as much again by chance. */
export function reconnectDelay(attempt: number, base: number, random?: () => number): number;
