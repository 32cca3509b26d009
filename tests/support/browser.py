"""The chat page in a real browser, and its model in a thread, for tests that are not coroutines.

Playwright's synchronous interface waits by itself until an expectation is true, so nothing here sleeps.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from playwright.sync_api import BrowserContext, Locator, Page, Route, expect

from tests.support.upstream import Step, Upstream, delta, event, http_chunk

T = TypeVar("T")


class Gate:
    """A place in a script where the model waits until the test opens it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.step = asyncio.Event()

    def open(self) -> None:
        """Open the gate: the model continues."""
        self._loop.call_soon_threadsafe(self.step.set)


class Model:
    """An `Upstream` that runs in a thread of its own."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.upstream = self._run(Upstream.start(port))

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def gate(self) -> Gate:
        """Make a gate, which is a step of a script."""
        return Gate(self._loop)

    def reply(self, *steps: Step | Gate) -> None:
        """Script the next request that has no script yet."""
        self.upstream.reply(*(step.step if isinstance(step, Gate) else step for step in steps))

    def asked(self) -> list[str]:
        """The questions that the model was asked. Requests for a title, whose time is not fixed, are left out: they
        have no system prompt.
        """
        turns = [call.body["messages"] for call in self.upstream.calls]
        return [one[-1]["content"] for one in turns if one[0]["role"] == "system"]

    def close(self) -> None:
        """Stop the model and end its thread."""
        self._run(self.upstream.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


def more(text: str) -> bytes:
    """More text of an answer that has begun, as bytes of the stream."""
    return http_chunk(event(delta(text)))


class Held:
    """A handler for `Page.route`: the requests of a method wait until the test says how they end."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._waiting: list[Route] = []
        self._how: Callable[[Route], None] | None = None

    def __call__(self, route: Route) -> None:
        if route.request.method != self._method:
            route.continue_()
        elif self._how:
            self._how(route)
        else:
            self._waiting.append(route)

    def end(self, how: Callable[[Route], None] | None) -> None:
        """End what waits, and what comes later, like this; `None`: later ones wait again."""
        self._how = how
        if how:
            for route in self._waiting:
                how(route)
            self._waiting.clear()


class ChatPage:
    """One tab with the chat page, and the elements that a person uses."""

    def __init__(self, context: BrowserContext, url: str, token: str) -> None:
        self.url = url
        self.token = token
        self.page: Page = context.new_page()
        self.field = self.page.get_by_label("Your message")
        self.stop = self.page.get_by_role("button", name="Stop", exact=True)
        self.title = self.page.locator("#title")
        self.state = self.page.locator("#state")
        self.answers = self.page.locator("#messages .assistant")
        self.questions = self.page.locator("#messages .user .body")

    def open(self, conversation: str | None = None) -> "ChatPage":
        """Open the page's URL, in the form that the server prints."""
        query = f"?conversation={conversation}" if conversation else ""
        self.page.goto(f"{self.url}/{query}#token={self.token}")
        expect(self.field).to_be_visible()
        return self

    def ask(self, text: str) -> None:
        """Type a question and send it. First wait until the last answer has ended: until then Enter sends nothing."""
        self.field.fill(text)
        expect(self.stop).to_be_hidden()
        self.field.press("Enter")

    def ask_next(self, text: str) -> None:
        """Send a question while an answer is being written. The page shows it as queued."""
        self.field.fill(text)
        self.field.press("Enter")
        expect(self.page.get_by_text("Will be asked next")).to_be_visible()

    def begin_edit(self, text: str | None = None, *, place: int = -1) -> None:
        """Put a question, normally the last one, into the field; if there is a `text`, type it instead."""
        self.page.locator("#messages .user").nth(place).get_by_role("button", name="Edit the question").click()
        expect(self.field).to_be_focused()
        if text is not None:
            self.field.fill(text)

    def edit(self, text: str) -> None:
        """Ask the last question with another text."""
        self.begin_edit(text)
        self.field.press("Enter")

    @property
    def conversation(self) -> str:
        """The id of the open conversation."""
        return self.page.url.partition("?conversation=")[2]

    @property
    def prose(self) -> Locator:
        """The text of the newest answer."""
        return self.answers.last.locator(".prose")

    def button(self, name: str) -> Locator:
        """The button with this accessible name, which a screen reader speaks."""
        return self.page.get_by_role("button", name=name, exact=True)
