"""A reader of the log: the size of one flush, the end of a stream, and the deadlines."""

import asyncio
import math
from typing import Any

import pytest

from chatstream.errors import ErrorCode
from chatstream.events import Cursor
from chatstream.formats.registry import DEFAULT
from chatstream.generations.channel import Channel, Running
from chatstream.generations.entries import BEGINNING, END, Ended, Notice, Posted
from chatstream.generations.follower import Follower
from chatstream.generations.replay import Replay
from chatstream.models import Status
from tests.generations.test_channel import answer, conversation, message
from tests.support.client import PATIENCE
from tests.support.scripted_model import Frame, parse

NOTHING_BEHIND = Replay(entries=(), place=BEGINNING)


def follower(channel: Channel, behind: Replay | None = NOTHING_BEHIND, **options: Any) -> Follower:
    defaults = {"once": False, "rotate_at": math.inf, "rotate_after_bytes": 2**40, "expires_at": math.inf}
    one = Follower(channel, DEFAULT, **{**defaults, "request_id": "r", "observe_lag": lambda _: None, **options})
    if behind is not None:
        one.join(behind)
    return one


async def read(one: Follower) -> list[Frame]:
    """The frames of one flush; empty when the stream is over."""
    async with asyncio.timeout(PATIENCE):
        return parse(told) if (told := await one.next()) is not None else []


def types(frames: list[Frame]) -> list[str]:
    return [frame.type for frame in frames]


async def waiting(one: Follower) -> "asyncio.Task[bytes | None]":
    """A writer task that waits for the next frames."""
    writer = asyncio.create_task(one.next())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not writer.done()
    return writer


@pytest.mark.gen_test
async def test_first_what_is_behind_then_the_live_log() -> None:
    channel = Channel(conversation())
    one = follower(channel, None)
    channel.append(Posted(message(1)))
    one.join(Replay(entries=[Ended(answer(0, "behind", Status.COMPLETE))], place=(0, END)))
    channel.append(Ended(answer(2, "ab", Status.COMPLETE)))
    assert types(await read(one)) == ["llm_complete", "user_message", "llm_complete"]


@pytest.mark.gen_test
async def test_it_waits_until_something_comes() -> None:
    channel = Channel(conversation())
    writer = await waiting(follower(channel))
    channel.append(Posted(message(1)))
    told = await writer
    assert told is not None
    assert types(parse(told)) == ["user_message"]


@pytest.mark.gen_test
async def test_what_the_replay_had_is_not_told_again() -> None:
    channel = Channel(conversation())
    running = channel.running = Running(answer(2))
    one = follower(channel, None)
    channel.append(Posted(message(1)))
    channel.extend(running, ["abc"])
    channel.extend(running, ["def"])
    one.join(Replay(entries=(), place=(2, 4)))
    channel.extend(running, ["ghi"])
    frames = await read(one)
    assert [(frame.data["offset"], frame.data["content"]) for frame in frames] == [(4, "ef"), (6, "ghi")]


@pytest.mark.gen_test
async def test_a_cursor_beyond_the_text_waits_until_it_is_passed() -> None:
    channel = Channel(conversation())
    running = channel.running = Running(answer(2))
    one = follower(channel, Replay(entries=(), place=(2, 5)))
    channel.extend(running, ["abc"])
    channel.extend(running, ["de"])
    writer = await waiting(one)
    channel.extend(running, ["f", "g"])
    told = await writer
    assert told is not None
    assert [(frame.data["offset"], frame.data["content"]) for frame in parse(told)] == [(5, "f"), (6, "g")]


@pytest.mark.gen_test
async def test_an_answer_that_ends_before_the_cursor_has_only_its_end_told() -> None:
    channel = Channel(conversation())
    running = channel.running = Running(answer(2))
    one = follower(channel, Replay(entries=(), place=(2, 50)))
    channel.extend(running, ["abc"])
    channel.finish(answer(2, "abc", Status.STOPPED))
    assert types(await read(one)) == ["llm_complete"]


@pytest.mark.gen_test
async def test_one_flush_has_whole_frames_and_about_64_kib() -> None:
    channel = Channel(conversation())
    running = channel.running = Running(answer(2))
    one = follower(channel)
    for _ in range(300):
        channel.extend(running, ["x" * 1000])
    text, flushes = "", 0
    while len(text) < 300_000:
        told = await one.next()
        assert told is not None
        assert len(told) < 64 * 1024 + 1500  # the frame that passes the mark is whole
        text += "".join(frame.data["content"] for frame in parse(told))
        flushes += 1
    assert text == "x" * 300_000
    assert flushes < 10


@pytest.mark.gen_test
async def test_once_is_over_after_the_end_of_one_answer() -> None:
    channel = Channel(conversation())
    one = follower(channel, once=True)
    channel.append(Posted(message(1)))
    channel.append(Ended(answer(2, "ab", Status.COMPLETE)))
    channel.append(Posted(message(3)))
    assert types(await read(one)) == ["user_message", "llm_complete"]
    assert await one.next() is None


