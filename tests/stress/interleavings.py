"""Random interleavings of two processes on one database and one conversation. Deterministic for a seed.

The hubs, the store and the database are real. Each database operation, each of its results, and each change event
happens only when it is drawn at random. So an operation can be done long before its result is known, it or its result
can be lost, and changes can come late or never.

In every third interleaving the model calls tools: one that reads, one with an effect that a person must approve, one of
the app, and two that ask the user something before their effect, of which one can continue only in the process that has
asked. Both processes decide, answer, and let calls expire.

Viewers come and go with any known cursor. At the end all operations are let through, and the viewers' events are
compared with the stored messages.
"""

import asyncio
import contextlib
import math
import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from unittest import mock

from bson import ObjectId
from msgspec.structs import replace

from chatstream.errors import ChatstreamError, ErrorCode, ModelError, StorageUnavailable
from chatstream.events import Cursor
from chatstream.generations.commands import IfBusy
from chatstream.generations.deciding import Action, Decision
from chatstream.generations.room import Remote
from chatstream.generations.rounds import calls
from chatstream.generations.sweeper import Sweeper
from chatstream.llm.model import Finish
from chatstream.models import Answer, Conversation, Message, Status, UserMessage
from chatstream.pieces import CallState, Effect, OpenToolCall, Question
from chatstream.plugins.threads import Threads
from chatstream.plugins.tool import Approval, Caller, Manner
from chatstream.store.changes import Change, Changes, Stored
from chatstream.store.gate import Gate
from chatstream.tools.tool import Answered, InputRequired, OutcomeUnknown, Tool, Tools, Where
from tests.support.scripted_model import STOP, Bench, Call, Frame, bench, parse

STEPS = 90
# Texts that break software which counts bytes, UTF-16 units or visible characters, and texts that break lines and
# frames.
TEXTS = ("a", "bc", "def ", "e\u0301", "👩\u200d👧", "\n\n", "data: x", "\u2028", "🏟🏟")
# Turns of the event loop until everything that is due has happened.
_TURNS = 12
# At the end everything must be over after this many rounds, each with this many operations of each process; otherwise
# it is stuck.
_ROUNDS = 400
_IN_A_ROW = 20
# Operations that are repeated as long as an answer runs.
_REPEATED = ("poll", "checkpoint", "get")
# Interleavings that are played at the same time, and the most seconds that one may take: on an idle machine it takes
# one or two.
_AT_ONCE = 2
_TIMEOUT = 120
# The events of an answer's pieces, which a viewer may get in any portions.
_PIECES = ("llm_chunk", "tool_call", "tool_state", "tool_result")
# Events for the current viewers only: they have no place in the log, and so no id.
_ASIDES = ("branch", "withdrawn")
# Seconds to wait for a change, which normally comes within milliseconds.
_PATIENCE = 5


class Stuck(AssertionError):
    """Raised when something does not end."""


class Operation:
    """One call of a process's store."""

    def __init__(self, name: str, method: Callable[[], Awaitable[Any]]) -> None:
        self.name = name
        self.method = method
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.done: Callable[[], None] | None = None  # delivers the result


class DrawnStore:
    """The store of one process: each call waits until it is drawn."""

    def __init__(self, *parts: Any) -> None:
        self._parts = parts
        self.waiting: list[Operation] = []
        # Attributes that `bench` resets at its end.
        self.refused: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.gates: dict[str, asyncio.Event] = {}
        self.gates_behind: dict[str, asyncio.Event] = {}

    def owns(self, answer: Answer) -> bool:
        return bool(self._method("owns")(answer))

    @property
    def owner(self) -> str:
        return str(self._method("owner"))

    def check_room(self, seq: int) -> None:
        self._method("check_room")(seq)

    def newest_that_count(self, *args: Any, **options: Any) -> AsyncGenerator[Any, None]:
        return self._all_of("newest_that_count", *args, **options)

    async def _all_of(self, name: str, *args: Any, **options: Any) -> AsyncGenerator[Any, None]:
        async def read() -> list[Any]:
            return [message async for message in self._method(name)(*args, **options)]

        for message in await self._drawn(name, read):
            yield message

    def _method(self, name: str) -> Any:
        for part in self._parts:
            if hasattr(part, name):
                return getattr(part, name)
        raise AttributeError(name)

    def __getattr__(self, name: str) -> Any:
        method = self._method(name)

        async def call(*args: Any, **options: Any) -> Any:
            return await self._drawn(name, lambda: method(*args, **options))

        return call

    async def _drawn(self, name: str, method: Callable[[], Awaitable[Any]]) -> Any:
        operation = Operation(name, method)
        self.waiting.append(operation)
        return await operation.result

    async def go_on(self, operation: Operation, fate: str = "done") -> None:
        """Do the operation, or deliver its result if it was done before. `fate`: done | late | lost | refused."""
        if operation.done is not None:
            self.waiting.remove(operation)
            operation.done()
            return
        done: Callable[[], None]
        if fate == "refused":
            done = _raiser(operation.result, StorageUnavailable())
        else:
            try:
                result = await operation.method()
                done = _raiser(operation.result, StorageUnavailable()) if fate == "lost" else _setter(operation, result)
            except ChatstreamError as exc:
                done = _raiser(operation.result, exc)
        if fate == "late":
            operation.done = done
        else:
            self.waiting.remove(operation)
            done()


