"""Measures the hot path's steps in units of a fixed loop: ``python -m tests.benchmarks.costs`` prints them as JSON.

A unit is one pass of `_reference` on the same core at the same moment, so a slow or busy machine changes both. The
result is the least CPU time of this thread in several tries: disturbances can only add time.
"""

import asyncio
import json
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from types import FrameType

from chatstream.formats.registry import DEFAULT, SHOWING
from chatstream.generations.channel import Channel, Running
from chatstream.generations.fitting import Fitting
from chatstream.generations.follower import Follower
from chatstream.generations.replay import Replay
from chatstream.llm.decoding import AnswerDecoder
from chatstream.llm.model import Turn
from chatstream.llm.openai_model import Deadlines, OpenAIModel
from chatstream.llm.responses_decoding import ResponsesDecoder
from chatstream.llm.transport import Transport
from chatstream.metrics import Metrics
from chatstream.models import Answer, Conversation, Status
from chatstream.pieces import BEGINNING, Piece

CHUNKS = 400  # an answer
VIEWERS = 100
_ALONE = 100  # the number of chunks that arrive one by one
_TRIES = 7  # of some ten milliseconds each; one of them is undisturbed

_NOW = datetime.now(UTC)
_CONVERSATION = Conversation(
    key="0" * 24, user_id="u", id="c", title=None, system_prompt=None, model=None, created_at=_NOW, updated_at=_NOW
)
_ANSWER = Answer(id="a" * 24, seq=2, reply_to="b" * 24, attempt=1, status=Status.STREAMING, content="", created_at=_NOW)
# The bytes of one network read from the model, in OpenAI's form.
_READ = b"".join(
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1764000000,"model":"gpt-4o-mini",'
    b'"service_tier":"default","system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"content":" word %d"},'
    b'"logprobs":null,"finish_reason":null}],"usage":null}\n\n' % number
    for number in range(CHUNKS)
)
# The same from the Responses API.
_RESPONSES_READ = b"".join(
    b"event: response.output_text.delta\n"
    b'data: {"type":"response.output_text.delta","sequence_number":%d,"item_id":"msg_1","output_index":0,'
    b'"content_index":0,"delta":" word %d","logprobs":[],"obfuscation":"x1y2z3"}\n\n' % (number + 4, number)
    for number in range(CHUNKS)
)
_TEXTS = [f" word {number}" for number in range(CHUNKS)]


