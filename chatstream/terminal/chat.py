"""A conversation in a terminal or a pipe.

After a broken connection, it reconnects with the cursor of the last event, so that no text is lost or repeated.
"""

import asyncio
import json
import os
import shutil
import sys
import uuid
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, TextIO
from urllib.parse import quote

from chatstream.llm.titling import shortened
from chatstream.terminal import asking
from chatstream.terminal.client import BROKEN, NOTHING_COMES, ChatFailed, Client, Unreachable
from chatstream.terminal.screen import Wrapping, printable

_API = "/api/v1/chat/conversations"
_HELP = (
    "Ctrl-C stops an answer · /regenerate · /continue · /edit NEW TEXT · /model [NAME] · /search WORDS · /open ID · "
    "/new · /id · /quit"
)
# What to say to a command that lacks something.
_MISSING = {
    "/edit": "the new text is missing: /edit NEW TEXT",
    "/search": "the words to search for are missing: /search WORDS",
    "/open": "the conversation's id is missing: /open ID (/search WORDS finds it)",
}
_ASKS = ("awaiting_approval", "awaiting_input")  # the states of a call in which the user is asked something
# The statuses of a refusal that is about what the line says.
_OF_ONE_LINE = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
_LONGEST_RESULT = 300  # characters shown of a tool call's result: some lines
_FOUND = 20  # maximum number of search results: as many as fit on a screen
# Failed reconnections in a row before giving up: with the growing pauses about a minute, enough for a slow restart.
_MAX_RECONNECTS = 8
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0


