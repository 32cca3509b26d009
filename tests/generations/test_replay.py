"""The beginning of a stream: with every possible cursor, and without one."""

from typing import Any

import pytest
from bson import ObjectId
from msgspec.structs import replace

from chatstream.errors import ErrorCode
from chatstream.events import Cursor
from chatstream.formats.registry import DEFAULT
from chatstream.generations.channel import Running
from chatstream.generations.replay import Replay, in_progress, read
from chatstream.models import Answer, Conversation, Failure, Status, UserMessage, recommendation
from chatstream.store.attempts import Checkpoint
from tests.support.scripted_model import Bench, Frame, bench, parse

BETS = tuple(recommendation({"betId": f"b{n}", "odds": 2.5}) for n in range(2))


class Past:
    """A conversation with earlier messages."""

    def __init__(self, b: Bench, conversation: Conversation) -> None:
        self.b = b
        self.conversation = conversation
        self.key = conversation.key

    @classmethod
    async def of(cls, b: Bench) -> "Past":
        return cls(b, await b.conversation())

    async def turn(self, content: str, status: Status = Status.COMPLETE, **fields: Any) -> tuple[UserMessage, Answer]:
        """Store a user message and its answer, with this end."""
        posted = await self.b.posting.post(self.conversation, f"What about {content}?")
        assert posted.answer is not None
        return posted.message, await self.end(posted.answer, content, status, **fields)

    async def retry(self, previous: Answer, content: str, status: Status = Status.COMPLETE, **fields: Any) -> Answer:
        """Store another attempt."""
        return await self.end(await self.begin(previous), content, status, **fields)

    async def begin(self, previous: Answer) -> Answer:
        return await self.b.attempts.begin(self.key, previous.reply_to, previous=previous, newest_seq=previous.seq)

    async def end(
        self, answer: Answer, content: str, status: Status, *, unwatched: bool = False, **fields: Any
    ) -> Answer:
        bad = status in (Status.FAILED, Status.INTERRUPTED)
        code = ErrorCode.ANSWER_INTERRUPTED
        failure = Failure(code=code, request_id="r", unwatched=unwatched) if bad else None
        ended = await self.b.attempts.finish(
            self.conversation, replace(answer, content=content, status=status, failure=failure, **fields)
        )
        assert ended is not None
        return ended

    async def running(self, content: str) -> tuple[UserMessage, Answer]:
        """Store a user message and its running answer, with this stored text."""
        posted = await self.b.posting.post(self.conversation, "And now?")
        assert posted.answer is not None
        if content:
            await self.b.attempts.checkpoint([Checkpoint(self.key, posted.answer.id, 0, [content])])
        return posted.message, posted.answer

    async def waiting(self, content: str = "Hello?") -> UserMessage:
        added = await self.b.posting.add(self.conversation, content)
        assert added is not None
        return added.message

    async def replay(self, cursor: Cursor | str | None = None, running: Running | None = None) -> Replay:
        """Read the replay as a room does in which this answer is `running`."""
        parsed = Cursor.parse(cursor) if isinstance(cursor, str) else cursor
        if running is not None and (known := in_progress(running, parsed)):
            return known
        behind = await read(self.b.reading, self.key, parsed, DEFAULT)
        known_here = running is not None and behind.running is not None and behind.running.id == running.answer.id
        return behind.with_pieces(running) if running is not None and known_here else behind


def frames(told: Replay) -> list[Frame]:
    return [frame for entry in told.entries if (data := entry.frames(DEFAULT)) for frame in parse(data)]


def say(told: Replay) -> list[str]:
    """The type and content of each event."""
    return [
        frame.type + ":" + str(frame.data.get("content", "")) if "content" in frame.data else frame.type
        for frame in frames(told)
    ]


def with_pieces(answer: Answer, *texts: str) -> Running:
    """The replay if the answer runs here, with this text."""
    return Running(answer, texts)


