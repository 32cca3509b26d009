"""chatstream.js in a browser, as a page of one's own would use it: by fetch, and with the browser's own EventSource."""

import pytest

from tests.page.conftest import OpenPage
from tests.support.browser import Model, more
from tests.support.upstream import beginning, ending

_WATCH = """
async ({ conversation, token, transport }) => {
  const { ChatStream } = await import("/chatstream.js");
  const chat = new ChatStream({ conversationId: conversation, token, transport, reconnectDelay: 50 });
  window.chat = chat;
  window.connections = 0;
  window.chunks = [];
  chat.on("event", (event) => {
    if (event.type === "connected") connections++;
    if (event.type === "llm_chunk") chunks.push(event.content);
  });
  await chat.history();
  chat.connect();
}
"""


@pytest.mark.parametrize("transport", ["fetch", "eventsource"])
def test_an_answer_over_a_lost_network(open_page: OpenPage, model: Model, transport: str) -> None:
    gate = model.gate()
    model.reply(beginning("Before 🏆, "), gate, more("after."), ending())
    tab = open_page()
    tab.ask("Who wins?")
    tab.prose.get_by_text("Before").wait_for()
    requested: list[str] = []
    tab.page.on("request", lambda request: requested.append(request.url))
    tab.page.evaluate(_WATCH, {"conversation": tab.conversation, "token": tab.token, "transport": transport})
    tab.page.wait_for_function("() => chat.messages.at(-1).content === 'Before 🏆, '")
    tab.page.context.set_offline(True)
    tab.page.wait_for_function("() => chat.state === 'reconnecting'")
    tab.page.context.set_offline(False)
    tab.page.wait_for_function("() => chat.state === 'open'")
    gate.open()
    tab.page.wait_for_function("() => chat.messages.at(-1).status === 'complete'")
    assert tab.page.evaluate("chat.messages.at(-1).content") == "Before 🏆, after."
    assert tab.page.evaluate("connections") >= 2
    # No URL has a token: URLs end up in logs and histories.
    streams = [url for url in requested if "/stream" in url]
    assert not any(tab.token in url for url in streams)
    with_ticket = [url for url in streams if "ticket=" in url]
    assert (len(with_ticket) >= 2) == (transport == "eventsource")
