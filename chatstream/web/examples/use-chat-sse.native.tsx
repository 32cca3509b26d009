// The same in React Native: its fetch cannot stream, so the hook gets an EventSource, and the app reports when it is
// visible again. The conversation was created: POST /api/v1/chat/conversations {"id": "123"}

import { ChatError } from "chatstream";
import { useChatSSE } from "chatstream/use-chat-sse";
import { useEffect, useState } from "react";
import { AppState, Button, FlatList, Text, TextInput, View } from "react-native";
import EventSource from "react-native-sse";

type Props = { server: string; id: string; token: () => string | Promise<string> };

export function Chat({ server, id, token }: Props) {
  const { status, error, transcript, isStreaming, send, stop, connect } = useChatSSE({
    baseUrl: server,
    conversationId: id,
    accessToken: token, // it never stands in an address: each connection gets a ticket
    history: true,
    transport: "eventsource",
    EventSource,
  });
  // A phone that slept has lost its connection without noticing.
  useEffect(() => {
    const listening = AppState.addEventListener("change", (state) => state === "active" && connect());
    return () => listening.remove();
  }, [connect]);

  const [draft, setDraft] = useState("");
  const [refusal, setRefusal] = useState<string | null>(null);
  const tell = (problem: unknown) => setRefusal(problem instanceof ChatError ? problem.message : String(problem));
  const ask = () => {
    setRefusal(null);
    send(draft, { ifBusy: "interrupt" }).then(() => setDraft(""), tell);
  };

  return (
    <View style={{ flex: 1 }}>
      <FlatList
        data={transcript}
        keyExtractor={(message) => message.id}
        renderItem={({ item }) => (
          <Text>
            {item.role === "user" ? "You: " : ""}
            {item.content}
          </Text>
        )}
      />
      <Text accessibilityRole="alert">{refusal ?? error ?? status}</Text>
      <TextInput accessibilityLabel="Your message" value={draft} onChangeText={setDraft} onSubmitEditing={ask} />
      <Button title="Send" disabled={draft.trim() === ""} onPress={ask} />
      <Button title="Stop" disabled={!isStreaming} onPress={() => void stop().catch(tell)} />
    </View>
  );
}
