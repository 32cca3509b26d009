"""Property: whatever the model sends, however it is cut, and whenever viewers come and go, no event is lost or
repeated.

The hub, its store and a real database; Hypothesis chooses the model's output. Clients parse the bytes that a follower
yields; any suffix of them may be lost with the connection.
"""

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from tornado.ioloop import IOLoop

from chatstream.errors import AnswerInProgress, ErrorCode, ModelError, NothingToAnswer
from chatstream.events import Cursor
from chatstream.formats.registry import SHOWING
from chatstream.generations.commands import IfBusy
from chatstream.models import Answer, Conversation, Message, Status, UserMessage
from tests.support.lean import Whole
from tests.support.scripted_model import PATIENCE, STOP, Bench, Call, Frame, bench, parse

# Texts that break software which counts bytes, UTF-16 units or visible characters, and texts that break lines and
# frames.
NASTY = [
    "e\u0301",
    "👩\u200d👩\u200d👧",
    "🏴\U000e0067\U000e007f",
    "\u202eabc",
    "שלום",
    "مرحبا",
    "🏟",
    "\x00",
    "\n\n",
    "\r",
]
NASTY += ["data: x", "id: 1\n", "\u2028", "\ufeff", '"', "\\u0041", "\ufffd", "\U0010ffff"]
TEXT = st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6))
CLIENTS = 3

Action = tuple[Any, ...]
CLIENT = st.integers(0, CLIENTS - 1)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("post"), TEXT),
        st.tuples(st.just("queue"), TEXT),
        st.tuples(st.just("regenerate")),
        st.tuples(st.just("say"), st.lists(TEXT, min_size=1, max_size=4)),
        st.tuples(st.just("say"), st.lists(TEXT, min_size=1, max_size=4)),
        st.tuples(st.just("end"), st.sampled_from(["complete", "bet", "fault", "truncated", "stop"])),
        st.tuples(st.just("open"), CLIENT, st.integers(0, 50)),
        st.tuples(st.just("open"), CLIENT, st.integers(0, 50)),
        st.tuples(st.just("read"), CLIENT, st.none()),
        st.tuples(st.just("drop"), CLIENT, st.integers(0, 5)),
        st.tuples(st.just("hold"), st.booleans()),
        st.tuples(st.just("release")),
        st.tuples(st.just("race"), CLIENT, st.integers(0, 50), st.lists(TEXT, min_size=2, max_size=4)),
        st.tuples(st.just("overtake"), TEXT),
        st.tuples(st.just("beat")),
        st.tuples(st.just("settle")),
    ),
    min_size=5,
    max_size=40,
)


