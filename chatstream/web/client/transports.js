/**
 * Two ways to read a stream. Both resolve at its end, reject with a `ChatError`, and stop when `signal` is aborted.
 * `onFrames` gets a list of `{data, id}`: all frames of one read; `onSign` is called for every sign of life, `onRetry`
 * with the server's `retry:`.
 */

import { ChatError } from "./chat-error.js";
import { SSEParser } from "./sse-parser.js";

// Work without a pause, in ms, before a browser may draw and react: half a frame at 60 Hz. A model that sends without a
// pause would otherwise keep the page busy until its answer ends.
const SLICE_MS = 8;

/** With `fetch`: the token and the cursor are sent as headers, and comments (heartbeats) call `onSign`, too. */
export async function readByFetch({ fetch, url, headers, signal, onFrames, onSign, onRetry }) {
  const response = await fetch(url, { headers: { Accept: "text/event-stream", ...headers }, signal });
  if (!response.ok) throw await ChatError.fromResponse(response);
  if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
    // A web page of a proxy or of a hotel's login: a temporary problem.
    throw new ChatError("The answer is not an event stream.", { code: "not_a_stream", retryable: true });
  }
  if (!response.body?.getReader) {
    throw new ChatError("This fetch cannot stream: pass an EventSource.", { code: "unsupported", retryable: false });
  }
  const parser = new SSEParser();
  const reader = response.body.getReader();
  let busy = 0; // ms
  try {
    for (let read; !(read = await reader.read()).done; ) {
      const begun = now();
      onSign();
      const frames = parser.push(read.value);
      if (parser.retry !== undefined) onRetry(parser.retry);
      if (frames.length > 0) onFrames(frames);
      busy += now() - begun;
      if (busy > SLICE_MS) {
        busy = 0;
        await globalThis.scheduler?.yield?.(); // not a timer: those of a hidden tab are late by a second
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // its error is already known
  }
}

/**
 * With an `EventSource`: a browser's, npm's `eventsource`, `react-native-sse`. It is closed at its first error, because
 * it would reconnect by itself, without a pause, with a used ticket or an old token.
 */
export function readByEventSource({ EventSource, url, signal, onFrames, onSign }) {
  return new Promise((resolve, reject) => {
    // Options of react-native-sse: by default it waits half a second before it connects, and polls.
    const source = new EventSource(url, { timeoutBeforeConnection: 0, pollingInterval: 0 });
    const end = (settle, result) => {
      source.close();
      signal.removeEventListener("abort", onAbort);
      settle(result);
    };
    const onAbort = () => end(resolve);
    let opened = false;
    signal.addEventListener("abort", onAbort);
    source.addEventListener("open", () => {
      opened = true;
      onSign();
    });
    source.addEventListener("message", ({ data, lastEventId }) => {
      onSign();
      onFrames([{ data, id: lastEventId ?? "" }]);
    });
    // An EventSource reports a normal end as an error, too.
    source.addEventListener("error", (event) => (opened ? end(resolve) : end(reject, ChatError.from(event))));
  });
}

function now() {
  return globalThis.performance?.now?.() ?? 0;
}
