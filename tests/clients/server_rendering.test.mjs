// The hook on a server: it renders, and sends no request.
import assert from "node:assert/strict";
import { test } from "node:test";

import { useChatSSE } from "chatstream/use-chat-sse";
import { createElement } from "react";
import { renderToString } from "react-dom/server";

test("rendered on a server it is disconnected, and nothing is asked", () => {
  const fetch = () => assert.fail("asked");
  function Chat() {
    const { status, messages, isStreaming } = useChatSSE({
      conversationId: "c", accessToken: () => assert.fail("asked"), history: true, fetch,
    });
    return createElement("p", null, `${status} ${messages.length} ${isStreaming}`);
  }
  assert.equal(renderToString(createElement(Chat)), "<p>disconnected 0 false</p>");
});
