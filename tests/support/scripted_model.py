"""A model in this process that sends the deltas of a test, and a hub that uses it, on a real database.

There are no sockets: a `Viewer` reads the frames that a connection's handler would write. `FaultyStore` is a store with
faults.
"""

import asyncio
import contextlib
import json
import math
import uuid
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast

from msgspec.structs import replace

from chatstream.errors import ErrorCode, StorageUnavailable
from chatstream.events import Cursor
from chatstream.formats import registry
from chatstream.formats.format import Format
from chatstream.generations.ahead import ReadAhead
from chatstream.generations.answer import admit, write_answer
from chatstream.generations.calls import CallBounds, Calling
from chatstream.generations.commands import Commands
from chatstream.generations.deciding import Deciding
from chatstream.generations.generation import AnswerBounds, unpriced
from chatstream.generations.hub import Hub, Stream
from chatstream.generations.replay import NEWEST
from chatstream.generations.room import Config
from chatstream.limits import Answers
from chatstream.llm.model import Delta, Finish, OfferedTool, Tell, Turn
from chatstream.metrics import Metrics
from chatstream.models import Answer, Conversation, Failure, Status, UserMessage
from chatstream.pieces import Mark
from chatstream.plugins.loading import load
from chatstream.plugins.plugins import Plugins
from chatstream.settings import DEFAULT_PLUGINS
from chatstream.store.attempts import Attempts
from chatstream.store.changes import Change, Changes
from chatstream.store.contexts import Contexts
from chatstream.store.conversations import Conversations
from chatstream.store.mongo import Mongo
from chatstream.store.plugin_documents import PluginDocuments
from chatstream.store.posting import Posted, Posting
from chatstream.store.reading import Reading
from chatstream.tools.storage import stored_in
from chatstream.tools.tool import Tools

# Longest wait for one event, in seconds.
PATIENCE = 60

Step = str | Mark | Delta | Exception | Finish
"""A piece, a whole delta, a fault, or the good end."""

STOP = Finish(reason="stop", usage=None)


class Call:
    """One call of the model: its arguments, and the deltas to send."""

    def __init__(self, turns: Sequence[Turn], model: str | None, tools: Sequence[OfferedTool]) -> None:
        self.tools = list(tools)
        self.turns = list(turns)
        self.model = model
        self.cache_key: str | None = None
        self.closed = asyncio.Event()
        self._steps: asyncio.Queue[Step | None] = asyncio.Queue()

    def say(self, *steps: Step) -> None:
        """Send these deltas."""
        for step in steps:
            self._steps.put_nowait(step)

    def break_off(self) -> None:
        """End the stream without a finish reason."""
        self._steps.put_nowait(None)

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        try:
            while (step := await self._steps.get()) is not None:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, Finish):
                    yield Delta([], step)
                    return
                yield step if isinstance(step, Delta) else Delta([step])
        finally:
            self.closed.set()


