"use client";
/**
 * React hook for one conversation, for React and React Native. It has the options and results of the hook that
 * chatstream's protocol was made for. Types and differences: use-chat-sse.d.ts.
 */

import { useCallback, useEffect, useMemo, useRef, useSyncExternalStore } from "react";

import { ChatStream, Conversations } from "./chatstream.js";

const STATUS = { closed: "disconnected", connecting: "connecting", open: "connected", reconnecting: "reconnecting" };
// The text that the original hook gives with each recommendation; the history does not contain it.
const RECOMMENDATION = "New bet recommendation available";

export function useChatSSE({
  conversationId,
  accessToken,
  enabled = true,
  maxReconnectAttempts = 5,
  history = false,
  onConnect,
  onDisconnect,
  onMessage,
  onError,
  ...options
}) {
  const { baseUrl, transport } = options;
  // Another conversation needs another stream. Other changed options do not: a new token must not clear the text.
  const chat = useMemo(
    () => new ChatStream({ ...options, conversationId, token: accessToken, maxReconnectAttempts }),
    [conversationId, baseUrl, transport],
  );

  const { fetch } = options;
  const conversations = useMemo(() => new Conversations({ baseUrl, token: accessToken, fetch }), [baseUrl]);

  const callbacks = useRef({});
  useEffect(() => {
    callbacks.current = { onConnect, onDisconnect, onMessage, onError };
  });
  useEffect(() => chat.setToken(accessToken), [chat, accessToken]);
  useEffect(() => conversations.setToken(accessToken), [conversations, accessToken]);
  const active = enabled && Boolean(accessToken);
  useEffect(() => {
    if (!active) return undefined;
    chat.connect({ history });
    return () => chat.disconnect();
  }, [chat, active, history]);
  useEffect(() => listen(chat, callbacks), [chat]); // last: on unmount it still gets the events of `disconnect` above

  const subscribe = useCallback(
    (onChange) => {
      const ends = ["state", "messages", "error"].map((type) => chat.on(type, onChange));
      return () => ends.forEach((end) => end());
    },
    [chat],
  );
  const state = useSnapshot(subscribe, () => chat.state);
  const transcript = useSnapshot(subscribe, () => chat.messages);
  const chatError = useSnapshot(subscribe, () => chat.error);
  const problem = chatError ?? transcript.at(-1)?.error;
  const messages = useMemo(() => transcript.flatMap(finished), [transcript]);

  return {
    status: STATUS[state],
    error: problem?.message ?? null,
    chatError,
    messages,
    currentStreamingMessage: useMemo(() => streaming(transcript), [transcript]),
    ...useMemo(() => actions(chat, history), [chat, history]),
    conversations,
    isStreaming: chat.streaming,
    hasEarlier: chat.hasEarlier,
    lookedAt: chat.lookedAt,
    busyElsewhere: chat.busyElsewhere,
    transcript,
  };
}

/** The hook's result on a server, where nothing is connected. */
function useSnapshot(subscribe, read) {
  return useSyncExternalStore(subscribe, read, read);
}

function actions(chat, history) {
  return {
    connect: () => chat.connect({ history }),
    disconnect: () => chat.disconnect(),
    clearMessages: () => chat.clear(),
    send: (content, options) => chat.send(content, options),
    stop: (options) => chat.stop(options),
    regenerate: (options) => chat.regenerate(options),
    edit: (messageId, content, options) => chat.edit(messageId, content, options),
    takeBack: (messageId) => chat.takeBack(messageId),
    showBranch: (messageId) => chat.showBranch(messageId),
    lookAt: (messageId) => chat.lookAt(messageId),
    continueAnswer: (options) => chat.continueAnswer(options),
    rate: (messageId, rating) => chat.rate(messageId, rating),
    decide: (toolCallId, decision, options) => chat.decide(toolCallId, decision, options),
    answerTool: (toolCallId, answer) => chat.answerTool(toolCallId, answer),
    answerQuestion: (toolCallId, answer) => chat.answerQuestion(toolCallId, answer),
    history: (options) => chat.history(options),
    earlier: (options) => chat.earlier(options),
  };
}

/** Call the component's callbacks for events; returns a function that stops this. */
function listen(chat, callbacks) {
  let open = false;
  const ends = [
    chat.on("state", (state) => {
      if (open === (state === "open")) return;
      open = !open;
      callbacks.current[open ? "onConnect" : "onDisconnect"]?.();
    }),
    chat.on("error", (error) => callbacks.current.onError?.(error.message, error)),
    chat.on("event", (event, { cursor, repeated }) => {
      if (repeated || (event.type !== "llm_complete" && event.type !== "system")) return;
      const newest = chat.messages.flatMap(finished);
      const id = event.type === "system" ? cursor : event.messageId;
      const message = newest.find((one) => one.id === id);
      if (message) callbacks.current.onMessage?.(message);
    }),
  ];
  return () => ends.forEach((end) => end());
}

/** The events of an ended answer, with its annotations. */
function finished({ id, role, content, timestamp, streaming, recommendations, annotations = [], parts }) {
  if (role === "user" || streaming) return [];
  const answer = { id, content, timestamp, type: "assistant", isStreaming: false, ...(parts && { parts }) };
  const recommended = recommendations.map((data) => ({ message: RECOMMENDATION, data }));
  const system = [...recommended, ...annotations].map(({ message, data }, index) => ({
    id: `${id}.system${index + 1}`, // the cursor of its event
    content: message,
    timestamp,
    type: "system",
    metadata: data,
  }));
  return content === "" ? system : [answer, ...system];
}

function streaming(transcript) {
  const answer = transcript.findLast((message) => message.streaming && (message.content !== "" || message.parts));
  if (!answer) return null;
  const { id, content, timestamp, parts } = answer;
  return { id, content, timestamp, type: "assistant", isStreaming: true, ...(parts && { parts }) };
}