def _setter(operation: Operation, result: Any) -> Callable[[], None]:
    def bring() -> None:
        if not operation.result.done():  # the waiting task may have been cancelled
            operation.result.set_result(result)

    return bring


def _raiser(future: "asyncio.Future[Any]", exc: Exception) -> Callable[[], None]:
    def bring() -> None:
        if not future.done():
            future.set_exception(exc)

    return bring


class Process:
    """One process: its hub, and the change events that it gets."""

    def __init__(self, b: Bench) -> None:
        self.bench = b
        self.store: DrawnStore = b.store
        self.changes: asyncio.Queue[Change] = asyncio.Queue()
        self.ended = 0  # the number of model calls that already have an end
        self.checkpointing: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()  # its change stream
        self._listens = False  # whether it has handled possibly missed changes
        self._seqs = count(random.SystemRandom().randrange(2**60))

    async def listen(self) -> None:
        """Open a change stream. Earlier changes may have been missed."""

        async def on_gap() -> None:
            self._opened.set()
            self._listens = False
            try:
                await self.bench.hub.resync()
            except StorageUnavailable:
                self._opened.clear()  # it is opened once more
                raise
            self._listens = True

        async def on_change(change: Change) -> None:
            self.changes.put_nowait(change)

        self._listening = asyncio.create_task(
            Changes(self.bench.mongo, owner=self.bench.owner).listen(on_change, on_gap)
        )
        await self.opened()

    async def opened(self) -> None:
        """Wait until its change stream is open, if it is to be: the time for that must not affect the result."""
        if self._listening is not None:
            await self._opened.wait()
            await turns()

    async def cut(self) -> None:
        """Break the change stream; its undelivered changes are lost."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
            self._listening = None
            self._listens = False
            self._opened.clear()
        while not self.changes.empty():
            self.changes.get_nowait()

    @property
    def listens(self) -> bool:
        return self._listening is not None

    async def change(self, sentinel: ObjectId) -> bool:
        """Deliver the next change, if there is one. When the sentinel has arrived, all stored changes have."""
        if not self._listens:
            return False
        found, arrived = list[Change](), False
        while not arrived:
            seq = next(self._seqs)
            await self.bench.mongo.messages.insert_one(
                {"conversationId": sentinel, "role": "user", "seq": seq}
                | {"content": "", "createdAt": datetime.now(UTC), "owner": "sentinel"}
            )
            with contextlib.suppress(TimeoutError):  # the stream itself broke off, on a busy machine
                async with asyncio.timeout(_PATIENCE):
                    while not arrived:
                        change = await self.changes.get()
                        if not isinstance(change, Stored) or change.key != str(sentinel):
                            found.append(change)
                        else:
                            arrived = change.message.seq == seq
        for change in found[1:]:
            self.changes.put_nowait(change)
        if found:
            await self.bench.hub.changed(found[0])
        return bool(found)

    def time_passes(self) -> None:
        """Let all timers be due now."""
        for room in self.bench.hub._rooms.values():
            if isinstance(room._state, Remote):
                room._state.poll_at = float("-inf")
            if room._catch_up_at < float("inf"):
                room._catch_up_at = float("-inf")
        self.bench.hub.poll()

    def checkpoint(self) -> None:
        """Store the text of the running answers."""
        checkpointer = self.bench.hub._services.checkpointer
        if self.checkpointing is None or self.checkpointing.done():
            self.checkpointing = asyncio.create_task(checkpointer._checkpoint())

    def call(self) -> Call | None:
        """The newest call of its model, if it still runs."""
        calls = self.bench.model.calls
        return calls[-1] if len(calls) > self.ended and not calls[-1].closed.is_set() else None


class Viewer:
    """A client that connects and disconnects. A strict one always uses its last cursor, and must miss nothing."""

    def __init__(self, world: "World", *, strict: bool) -> None:
        self._world = world
        self.strict = strict
        self.events: list[Frame] = []  # over all its connections
        self.cursors: list[Cursor] = []
        self.texts: dict[str, str] = {}
        self.lengths: dict[Cursor, int] = {}  # the length of its text at each cursor
        self.problems: list[str] = []  # notices without a message
        self.since: list[int] = []  # where in `events` each connection began
        self._stack: AsyncExitStack | None = None
        self._opening: asyncio.Task[Any] | None = None
        self._reading: asyncio.Task[bytes | None] | None = None

    @property
    def connected(self) -> bool:
        return self._opening is not None

    def open(self, process: Process, cursor: Cursor | None) -> None:
        """Begin to connect."""
        self.since.append(len(self.events))
        self._stack = AsyncExitStack()
        self._opening = asyncio.create_task(
            self._stack.enter_async_context(
                process.bench.viewer(self._world.conversation, cursor, reads_ahead=len(self.since) % 2 == 1)
            )
        )

    async def read(self, lose: int = 0) -> bool:
        """Read the available events, except the last `lose` ones. Returns False if there are none, or the stream is
        over.
        """
        if self._opening is None or not self._opening.done():
            return False
        if self._opening.exception() is not None:
            assert isinstance(self._opening.exception(), ChatstreamError), self._opening.exception()
            await self.leave()
            return False
        if self._reading is None:
            self._reading = asyncio.create_task(self._opening.result().stream.follower.next())
        await turns()
        if not self._reading.done():
            return False
        data, self._reading = self._reading.result(), None
        if data is None:
            await self.leave()
            return False
        frames = parse(data) if data else []
        for frame in frames[: max(0, len(frames) - lose)]:
            self._take(frame)
        return True

    def _take(self, frame: Frame) -> None:
        if frame.id is None:
            if frame.type not in _ASIDES:
                self.problems.append(frame.data["error"])
            return
        cursor = Cursor.parse(frame.id)
        assert cursor is not None
        data = frame.data
        if frame.type == "llm_chunk":
            text = self.texts.get(data["messageId"], "")
            if self.strict:
                assert data["offset"] == len(text), f"a gap or a double: {data['offset']} after {len(text)}"
            connection = {one.data.get("messageId") for one in self.events[self.since[-1] :] if one.type == "llm_chunk"}
            if data["messageId"] in connection:
                assert data["offset"] == len(text), f"a gap within a connection: {data['offset']} after {len(text)}"
            assert data["offset"] <= len(text), "a gap"
            self.texts[data["messageId"]] = text[: data["offset"]] + data["content"]
        elif frame.type == "llm_complete":
            self.texts[data["messageId"]] = data["content"]
        if self.strict:
            assert frame.id not in {event.id for event in self.events}, f"twice: {frame.id}"
        self.events.append(frame)
        self.cursors.append(cursor)
        self.lengths[cursor] = len(self.texts.get(cursor.message_id, ""))

    async def leave(self) -> None:
        """End the connection, whichever side has closed it."""
        assert self._opening is not None
        assert self._stack is not None
        if not self._opening.done():
            return  # a client that goes while it connects is not noticed before it is connected
        if self._opening.exception() is None:
            self._opening.result().hang_up()
        if self._reading is not None:
            await self._reading
        await self._stack.aclose()
        self._stack = self._opening = self._reading = None


async def turns() -> None:
    """Run the event loop until everything has happened that needs no database operation."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class World:
    """Plays one interleaving."""

    def __init__(self, seed: int, processes: list[Process], conversation: Conversation) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - which is to be had again
        self.processes = processes
        self.conversation = conversation
        self.sentinel = ObjectId()
        self.viewers = [Viewer(self, strict=number < 2) for number in range(4)]
        self.start = Cursor(conversation.key, Cursor.START)
        self.requests: set[asyncio.Task[Any]] = set()
        self.acknowledged: list[str] = []
        self.deleted = False
        self.log: list[str] = []
        self._actions = [
            (self._post, 5),
            (self._queue, 3),
            (self._interrupt, 1),
            (self._take_back, 3),
            (self._regenerate, 2),
            (self._stop, 1),
            (self._say, 12),
            (self._end, 6),
            (self._open, 10),
            (self._read, 10),
            (self._drop, 5),
            (self._change, 14),
            (self._cut, 1),
            (self._listen, 2),
            (self._time, 4),
            (self._checkpoint, 8),
            (self._sweep, 1),
        ]
        self.carried_out: Counter[str] = Counter()  # calls of the tool with an effect, by their keys
        if self.rng.random() < 0.1:
            self._actions.append((self._delete, 1))
        if seed % 3 == 0:
            self._actions += [(self._call, 6), (self._decide, 8), (self._look, 1)]
            for process in processes:
                process.bench.calling = replace(process.bench.calling, tools=Tools(self._tools()))

    async def play(self) -> None:
        actions, weights = zip(*self._actions, strict=True)
        for _ in range(STEPS):
            waiting = [(process, one) for process in self.processes for one in process.store.waiting]
            if waiting and self.rng.random() < 0.55:
                process, operation = self.rng.choice(waiting)
                fate = self.rng.choices(("done", "late", "lost", "refused"), (70, 22, 4, 4))[0]
                self.log.append(f"{self.processes.index(process)} {operation.name} {fate}")
                await process.store.go_on(operation, fate)
            else:
                action = self.rng.choices(actions, weights)[0]
                process = self.rng.choice(self.processes)
                self.log.append(f"{self.processes.index(process)} {action.__name__}")
                await action(process)
            await turns()
            for process in self.processes:
                await process.opened()

    def _text(self) -> str:
        return self.rng.choice(TEXTS)

    def _request(self, request: Awaitable[Any]) -> None:
        async def ask() -> None:
            with contextlib.suppress(ChatstreamError):
                posted = await request
                if hasattr(posted, "message"):
                    self.acknowledged.append(posted.message.id)

        self.requests.add(asyncio.create_task(ask()))

    async def _post(self, process: Process) -> None:
        self._request(process.bench.post(self.conversation, self._text()))

    async def _queue(self, process: Process) -> None:
        self._request(process.bench.post(self.conversation, self._text(), if_busy=IfBusy.QUEUE))

    async def _interrupt(self, process: Process) -> None:
        self._request(process.bench.post(self.conversation, self._text(), if_busy=IfBusy.INTERRUPT))

    async def _take_back(self, process: Process) -> None:
        """Take back a question, queued or not: only whether it is queued may decide the result."""
        page = await process.bench.reading.page(self.conversation.key, limit=3, before=None)
        questions = [message.id for message in page if isinstance(message, UserMessage)]
        if questions:
            self._request(process.bench.commands.withdraw(self.conversation, self.rng.choice(questions)))

    async def _regenerate(self, process: Process) -> None:
        self._request(process.bench.commands.regenerate(self.conversation, request_id="r"))

    async def _stop(self, process: Process) -> None:
        self._request(process.bench.commands.stop(self.conversation, None))

    async def _delete(self, process: Process) -> None:
        if not self.deleted and self.rng.random() < 0.5:
            self.deleted = True
            process.bench.hub.deleted(await process.bench.conversations.delete("user", self.conversation.id))

    async def _say(self, process: Process) -> None:
        if call := process.call():
            call.say(*(self._text() for _ in range(self.rng.randint(1, 3))))

    async def _end(self, process: Process, how: str | None = None) -> None:
        call = process.call()
        if call is None:
            return
        process.ended = len(process.bench.model.calls)
        match how or self.rng.choice(("complete", "complete", "bet", "fault", "truncated")):
            case "fault":
                call.say(ModelError(ErrorCode.UPSTREAM_UNAVAILABLE, "x"))
            case "truncated":
                call.break_off()
            case "bet":
                call.say(" I recommend a bet on Arsenal at odds of 2.10.", STOP)
            case _:
                call.say(STOP)

    async def _open(self, process: Process) -> None:
        viewer = self.rng.choice(self.viewers)
        if viewer.connected or self.deleted:  # a deleted conversation is not found
            return
        if viewer.strict:
            viewer.open(process, viewer.cursors[-1] if viewer.cursors else self.start)
        else:
            cursors = [cursor for other in self.viewers for cursor in other.cursors]
            # With another viewer's cursor this one's text would have a gap, so it starts with an empty state.
            cursor = self.rng.choice([None, self.start, *viewer.cursors, *cursors])
            if cursor is not None and cursor not in viewer.cursors:
                viewer.texts |= _known(self.viewers, cursor)
            viewer.open(process, cursor)

    async def _read(self, process: Process) -> None:
        await self.rng.choice(self.viewers).read()

    async def _drop(self, process: Process) -> None:
        viewer = self.rng.choice(self.viewers)
        if viewer.connected:
            await viewer.read(lose=self.rng.randint(0, 5))
        if viewer.connected:
            await viewer.leave()

    async def _change(self, process: Process) -> None:
        for _ in range(self.rng.randint(1, 3)):
            await process.change(self.sentinel)

    async def _cut(self, process: Process) -> None:
        await process.cut()

    async def _listen(self, process: Process) -> None:
        if not process.listens:
            await process.listen()

    async def _time(self, process: Process) -> None:
        process.time_passes()

    async def _checkpoint(self, process: Process) -> None:
        process.checkpoint()

    async def _sweep(self, process: Process) -> None:
        """Let this process take the other one for dead: end its answer, and answer what it has left queued."""
        sweeper = Sweeper(process.store, process.store, process.bench.hub, process.bench.metrics)  # type: ignore[arg-type]  # stands in for both
        orphans = await process.bench.attempts.orphans()
        for orphan in orphans:
            if orphan.key == self.conversation.key:
                self.requests.add(asyncio.create_task(sweeper._end(orphan)))
        for key, answer_id in await process.bench.attempts.ended_before_queued(1000):
            if key == self.conversation.key:
                self.requests.add(asyncio.create_task(self._answer_queued(sweeper, answer_id)))

    async def _answer_queued(self, sweeper: Sweeper, answer_id: str) -> None:
        with contextlib.suppress(StorageUnavailable):
            await sweeper._answer_queued(self.conversation.key, answer_id)

    # Tools ------------------------------------------------------------------------------------------------------------

    def _tools(self) -> Iterator[Tool]:
        async def run(_: object, caller: Caller) -> object:
            return caller.key

        async def pay(_: object, caller: Caller) -> object:
            self.carried_out[caller.key] += 1
            return "paid"

        never = Manner(effect=Effect.NONE)
        always = Manner(effect=Effect.ONCE, approval=Approval.ALWAYS)
        for name, runs, manner in (("look", run, never), ("pay", pay, always), ("show", run, never)):
            where = Where.CLIENT if name == "show" else Where.SERVER
            yield Tool(
                name=name,
                description="",
                parameters={"type": "object"},
                manner=manner,
                check=lambda given: given,
                run=runs,
                source="the test",
                where=where,
            )
        yield self._asking("book", None)
        yield self._asking("hold", 600.0)

    def _asking(self, name: str, held: float | None) -> Tool:
        """A tool that asks the user something before an effect that may happen only once."""
        opened: set[str] = set()

        async def run(_: object, caller: Caller) -> object:
            self.carried_out[f"begun: {caller.key}"] += 1
            opened.add(caller.key)
            raise InputRequired([Question(message="Sure?", schema='{"type":"object"}')], carry="c", held=held)

        async def go_on(_: object, caller: Caller, answered: Answered) -> object:
            if held and caller.key not in opened:
                raise OutcomeUnknown
            self.carried_out[caller.key] += 1
            return answered.said[0].action

        return Tool(
            name=name,
            description="",
            parameters={"type": "object"},
            manner=Manner(approval=Approval.NEVER),
            check=lambda given: given,
            run=run,
            go_on=go_on,
            source="the test",
        )

    async def _call(self, process: Process) -> None:
        call = process.call()
        if call is None:
            return
        process.ended = len(process.bench.model.calls)
        called: list[Any] = []
        for number in range(1, self.rng.randint(1, 3) + 1):
            called += [
                OpenToolCall(id=str(number), name=self.rng.choice(("look", "pay", "show", "book", "hold"))),
                "{}",
            ]
        call.say(*called, Finish(reason="tool_calls", usage=None))

    async def _decide(self, process: Process, *, all_of_them: bool = False) -> None:
        """Decide or answer the waiting call, as it is stored."""
        answer = await process.bench.reading.running(self.conversation.key)
        waiting = [call for call in calls(answer.pieces) if call.waits] if answer is not None else []
        for call in waiting if all_of_them else self.rng.sample(waiting, min(1, len(waiting))):
            if call.state is CallState.AWAITING_CLIENT:
                self._request(process.bench.deciding.answer(self.conversation, call.id, self._text()))
            elif call.state is CallState.AWAITING_INPUT:
                action = Action.ACCEPT if all_of_them else self.rng.choice(list(Action))
                content: dict[str, Any] | None = {} if action is Action.ACCEPT else None
                reply = process.bench.deciding.reply
                self._request(reply(self.conversation, call.id, call.asked[-1].question_id or "", action, content))
            else:
                decision = Decision.APPROVE if all_of_them else self.rng.choice(list(Decision))
                self._request(process.bench.deciding.decide(self.conversation, call.id, decision))

    async def _look(self, process: Process) -> None:
        """Let the waiting calls expire."""
        later = datetime.now(UTC) + timedelta(days=2)
        with mock.patch("chatstream.generations.deciding.now", return_value=later):
            answer = await process.bench.reading.running(self.conversation.key)
            if answer is not None and answer.status is Status.WAITING:
                self._request(process.bench.deciding._expire(self.conversation, answer))
                await asyncio.sleep(0)  # the expired calls are found before anything is stored

    # The end ----------------------------------------------------------------------------------------------------------

    async def finish(self) -> list[Message]:
        """Let everything end; returns the stored messages."""
        quiet = 0
        for _ in range(_ROUNDS):
            busy = False
            for process in self.processes:
                if not process.listens:
                    await process.listen()
                await process.opened()
                for _ in range(_IN_A_ROW):
                    if not process.store.waiting:
                        break
                    operation = process.store.waiting[0]
                    busy = busy or operation.name not in _REPEATED
                    await process.store.go_on(operation)
                    await turns()
                if process.call() is not None:
                    await self._end(process, "complete")
                    busy = True
                while await process.change(self.sentinel):
                    await turns()
                    busy = True
                process.checkpoint()
                process.time_passes()
                await turns()
            for viewer in self.viewers:
                while await viewer.read():
                    busy = True
            busy = busy or any(process.bench.hub.generates_in(self.conversation) for process in self.processes)
            quiet = 0 if busy else quiet + 1
            if quiet > 2:
                left = await self.processes[0].bench.reading.running(self.conversation.key)
                if left is not None and left.status is Status.WAITING:
                    process = self.rng.choice(self.processes)
                    if any(call.waits for call in calls(left.pieces)):
                        await self._decide(process, all_of_them=True)
                    else:  # the process with the open call must continue; without one, any process
                        await self._look(process)
                    await turns()
                elif left is not None:
                    await self._sweep(self.rng.choice(self.processes))  # begun for a request whose result was lost
                    await turns()
                elif all(request.done() for request in self.requests):
                    break
                quiet = 0
        else:
            raise Stuck([process.bench.hub._rooms for process in self.processes], self.requests)
        for request in self.requests:
            request.result()
        return await self.processes[0].bench.reading.page(self.conversation.key, limit=10_000, before=None)


