// A third-party client for Server-Sent Events, used as documented: prints each event as a line.
import { XMLHttpRequest } from "./xml-http-request.mjs";

const [name, url] = process.argv.slice(2).map((argument) => JSON.parse(argument));
const print = ({ data, lastEventId, id }) => console.log(JSON.stringify({ event: JSON.parse(data), cursor: lastEventId ?? id }));

const CLIENTS = {
  async "fetch-event-source"() {
    // It was made for browsers, where it closes the stream of a hidden page.
    globalThis.window = globalThis;
    globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
    const { fetchEventSource } = await import("@microsoft/fetch-event-source");
    await fetchEventSource(url, {
      onmessage: (message) => message.data && print(message),
      onclose() {
        throw new Error("closed"); // by default it would not reconnect after a normal end
      },
    });
  },
  async "react-native-sse"() {
    globalThis.XMLHttpRequest = XMLHttpRequest;
    const { default: module } = await import("react-native-sse");
    new module.default(url, { pollingInterval: 50 }).addEventListener("message", print);
  },
  async "launchdarkly-eventsource"() {
    const { EventSource } = await import("launchdarkly-eventsource");
    const source = new EventSource(url, { initialRetryDelayMillis: 50 });
    source.onmessage = print;
    source.onerror = () => {};
  },
  async "eventsource-2"() {
    const { default: EventSource } = await import("eventsource-2");
    new EventSource(url).onmessage = print;
  },
  async "eventsource-3"() {
    const { EventSource } = await import("eventsource-3");
    new EventSource(url).onmessage = print;
  },
  async eventsource() {
    const { EventSource } = await import("eventsource");
    new EventSource(url).onmessage = print;
  },
};

process.stdin.on("end", () => process.exit()).resume();
await CLIENTS[name]();