class ScriptedModel:
    """A `Model`. A call sends the deltas that were scripted for it with `reply`, then waits for more."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.told = 0  # the number of deltas that went to `tell` instead of being yielded
        self._replies: deque[tuple[Step, ...]] = deque()
        self._called = asyncio.Condition()

    def reply(self, *steps: Step) -> None:
        """Script the next call that has no script yet."""
        self._replies.append(steps)

    async def call(self, number: int) -> Call:
        """Wait for the call with this number, from 1 on; returns it."""
        async with asyncio.timeout(PATIENCE), self._called:
            await self._called.wait_for(lambda: len(self.calls) >= number)
        return self.calls[number - 1]

    @property
    def open(self) -> int:
        """The number of calls that are not closed."""
        return sum(not call.closed.is_set() for call in self.calls)

    async def stream(
        self,
        turns: Sequence[Turn],
        *,
        model: str | None = None,
        tools: Sequence[OfferedTool] = (),
        cache_key: str | None = None,
        may_ask: "asyncio.Future[None] | None" = None,
        tell: Tell | None = None,
    ) -> AsyncGenerator[Delta, None]:
        if may_ask is not None:
            await may_ask
        call = Call(turns, model, tools)
        call.cache_key = cache_key
        if self._replies:
            call.say(*self._replies.popleft())
        self.calls.append(call)
        async with self._called:
            self._called.notify_all()
        begun = False
        async with contextlib.aclosing(call.deltas()) as deltas:
            async for delta in deltas:
                if begun and tell is not None and delta == Delta(delta.pieces) and tell(delta.pieces):
                    self.told += 1
                    continue
                begun = begun or bool(delta.pieces)
                yield delta

    async def close(self) -> None:
        pass


class FaultyStore:
    """`Posting`, `Attempts`, `Reading` and `Conversations` in one. Each method can be made to fail, by its name. If two
    of them have a method of the same name, the first one's is used.
    """

    def __init__(self, *parts: Posting | Attempts | Reading | Conversations) -> None:
        self._parts = parts
        self.refused: Counter[str] = Counter()  # by method: this many calls do nothing and raise StorageUnavailable
        self.lost: Counter[str] = Counter()  # by method: this many calls do their work, and then raise it
        self.called: Counter[str] = Counter()
        self.gates: dict[str, asyncio.Event] = {}  # by method: calls wait for this before they do their work
        self.gates_behind: dict[str, asyncio.Event] = {}  # the same, but after their work
        self.arrived: dict[str, asyncio.Event] = {}  # set when a call waits at its gate

    def hold(self, name: str, *, behind: bool = False) -> tuple[asyncio.Event, asyncio.Event]:
        """Let calls wait at a gate. Returns an event that is set when a call waits, and the gate, which lets the calls
        continue.
        """
        self.arrived[name] = asyncio.Event()
        gate = (self.gates_behind if behind else self.gates)[name] = asyncio.Event()
        return self.arrived[name], gate

    def newest_that_count(self, key: str, **options: Any) -> AsyncIterator[Any]:
        if self.refused["newest_that_count"]:
            self.refused["newest_that_count"] -= 1
            raise StorageUnavailable
        newest: AsyncIterator[Any] = self._method("newest_that_count")(key, **options)
        return newest

    def check_room(self, seq: int) -> None:
        self._method("check_room")(seq)

    def owns(self, answer: Answer) -> bool:
        return bool(self._method("owns")(answer))

    @property
    def owner(self) -> str:
        return str(self._method("owner"))

    def _method(self, name: str) -> Any:
        for part in self._parts:
            if hasattr(part, name):
                return getattr(part, name)
        raise AttributeError(name)

    def __getattr__(self, name: str) -> Any:
        method = self._method(name)

        async def call(*args: Any, **options: Any) -> Any:
            return await self._call(name, lambda: method(*args, **options))

        return call

    async def _call(self, name: str, method: Callable[[], Awaitable[Any]]) -> Any:
        self.called[name] += 1
        await self._pass(name, self.gates)
        if self.refused[name]:
            self.refused[name] -= 1
            raise StorageUnavailable
        result = await method()
        await self._pass(name, self.gates_behind)
        if self.lost[name]:
            self.lost[name] -= 1
            raise StorageUnavailable
        return result

    async def _pass(self, name: str, gates: dict[str, asyncio.Event]) -> None:
        if name in gates:
            self.arrived[name].set()
            await gates[name].wait()


class Frame:
    """One event, as a client reads it."""

    def __init__(self, text: bytes) -> None:
        fields = dict(line.split(": ", 1) for line in text.decode().split("\n"))
        assert fields.keys() <= {"id", "data", "retry"}, text
        self.id = fields.get("id")
        self.data: dict[str, Any] = json.loads(fields["data"])
        self.type: str = self.data["type"]


def parse(data: bytes) -> list[Frame]:
    """Parse whole frames; anything else fails."""
    assert data.endswith(b"\n\n")
    return [Frame(part) for part in data.removesuffix(b"\n\n").split(b"\n\n")]


class Viewer:
    """An open stream, read in the same way as by the handler."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.frames: list[Frame] = []
        self._unread: deque[Frame] = deque()

    async def next(self) -> Frame | None:
        """The next event; None when the stream is over."""
        if not self._unread:
            async with asyncio.timeout(PATIENCE):
                data = await self.stream.follower.next()
            if data is None:
                return None
            self._unread.extend(parse(data))
        self.frames.append(self._unread.popleft())
        return self.frames[-1]

    async def until(self, type_: str) -> dict[str, Any]:
        """The data of the next event of this type."""
        while (frame := await self.next()) is not None:
            if frame.type == type_:
                return frame.data
        raise AssertionError(f"the stream was over before {type_}: {self.types}")

    async def rest(self) -> list[Frame]:
        """Read to the end of the stream."""
        while await self.next() is not None:
            pass
        return self.frames

    @property
    def types(self) -> list[str]:
        """The types of the events so far; neighbouring chunks count as one."""
        types: list[str] = []
        for frame in self.frames:
            if not (frame.type == "llm_chunk" and types[-1:] == ["llm_chunk"]):
                types.append(frame.type)
        return types

    @property
    def text(self) -> str:
        """The text of all chunks so far."""
        return "".join(frame.data["content"] for frame in self.frames if frame.type == "llm_chunk")

    @property
    def cursor(self) -> Cursor | None:
        """The cursor with which the client would reconnect."""
        return next((Cursor.parse(frame.id) for frame in reversed(self.frames) if frame.id), None)

    def hang_up(self) -> None:
        """Do what the handler does when the client leaves; the context is left a little later."""
        self.stream.follower.leave()