def _known(viewers: list[Viewer], cursor: Cursor) -> dict[str, str]:
    """The text of a message that a viewer with this cursor has."""
    if cursor.position < 0:
        return {}
    for viewer in viewers:
        text = viewer.texts.get(cursor.message_id)
        if text is not None and cursor in viewer.cursors:
            return {cursor.message_id: text[: viewer.lengths[cursor]]}
    return {}


async def _withdrawn(process: Process, conversation: Conversation) -> dict[str, int]:
    """The questions that were taken back. Only their positions are left."""
    which = {"conversationId": ObjectId(conversation.key), "role": "withdrawn"}
    documents = await process.bench.mongo.messages.find(which).to_list(None)
    assert not any(document.keys() & {"content", "parent"} for document in documents), documents
    return {str(document["_id"]): document["seq"] for document in documents}


def compare(world: World, stored: list[Message], withdrawn: dict[str, int], *, all_are_back: bool) -> None:
    """Compare the viewers' events with the stored messages. After reconnecting, the strict ones have missed nothing."""
    order = {message.id: message.seq for message in stored} | withdrawn
    answers = {message.id: message for message in stored if isinstance(message, Answer)}
    newest = {answer.reply_to: answer.id for answer in answers.values()}
    assert set(world.acknowledged) <= order.keys(), "what was acknowledged is not stored"
    assert all(answer.status.is_final for answer in answers.values())
    assert set(world.carried_out.values()) <= {1}, "what may happen once has happened twice"
    for ended in answers.values():
        if not ended.begins_again:
            left = [call.id for call in calls(ended.pieces) if call.state is not None and not call.is_over]
            assert not left, f"calls without an end: {left}"

    assert not newest.keys() & withdrawn.keys(), "answers a question that was taken back"

    def optional(id_: str) -> bool:
        """Messages that later viewers do not get: superseded attempts, attempts that begin again before their first
        word, and questions that were taken back.
        """
        if id_ in withdrawn:
            return True
        answer = answers.get(id_)
        return answer is not None and (newest[answer.reply_to] != id_ or (answer.begins_again and not answer.content))

    needed = [id_ for message in stored if not optional(message.id) for id_ in _ids(message)]
    for viewer in world.viewers:
        for frame in viewer.events:
            answer = answers.get(frame.data.get("messageId") or "")
            if frame.type == "llm_complete":
                assert answer is not None
                assert (frame.data["content"], frame.data["status"]) == (answer.content, answer.status)
        for connection, first in enumerate(viewer.since):
            last = viewer.since[connection + 1] if connection + 1 < len(viewer.since) else len(viewer.events)
            _in_order(viewer.events[first:last], order)
        if viewer.connected:
            _not_stuck(viewer, answers, needed)
    for viewer in world.viewers:
        if viewer.strict and all_are_back:
            told = [str(frame.id) for frame in viewer.events if frame.type not in _PIECES]
            assert [id_ for id_ in told if not optional(id_.split(".")[0])] == needed, (told, needed)
            for answer in answers.values():
                # If another process has ended the answer, viewers may have got more text than is stored; the end
                # replaces it.
                if not optional(answer.id) and (answer.content or answer.failure is None):
                    assert viewer.texts.get(answer.id, "") == answer.content