class Terminal:
    """Sends questions and shows the answers."""

    def __init__(self, url: str, token: str, *, conversation: str | None, model: str | None, as_json: bool) -> None:
        """`url`: the server's, without a path. `as_json`: write each event as one line of JSON."""
        self._client = Client(url, token)
        self._conversation = conversation
        self._model = model
        self._as_json = as_json
        self._styled = sys.stdout.isatty() and not as_json
        self._wrapped = Wrapping(lambda: shutil.get_terminal_size().columns)
        self._shown = ""  # text shown so far of the answer `_showing`
        self._showing: str | None = None
        self._thinking = False  # the last output was reasoning
        self._asked: tuple[dict[str, Any], str] | None = None  # what a tool call waits for, and the cursor after it

    def talk(self, question: str | None) -> int:
        """Send `question`; without it, the lines of the input until its end. Returns the exit status."""
        with asyncio.Runner() as runner:
            if question is not None:
                return 0 if self._run(runner, self._ask(question)) else 1
            interactive = sys.stdin.isatty()
            if interactive:
                import readline  # noqa: F401 - gives `input` editing and a history

                self._note(_HELP)
            status, refused = 0, False
            while (line := _typed(interactive)) is not None:
                if line in ("/quit", "/exit"):
                    break
                if line:
                    try:
                        status = 0 if self._run(runner, self._command(line)) else 1
                    except ChatFailed as exc:
                        if not (interactive or _goes_on(line, exc)):
                            raise
                        self._note(str(exc))
                        refused = not interactive
            return 1 if refused else status

    def _run(self, runner: asyncio.Runner, command: Coroutine[Any, Any, bool]) -> bool:
        """Run the coroutine, and ask the user for the decisions that it waits for."""
        good = runner.run(command)
        while self._asked is not None:
            (event, cursor), self._asked = self._asked, None
            approves = event["state"] == "awaiting_approval"
            if not sys.stdin.isatty():
                what = "approval" if approves else "answer"
                self._note(
                    f"it waits for your {what}: `chatstream chat` in a terminal asks for it, and so does the page"
                )
                return False
            said = asking.decision(_typed_at) if approves else asking.answer(event["question"], _typed_at)
            if said is None:
                self._note("it goes on waiting")
                return False
            try:
                good = runner.run(self._decide(event["toolCallId"], said, cursor))
            except ChatFailed as exc:
                if exc.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                    raise
                self._note(str(exc))  # what was typed is not what was asked for: ask again
                self._asked = event, cursor
        return good

    async def _decide(self, call: str, said: dict[str, Any], cursor: str) -> bool:
        await self._client.request("POST", f"{self._path()}/tool-calls/{call}", said)
        return await self._watch(cursor, goes_on=True)

    async def _command(self, line: str) -> bool:
        match line:
            case "/new":
                self._conversation = None
            case "/id":
                self._note(self._conversation or "not begun yet")
            case "/regenerate" if self._conversation:
                path = f"{self._path()}/regenerate?ifBusy=interrupt"
                return await self._watch((await self._client.request("POST", path))["streamCursor"])
            case "/continue" if self._conversation:
                path = f"{self._path()}/regenerate?ifBusy=interrupt"
                begun = await self._client.request("POST", path, {"continue": True})
                return await self._watch(begun["streamCursor"])
            case _ if line in _MISSING:
                self._note(_MISSING[line])
                return False
            case "/regenerate" | "/continue":
                self._note("there is no answer yet")
                return False
            case _ if line.startswith("/edit ") and self._conversation is None:
                self._note("there is no question yet for /edit NEW TEXT")
                return False
            case _ if line.startswith("/edit "):
                return await self._edit(line.removeprefix("/edit ").strip())
            case "/model":
                await self._models()
            case _ if line.startswith("/model "):
                await self._choose(line.removeprefix("/model ").strip())
            case _ if line.startswith("/search "):
                await self._search(line.removeprefix("/search ").strip())
            case _ if line.startswith("/open "):
                await self._open(line.removeprefix("/open ").strip())
            case _ if line.startswith("/"):
                self._note(_HELP)
            case _:
                return await self._ask(line)
        return True

    async def _models(self) -> None:
        """List the models, and mark the one that answers."""
        offered = (await self._client.request("GET", "/api/v1/chat/models"))["models"]
        for one in offered:
            answers = one["name"] == self._model or (one["default"] and self._model is None)
            self._note(" ".join(filter(None, ["*" if answers else " ", one["name"], one["description"]])))

    async def _choose(self, name: str) -> None:
        """Choose the model for the next answers."""
        if self._conversation is None:
            offered = (await self._client.request("GET", "/api/v1/chat/models"))["models"]
            if name not in [one["name"] for one in offered]:  # a server may let users name others, too
                self._note(f"{name} is not in the list of /model")
        else:
            await self._client.request("PATCH", self._path(), {"model": name})
        self._model = name
        self._note(f"{name} answers from now on")

    async def _search(self, words: str) -> None:
        """List the conversations that contain these words."""
        page = await self._client.request("GET", f"{_API}?limit={_FOUND}&q={quote(words, safe='')}")
        for one in page["conversations"]:
            self._note(f"{one['id']}  {one['title'] or ''}".rstrip())
        more = " and more" if page["nextCursor"] else ""
        self._note(
            f"{len(page['conversations'])}{more} found" + (" · /open ID goes there" if page["conversations"] else "")
        )

    async def _open(self, conversation: str) -> None:
        """Switch to another conversation."""
        about = await self._client.request("GET", f"{_API}/{quote(conversation, safe='')}")
        self._conversation, self._model = str(about["id"]), about["model"]
        self._note(about["title"] or self._conversation)

    async def _edit(self, question: str) -> bool:
        """Send the last question again with another text. The old question and its answer stay as another branch."""
        page = await self._client.request("GET", f"{self._path()}/messages?limit=200")
        above = page.get("previous")
        parent: dict[str, Any] | None = None
        for message in page["messages"]:
            if message["role"] == "user":
                parent = {"parent": above}
            above = message["id"]
        if parent is None:
            self._note("there is no question to edit")
            return False
        return await self._ask(question, parent)

    async def _ask(self, question: str, place: dict[str, Any] | None = None) -> bool:
        """Send a question and show the answer; returns whether it is complete.

        `place`: the message that the question continues, if that is not the last one.
        """
        if self._conversation is None:
            # The beginning of the question is the title until the model makes one.
            about: dict[str, Any] = {"title": shortened(" ".join(question.split())), "autoTitle": True}
            made = await self._client.request("POST", _API, about | ({"model": self._model} if self._model else {}))
            self._conversation = str(made["id"])
            self._note(f"conversation {self._conversation}")
        message = {"content": question, "clientMessageId": uuid.uuid4().hex} | (place or {})
        path = f"{self._path()}/messages?ifBusy=interrupt"
        try:
            posted = await self._client.request("POST", path, message)
        except Unreachable:  # it may have been stored; with the same key it is stored only once
            posted = await self._client.request("POST", path, message)
        return await self._watch(posted["streamCursor"])

    async def _watch(self, cursor: str, *, goes_on: bool = False) -> bool:
        """Show the answer after `cursor`; Ctrl-C stops it. `goes_on`: the answer has already begun."""
        if not goes_on:
            self._showing = None
        try:
            return await self._follow(cursor)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.uncancel() > 0:
                raise
            stopped = await self._client.request("POST", f"{self._path()}/stop", {}, or_conflict=True)
            self._note(f"\n{stopped.get('status', 'it had ended')}")
            return False

    async def _follow(self, cursor: str) -> bool:
        tries, good, over = 0, False, False
        while True:
            try:
                async for frame in self._client.frames(self._path(), cursor):
                    cursor = frame.cursor or cursor
                    tries = 0 if frame.event["type"] == "connected" else tries
                    self._show(frame.event)
                    if frame.event.get("state") in _ASKS and not self._as_json:
                        self._asked = frame.event, cursor
                        return False
                    if frame.event["type"] == "llm_complete":
                        good = frame.event["status"] == "complete"
                    over = over or _ends(frame.event)
                if over:
                    self._write("" if self._as_json else "\n")
                    return good
            except BROKEN as exc:
                if tries == _MAX_RECONNECTS:
                    raise ChatFailed(f"The connection to {self._client.url} is lost: {exc}") from exc
            tries += 1
            if tries > 1:  # one reconnection is normal: connections are rotated, servers restart
                self._note("… connecting again")
            await asyncio.sleep(min(_FIRST_PAUSE * 2 ** (tries - 1), _LONGEST_PAUSE))

    def _show(self, event: dict[str, Any]) -> None:
        if event is NOTHING_COMES:
            return
        if self._as_json:
            # If the output is not UTF-8, write JSON escapes, which lose nothing.
            self._write(json.dumps(event, ensure_ascii="utf" not in sys.stdout.encoding.lower()) + "\n")
            return
        match event["type"]:
            case "reasoning_chunk" if self._styled:  # a pipe gets only the answer
                _print(f"\033[2m{self._wrapped(event['content'])}\033[0m", sys.stdout)
                self._thinking = True
            case "llm_chunk":
                if self._thinking:
                    self._thinking = False
                    self._write("\n\n")
                if self._showing not in (None, event["messageId"]):
                    self._note("\n… the answer begins again")
                if self._showing != event["messageId"]:
                    self._showing, self._shown = event["messageId"], ""
                self._shown += event["content"]
                self._write(event["content"])
            case "llm_complete" if event["content"] != self._shown or self._showing != event["messageId"]:
                self._write(("\n" if self._shown else "") + event["content"])  # the stored text is longer
            case "tool_state" if event["state"] == "ready":
                self._note(f"\n→ {event['name']} {event['arguments']}")
            case "tool_state" if event["state"] in _ASKS and "message" in event:
                self._note(f"→ {event['message']}")
            case "tool_state" if event["state"] in ("denied", "expired", "unknown"):
                self._note(f"→ {event['name']}: {event['state']}")
            case "tool_result":
                self._note(f"→ {json.dumps(event['output'], ensure_ascii=False)[:_LONGEST_RESULT]}")
            case "system":
                self._note(f"\n→ {_found(event['message'], event['metadata'])}")
            case "data":
                self._note(f"\n→ {event['kind']}: {json.dumps(event['data'], ensure_ascii=False)}")
            case "error":
                again = " (/regenerate tries again)" if event["retryable"] and event["messageId"] else ""
                self._note(f"\n{event['message']}{again}")

    def _path(self) -> str:
        return f"{_API}/{quote(self._conversation or '', safe='')}"

    def _write(self, text: str) -> None:
        _print(self._wrapped(text) if self._styled else text, sys.stdout)

    def _note(self, text: str) -> None:
        """Write a remark: dim in a terminal; not to standard output if that is a pipe."""
        if self._styled:
            _print(f"\033[2m{printable(text)}\033[0m\n", sys.stdout)
            self._wrapped.restart()
        else:
            _print(f"{text}\n", sys.stderr)


