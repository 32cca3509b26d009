import type { AnswerPart, ChatError, ChatMessage, ChatStream, Conversations, ChatStreamOptions, TokenSource } from "./chatstream.js";

export type ConnectionStatus = "disconnected" | "connecting" | "connected" | "reconnecting";

/** An answer, or (`system`) something that was found in the answer before it: a recommendation, for one. */
export interface ChatSSEMessage {
  /** The answer's id, or the cursor of what was found in it: the same however often it comes. */
  id: string;
  content: string;
  timestamp: string;
  type: "assistant" | "system";
  metadata?: Record<string, unknown>;
  isStreaming?: boolean;
  /** Of an answer that is more than text: what the model thinks, for one. */
  parts?: readonly AnswerPart[];
}

/** Beside these, the options of `ChatStream`; they and the first five are read when the conversation is opened. */
export interface UseChatSSEOptions
  extends Pick<ChatStreamOptions, "baseUrl" | "transport" | "tickets" | "background" | "cursor" | "silenceTimeout" | "maxMessages" | "fetch" | "EventSource"> {
  conversationId: string;
  /** A new one, or a function's result, is used from the next request on; nothing is lost meanwhile. No token, no
   * connection. A function may be written inline: a new one that returns the same token changes nothing. */
  accessToken: TokenSource | null | undefined;
  /** True by default; false closes the stream. */
  enabled?: boolean;
  /** Load the newest messages before the stream is opened, and try again until that succeeds. False by default. */
  history?: boolean;
  /** Tries in a row before it gives up. 5 by default. */
  maxReconnectAttempts?: number;
  /** Before the first try again, in ms; it doubles. By default what the server asks for. */
  reconnectDelay?: number;
  onConnect?: () => void;
  /** The connection is lost or closed; also when the component goes away. */
  onDisconnect?: () => void;
  /** An answer has ended, or something was found in it. Once for each. */
  onMessage?: (message: ChatSSEMessage) => void;
  onError?: (message: string, error: ChatError) => void;
}

export interface UseChatSSEReturn {
  status: ConnectionStatus;
  /** What is wrong with the connection or with the newest answer, for people. */
  error: string | null;
  /** What is wrong with the connection, for programs: `code`, `cause`, `fields`. */
  chatError: ChatError | null;
  /** What has ended, oldest first. */
  messages: ChatSSEMessage[];
  /** The answer that is being written, from its first word, or its first thought, on. It stays through lost connections and new tokens. */
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
  continueAnswer: ChatStream["continueAnswer"];
  rate: ChatStream["rate"];
  decide: ChatStream["decide"];
  answerTool: ChatStream["answerTool"];
  answerQuestion: ChatStream["answerQuestion"];
  /** All conversations of the user: list, search, create, rename, delete. The same object as long as `baseUrl` is. */
  conversations: Conversations;
  /** An answer is being written, or awaited. */
  isStreaming: boolean;
  /** All of the conversation, what the user said included. */
  transcript: readonly ChatMessage[];
  /** Load the newest messages in place of those shown. */
  history: ChatStream["history"];
  /** Load the messages before those shown, if `hasEarlier`. */
  earlier: ChatStream["earlier"];
  hasEarlier: boolean;
}

/** Watches a conversation while the component is there. All functions stay the same as long as the conversation does. */
export function useChatSSE(options: UseChatSSEOptions): UseChatSSEReturn;
