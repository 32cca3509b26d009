"""Questions of MCP servers to the user.

A server of the newer protocol (2026-07-28) ends the call with `input_required`, and is called again with the answers:
any process can do that, at any time. A server of an older one asks while the call stays open: see `OpenCall`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from mcp_types import (
    INVALID_REQUEST,
    ElicitRequest,
    ElicitRequestURLParams,
    ElicitResult,
    ErrorData,
    InputRequiredResult,
)
from msgspec import Struct
from pydantic import ValidationError

from chatstream.pieces import Question
from chatstream.plugins.tasks import forget
from chatstream.tools import schema
from chatstream.tools.tool import Answered, InputRequired, Said, ToolFailed

# Seconds for which a call stays open while the user is asked: proxies and servers rarely keep a connection longer.
HELD: Final = 600.0
# Further seconds in which the server is sent the message that nobody has answered.
GRACE: Final = 60.0
KEPT_OPEN: Final = HELD + GRACE
_LONGEST_MESSAGE: Final = 1_000
_MOST_SCHEMA: Final = 16 * 1024  # bytes of a question's schema as JSON: a form of some dozens of fields
_MOST_STATE: Final = 64 * 1024  # characters of a server's state, which is stored with the answer
_LONGEST_URL: Final = 2_000

Ask = Callable[[Any], Awaitable[ElicitResult | ErrorData]]


class _Carry(Struct, frozen=True, kw_only=True):
    """The data stored while the user is asked: the server's keys for its questions, and the server's state."""

    keys: tuple[str, ...]
    state: str | None


class OpenCall:
    """A call of a server that may ask the user before it has ended (protocol 2025-11-25 and before)."""

    def __init__(
        self,
        work: "Callable[[OpenCall], Coroutine[Any, Any, object]]",
        known: Sequence[Said] = (),
        *,
        progress: Callable[[str], None],
    ) -> None:
        """`work` carries out the call; the server's questions and its progress go to this object. `known`: answers that
        the user has given before; if the server repeats a question, the user is not asked again. `progress` shows the
        user how far the call is; after each question, it is another function."""
        self.progress = progress
        self._known = [*known]
        self._asked: asyncio.Queue[tuple[Question, asyncio.Future[ElicitResult]]] = asyncio.Queue()
        self._pending: tuple[Question, asyncio.Future[ElicitResult]] | None = None
        self._said: Said | None = None  # the answer to the pending question, once it is given
        self._dismissed = False
        self._task = asyncio.create_task(work(self))
        self._task.add_done_callback(forget)

    async def ask(self, params: Any) -> ElicitResult | ErrorData:
        """Ask the user; returns the answer for the server."""
        try:
            question = _question(params)
        except ValueError:
            return ErrorData(code=INVALID_REQUEST, message="The user cannot be asked this.")
        for said in self._known:
            if said.question == question:
                self._known.remove(said)
                return _result(said)
        if self._dismissed:
            return ElicitResult(action="cancel")
        answer: asyncio.Future[ElicitResult] = asyncio.get_running_loop().create_future()
        self._asked.put_nowait((question, answer))
        return await answer

    def answer(self, said: Said) -> bool:
        """Answer the question that the server waits for. Returns False if it waits for no answer to this question, and
        has not got this one."""
        question, pending = self._pending or (None, None)
        if pending is None or question != said.question:
            return False
        if pending.done():
            return said == self._said
        self._said = said
        pending.set_result(_result(said))
        return True

    @property
    def is_over(self) -> bool:
        """Whether the call has ended."""
        return self._task.done()

    def dismiss(self) -> None:
        """Tell the server that its questions are not answered, so that it ends the call: nobody waits for it."""
        self._dismissed = True
        asked = [] if self._pending is None else [self._pending]
        while not self._asked.empty():
            asked.append(self._asked.get_nowait())
        for _, answer in asked:
            if not answer.done():
                answer.set_result(ElicitResult(action="cancel"))

    async def result(self) -> object:
        """Wait for the end of the call, and return its result. Raises `InputRequired` if the server asks before, and
        what `work` raises. If this is cancelled, the call is cancelled, too."""
        asked = asyncio.create_task(self._asked.get())
        try:
            await asyncio.wait({asked, self._task}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        finally:
            asked.cancel()
        if self._task.done():
            return self._task.result()
        self._pending, self._said = asked.result(), None
        raise InputRequired([self._pending[0]], held=HELD)

    def cancel(self) -> None:
        """Cancel the call."""
        self._task.cancel()

    async def close(self) -> None:
        """Cancel the call, and wait for its end."""
        self._task.cancel()
        await asyncio.wait([self._task])


def required(result: InputRequiredResult) -> InputRequired:
    """Return the questions of a server of the newer protocol, which is called again with the answers. Raises
    `ToolFailed`.
    """
    questions = []
    for asked in (result.input_requests or {}).values():
        if not isinstance(asked, ElicitRequest):
            raise ToolFailed("not carried out: the service wants something that it cannot get here")
        try:
            questions.append(_question(asked.params))
        except ValueError as exc:
            raise ToolFailed("not carried out: the service asks for something that the user cannot be asked") from exc
    if len(result.request_state or "") > _MOST_STATE:
        raise ToolFailed("not carried out: the service's state is too long")
    carry = _Carry(keys=tuple(result.input_requests or {}), state=result.request_state)
    return InputRequired(questions, carry=msgspec.json.encode(carry).decode())


def responses(answered: Answered) -> tuple[dict[str, ElicitResult], str | None]:
    """Return the answers by the server's keys, and its state."""
    carry = msgspec.json.decode(answered.carry, type=_Carry)
    return dict(zip(carry.keys, map(_result, answered.said), strict=True)), carry.state


def _question(params: Any) -> Question:
    """Return a server's question. Raises `ValueError` if the user cannot be asked it."""
    message = str(params.message).encode("utf-8", "replace").decode().strip()[:_LONGEST_MESSAGE]
    if isinstance(params, ElicitRequestURLParams):
        parts = urlsplit(params.url)
        # Clients show the URL as a link, so only the address of a web page is accepted.
        if parts.scheme != "https" or not parts.hostname or len(params.url) > _LONGEST_URL or not params.url.isascii():
            raise ValueError("no address of a page")
        return Question(message=message, url=params.url)
    text = msgspec.json.encode(params.requested_schema).decode()
    if len(text) > _MOST_SCHEMA:
        raise ValueError("the schema is too long")
    schema.checking(params.requested_schema)
    return Question(message=message, schema=text)


def _result(said: Said) -> ElicitResult:
    if said.action not in ("accept", "decline"):
        return ElicitResult(action="cancel")
    try:
        return ElicitResult(action="accept" if said.action == "accept" else "decline", content=said.content)
    except ValidationError:  # the question's schema uses features that the protocol does not have
        return ElicitResult(action="cancel")