class Bench:
    """A process's hub, its store and its model. Opened with `bench`."""

    def __init__(self, uri: str, database: str, **config: Any) -> None:
        """`config` are fields of the hub's `Config` and `AnswerBounds`; features that take time are off unless
        given.
        """
        self.metrics = Metrics()
        self.mongo = Mongo(uri, database, self.metrics)
        self.conversations = Conversations(self.mongo)
        self.owner = f"test:{uuid.uuid4().hex}"  # each bench counts as a process of its own
        self.posting = Posting(self.mongo, owner=self.owner)
        self.attempts = Attempts(self.mongo, owner=self.owner)
        self.reading = Reading(self.mongo)
        # `FaultyStore` has the methods of all of these, and is used in place of each of the first three.
        store = config.pop("store", FaultyStore)
        self.store = cast("Any", store(self.posting, self.attempts, self.reading, self.conversations))
        self.contexts = Contexts(self.mongo)
        self.model = ScriptedModel()
        self.plugins = Plugins(config.pop("plugins", load(DEFAULT_PLUGINS)), self.metrics, answer_timeout=PATIENCE)
        self.calling = Calling(
            tools=config.pop("tools", Tools()),
            bounds=config.pop("call_bounds", CallBounds()),
            metrics=self.metrics,
            storage=stored_in(PluginDocuments(self.mongo)),
            owner=self.owner,
        )
        self.asked_between = {name: config.pop(name) for name in ("may_go_on",) if name in config}
        bounds: dict[str, Any] = {
            "answer_characters": 200_000,
            "reasoning_characters": 200_000,
            "save_deadline": math.inf,
        }
        bounds |= {name: config.pop(name) for name in bounds.keys() & config.keys()}
        durations = {"heartbeat_interval": math.inf, "disconnect_grace": math.inf, "connection_timeout": math.inf}
        answers = Answers(lambda: 0, 1, per_user=1000, per_process=1000)
        priced = config.pop("priced", unpriced)
        self.hub = Hub(
            self.store,
            self.store,
            self._answers,
            self.plugins.annotate,
            self.metrics,
            Config(**{**durations, "connection_bytes": 2**40, "model": "m", **config}, bounds=AnswerBounds(**bounds)),
            answers,
            priced=priced,
        )
        self.deciding = Deciding(
            self.hub, self.store, self.store, self.metrics, self.calling.bounds, self.calling.tools
        )
        self.commands = Commands(self.hub, self.store, self.store, self.store, answers, self._admit, self.deciding)

    async def _admit(self, conversation: Conversation, content: str, attempt: int, key: str) -> None:
        await admit(
            conversation,
            content,
            attempt=attempt,
            key=key,
            plugins=self.plugins,
            reading=self.store,
            context_characters=10_000,
        )

    def _answers(
        self,
        conversation: Conversation,
        answer: Answer,
        question: UserMessage | None,
        may_ask: "asyncio.Future[None]",
        tell: Tell,
    ) -> AsyncGenerator[Delta, None]:
        return write_answer(
            conversation,
            answer,
            question,
            reading=self.store,
            model=self.model,
            plugins=self.plugins,
            calling=self.calling,
            system_prompt="Be brief.",
            context_characters=10_000,
            remember=lambda seq: self.contexts.begin_at(conversation, seq),
            may_ask=may_ask,
            tell=tell,
            **self.asked_between,
        )

    async def conversation(self, waiting: str | None = None) -> Conversation:
        """Create a conversation; with `content`, also a user message that waits for an answer."""
        conversation = await self.conversations.create("user")
        if waiting is not None:
            await self.posting.add(conversation, waiting)
        return conversation

    async def post(self, conversation: Conversation, content: str = "Tell me.", **options: Any) -> Posted:
        """Do what the handler does for a POST."""
        return await self.commands.post(conversation, content, request_id="request", **options)

    @contextlib.asynccontextmanager
    async def viewer(
        self,
        conversation: Conversation,
        cursor: Cursor | None = None,
        *,
        once: bool = False,
        start: bool = True,
        accepted: bool = False,
        expires_at: float = math.inf,
        reads_ahead: bool = False,
        wire: Format = registry.DEFAULT,
    ) -> AsyncIterator[Viewer]:
        """Do what the handler does for a GET of the stream, between `connected` and the end. `reads_ahead`: read the
        newest messages together with the conversation, as for a client without a cursor.
        """
        ahead = None
        if cursor is None and reads_ahead:
            moment = self.hub.moment
            _, newest = await self.store.get_with_newest(conversation.user_id, conversation.id, NEWEST)
            ahead = None if newest is None else ReadAhead(moment, newest)
        async with self.hub.follow(
            conversation,
            cursor,
            wire,
            once=once,
            expires_at=expires_at,
            request_id="request",
            accepted=accepted,
            ahead=ahead,
        ) as stream:
            if start:
                await self.hub.start(stream)
            yield Viewer(stream)

    async def newest(self, conversation: Conversation) -> Answer:
        """The newest stored message, which must be an answer."""
        newest = await self.reading.newest(conversation.key)
        assert isinstance(newest, Answer)
        return newest

    async def ended(self, conversation: Conversation) -> Answer:
        """Wait until the newest answer has ended and the hub knows that its end is stored; returns the answer."""
        async with asyncio.timeout(PATIENCE):
            while (newest := await self.newest(conversation)).status is Status.STREAMING or self.hub.generates_in(
                conversation
            ):
                await asyncio.sleep(0.005)  # between two polls: without a viewer there is no event to wait for
        return newest

    async def interrupt(self, conversation: Conversation) -> None:
        """End the running answer as another process would that takes this process for dead."""
        running = await self.reading.running(conversation.key)
        assert running is not None
        failure = Failure(code=ErrorCode.ANSWER_INTERRUPTED, request_id=None)
        await self.attempts.finish(conversation, replace(running, status=Status.INTERRUPTED, failure=failure))

    async def close(self) -> None:
        """Cut what still runs, and close the database's connections."""
        self.store.refused.clear()
        self.store.lost.clear()
        for gate in (*self.store.gates.values(), *self.store.gates_behind.values()):
            gate.set()
        await self.hub.drain(0)
        # A room may still be reading for a viewer. That task would outlive the loop, and cause a warning in a later
        # test.
        reading = [room._working for room in self.hub._rooms.values() if room._working is not None]
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        self.mongo.close()