class Client:
    """A client that connects and disconnects. It keeps what it received: `events` in order, over all connections."""

    def __init__(self, b: Bench, conversation: Conversation, *, lean: bool = False) -> None:
        self.bench = b
        self.conversation = conversation
        self.wire = SHOWING.lean[SHOWING.default.name] if lean else SHOWING.default
        self.whole = Whole(text_alone=True)
        self.events: list[Frame] = []
        self.cursors: list[Cursor] = []
        self.texts: dict[str, str] = {}
        self._stack: contextlib.AsyncExitStack | None = None
        self._opening: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[bytes | None] | None = None
        self.follower: Any = None
        self.resumed: bool | None = None

    @property
    def connected(self) -> bool:
        return self._opening is not None

    @property
    def open_now(self) -> bool:
        """Whether the client is connected (not only connecting)."""
        return self._opening is not None and self._opening.done()

    def open(self, cursor: Cursor | None) -> None:
        """Begin to connect: other steps may happen before the connection is open."""
        self._opening = asyncio.create_task(self._open(cursor))

    async def _open(self, cursor: Cursor | None) -> None:
        self._stack = contextlib.AsyncExitStack()
        viewer = await self._stack.enter_async_context(
            self.bench.viewer(self.conversation, cursor, reads_ahead=len(self.events) % 2 == 0, wire=self.wire)
        )
        self.follower = viewer.stream.follower
        self.resumed = viewer.stream.replay.resumed

    async def read(self, lose: int = 0) -> bool:
        """Read the available events, except the last `lose` ones, which are lost with the connection. Returns whether
        there were any.
        """
        assert self._opening is not None
        await self._opening
        if self._reading is None:
            self._reading = asyncio.create_task(self.follower.next())
        await breathe()
        if not self._reading.done():
            return False
        data = self._reading.result()
        self._reading = None
        if data is None:
            return False
        frames = parse(data)
        for frame in frames[: max(0, len(frames) - lose)]:
            assert frame.id is not None, frame.data
            frame.data = self.whole.of(frame.id, frame.data)
            self.take(frame)
        return True

    def take(self, frame: Frame) -> None:
        self.events.append(frame)
        assert frame.id is not None, frame.data
        cursor = Cursor.parse(frame.id)
        assert cursor is not None
        self.cursors.append(cursor)
        data = frame.data
        if frame.type == "llm_chunk":
            text = self.texts.get(data["messageId"], "")
            assert data["offset"] <= len(text), "a gap"
            assert data["content"]
            self.texts[data["messageId"]] = text[: data["offset"]] + data["content"]
            assert cursor.position == data["offset"] + len(data["content"])
        elif frame.type == "llm_complete":
            self.texts[data["messageId"]] = data["content"]

    async def drop(self, lose: int = 0) -> None:
        """Lose the connection, and with it the end of the last write."""
        if lose:
            await self.read(lose)
        assert self._opening is not None
        assert self._stack is not None or not self._opening.done()
        await self._opening
        assert self._stack is not None
        self.follower.leave()
        if self._reading is not None:
            await self._reading
        await self._stack.aclose()
        self._stack = self._opening = self._reading = None


class Resumer(Client):
    """A client that always reconnects with its last id: no event may be missing or repeated."""

    def take(self, frame: Frame) -> None:
        if frame.type == "llm_chunk":
            text = self.texts.get(frame.data["messageId"], "")
            assert frame.data["offset"] == len(text), "a gap or a double"
        assert frame.id not in [event.id for event in self.events]
        super().take(frame)


async def breathe() -> None:
    """Run some turns of the event loop, so that everything that is due happens."""
    for _ in range(5):
        await asyncio.sleep(0)