class _Box:
    """An object with a method and an attribute, for `_reference`."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size

    def grown(self, by: int) -> int:
        return self.size + by


def _reference(passes: int) -> int:
    """The reference loop: typical work of Python programs, such as making objects, calling methods, formatting bytes,
    look-ups.
    """
    total = 0
    known: dict[int, bytes] = {}
    for number in range(passes):
        box = _Box(number)
        known[number & 63] = b"%d: %b" % (box.grown(3), b"word")
        total += len(known[number & 63])
    return total


async def decode() -> None:
    """Decode one network read with 400 chunks."""
    assert len(AnswerDecoder().feed(_READ)) == CHUNKS


async def decode_responses() -> None:
    """The same from the Responses API."""
    assert len(ResponsesDecoder().feed(_RESPONSES_READ)) == CHUNKS


async def encode() -> None:
    """Encode the frames of 400 chunks."""
    assert DEFAULT.chunks(_ANSWER, _TEXTS, BEGINNING, "2026-11-22T10:40:00.123Z").count(b"\n\n") == CHUNKS


async def encode_lean() -> None:
    """Encode the lean frames of 400 chunks."""
    lean = SHOWING.lean[DEFAULT.name]
    assert lean.chunks(_ANSWER, _TEXTS, BEGINNING, "2026-11-22T10:40:00.123Z").count(b"\n\n") == CHUNKS


async def keep() -> None:
    """Check that 400 chunks of one network read fit the limits, and keep them."""
    running, fitting = Running(_ANSWER), Fitting(200_000, 200_000)
    pieces, whole = fitting.of(running.end, [*_TEXTS])
    running.add(pieces)
    assert whole
    assert running.length == len(_ANSWER.made_of(running.pieces).content)


async def fan_out() -> None:
    """Append 10 chunks, 20 times; 100 waiting viewers read them."""
    channel, running = Channel(_CONVERSATION), Running(_ANSWER)
    followers = [_follower(channel) for _ in range(VIEWERS)]
    readers = [asyncio.create_task(_read(follower)) for follower in followers]
    await asyncio.sleep(0)
    for first in range(0, 200, 10):
        channel.extend(running, _TEXTS[first : first + 10])
        while any(follower.index < channel.end for follower in followers):
            await asyncio.sleep(0)
    for follower in followers:
        follower.end()
    told = DEFAULT.chunks(_ANSWER, _TEXTS[:200], BEGINNING, "0" * 24)
    assert sum(await asyncio.gather(*readers)) == VIEWERS * len(told)


async def calls_for_a_chunk_alone() -> float:
    """The number of function calls, in Python and in C, for a chunk that arrives alone: from its bytes to the frame
    that is written to one viewer.
    """
    channel, running, fitting = Channel(_CONVERSATION), Running(_ANSWER), Fitting(200_000, 200_000)
    frames: list[bytes] = []

    def tell(pieces: Sequence[Piece]) -> bool:
        if not fitting.fits(running.end, pieces):
            return False
        channel.extend(running, pieces)
        return True

    def push(told: bytes) -> bool:
        frames.append(told)
        return True

    async def answer(model: OpenAIModel) -> None:
        async with aclosing(model.stream([Turn("user", "x")], tell=tell)) as deltas:
            async for delta in deltas:
                channel.extend(running, delta.pieces)

    follower = _follower(channel)
    watching = asyncio.create_task(follower.next(push))
    with socket.create_server(("127.0.0.1", 0)) as endpoint:  # it accepts, and what it would send is given by hand
        deadlines = Deadlines(connect=60, first_token=60, idle=60, total=60)
        url = f"http://127.0.0.1:{endpoint.getsockname()[1]}/v1"
        model = OpenAIModel(api_key="k", base_url=url, model="m", metrics=Metrics(), deadlines=deadlines)
        transport = model._client._client._transport
        assert isinstance(transport, Transport)
        answering = asyncio.create_task(answer(model))
        while not (waits := [each for each in transport._open if each._response is not None]):
            await asyncio.sleep(0)
        waits[0].data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        counted = 0

        def count(frame: FrameType, event: str, argument: object) -> None:
            nonlocal counted
            counted += event in ("call", "c_call")

        chunks = [b"%x\r\n%b\n\n\r\n" % (len(event) + 2, event) for event in _READ.split(b"\n\n")]
        for number, chunk in enumerate(chunks[:_ALONE]):
            if number == _ALONE // 2:  # caches are warm, and the answer has begun
                sys.setprofile(count)
            waits[0].data_received(chunk)
            while len(frames) <= number:
                await asyncio.sleep(0)
        sys.setprofile(None)
        answering.cancel()
        await asyncio.wait([answering])
        await model.close()
    follower.end()
    await watching
    return counted / (_ALONE - _ALONE // 2)


def _follower(channel: Channel) -> Follower:
    never = float("inf")
    follower = Follower(
        channel,
        DEFAULT,
        once=False,
        rotate_at=never,
        rotate_after_bytes=2**40,
        expires_at=never,
        request_id="r",
        observe_lag=lambda _: None,
    )
    follower.join(Replay(entries=(), place=(1, 0)))
    return follower


async def _read(follower: Follower) -> int:
    size = 0
    while (told := await follower.next()) is not None:
        size += len(told)
    return size


STEPS: dict[str, tuple[Callable[[], Awaitable[None]], int]] = {
    "decode": (decode, CHUNKS),
    "decode_responses": (decode_responses, CHUNKS),
    "encode": (encode, CHUNKS),
    "encode_lean": (encode_lean, CHUNKS),
    "keep": (keep, CHUNKS),
    "fan_out": (fan_out, 20 * VIEWERS),
}
"""Each step, and how many times it does its work in one go."""


async def measure() -> dict[str, float]:
    """The units of each step: per chunk; for the fan-out, per viewer and append. Also the calls for a chunk that
    arrives alone, which are the same on every machine.
    """
    unit = float("inf")
    best = dict.fromkeys(STEPS, float("inf"))
    for _ in range(_TRIES):  # alternate the steps, so that a change of the machine's load affects all of them
        began = time.thread_time()
        _reference(10_000)
        unit = min(unit, (time.thread_time() - began) / 10_000)
        for name, (step, times) in STEPS.items():
            began = time.thread_time()
            await step()
            best[name] = min(best[name], (time.thread_time() - began) / times)
    units = {name: seconds / unit for name, seconds in best.items()}
    return units | {"calls_for_a_chunk_alone": await calls_for_a_chunk_alone()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(measure())))
