"""Tool calls whose server process is killed at each step of a call's life. The model and the tools run in this process,
so they survive. Each tool records the keys of its executions. A call's case is in its question, so the order of
requests does not matter.
"""

import asyncio
import contextlib
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.stress.stage import RECOVERY, Server, Stage
from tests.support.client import API, Client
from tests.support.listening import stop_accepting
from tests.support.upstream import DONE, END, delta, event, head, http_chunk

AGAIN = "And now?"


class Step(StrEnum):
    """The step at which the process is killed."""

    CALLING = "before it is stored that it runs"
    REACHING = "before the tool gets the request"
    WORKING = "while the tool works"
    RESULT = "before its result is stored"
    NEXT = "before the next round"
    DECIDING = "while a person agrees to it"


class Case(NamedTuple):
    """One test case: a call that is killed at a step."""

    step: Step
    effect: str  # the tool's name is its effect

    @property
    def question(self) -> str:
        """The user's question, which names the case."""
        return f"{self.step}, {self.effect}"


CASES = (*(Case(step, effect) for step in Step for effect in ("once", "idempotent")),)
_BY_QUESTION = {case.question: case for case in CASES}


class World:
    """The model and the tools. An asynchronous context manager."""

    def __init__(self) -> None:
        self.held = True  # until the process is killed
        self.released = asyncio.Event()  # lets the calls continue at the moment of the kill
        self.reached: set[Case] = set()  # the cases that have reached their step
        self.ledger: defaultdict[Case, list[str]] = defaultdict(list)  # the keys of the executions, by case
        self.wrong: list[str] = []  # requests that a real endpoint would have refused
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def __aenter__(self) -> "World":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await stop_accepting(self._server)
        self.cut()
        await asyncio.sleep(0)  # aborted connections are closed in the next turn

    def cut(self) -> None:
        """Leave all requests so far without a response."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
            if "messages" in body:
                await self._say(body["messages"], reader, writer)
            else:
                await self._work(_BY_QUESTION[body["case"]], headers["idempotency-key"], reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _work(self, case: Case, key: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.held and case.step is Step.REACHING:
            self.reached.add(case)
            await reader.read()  # until the process is gone
        self.ledger[case].append(key)
        if self.held and case.step is Step.WORKING:
            self.reached.add(case)
            await reader.read()  # until the process is gone
        if self.held and case.step is Step.RESULT:
            self.reached.add(case)
            await self.released.wait()
        result = json.dumps({"number": len(self.ledger[case])}).encode()
        head_ = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(result)}\r\n\r\n"
        writer.write(head_.encode() + result)
        await writer.drain()

    async def _say(
        self, messages: list[dict[str, Any]], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        made = [call["id"] for message in messages for call in message.get("tool_calls") or ()]
        results = [message["tool_call_id"] for message in messages if message["role"] == "tool"]
        if made != results:
            self.wrong.append(f"calls {made} have results {results}")
        place = max(number for number, message in enumerate(messages) if message["role"] == "user")
        question = messages[place]["content"].rpartition("\n\n")[2]
        called = any(message["role"] == "tool" for message in messages[place:])
        writer.write(head())
        if question in _BY_QUESTION and not called:
            case = _BY_QUESTION[question]
            writer.write(http_chunk(event(delta("I do it."))))
            await writer.drain()
            if self.held and case.step is Step.CALLING:
                self.reached.add(case)
                await self.released.wait()
            name = f"asked_{case.effect}" if case.step is Step.DECIDING else case.effect
            function = {"name": name, "arguments": json.dumps({"case": question})}
            call = delta(tool_calls=[{"index": 0, "id": "a", "function": function}])
            chunks: list[object] = [call, delta(finish_reason="tool_calls"), DONE]
        else:
            if self.held and question in _BY_QUESTION and _BY_QUESTION[question].step is Step.NEXT:
                self.reached.add(_BY_QUESTION[question])
                await reader.read()  # until the process is gone
            chunks = [delta("So it is."), delta(finish_reason="stop"), DONE]
        for chunk in chunks:
            writer.write(http_chunk(event(chunk)))
        writer.write(END)
        await writer.drain()


def tools_file(directory: Path, port: int) -> Path:
    """The tools file for the settings."""
    file = directory / "tools.toml"
    tables = []
    for effect in ("once", "idempotent"):
        for name, approval in ((effect, "never"), (f"asked_{effect}", "always")):
            tables.append(
                f'[[tool]]\nname = "{name}"\ndescription = "d"\nurl = "http://127.0.0.1:{port}/"\n'
                f'effect = "{effect}"\napproval = "{approval}"\n[tool.parameters]\ntype = "object"\n'
            )
    file.write_text("".join(tables), encoding="utf-8")
    return file


async def killed_at_each_step(stage: Stage) -> list[str]:
    """Play all cases; returns the violations."""
    with tempfile.TemporaryDirectory() as directory:
        return await _staged(stage, Path(directory))


async def _staged(stage: Stage, directory: Path) -> list[str]:
    async with World() as world:
        (server,) = await stage.serve(
            MONGODB_DATABASE=f"{stage.database}-calls",
            OPENAI_BASE_URL=f"http://127.0.0.1:{world.port}/v1",
            CHATSTREAM_TOOLS_FILE=str(tools_file(directory, world.port)),
            CHATSTREAM_PLUGINS="none",
            CHATSTREAM_TITLES="off",
            CHATSTREAM_DISCONNECT_GRACE="never",
            CHATSTREAM_ANSWERS_PER_USER="100",
            CHATSTREAM_FIRST_TOKEN_TIMEOUT="60",
            CHATSTREAM_IDLE_TIMEOUT="60",
        )
        client = Client(server.process.url, "somebody")
        try:
            return [*await _play(stage, server, world, client), *world.wrong]
        finally:
            await client.close()


async def _play(stage: Stage, server: Server, world: World, client: Client) -> list[str]:
    conversations = {case: await client.create(initialMessage=case.question) for case in CASES}
    waiting = [case for case in CASES if case.step is Step.DECIDING]
    await stage.until(lambda: len(world.reached) == len(CASES) - len(waiting), "a call did not come to its step")
    calls = {case: await _asked(client, conversations[case]) for case in waiting}

    # A write that is under way may be lost or late, or neither; and the process dies sooner or later.
    if stalls := stage.rng.random() < 0.7:
        server.to_database.stall()
    world.released.set()
    deciding = [asyncio.create_task(_decide(client, conversations[case], call)) for case, call in calls.items()]
    await asyncio.sleep(stage.rng.uniform(0, 0.15))
    await server.kill()
    await asyncio.gather(*deciding)
    world.held = False
    world.cut()
    if stalls and stage.rng.random() < 0.5:
        server.to_database.cut()
    server.to_database.heal()
    await server.restart()

    for case, call in calls.items():  # a client whose decision was not acknowledged repeats it
        assert await _decide(client, conversations[case], call) == httpx.codes.OK
    answers = await asyncio.gather(*(_ended(client, one) for one in conversations.values()))
    wrong = [
        f"{case.question}: {what}"
        for case, answer in zip(CASES, answers, strict=True)
        for what in broken(case, answer, world.ledger[case])
    ]
    for case, conversation in conversations.items():
        posted = await client.post(conversation, AGAIN)
        last = await _ended(client, conversation) if posted.is_success else {"status": posted.status_code}
        if last["status"] != "complete":
            wrong.append(f"{case.question}: the next message came to {last['status']}")
        if any(message.get("status") == "streaming" for message in await client.messages(conversation)):
            wrong.append(f"{case.question}: something is streaming for ever")
    return wrong


def broken(case: Case, answer: dict[str, Any], keys: list[str]) -> Iterator[str]:
    """The violations of a call that ended like this and was executed with these keys."""
    made = [part for part in answer.get("parts", ()) if part["type"] == "tool_call"]
    states, ids = [part["state"] for part in made], [part["toolCallId"] for part in made]
    if len(made) != 1:
        yield f"there are {len(made)} calls"
    if len(set(keys)) > 1:
        yield f"it was carried out under {len(set(keys))} keys"
    if case.effect == "once" and len(keys) > 1:
        yield f"it happened {len(keys)} times"
    if answer["status"] == "complete":
        if states != ["done"] or made[0]["failed"]:
            yield f"the answer is complete, and the call {states}"
        if keys[:1] != ids:
            yield f"{ids} is told as done, and was carried out as {keys}"
    elif case.effect == "idempotent":
        yield f"it may be repeated, and is {answer['status']}"
    elif answer["status"] != "failed" or answer["error"]["error"] != "tool_outcome_unknown" or states != ["unknown"]:
        yield f"it is {answer['status']} with {answer.get('error')}, and the call {states}"


async def _asked(client: Client, conversation: str) -> str:
    """Wait until the call waits for a person; returns it."""
    async with asyncio.timeout(RECOVERY):
        while (newest := (await client.messages(conversation))[-1]).get("status") != "waiting":
            await asyncio.sleep(0.02)  # between two polls; there is no event to wait for over REST
    call: str = newest["parts"][-1]["toolCallId"]
    return call


async def _decide(client: Client, conversation: str, call: str) -> int | None:
    """Decide a call; returns the status, None without a response."""
    with contextlib.suppress(httpx.TransportError):
        url = f"{API}/{conversation}/tool-calls/{call}"
        return (await client.http.post(url, json={"decision": "approve"})).status_code
    return None


async def _ended(client: Client, conversation: str) -> dict[str, Any]:
    """Watch until the newest answer is final; returns it."""
    async with asyncio.timeout(2 * RECOVERY):
        while True:
            # A viewer starts the next attempt. A stream may end at any time, and is then opened again.
            with contextlib.suppress(StopAsyncIteration, RuntimeError):
                async with client.stream(conversation) as watched:
                    while (await watched.until("llm_complete")).data["status"] == "interrupted":
                        pass
                    break
            await asyncio.sleep(0.1)
    return (await client.messages(conversation))[-1]