def _goes_on(line: str, refusal: ChatFailed) -> bool:
    """Whether the lines of a pipe after a refused one are run. Not if they would be refused, too, or were meant for
    the conversation that could not be opened."""
    return refusal.status in _OF_ONE_LINE and not line.startswith("/open ")


def _typed(interactive: bool, prompt: str = "> ") -> str | None:
    """Read a line of the input; None at its end and on Ctrl-C."""
    try:
        return input(prompt if interactive else "").strip()
    except (EOFError, KeyboardInterrupt):
        _print("\n" if interactive else "", sys.stdout)  # end the prompt's line
        return None


def _typed_at(prompt: str) -> str | None:
    """Read a line after a prompt, at a terminal."""
    return _typed(True, prompt)


def _print(text: str, file: TextIO) -> None:
    try:
        file.write(text)
        file.flush()
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())  # else Python prints an error at its exit
        raise SystemExit(1) from None


def _ends(event: dict[str, Any]) -> bool:
    """Whether the event ends the answer. After an interruption without an error, another attempt follows."""
    if event["type"] == "llm_complete":
        return bool(event["status"] != "interrupted")
    if event["type"] == "error":
        return event["messageId"] is not None
    return event is NOTHING_COMES


def _found(message: str, metadata: dict[str, Any]) -> str:
    """A plug-in's annotation as text: its message and its readable values, without ids."""
    said = {
        name: value
        for name, value in metadata.items()
        if isinstance(value, str | int | float) and not name.casefold().endswith("id")
    }
    return f"{message}: {' · '.join(f'{name} {value}' for name, value in said.items())}" if said else message
