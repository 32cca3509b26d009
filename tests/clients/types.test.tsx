// How the package is used, for the type checker: nothing here is run. A line after `@ts-expect-error` must be refused.
import { ChatError, ChatStream, Conversations, type ChatMessage } from "chatstream";
import { useChatSSE } from "chatstream/use-chat-sse";
import { EventSource } from "eventsource";
import RNEventSource from "react-native-sse";

const chat = new ChatStream({
  baseUrl: "https://chat.example",
  conversationId: "123",
  token: async ({ refresh }) => (refresh ? "new" : "old"),
  maxReconnectAttempts: 5,
});
new ChatStream({ conversationId: "123", token: "t", transport: "eventsource", EventSource });
new ChatStream({ conversationId: "123", token: "t", transport: "eventsource", EventSource: RNEventSource, tickets: false });
new ChatStream({ conversationId: "123", token: "t", transport: "eventsource", EventSource: globalThis.EventSource });
// @ts-expect-error no token
new ChatStream({ conversationId: "123" });
// @ts-expect-error no such transport
new ChatStream({ conversationId: "123", token: "t", transport: "websocket" });

const stop: () => void = chat.on("event", (event, { cursor, repeated }) => {
  if (event.type === "llm_chunk") console.log(event.content.length, event.offset, cursor, repeated);
  // @ts-expect-error a heartbeat has no content
  if (event.type === "heartbeat") console.log(event.content);
});
chat.on("state", (state) => state === "open" && stop());
// @ts-expect-error no such event
chat.on("close", () => {});
// @ts-expect-error the state is the chat's own
chat.state = "open";

function text(message: ChatMessage): string {
  return message.role === "user" ? message.content : `${message.content} (${message.status}, ${message.attempt})`;
}

export async function talk(): Promise<string[]> {
  const history = await chat.history();
  chat.connect();
  try {
    const { id } = await chat.send("Who wins?", { ifBusy: "queue" });
    console.log(id, (await chat.stop()).contentLength);
    await chat.takeBack(id);
    // @ts-expect-error which one
    await chat.takeBack();
  } catch (error) {
    if (error instanceof ChatError && error.code === "rate_limited") console.log(error.retryAfterMs);
  }
  return history.map(text);
}

export async function browse(): Promise<string | null> {
  const conversations = new Conversations({ token: () => "t" });
  const { id } = await conversations.create({ title: "Mine", autoTitle: true });
  const { conversations: found, nextCursor, complete } = await conversations.search("word", { limit: 10 });
  // @ts-expect-error no such state
  console.log(complete, found.filter((one) => one.unread || one.state === "sleeping"));
  // @ts-expect-error a title is a text
  await conversations.rename(id, 7);
  // @ts-expect-error what has no id cannot be deleted
  await conversations.delete();
  return nextCursor && (await conversations.list({ before: nextCursor })).nextCursor;
}

export function Branches() {
  const { transcript, edit, takeBack, earlier, hasEarlier, showBranch, lookAt, lookedAt, busyElsewhere, continueAnswer, rate, regenerate } =
    useChatSSE({ conversationId: "123", accessToken: "t" });
  const other = async (id: string) => {
    const edited = await edit(id, "Another text", { ifBusy: "interrupt" });
    const again = await regenerate({ messageId: edited.id });
    await takeBack(edited.id);
    if (hasEarlier) console.log((await earlier({ limit: 50 })).length);
    const { attempt, replyTo } = await continueAnswer({ background: true });
    const { rating } = await rate(again.id, "up");
    await rate(again.id, null);
    // @ts-expect-error a thumb is up or down
    await rate(again.id, "sideways");
    // @ts-expect-error which one
    await showBranch();
    const looked: readonly ChatMessage[] = await lookAt(lookedAt ?? id);
    // @ts-expect-error which one
    await lookAt();
    // @ts-expect-error it says yes or no
    console.log(looked, busyElsewhere === id);
    // @ts-expect-error its new text
    await edit(id);
    // @ts-expect-error nothing is asked anew
    await continueAnswer("Go on");
    return [attempt, replyTo, rating];
  };
  const versions = transcript.map(({ id, siblings = [id] }) => `${siblings.indexOf(id) + 1}/${siblings.length}`);
  const thumbs = transcript.map((message) => (message.role === "assistant" ? message.rating : undefined));
  console.log(other, thumbs, transcript.map(({ siblings }) => siblings?.map((id) => showBranch(id))));
  return <p>{versions}</p>;
}

export async function tools(toolCallId: string): Promise<string[]> {
  const { state, messageId, status } = await chat.decide(toolCallId, "deny", { reason: "too much" });
  const { output } = await chat.answerTool(toolCallId, { output: { odds: 2.1 } });
  await chat.answerTool(toolCallId, { error: "no camera" });
  // @ts-expect-error a decision is one of two
  await chat.decide(toolCallId, "maybe");
  // @ts-expect-error an answer, or why there is none
  await chat.answerTool(toolCallId, {});
  // @ts-expect-error arguments are the log's
  await chat.decide(toolCallId, "approve", { arguments: "{}" });
  const { question } = await chat.answerQuestion(toolCallId, { question: "1", content: { row: 7 } });
  await chat.answerQuestion(toolCallId, { question: question?.id ?? "2", action: "decline" });
  // @ts-expect-error which question that is
  await chat.answerQuestion(toolCallId, { action: "decline" });
  return [state ?? "open", messageId, status, String(output)];
}

chat.on("event", (event) => {
  if (event.type === "rating") console.log(event.messageId, event.rating ?? "none");
  if (event.type === "title") console.log(event.title ?? "none");
  if (event.type === "branch") console.log(event.head);
  // @ts-expect-error it may have none
  if (event.type === "title") console.log(event.title.length);
});

export function Chat({ accessToken }: { accessToken: string | null }) {
  const { status, error, messages, currentStreamingMessage, send, isStreaming, conversations } = useChatSSE({
    conversationId: "123",
    accessToken,
    onMessage: (message) => console.log(message.type, message.metadata?.odds),
    onError: (problem: string) => console.error(problem),
  });
  const found: Promise<{ nextCursor: string | null }> = conversations.list();
  console.log(found);
  return (
    <button disabled={isStreaming || status !== "connected"} onClick={() => send("Who wins?")}>
      {error ?? messages.map((message) => message.content).concat(currentStreamingMessage?.content ?? "")}
    </button>
  );
}