# Without a cursor -----------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_an_empty_conversation_has_nothing_to_tell(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        told = await past.replay()
        assert (say(told), told.resumed, told.running, told.pending) == ([], False, None, None)
        assert told.nothing_comes(DEFAULT)


@pytest.mark.gen_test
async def test_what_was_seen_is_left_to_history(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        await past.turn("one")
        told = await past.replay()
        assert (say(told), told.resumed, told.unseen, told.pending) == ([], False, False, None)
        assert told.nothing_comes(DEFAULT)


@pytest.mark.gen_test
async def test_an_unseen_end_is_told_once(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        await past.turn("one", unseen=True)
        await past.turn("two", unseen=True, annotations=BETS)
        told = await past.replay()
        assert say(told) == ["llm_complete:two", "system", "system"]
        assert told.unseen
        assert not told.nothing_comes(DEFAULT)
        await b.attempts.mark_seen(past.key)
        assert say(await past.replay()) == []


@pytest.mark.gen_test
async def test_an_unseen_failure_is_told(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        await past.turn("", Status.FAILED, unseen=True)
        told = await past.replay()
        assert (say(told), told.pending) == (["error"], None)


@pytest.mark.gen_test
async def test_one_that_was_cut_because_nobody_watched_waits_for_the_users_word(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        message, answer = await past.turn("half", Status.INTERRUPTED, unwatched=True, unseen=True)
        told = await past.replay()
        assert say(told) == ["error", "llm_complete:half"]
        assert told.pending is None
        await b.attempts.mark_seen(past.key)
        assert (await past.replay()).nothing_comes(DEFAULT)
        told = await past.replay(Cursor(message.id, Cursor.USER))
        assert say(told) == ["llm_chunk:half", "error", "llm_complete:half"]
        assert (await past.replay(Cursor(answer.id, Cursor.COMPLETE))).nothing_comes(DEFAULT)


@pytest.mark.gen_test
async def test_one_that_was_cut_before_its_first_word_is_told_if_no_other_follows(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        message, _ = await past.turn("", Status.INTERRUPTED, unwatched=True)
        assert say(await past.replay(Cursor(message.id, Cursor.USER))) == ["error"]


@pytest.mark.gen_test
async def test_an_interrupted_answer_is_owed(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        message, answer = await past.turn("half", Status.INTERRUPTED)
        told = await past.replay()
        assert say(told) == []
        assert told.pending is not None
        assert told.pending[1] is not None
        assert (told.pending[0], told.pending[1].id) == (message.id, answer.id)
        assert not told.nothing_comes(DEFAULT)


@pytest.mark.parametrize("status", [Status.FAILED, Status.STOPPED, Status.COMPLETE])
@pytest.mark.gen_test
async def test_no_other_end_is(mongodb_uri: str, status: Status) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        _, answer = await past.turn("half", status)
        assert (await past.replay()).pending is None
        assert (await past.replay(Cursor(answer.id, Cursor.COMPLETE))).pending is None


@pytest.mark.gen_test
async def test_a_waiting_message_is_owed_an_answer(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        await past.turn("one")
        message = await past.waiting()
        told = await past.replay()
        assert (say(told), told.running) == ([], None)
        assert told.pending is not None
        assert told.pending[:2] == (message.id, None)


@pytest.mark.gen_test
async def test_the_running_answers_text_so_far_is_one_chunk(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        await past.turn("one", unseen=True)
        _, answer = await past.running("So fa")
        told = await past.replay()  # as in a process that does not generate the answer
        assert say(told) == ["llm_chunk:So fa"]
        assert told.place == (answer.seq, 5)
        told = await past.replay(None, with_pieces(answer, "So ", "far", "."))
        assert say(told) == ["llm_chunk:So far."]
        (frame,) = frames(told)
        assert (frame.data["offset"], frame.id) == (0, f"{answer.id}.7")
        assert told.running is not None
        assert (told.running.id, told.resumed, told.pending) == (answer.id, False, None)


@pytest.mark.gen_test
async def test_a_running_answer_without_text_has_nothing_to_tell_but_something_comes(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        _, answer = await past.running("")
        for running in (None, with_pieces(answer)):
            told = await past.replay(None, running)
            assert say(told) == []
            assert not told.nothing_comes(DEFAULT)
            assert told.place == (answer.seq, 0)


@pytest.mark.gen_test
async def test_the_running_answer_is_told_although_a_message_waits_behind_it(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        _, answer = await past.running("So far")
        await past.waiting()
        for running in (None, with_pieces(answer, "So far")):
            told = await past.replay(None, running)
            assert (say(told), told.pending) == (["llm_chunk:So far"], None)
            assert told.place == (answer.seq, 6)


# With a cursor --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("position", "told"),
    [
        (0, ["llm_chunk:abcd", "error", "llm_complete:abcd", "system", "system"]),
        (3, ["llm_chunk:d", "error", "llm_complete:abcd", "system", "system"]),
        (4, ["error", "llm_complete:abcd", "system", "system"]),
        (9, ["error", "llm_complete:abcd", "system", "system"]),
        (Cursor.ERROR, ["llm_complete:abcd", "system", "system"]),
        (Cursor.COMPLETE, ["system", "system"]),
        (Cursor.COMPLETE + 1, ["system"]),
        (Cursor.COMPLETE + 2, []),
        (Cursor.COMPLETE + 3, []),
    ],
)
@pytest.mark.gen_test
async def test_the_cursors_own_answer_is_ended_first(mongodb_uri: str, position: int, told: list[str]) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        _, answer = await past.turn("abcd", Status.FAILED, annotations=BETS)
        await past.turn("next")
        replayed = await past.replay(Cursor(answer.id, position))
        assert say(replayed) == [*told, "user_message:What about next?", "llm_chunk:next", "llm_complete:next"]
        assert replayed.resumed
        assert not replayed.nothing_comes(DEFAULT)


@pytest.mark.gen_test
async def test_nothing_comes_after_the_last_event(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        _, answer = await past.turn("one", annotations=BETS)
        told = await past.replay(Cursor(answer.id, Cursor.COMPLETE + 2))
        assert told.resumed
        assert told.nothing_comes(DEFAULT)


@pytest.mark.gen_test
async def test_code_points_are_counted_not_bytes(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        text = "e\u0301🏟\u202eab"
        _, answer = await past.turn(text)
        for position in range(len(text)):
            told = frames(await past.replay(Cursor(answer.id, position)))
            assert (told[0].data["content"], told[0].data["offset"]) == (text[position:], position)
            assert told[0].id == f"{answer.id}.{len(text)}"


@pytest.mark.gen_test
async def test_after_a_user_message_its_answer_comes(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        message, _ = await past.turn("one")
        assert say(await past.replay(Cursor(message.id, Cursor.USER))) == ["llm_chunk:one", "llm_complete:one"]


@pytest.mark.gen_test
async def test_after_an_unanswered_message_a_later_question_comes_that_is_asked_during_the_read(
    mongodb_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        await past.turn("one")
        unanswered = await past.waiting()
        running = b.reading.running

        async def asked_first(key: str) -> Answer | None:
            monkeypatch.undo()
            await past.running("Well")  # another process stores its question and the beginning of its answer
            return await running(key)

        monkeypatch.setattr(b.reading, "running", asked_first)
        told = await past.replay(Cursor(unanswered.id, Cursor.USER))
        assert say(told) == ["user_message:And now?", "llm_chunk:Well"]


@pytest.mark.gen_test
async def test_from_the_start_everything_is_told(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        start = Cursor(past.key, Cursor.START)
        empty = await past.replay(start)
        assert (say(empty), empty.resumed) == ([], True)
        await past.turn("one")
        await past.waiting()
        told = await past.replay(start)
        assert say(told) == [
            "user_message:What about one?",
            "llm_chunk:one",
            "llm_complete:one",
            "user_message:Hello?",
        ]
        assert told.resumed
        assert told.pending is not None


@pytest.mark.gen_test
async def test_superseded_and_empty_interrupted_attempts_are_skipped(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        _, first = await past.turn("first")
        _, old = await past.turn("old")
        cut = await past.retry(old, "cut", Status.INTERRUPTED)
        await past.retry(cut, "new")
        _, empty = await past.turn("", Status.INTERRUPTED)
        told = await past.replay(Cursor(first.id, Cursor.COMPLETE))
        assert say(told) == [
            "user_message:What about old?",
            "llm_chunk:new",
            "llm_complete:new",
            "user_message:What about ?",
        ]
        assert told.pending is not None
        assert told.pending[1] is not None
        assert told.pending[1].id == empty.id


@pytest.mark.gen_test
async def test_an_interrupted_attempt_with_pieces_is_told_with_its_end(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        message, _ = await past.turn("cut", Status.INTERRUPTED)
        told = await past.replay(Cursor(message.id, Cursor.USER))
        assert say(told) == ["llm_chunk:cut", "llm_complete:cut"]
        assert told.pending is not None


@pytest.mark.gen_test
async def test_the_cursors_own_attempt_is_ended_also_if_it_was_superseded(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        _, old = await past.turn("old", Status.INTERRUPTED)
        await past.retry(old, "new")
        told = await past.replay(Cursor(old.id, 1))
        assert say(told) == ["llm_chunk:ld", "llm_complete:old", "llm_chunk:new", "llm_complete:new"]


@pytest.mark.gen_test
async def test_the_running_answer_comes_last_and_what_waits_behind_it_later(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        _, first = await past.turn("first")
        _, answer = await past.running("So far")
        await past.waiting()
        for running, text in ((None, "So far"), (with_pieces(answer, "So ", "far."), "So far.")):
            told = await past.replay(Cursor(first.id, Cursor.COMPLETE), running)
            assert say(told) == ["user_message:And now?", f"llm_chunk:{text}"]
            assert told.place == (answer.seq, len(text))
            assert told.running is not None
            assert (told.running.id, told.pending) == (answer.id, None)


@pytest.mark.parametrize(("position", "told"), [(0, ["So far"]), (3, ["far"]), (6, []), (9, [])])
@pytest.mark.gen_test
async def test_the_running_answer_goes_on_after_the_cursor(mongodb_uri: str, position: int, told: list[str]) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        _, answer = await past.running("So far")
        for running in (None, with_pieces(answer, "So far")):
            replayed = await past.replay(Cursor(answer.id, position), running)
            assert say(replayed) == [f"llm_chunk:{text}" for text in told]
            assert replayed.resumed
            assert replayed.place == (answer.seq, max(position, 6))
            assert replayed.running is not None


@pytest.mark.gen_test
async def test_behind_a_queued_message_only_its_own_answer_comes(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        _, answer = await past.running("So far")
        queued = await past.waiting()
        for running in (None, with_pieces(answer, "So far")):
            told = await past.replay(Cursor(queued.id, Cursor.USER), running)
            assert say(told) == []
            assert told.resumed
            assert told.place == (queued.seq, Cursor.USER)
            assert not told.nothing_comes(DEFAULT)


@pytest.mark.gen_test
async def test_unseen_ends_behind_a_cursor_are_noticed(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        message, _ = await past.turn("one", unseen=True)
        assert (await past.replay(Cursor(message.id, Cursor.USER))).unseen


# Cursors that are none ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0" * 24,
        "0" * 24 + ".",
        "0" * 24 + ".1234567890",
        "0" * 24 + ".-1",
        "0" * 24 + ".system0",
        "0" * 24 + ".system1000",
        "0" * 24 + ".User",
        "0" * 24 + ".user\n",
        "0" * 24 + ".\u0661",
        "0" * 23 + "G.user",
        "'; drop",
    ],
)
def test_a_malformed_cursor_is_none(text: str) -> None:
    assert Cursor.parse(text) is None


@pytest.mark.parametrize("position", [Cursor.USER, 0, 3, Cursor.ERROR, Cursor.COMPLETE, Cursor.COMPLETE + 1])
@pytest.mark.gen_test
async def test_a_cursor_can_be_written_and_read(position: int) -> None:
    cursor = Cursor("0" * 24, position)
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.gen_test
async def test_unknown_and_foreign_cursors_are_as_none(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past, other = await Past.of(b), await Past.of(b)
        message, answer = await past.turn("one", unseen=True)
        foreign_message, foreign = await other.turn("theirs")
        for cursor in (
            Cursor(foreign.id, 0),
            Cursor(foreign.id, Cursor.COMPLETE),
            Cursor(foreign_message.id, Cursor.USER),
            Cursor(other.key, Cursor.START),
            Cursor(str(ObjectId()), 0),
            Cursor(str(ObjectId()), Cursor.USER),
            # Places that do not exist.
            Cursor(answer.id, Cursor.USER),
            Cursor(answer.id, Cursor.START),
            Cursor(message.id, Cursor.START),
            Cursor(message.id, 0),
            Cursor(message.id, Cursor.COMPLETE),
        ):
            told = await past.replay(cursor)
            assert (say(told), told.resumed) == (["llm_complete:one"], False), cursor


@pytest.mark.parametrize("position", [Cursor.USER, Cursor.START])
@pytest.mark.gen_test
async def test_places_that_a_running_answer_does_not_have_are_as_none(mongodb_uri: str, position: int) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        _, answer = await past.running("So far")
        for running in (None, with_pieces(answer, "So far")):
            told = await past.replay(Cursor(answer.id, position), running)
            assert (say(told), told.resumed) == (["llm_chunk:So far"], False)
            assert frames(told)[0].data["offset"] == 0


@pytest.mark.gen_test
async def test_a_cursor_of_a_running_answer_is_foreign_to_other_conversations(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past, other = await Past.of(b), await Past.of(b)
        _, answer = await past.running("So far")
        _, foreign = await other.running("Theirs")
        told = await past.replay(Cursor(foreign.id, 2), with_pieces(answer, "So far"))
        assert (say(told), told.resumed) == (["llm_chunk:So far"], False)


@pytest.mark.gen_test
async def test_a_hundred_messages_are_told_and_one_more_is_too_far(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        start = Cursor(past.key, Cursor.START)
        first = await past.waiting("0")
        for number in range(1, 100):
            await past.waiting(str(number))
        told = await past.replay(start)
        assert (len(say(told)), told.resumed) == (100, True)

        await past.waiting("100")
        own = Cursor(first.id, Cursor.USER)
        told = await past.replay(own)
        assert (len(say(told)), told.resumed) == (100, True)

        newest = await past.waiting("101")
        told = await past.replay(own)
        assert (say(told), told.resumed) == ([], False)
        assert told.pending is not None
        assert told.pending[:2] == (newest.id, None)


@pytest.mark.gen_test
async def test_a_hundred_and_one_messages_are_too_far_from_the_start(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        for number in range(101):
            await past.waiting(str(number))
        told = await past.replay(Cursor(past.key, Cursor.START))
        assert (say(told), told.resumed) == ([], False)


@pytest.mark.gen_test
async def test_a_mebibyte_is_too_far(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        past = await Past.of(b)
        message, _ = await past.turn("x" * 400_000)
        cursor = Cursor(message.id, Cursor.USER)
        told = await past.replay(cursor)
        assert (len(say(told)), told.resumed) == (2, True)
        await past.turn("y" * 200_000)
        told = await past.replay(cursor)
        assert (say(told), told.resumed) == ([], False)