@pytest.mark.gen_test
async def test_once_is_over_also_after_an_end_without_a_word() -> None:
    channel = Channel(conversation())
    writer = await waiting(follower(channel, once=True))
    channel.append(Ended(answer(2, "ab", Status.COMPLETE), END))
    assert await writer is None


@pytest.mark.gen_test
async def test_once_does_not_end_with_an_answer_that_lies_before_its_cursor() -> None:
    channel = Channel(conversation())
    one = follower(channel, Replay(entries=(), place=(3, Cursor.USER)), once=True)
    channel.append(Ended(answer(2, "ab", Status.COMPLETE)))
    channel.append(Ended(answer(4, "cd", Status.COMPLETE)))
    assert [frame.data["content"] for frame in await read(one)] == ["cd"]
    assert await one.next() is None


@pytest.mark.gen_test
async def test_once_is_over_after_an_end_that_was_behind() -> None:
    behind = Replay(entries=[Ended(answer(2, "ab", Status.COMPLETE))], place=(2, END))
    one = follower(Channel(conversation()), behind, once=True)
    assert types(await read(one)) == ["llm_complete"]
    assert await one.next() is None


@pytest.mark.gen_test
async def test_once_tells_the_end_of_one_answer_although_several_are_behind() -> None:
    entries = [Ended(answer(2, "ab", Status.COMPLETE)), Posted(message(3)), Ended(answer(4, "cd", Status.COMPLETE))]
    one = follower(Channel(conversation()), Replay(entries=entries, place=(4, END)), once=True)
    frames = []
    while told := await read(one):
        frames += told
    assert types(frames) == ["llm_complete"]


# The clock ------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_a_heartbeat_is_due_only_when_it_is_quiet() -> None:
    channel = Channel(conversation())
    one = follower(channel)
    now = asyncio.get_running_loop().time()
    writer = await waiting(one)
    one.tick(now + 14, 15)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not writer.done()
    one.tick(now + 16, 15)
    told = await writer
    assert told is not None
    assert types(parse(told)) == ["heartbeat"]
    assert parse(told)[0].id is None

    one.tick(now + 32, 15)
    channel.append(Posted(message(1)))  # a frame to send instead of a heartbeat
    assert types(await read(one)) == ["user_message"]
    await waiting(one)


@pytest.mark.gen_test
async def test_a_reader_that_lags_too_far_is_cut_and_can_come_back() -> None:
    channel = Channel(conversation())
    running = channel.running = Running(answer(2))
    slow, fast = follower(channel), follower(channel)
    now = asyncio.get_running_loop().time()
    for _ in range(5 * 1024):
        channel.extend(running, ["x" * 1024])
        if fast._channel.end % 50 == 0:
            await fast.next()
    slow.tick(now, math.inf)
    assert await slow.next() is None
    while fast.index < channel.end:
        await fast.next()
    fast.tick(now, math.inf)
    await waiting(fast)


@pytest.mark.gen_test
async def test_a_reader_may_lag_a_little() -> None:
    channel = Channel(conversation())
    running = channel.running = Running(answer(2))
    one = follower(channel)
    for _ in range(1024):
        channel.extend(running, ["x" * 1024])
    one.tick(asyncio.get_running_loop().time(), math.inf)
    assert await one.next() is not None


@pytest.mark.parametrize("limit", ["time", "bytes"])
@pytest.mark.gen_test
async def test_it_rotates_between_answers_only_and_without_a_word(limit: str) -> None:
    channel = Channel(conversation())
    now = asyncio.get_running_loop().time()
    options: dict[str, Any] = {"rotate_at": now + 10} if limit == "time" else {"rotate_after_bytes": 1}
    one = follower(channel, **options)
    running = channel.running = Running(answer(2))
    channel.extend(running, ["ab"])
    assert types(await read(one)) == ["llm_chunk"]
    one.tick(now + 11, math.inf)  # while the answer runs
    channel.finish(answer(2, "ab", Status.COMPLETE))
    channel.running = None
    one.tick(now + 12, math.inf)  # its end has not been read
    assert types(await read(one)) == ["llm_complete"]
    one.tick(now + 13, math.inf)
    assert await one.next() is None


@pytest.mark.gen_test
async def test_it_does_not_rotate_before_its_time() -> None:
    channel = Channel(conversation())
    now = asyncio.get_running_loop().time()
    one = follower(channel, rotate_at=now + 10, rotate_after_bytes=10_000)
    channel.append(Posted(message(1)))
    await read(one)
    one.tick(now + 9, math.inf)
    await waiting(one)


@pytest.mark.gen_test
async def test_a_token_that_expires_ends_it_with_a_word() -> None:
    channel = Channel(conversation())
    now = asyncio.get_running_loop().time()
    one = follower(channel, expires_at=now + 10)
    writer = await waiting(one)
    one.tick(now + 9, math.inf)
    assert not writer.done()
    one.tick(now + 10, math.inf)
    told = await writer
    assert told is not None
    assert told.startswith(b"retry: ")
    (frame,) = parse(told)
    assert (frame.data["error"], frame.data["messageId"], frame.id) == ("token_expired", None, None)
    assert await one.next() is None