def _ids(message: Message) -> list[str]:
    """The ids of the events of a message, but for its chunks."""
    if isinstance(message, UserMessage):
        return [f"{message.id}.user"]
    ids = [f"{message.id}.error"] if message.failure and not message.begins_again else []
    ends = message.content or not message.failure or calls(message.pieces)
    ids += [f"{message.id}.complete"] if ends else []
    return ids + [f"{message.id}.system{n}" for n, _ in enumerate(message.recommendations, start=1)]


def _in_order(events: list[Frame], order: dict[str, int]) -> None:
    places = []
    for frame in events:
        cursor = Cursor.parse(frame.id or "")
        assert cursor is not None
        places.append((order[cursor.message_id], cursor.position))
    assert places == sorted(set(places)), f"not in order, or twice: {[frame.id for frame in events]}"


def _not_stuck(viewer: Viewer, answers: dict[str, Answer], needed: list[str]) -> None:
    """Check that a connected viewer has got everything after the first event of its connection."""
    told = [str(frame.id) for frame in viewer.events[viewer.since[-1] :]]
    begun = [id_ for id_ in told if id_ in needed]
    if begun:
        expected = needed[needed.index(begun[0]) :]
        assert [id_ for id_ in told if id_ in needed] == expected, ("stuck, or a gap", told, expected)
    chunks = {id_.split(".")[0] for id_ in told if id_.split(".")[1].isdigit()}
    for id_ in chunks:
        ends = _ids(answers[id_])
        assert not ends or ends[-1] in told, f"the end of {id_} was never told"