class Story:
    """Plays the actions on one conversation."""

    def __init__(self, b: Bench, conversation: Conversation, *, lean: bool) -> None:
        """`lean`: the first client, which always reconnects, reads lean frames; else the second one does."""
        self.bench = b
        self.conversation = conversation
        self.clients: list[Client] = [Resumer(b, conversation, lean=lean)]
        self.clients += [Client(b, conversation, lean=lean == (number == 0)) for number in range(CLIENTS - 1)]
        self.start = Cursor(conversation.key, Cursor.START)
        self.calls = 0  # the number of model calls that already have an end

    async def play(self, actions: list[Action]) -> None:
        for name, *arguments in actions:
            await getattr(self, name)(*arguments)
            await breathe()

    async def running(self) -> Call | None:
        """Wait for the running call of the model; returns it."""
        answer = await self.bench.reading.running(self.conversation.key)
        if answer is None:
            return None
        while len(self.bench.model.calls) <= self.calls:
            if self.held or await self.bench.reading.running(self.conversation.key) is None:
                return None  # it waits for the end of the call before it, which is held; or it is over
            await asyncio.sleep(0)
        return self.bench.model.calls[-1]

    @property
    def held(self) -> bool:
        return bool(self.bench.store.gates_behind)

    async def post(self, content: str) -> None:
        with contextlib.suppress(AnswerInProgress):
            await self.bench.post(self.conversation, content)

    async def queue(self, content: str) -> None:
        await self.bench.post(self.conversation, content, if_busy=IfBusy.QUEUE)

    async def regenerate(self) -> None:
        await self.release()  # it reads what may be held, and nothing else happens until it is done
        with contextlib.suppress(AnswerInProgress, NothingToAnswer):
            await self.bench.commands.regenerate(self.conversation, request_id="r")

    async def say(self, texts: list[str]) -> None:
        if call := await self.running():
            call.say(*texts)

    async def end(self, how: str) -> None:
        call = await self.running()
        if call is None or call.closed.is_set():
            return
        self.calls = len(self.bench.model.calls)
        if how == "fault":
            call.say(ModelError(ErrorCode.UPSTREAM_UNAVAILABLE, "x"))
        elif how == "truncated":
            call.break_off()
        elif how == "stop":
            await self.release()
            await self.bench.commands.stop(self.conversation, None)
        elif how == "bet":
            call.say(" I recommend a bet on Arsenal at odds of 2.10.", STOP)
        else:
            call.say(STOP)

    async def open(self, number: int, which: int) -> None:
        client = self.clients[number]
        if client.connected:
            return
        if isinstance(client, Resumer):
            client.open(client.cursors[-1] if client.cursors else self.start)
        else:
            choices = [None, self.start, *client.cursors]
            client.open(choices[which % len(choices)])

    async def read(self, number: int, _: None) -> None:
        if self.clients[number].open_now:
            await self.clients[number].read()

    async def drop(self, number: int, lose: int) -> None:
        if self.clients[number].open_now:
            await self.clients[number].drop(lose)

    async def hold(self, behind: bool) -> None:
        """Make the store slow: a stream is opened with outdated messages, and a stored end is not known yet."""
        await self.release()
        messages = self.bench.store
        gate = asyncio.Event()
        (messages.gates_behind if behind else messages.gates).update(
            dict.fromkeys(("get", "after", "behind", "newest", "page"), gate)
        )
        messages.gates_behind["finish"] = gate
        messages.arrived.update(dict.fromkeys(("get", "after", "behind", "newest", "page", "finish"), asyncio.Event()))

    async def race(self, number: int, which: int, texts: list[str]) -> None:
        """A viewer comes. Before its messages are read, an answer begins, and some of its text is stored."""
        await self.hold(behind=False)
        await self.open(number, which)
        await breathe()
        await self.post("Race")
        await self.say(texts[:-1])
        await self.beat()
        await self.say(texts[-1:])
        await breathe()
        await self.release()

    async def overtake(self, content: str) -> None:
        """Post the next message when an end is stored, but before its process knows that."""
        call = await self.running()
        await self.hold(behind=True)
        if call is not None and not call.closed.is_set():
            await self.end("complete")
            async with asyncio.timeout(PATIENCE):
                await self.bench.store.arrived["finish"].wait()
            await self.post(content)
            await breathe()
        await self.release()

    async def release(self) -> None:
        messages = self.bench.store
        for gates in (messages.gates, messages.gates_behind):
            for gate in gates.values():
                gate.set()
            gates.clear()

    async def beat(self) -> None:
        """Store the text of the running answer so far."""
        if await self.bench.reading.running(self.conversation.key) is not None:
            beaten = self.bench.store.called["checkpoint"]
            for _ in range(20):  # there is none if it waits for the end of the one before it
                if self.bench.store.called["checkpoint"] >= beaten + 2:
                    return
                await self.bench.mongo.ping()

    async def settle(self) -> None:
        """Wait until everything is written."""
        await self.release()
        for _ in range(200):
            if self.calls < len(self.bench.model.calls):  # the call runs, and has no end yet
                return
            if await self.bench.reading.running(self.conversation.key) is None:
                return

    async def finish(self) -> list[Message]:
        """Let all answers end; returns the stored messages."""
        await self.release()
        async with asyncio.timeout(PATIENCE):
            while True:
                call = await self.running()
                if call is not None and not call.closed.is_set():
                    self.calls = len(self.bench.model.calls)
                    call.say("the end", STOP)
                elif not self.bench.hub.generates_in(self.conversation):
                    newest = await self.bench.reading.newest(self.conversation.key)
                    if newest is None or (isinstance(newest, Answer) and newest.status is not Status.STREAMING):
                        break
                await asyncio.sleep(0)
        await breathe()
        return await self.bench.reading.page(self.conversation.key, limit=1000, before=None)