@contextlib.asynccontextmanager
async def bench(uri: str, database: str = "generations", **options: Any) -> AsyncIterator[Bench]:
    """A `Bench` whose database is ready. Tests share the database; each has conversations of its own."""
    opened = Bench(uri, database, **options)
    await opened.mongo.prepare()
    try:
        yield opened
    finally:
        await opened.close()


async def beats(b: Bench, count: int) -> None:
    """Wait for this many further checkpoints."""
    async with asyncio.timeout(PATIENCE):
        wanted = b.store.called["checkpoint"] + count
        while b.store.called["checkpoint"] < wanted:
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def following(b: Bench) -> AsyncIterator["asyncio.Queue[str]"]:
    """Pass the changes of other processes to `b`; the queue gets every change, as text."""
    seen: asyncio.Queue[str] = asyncio.Queue()
    opened = asyncio.Event()

    async def on_change(change: Change) -> None:
        await b.hub.changed(change)
        seen.put_nowait(str(change))

    async def on_gap() -> None:
        opened.set()

    listening = asyncio.create_task(Changes(b.mongo, owner=b.owner).listen(on_change, on_gap))
    await opened.wait()
    try:
        yield seen
    finally:
        listening.cancel()
        await asyncio.wait([listening])


async def polled(b: Bench) -> None:
    """Let the polling time come, and wait until the answers of other processes have been polled. For tests with
    `short_pauses`.
    """
    async with asyncio.timeout(PATIENCE):
        wanted = b.store.called["poll"] + 1
        while b.store.called["poll"] < wanted:
            b.hub.poll()
            await asyncio.sleep(0.005)


async def turns() -> None:
    """Run some turns of the event loop, so that everything that is due happens."""
    for _ in range(10):
        await asyncio.sleep(0)