async def _at_once(_: Threads, function: Callable[..., Any], *args: object) -> Any:
    return function(*args)


@contextlib.contextmanager
def _no_clock() -> Iterator[None]:
    """Turn off everything that happens because time passes."""
    never = 3600.0
    with contextlib.ExitStack() as stack:
        for name, value in {
            "checkpointer.CHECKPOINT_INTERVAL": never,
            "generation._SAVE_PAUSE": 0,
            "generation._WATCHED_REMOTELY_FOR": never,
            "commands._STOP_LOOK_INTERVAL": 0,
            "commands._STOP_TIMEOUT": never,
            "room._SECOND_POLL": never,
            "room._POLL_INTERVAL": never,
            "room._RETRY_PAUSE": never,
            "hub._SHUTDOWN_SPREAD": 0,
        }.items():
            stack.enter_context(mock.patch(f"chatstream.generations.{name}", value))
        for name, value in {
            "changes._RETRY_PAUSE": 0,
            # Long timeouts, so that a slow machine causes no refusals: only drawn ones happen.
            "mongo.OPERATION_TIMEOUT_MS": 1000 * _TIMEOUT,
            "mongo.TRANSACTION_TIMEOUT_SECONDS": _TIMEOUT,
            "gate._FIRST_PROBE": _TIMEOUT,
            "gate._PATIENCE": _TIMEOUT,
            "gate._LONGEST_WAIT": _TIMEOUT,
        }.items():
            stack.enter_context(mock.patch(f"chatstream.store.{name}", value))
        stack.enter_context(mock.patch.dict(Gate.run.__kwdefaults__, seconds=_TIMEOUT))
        # No threads, since their timing depends on the machine.
        stack.enter_context(mock.patch("chatstream.plugins.threads.Threads.run", _at_once))
        yield