@pytest.mark.gen_test
async def test_the_last_word_is_said_once_although_the_clock_goes_on() -> None:
    one = follower(Channel(conversation()), expires_at=0)
    now = asyncio.get_running_loop().time()
    one.tick(now, math.inf)
    assert types(await read(one)) == ["error"]
    one.tick(now + 1, math.inf)  # while the text is being written
    assert await one.next() is None


@pytest.mark.gen_test
async def test_the_last_word_is_not_lost_to_a_rotation() -> None:
    now = asyncio.get_running_loop().time()
    one = follower(Channel(conversation()), rotate_at=now + 1)
    one.end(ErrorCode.SERVER_SHUTDOWN)
    one.tick(now + 2, math.inf)
    assert [frame.data["error"] for frame in await read(one)] == ["server_shutdown"]


# Ends -----------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_notices_are_told_to_those_who_watch() -> None:
    channel = Channel(conversation())
    one = follower(channel, Replay(entries=(), place=(2, 3)))
    channel.append(Notice(ErrorCode.STORAGE_UNAVAILABLE, request_id="r"))
    assert [frame.data["error"] for frame in await read(one)] == ["storage_unavailable"]


@pytest.mark.gen_test
async def test_who_leaves_reads_no_more() -> None:
    channel = Channel(conversation())
    one = follower(channel)
    writer = await waiting(one)
    one.leave()
    one.leave()
    assert await writer is None
    assert not channel.readers
    channel.append(Posted(message(1)))
    assert await one.next() is None


@pytest.mark.gen_test
async def test_what_ends_while_the_past_is_read_stays_over() -> None:
    channel = Channel(conversation())
    one = follower(channel, None)
    one.end(ErrorCode.CONVERSATION_DELETED)
    one.join(Replay(entries=[Posted(message(1))], place=(1, Cursor.USER)))
    frames = []
    while told := await read(one):
        frames += told
        if len(frames) > 1:
            break
    assert types(frames)[-1:] == ["error"]
    assert await asyncio.wait_for(one.next(), 1) is None


# Pushing --------------------------------------------------------------------------------------------------------------


class Socket:
    """A socket that takes whole frames as long as it has room."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.full = False

    def push(self, frames: bytes) -> bool:
        self.frames += parse(frames)
        return not self.full


async def pushing(one: Follower, socket: Socket) -> "asyncio.Task[bytes | None]":
    """A writer task that waits while new frames are pushed."""
    writer = asyncio.create_task(one.next(socket.push))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not writer.done()
    return writer


@pytest.mark.gen_test
async def test_what_comes_is_pushed_at_once_and_wakes_nobody() -> None:
    channel, socket = Channel(conversation()), Socket()
    writer = await pushing(follower(channel), socket)
    for seq in (0, 1, 2):
        channel.append(Posted(message(seq)))
        assert types(socket.frames) == ["user_message"] * (seq + 1)
    await asyncio.sleep(0)
    assert not writer.done()
    writer.cancel()


@pytest.mark.gen_test
async def test_whoever_has_no_room_is_waited_for_and_gets_the_rest_later() -> None:
    channel, socket = Channel(conversation()), Socket()
    one = follower(channel)
    writer = await pushing(one, socket)
    socket.full = True
    channel.append(Posted(message(0)))
    channel.append(Posted(message(1)))
    assert await writer == b""  # no further frames: the pushed ones must leave first
    assert [frame.data["messageId"] for frame in socket.frames] == [message(0).id]
    assert [frame.data["messageId"] for frame in await read(one)] == [message(1).id]


@pytest.mark.gen_test
@pytest.mark.parametrize("code", [None, ErrorCode.TOKEN_EXPIRED])
async def test_the_last_frames_are_the_writers_which_ends_the_response_with_them(code: ErrorCode | None) -> None:
    channel, socket = Channel(conversation()), Socket()
    one = follower(channel, once=code is None)
    writer = await pushing(one, socket)
    channel.append(Posted(message(0)))
    assert types(socket.frames) == ["user_message"]
    ended = [one.has_ended]
    if code is None:
        channel.append(Ended(answer(1, "ab", Status.COMPLETE)))
    else:
        one.end(code)
    ended.append(one.has_ended)  # the last frames have not left yet
    assert types(parse(await writer or b"")) == ["llm_complete" if code is None else "error"]
    assert [*ended, one.has_ended] == [False, False, True]
    assert len(socket.frames) == 1
    assert await one.next(socket.push) is None


@pytest.mark.gen_test
async def test_a_heartbeat_is_the_writers_and_not_pushed() -> None:
    channel, socket = Channel(conversation()), Socket()
    one = follower(channel)
    writer = await pushing(one, socket)
    one.tick(asyncio.get_running_loop().time() + 20, 15)
    assert types(parse(await writer or b"")) == ["heartbeat"]
    assert socket.frames == []
