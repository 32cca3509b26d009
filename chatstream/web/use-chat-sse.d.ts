import type { AnswerPart, ChatError, ChatMessage, ChatStream, Conversations, ChatStreamOptions, TokenSource } from "./chatstream.js";

export type ConnectionStatus = "disconnected" | "connecting" | "connected" | "reconnecting";

/** An answer, or (`system`) something found in the answer before it, for example a recommendation. */
export interface ChatSSEMessage {
  /** The answer's id, or the cursor of what was found in it. It stays the same if it is received again. */
  id: string;
  content: string;
  timestamp: string;
  type: "assistant" | "system";
  metadata?: Record<string, unknown>;
  isStreaming?: boolean;
  /** Set if the answer has more than text, for example reasoning. */
  parts?: readonly AnswerPart[];
}

/** These, and options of `ChatStream`, which are read when the conversation is opened. */
export interface UseChatSSEOptions
  extends Pick<ChatStreamOptions, "baseUrl" | "transport" | "tickets" | "background" | "cursor" | "silenceTimeout" | "maxMessages" | "fetch" | "EventSource"> {
  conversationId: string;
  /** The token, or a function that returns it. A new token is used from the next request on; nothing is lost meanwhile.
   * Without a token there is no connection. A function may be written inline: only another token makes a difference. */
  accessToken: TokenSource | null | undefined;
  /** True by default; false closes the stream. */
  enabled?: boolean;
  /** Load the newest messages before the stream is opened, and try again until that succeeds. False by default. */
  history?: boolean;
  /** Failed tries in a row before it gives up. 5 by default. */
  maxReconnectAttempts?: number;
  /** The delay before the first retry, in ms; it doubles. By default the server's `retry:`. */
  reconnectDelay?: number;
  onConnect?: () => void;
  /** The connection is lost or closed; also when the component goes away. */
  onDisconnect?: () => void;
  /** Called once for each ended answer, and for each thing found in it. */
  onMessage?: (message: ChatSSEMessage) => void;
  onError?: (message: string, error: ChatError) => void;
}

export interface UseChatSSEReturn {
  status: ConnectionStatus;
  /** The error of the connection or of the newest answer, for people. */
  error: string | null;
  /** The error of the connection, for programs: `code`, `cause`, `fields`. */
  chatError: ChatError | null;
  /** The ended answers, oldest first. */
  messages: ChatSSEMessage[];
  /** The running answer, from its first text or reasoning on. It stays through lost connections and new tokens. */
  currentStreamingMessage: ChatSSEMessage | null;
  connect: () => void;
  disconnect: () => void;
  clearMessages: () => void;
  send: ChatStream["send"];
  stop: ChatStream["stop"];
  regenerate: ChatStream["regenerate"];
  edit: ChatStream["edit"];
  takeBack: ChatStream["takeBack"];
  showBranch: ChatStream["showBranch"];
  lookAt: ChatStream["lookAt"];
  continueAnswer: ChatStream["continueAnswer"];
  rate: ChatStream["rate"];
  decide: ChatStream["decide"];
  answerTool: ChatStream["answerTool"];
  answerQuestion: ChatStream["answerQuestion"];
  /** All conversations of the user: list, search, create, rename, delete. The same object while `baseUrl` is the same. */
  conversations: Conversations;
  /** An answer is being written, or awaited. */
  isStreaming: boolean;
  /** All messages of the conversation, including the user's. */
  transcript: readonly ChatMessage[];
  /** Load the newest messages; they replace the shown ones. */
  history: ChatStream["history"];
  /** Load the messages before those shown, if `hasEarlier`. */
  earlier: ChatStream["earlier"];
  hasEarlier: boolean;
  /** The last message of the branch that is looked at (`lookAt`); null if the conversation's present branch is shown. */
  lookedAt: string | null;
  /** Whether an answer runs on a branch that is not shown. Questions wait for its end. */
  busyElsewhere: boolean;
}

/** Streams a conversation while the component is mounted. All functions stay the same while the conversation does. */
export function useChatSSE(options: UseChatSSEOptions): UseChatSSEReturn;