async def play_all(uri: str, seeds: Iterable[int], failed: Callable[[int, list[str], BaseException], None]) -> None:
    """Play these interleavings, some at a time: they know nothing of each other.

    `failed` is called for each one in which a rule was broken, with its seed and what was done.
    """
    # Checkpoints are published to all processes for some time, or only to those that poll.
    for parity, seconds in enumerate((0, 3600)):
        waiting = [seed for seed in seeds if seed % 2 == parity][::-1]

        async def play_some(database: str, waiting: list[int] = waiting) -> None:
            while waiting:
                seed, log = waiting.pop(), list[str]()
                try:
                    async with asyncio.timeout(_TIMEOUT):
                        await _play(uri, database, seed, log)
                except Exception as exc:  # noqa: BLE001 - whatever it is, the others are played
                    failed(seed, log, exc)

        with _no_clock(), mock.patch("chatstream.generations.generation._PUBLISHED_TO_ALL_FOR", seconds):
            await asyncio.gather(*(play_some(f"interleavings-{number}") for number in range(_AT_ONCE)))


async def _play(uri: str, database: str, seed: int, log: list[str]) -> None:
    """Raises `AssertionError` if a rule is broken."""
    grace = 0 if seed % 5 == 0 else math.inf
    async with (
        bench(uri, database, store=DrawnStore, disconnect_grace=grace) as one,
        bench(uri, database, store=DrawnStore, disconnect_grace=grace) as other,
    ):
        world = World(seed, [Process(one), Process(other)], await one.conversation())
        world.log = log
        try:
            for process in world.processes:
                await process.listen()
            await world.play()
            stored = await world.finish()
            if not world.deleted:
                compare(world, stored, await _withdrawn(world.processes[0], world.conversation), all_are_back=False)
                await _come_back(world)
            else:
                assert not any(viewer.connected for viewer in world.viewers), "watches what was deleted"
        finally:
            await _clean_up(world)


async def _come_back(world: World) -> None:
    """Disconnected viewers reconnect and miss nothing; reconnecting once more brings no event."""
    for again in range(2):
        strict = [viewer for viewer in world.viewers if viewer.strict]
        told = [len(viewer.events) for viewer in strict]
        for viewer in strict:
            if viewer.connected:
                await viewer.leave()
            viewer.open(world.processes[again], viewer.cursors[-1] if viewer.cursors else world.start)
        stored = await world.finish()
        compare(world, stored, await _withdrawn(world.processes[0], world.conversation), all_are_back=True)
    assert [len(viewer.events) for viewer in strict] == told, "told once more"


async def _clean_up(world: World) -> None:
    for request in world.requests:
        request.cancel()
    for process in world.processes:
        await process.cut()
        process.bench.hub._services.draining = True
    for _ in range(50):
        for process in world.processes:
            for room in list(process.bench.hub._rooms.values()):
                if room.generation is not None:
                    room.generation.cut(Status.STOPPED)
            while process.store.waiting:
                await process.store.go_on(process.store.waiting[0])
                await turns()
        for viewer in world.viewers:
            if viewer.connected:
                await viewer.leave()
        await turns()
