"""A model's endpoint that sends a different text in every call, so that each text identifies its call.

What a call does depends on the seed, the question and how often it was asked, not on the order in which calls arrive.
"""

import asyncio
import contextlib
import json
import random
from collections import Counter

from tests.stress.ledger import Called, CallEnded, Emitted, Finished, Ledger
from tests.support.listening import stop_accepting
from tests.support.upstream import DONE, END, delta, event, head, http_chunk, whole

# Characters of one to four bytes, of several code points, and from right to left.
_WORDS = (
    "odds",
    "Grüße",
    "naïve",
    "東京",
    "e\u0301lan",
    "שלום",
    "👩\u200d👩\u200d👧",
    "🏟\ufe0f",
    "\U0001d518nit",
    '"\\\t',
    "a\nb",
)
_EMOJI = ("🏆", "😀", "🐎")
_BET = "I recommend a bet on Arsenal to win at odds of 2.10, with a stake of €10."
# Faults of a call, before its first token ...
BEFORE = ("429", "500", "hang up", "stall at first")
# ... and in the middle.
AMID = ("stall", "drop", "half-close", "bad bytes", "truncate", "error object")


class Model:
    """Open it with `start`; the attributes may be changed at any time and hold for the next call."""

    def __init__(self, ledger: Ledger, seed: int) -> None:
        self._ledger = ledger
        self._seed = seed
        self._asked: Counter[str] = Counter()
        self._calls = 0
        self._connections: dict[asyncio.StreamWriter, bool] = {}  # whether the connection is idle
        self.fault_share = 0.0
        self.pieces = (4, 14)  # of an answer
        self.pause = (0.0, 0.15)  # seconds between two of them
        self.port = 0
        self.open = 0  # calls

    async def start(self) -> "Model":
        """Listen on a free port of 127.0.0.1."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        """Drop everything."""
        await stop_accepting(self._server)
        for writer in list(self._connections):
            writer.transport.abort()
        await asyncio.sleep(0)  # aborted connections are closed in the next turn

    def close_idle(self) -> None:
        """Close the connections that no call uses."""
        for writer, idle in list(self._connections.items()):
            if idle:
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self._connections[writer] = True
                head_ = await reader.readuntil(b"\r\n\r\n")
                self._connections[writer] = False
                line = next(line for line in head_.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                body = json.loads(await reader.readexactly(int(line.split(b":")[1])))
                if not await self._call(body, reader, writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the server closed between two requests, or in the middle of one
        finally:
            self._connections.pop(writer, None)
            writer.close()

    async def _call(self, body: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        turns = body["messages"]
        assert isinstance(turns, list)
        # Earlier questions without an answer may come before it in the same turn; no question contains a blank line.
        question = next(turn["content"] for turn in reversed(turns) if turn["role"] == "user").rpartition("\n\n")[2]
        self._calls += 1
        self._asked[question] += 1
        call = self._calls
        rng = random.Random(f"{self._seed} {question} {self._asked[question]}")  # noqa: S311 - a seeded run
        self._ledger.add(Called(call, question))
        self.open += 1
        # Write the answer, and at the same time wait for the server's disconnect.
        answering = asyncio.create_task(self._answer(call, rng, writer))
        gone = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait((answering, gone), return_when=asyncio.FIRST_COMPLETED)
            aborted = not answering.done()
            if not aborted:
                with contextlib.suppress(ConnectionError):
                    return answering.result()
            return False
        finally:
            for task in (answering, gone):
                task.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)
            self.open -= 1
            self._ledger.add(CallEnded(call, aborted))

    async def _answer(self, call: int, rng: random.Random, writer: asyncio.StreamWriter) -> bool:
        """Send the answer; returns false if the connection cannot be used again."""
        fault = rng.choice(BEFORE + AMID) if rng.random() < self.fault_share else ""
        pieces = rng.randint(*self.pieces)
        last = rng.randrange(1, pieces) if fault in AMID else pieces
        if fault in BEFORE:
            return await self._refuse(fault, writer)
        writer.write(head())
        for number in range(last):
            await asyncio.sleep(rng.uniform(*self.pause))
            text = f"mdl-{call}-{number} {rng.choice(_WORDS)} "
            await self._emit(call, text, [text], rng, writer)
            if rng.random() < 0.2:  # an emoji cut in two, as some endpoints do
                emoji = rng.choice(_EMOJI)
                high, low = map(chr, _surrogates(emoji))
                await self._emit(call, emoji, [high, low], rng, writer)
        if fault:
            return await self._break_off(fault, writer)
        if rng.random() < 0.3:
            await self._emit(call, _BET, [_BET], rng, writer)
        reason = rng.choice(("stop", "stop", "stop", "length", "content_filter"))
        self._ledger.add(Finished(call, reason))
        usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": pieces}}
        for chunk in (delta(finish_reason=reason), usage, DONE):
            writer.write(http_chunk(event(chunk)))
        writer.write(END)
        await writer.drain()
        return True

    async def _emit(
        self, call: int, text: str, deltas: list[str], rng: random.Random, writer: asyncio.StreamWriter
    ) -> None:
        self._ledger.add(Emitted(call, text))
        data = b"".join(http_chunk(event(delta(each))) for each in deltas)
        cut = rng.randrange(len(data))
        for part in (data[:cut], data[cut:]):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)  # let the network send the pieces separately

    async def _refuse(self, fault: str, writer: asyncio.StreamWriter) -> bool:
        if fault == "429":
            writer.write(whole("429 Too Many Requests", {"error": {"code": "rate_limit_exceeded"}}, Retry_After="1"))
        elif fault == "500":
            writer.write(whole("500 Internal Server Error", {"error": {"message": "mdl-0-0 internals"}}))
        elif fault == "hang up":
            writer.transport.abort()
            return False
        else:
            writer.write(head())
            await asyncio.Event().wait()
        await writer.drain()
        return True

    async def _break_off(self, fault: str, writer: asyncio.StreamWriter) -> bool:
        if fault == "stall":
            await asyncio.Event().wait()
        elif fault == "drop":
            writer.transport.abort()
        elif fault == "half-close":
            writer.write_eof()
            await asyncio.Event().wait()
        elif fault == "bad bytes":
            writer.write(http_chunk(b'data: {"choices": \xff\xfe mdl-0-0\n\n'))
            await asyncio.Event().wait()
        elif fault == "error object":
            writer.write(http_chunk(event({"error": {"code": "server_error", "message": "mdl-0-0"}})))
            await asyncio.Event().wait()
        else:
            writer.write(END)
            await writer.drain()
            return True
        return False


def _surrogates(character: str) -> tuple[int, int]:
    value = ord(character) - 0x10000
    return 0xD800 + (value >> 10), 0xDC00 + (value & 0x3FF)