def expected(stored: list[Message]) -> list[str]:
    """The ids of the events for a client that misses nothing, without chunks and superseded attempts."""
    ids = []
    for message in stored:
        if isinstance(message, UserMessage):
            ids.append(f"{message.id}.user")
            continue
        ids += [f"{message.id}.error"] if message.failure else []
        ids += [f"{message.id}.complete"] if message.content or not message.failure else []
        ids += [f"{message.id}.system{n}" for n, _ in enumerate(message.recommendations, start=1)]
    return ids


async def check(b: Bench, actions: list[Action]) -> None:
    story = Story(b, await b.conversation(), lean=len(actions) % 2 == 0)
    try:
        await story.play(actions)
        await compare(story, await story.finish())
    finally:
        await story.release()
        for client in story.clients:
            if client.connected:
                await client.drop()


async def compare(story: Story, stored: list[Message]) -> None:
    """Compare the events of the clients, at the end, with the stored messages."""
    answers = {message.id: message for message in stored if isinstance(message, Answer)}
    newest = {answer.reply_to: answer.id for answer in answers.values()}
    superseded = {answer.id for answer in answers.values() if newest[answer.reply_to] != answer.id}
    event(f"answers: {min(len(answers), 4)}")

    for client in story.clients:
        if client.connected:
            while await client.read():
                pass
            await client.drop()

    resumer = story.clients[0]
    for _ in range(2):  # first the missed events, then nothing
        resumer.open(resumer.cursors[-1] if resumer.cursors else story.start)
        while await resumer.read():
            pass
        assert resumer.resumed
        await resumer.drop()
    told = [frame.id for frame in resumer.events if frame.type != "llm_chunk"]
    order = {message.id: message.seq for message in stored}

    def place(id_: str | None) -> tuple[int, int]:
        cursor = Cursor.parse(id_ or "")
        assert cursor is not None
        return order[cursor.message_id], cursor.position

    places = [place(frame.id) for frame in resumer.events]
    assert places == sorted(places)
    # A superseded attempt is sent to clients that watched it, and skipped for later ones.
    assert [id_ for id_ in told if str(id_).split(".")[0] not in superseded] == [
        id_ for id_ in expected(stored) if id_.split(".")[0] not in superseded
    ]
    assert set(told) <= set(expected(stored))
    for answer in answers.values():
        if answer.id not in superseded:
            assert resumer.texts.get(answer.id, "") == answer.content
            chunks = [frame.data for frame in resumer.events if frame.data.get("messageId") == answer.id]
            assert "".join(data["content"] for data in chunks if data["type"] == "llm_chunk") == answer.content

    for client in story.clients:
        for frame in client.events:
            if frame.type == "llm_complete":
                answer = answers[frame.data["messageId"]]
                assert (frame.data["content"], frame.data["status"]) == (answer.content, answer.status)
            elif frame.type == "user_message":
                assert frame.data["messageId"] in order
        for answer_id, text in client.texts.items():
            assert answers[answer_id].content.startswith(text)
        for frame in client.events:  # a client that has the end has the whole text
            if frame.type == "llm_complete":
                assert client.texts[frame.data["messageId"]] == answers[frame.data["messageId"]].content


# An example takes a tenth of a second, and a failure depends on timing: shrinking would take minutes in vain.
@settings(
    max_examples=40,  # each run has other examples
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(actions=ACTIONS)
def test_nothing_is_lost_and_nothing_comes_twice(io_loop: IOLoop, mongodb_uri: str, actions: list[Action]) -> None:
    async def run() -> None:
        async with bench(mongodb_uri) as b:
            await check(b, actions)

    with pytest.MonkeyPatch.context() as patch:  # a fixture would be torn down only after the last example
        patch.setattr("chatstream.generations.checkpointer.CHECKPOINT_INTERVAL", 0.002)
        io_loop.run_sync(run, timeout=5 * PATIENCE)
