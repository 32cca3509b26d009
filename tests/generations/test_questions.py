"""Tools that ask the user something in the middle of a call: on a real database, with the hubs of several processes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from chatstream.errors import AlreadyDecided, CallExpired, ErrorCode, InvalidContent, NotFound, NotWaiting
from chatstream.events import Cursor
from chatstream.formats.registry import FORMATS
from chatstream.generations import deciding
from chatstream.generations.commands import IfBusy
from chatstream.generations.deciding import Action, Decided, Decision
from chatstream.models import Status
from chatstream.pieces import CallState, Effect, Question
from chatstream.plugins.tool import Approval, Caller, Manner
from chatstream.tools.mcp_file import McpServer, McpTool
from chatstream.tools.mcp_servers.servers import McpServers
from chatstream.tools.tool import Answered, InputRequired, OutcomeUnknown, Tool, Tools
from tests.generations.test_deciding import asked, asking, overdue, waiting
from tests.generations.test_tools import Ledger, call, calls_of, told, tool
from tests.support.mcp_server import Seen, served
from tests.support.scripted_model import PATIENCE, STOP, Bench, bench, following

pytestmark = pytest.mark.usefixtures("nothing_waits")

ROW = Question(
    message="Which row?", schema='{"type":"object","properties":{"row":{"type":"integer"}},"required":["row"]}'
)
SURE = Question(message="Really?", schema='{"type":"object","properties":{}}')


class Booking:
    """A tool that asks for a row, asks for a confirmation, and then books. If it is `held`, only the process with the
    open call can continue it.
    """

    def __init__(self, *questions: Question, held: bool = False) -> None:
        self.questions = questions or (ROW,)
        self.held = 600.0 if held else None
        self.begun: list[str] = []
        self.booked: list[tuple[str, Any]] = []

    def tool(self, effect: Effect = Effect.ONCE, approval: Approval = Approval.NEVER) -> Tool:
        made = tool("pay", self.run, effect)
        manner = Manner(effect=effect, approval=approval, timeout=30, approval_timeout=3600)
        return replace(made, manner=manner, go_on=self.go_on)

    async def run(self, arguments: Any, caller: Caller) -> object:
        self.begun.append(caller.key)
        raise InputRequired(self.questions, carry="SECRET state", held=self.held)

    async def go_on(self, arguments: Any, caller: Caller, answered: Answered) -> object:
        assert answered.carry == "SECRET state"
        if self.held and caller.key not in self.begun:
            raise OutcomeUnknown
        self.booked.append((caller.key, [(one.action, one.content) for one in answered.said]))
        return [one.action for one in answered.said]


def states(frames: list[Any]) -> list[str]:
    return [state for type_, state in told(frames) if type_ == "tool_state"]


@pytest.mark.gen_test(timeout=60)
async def test_a_question_parks_the_answer_and_goes_on_at_another_process(mongodb_uri: str, short_pauses: None) -> None:
    before, booking = Booking(ROW, SURE), Booking(ROW, SURE)
    async with bench(mongodb_uri, tools=Tools([before.tool()])) as a:
        conversation, parked = await asked(a)
        assert parked.waits_until is not None
        async with a.viewer(conversation) as viewer:
            for _ in range(2):
                await viewer.until("tool_state")
            state = await viewer.until("tool_state")
    assert (state["state"], state["message"], state["arguments"]) == ("awaiting_input", "Which row?", '{"match":7}')
    assert state["question"] == {
        "id": "1",
        "schema": {"type": "object", "properties": {"row": {"type": "integer"}}, "required": ["row"]},
    }
    assert state["expiresAt"]
    assert "SECRET" not in str(viewer.frames)
    key = f"{parked.id}.1"
    # That process is gone. Two new ones start; on each, a device answers.
    async with bench(mongodb_uri, tools=Tools([booking.tool()])) as b, bench(mongodb_uri) as c:
        async with following(c), c.viewer(conversation) as viewer:
            for given, action, problem in (
                (None, Action.ACCEPT, "must be there"),
                ({}, Action.ACCEPT, "row"),
                ({"row": "seven"}, Action.ACCEPT, "integer"),
                ({"row": float("inf")}, Action.ACCEPT, "integer"),
                ({"row": 7}, Action.DECLINE, "does not go with"),
                ({"row": 7, "more": "x" * 60_000}, Action.ACCEPT, "at most"),
            ):
                with pytest.raises(InvalidContent, match=problem):
                    await b.deciding.reply(conversation, key, "1", action, given)
            for question in ("2", "0", "x"):
                with pytest.raises(NotFound):
                    await b.deciding.reply(conversation, key, question, Action.CANCEL)
            for decision in Decision:
                with pytest.raises(NotWaiting):
                    await b.deciding.decide(conversation, key, decision)
            with pytest.raises(NotWaiting):
                await b.deciding.answer(conversation, key, {"row": 7})
            assert await b.newest(conversation) == parked
            results = await asyncio.gather(
                *(
                    at.deciding.reply(conversation, key, "1", Action.ACCEPT, {"row": row})
                    for at, row in ((b, 7), (c, 8))
                ),
                return_exceptions=True,
            )
            assert sorted(type(one).__name__ for one in results) == ["AlreadyDecided", "Decided"]
            (first,) = (one for one in results if isinstance(one, Decided))
            assert (first.call.state, first.call.question.id) == (CallState.AWAITING_INPUT, "2")  # type: ignore[union-attr]  # it has one
            row = 7 if first is results[0] else 8
            assert (await c.deciding.reply(conversation, key, "1", Action.ACCEPT, {"row": row})).call == first.call
            with pytest.raises(AlreadyDecided):  # a repeated answer to the first question does not answer the second
                await b.deciding.reply(conversation, key, "1", Action.CANCEL)
            b.model.reply("Booked.", STOP)
            decided = await b.deciding.reply(conversation, key, "2", Action.DECLINE)
            await viewer.until("llm_complete")
        answer = await b.ended(conversation)
        assert (answer.id, answer.status, answer.content) == (parked.id, Status.COMPLETE, "I pay.\n\nBooked.")
        assert (before.begun, before.booked) == ([key], [])
        assert (booking.begun, booking.booked) == ([], [(key, [("accept", {"row": row}), ("decline", None)])])
        assert states(viewer.frames) == [
            *("ready", "running", "awaiting_input", "answered", "awaiting_input", "answered", "running"),
        ]
        (part,) = calls_of(answer)
        assert (part.state, part.output) == (CallState.DONE, ["accept", "decline"])
        # A stream that continues from an answer's cursor gets everything after it, also for a late viewer.
        async with b.viewer(conversation, Cursor(answer.id, decided.position)) as late:
            await late.until("llm_complete")
        assert states(late.frames) == ["answered", "running"]
        async with b.viewer(conversation, Cursor(answer.id, first.position)) as late:
            await late.until("llm_complete")
        assert states(late.frames) == ["answered", "awaiting_input", "answered", "running"]
        with pytest.raises(AlreadyDecided):
            await c.deciding.reply(conversation, key, "2", Action.ACCEPT, {})


@pytest.mark.gen_test(timeout=60)
async def test_a_repeated_approval_does_not_answer_a_question(mongodb_uri: str) -> None:
    booking = Booking(SURE)
    async with bench(mongodb_uri, tools=Tools([booking.tool(approval=Approval.ALWAYS)])) as b:
        conversation, parked = await asked(b)
        key = f"{parked.id}.1"
        await b.deciding.decide(conversation, key, Decision.APPROVE)
        async with asyncio.timeout(PATIENCE):
            while not calls_of(await b.newest(conversation))[0].question:
                await asyncio.sleep(0.005)
        await waiting(b, conversation)
        again = await b.deciding.decide(conversation, key, Decision.APPROVE)
        assert again.call.state is CallState.AWAITING_INPUT
        with pytest.raises(AlreadyDecided):
            await b.deciding.decide(conversation, key, Decision.DENY)
        assert booking.booked == []
        b.model.reply("Booked.", STOP)
        await b.deciding.reply(conversation, key, "1", Action.ACCEPT, {})
        (part,) = calls_of(await b.ended(conversation))
        assert (part.output, part.decided_by, len(booking.booked)) == (["accept"], "user", 1)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.gen_test(timeout=60)
async def test_a_question_that_nobody_answers_in_time(mongodb_uri: str, held: bool) -> None:
    booking = Booking(ROW, held=held)
    async with bench(mongodb_uri, tools=Tools([booking.tool()])) as b:
        conversation, parked = await asked(b)
        await overdue(b, parked)
        b.model.reply("Well.", STOP)
        with pytest.raises(CallExpired):
            await b.deciding.reply(conversation, f"{parked.id}.1", "1", Action.ACCEPT, {"row": 7})
        answer = await b.ended(conversation)
        (part,) = calls_of(answer)
        assert answer.status is Status.COMPLETE
        if held:  # the tool is informed, and returns the result
            assert (part.state, part.output, booking.booked[0][1]) == (CallState.DONE, ["cancel"], [("cancel", None)])
        else:
            assert (part.state, part.output, booking.booked) == (CallState.EXPIRED, deciding.NO_INPUT_IN_TIME, [])
        with pytest.raises(CallExpired):
            await b.deciding.reply(conversation, f"{parked.id}.1", "1", Action.ACCEPT, {"row": 7})


@pytest.mark.parametrize("effect", [Effect.ONCE, Effect.NONE])
@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.gen_test(timeout=60)
async def test_an_answer_with_a_question_is_stopped(mongodb_uri: str, effect: Effect, interrupted: bool) -> None:
    """A call that may have had its effect is not reported as "not carried out"."""
    for held in (False, True):
        booking = Booking(ROW, held=held)
        async with bench(mongodb_uri, tools=Tools([booking.tool(effect)])) as b:
            conversation, parked = await asked(b)
            if interrupted:
                b.model.reply("Fine.", STOP)
                await b.post(conversation, "No!", if_busy=IfBusy.INTERRUPT)
                await b.ended(conversation)
            else:
                await b.commands.stop(conversation, None)
            stopped = await b.reading.get(conversation.key, parked.id)
            (part,) = calls_of(stopped)  # type: ignore[arg-type]  # it is an answer
            assert part.state is (CallState.UNKNOWN if held and effect is Effect.ONCE else CallState.DONE)
            with pytest.raises(NotWaiting):
                await b.deciding.reply(conversation, f"{parked.id}.1", "1", Action.ACCEPT, {"row": 7})
            assert booking.booked == []


@pytest.mark.gen_test(timeout=60)
async def test_a_call_that_is_kept_open_goes_on_in_its_own_process(mongodb_uri: str, short_pauses: None) -> None:
    holding, other = Booking(held=True), Booking(held=True)
    async with bench(mongodb_uri, tools=Tools([holding.tool()])) as a:
        conversation, parked = await asked(a)
        async with bench(mongodb_uri, tools=Tools([other.tool()])) as b, following(b), b.viewer(conversation) as viewer:
            key = f"{parked.id}.1"
            decided = await b.deciding.reply(conversation, key, "1", Action.ACCEPT, {"row": 7})
            assert (decided.call.state, decided.answer.status) == (CallState.ANSWERED, Status.WAITING)
            await b.deciding.look()  # this process must not continue it
            assert (await b.newest(conversation)).status is Status.WAITING
            a.model.reply("Booked.", STOP)
            await a.deciding.look()
            await viewer.until("llm_complete")
            answer = await a.ended(conversation)
            assert (answer.id, answer.content) == (parked.id, "I pay.\n\nBooked.")
            assert (holding.booked, other.booked) == ([(key, [("accept", {"row": 7})])], [])


@pytest.mark.parametrize("effect", [Effect.ONCE, Effect.IDEMPOTENT])
@pytest.mark.gen_test(timeout=60)
async def test_a_call_whose_process_is_gone_is_not_called_again_if_it_has_an_effect(
    mongodb_uri: str, effect: Effect, short_pauses: None
) -> None:
    async with bench(mongodb_uri, tools=Tools([Booking(held=True).tool(effect)])) as a:
        conversation, parked = await asked(a)
    there = Booking(held=True)
    async with bench(mongodb_uri, tools=Tools([there.tool(effect)])) as b:
        key = f"{parked.id}.1"
        decided = await b.deciding.reply(conversation, key, "1", Action.ACCEPT, {"row": 7})
        assert decided.answer.status is Status.WAITING
        await overdue(b, parked)  # the process has not continued the answer in time
        await b.deciding.look()
        answer = await b.ended(conversation)
        assert answer.failure is not None
        assert (answer.failure.code, calls_of(answer)[0].state) == (ErrorCode.TOOL_OUTCOME_UNKNOWN, CallState.UNKNOWN)
        assert (there.begun, there.booked) == ([], [])


@pytest.mark.gen_test(timeout=60)
async def test_a_tool_cannot_ask_without_end(mongodb_uri: str) -> None:
    class Endless(Booking):
        async def go_on(self, arguments: Any, caller: Caller, answered: Answered) -> object:
            return await self.run(arguments, caller)

    booking = Endless(SURE)
    async with bench(mongodb_uri, tools=Tools([booking.tool(Effect.NONE)])) as b:
        conversation, parked = await asked(b)
        b.model.reply("Well.", STOP)
        for number in range(1, 11):
            await b.deciding.reply(conversation, f"{parked.id}.1", str(number), Action.ACCEPT, {})
            if number < 10:
                await waiting(b, conversation)
        (part,) = calls_of(await b.ended(conversation))
        assert (part.output, len(booking.begun)) == ("failed: the service asks the user too often", 11)


@pytest.mark.gen_test(timeout=60)
async def test_a_tool_that_is_gone_when_its_question_is_answered(mongodb_uri: str) -> None:
    for held in (False, True):
        async with bench(mongodb_uri, tools=Tools([Booking(held=held).tool()])) as b:
            conversation, parked = await asked(b)
            b.calling.tools._own.clear()
            b.calling.tools.found(())
            b.model.reply("Well.", STOP)
            await b.deciding.reply(conversation, f"{parked.id}.1", "1", Action.ACCEPT, {"row": 7})
            answer = await b.ended(conversation)
            (part,) = calls_of(answer)
            if held:
                assert (answer.status, part.state) == (Status.FAILED, CallState.UNKNOWN)
            else:
                assert (answer.status, part.output) == (Status.COMPLETE, "not carried out: there is no tool pay")


@pytest.mark.gen_test(timeout=60)
async def test_formats_of_one_answer_end_with_the_question(mongodb_uri: str) -> None:
    booking = Booking(ROW)
    async with bench(mongodb_uri, tools=Tools([booking.tool()])) as b:
        conversation, _ = await asked(b)
        for wire in FORMATS.values():
            if wire.one_answer:
                text = ""
                async with b.viewer(conversation, wire=wire, once=True) as viewer:
                    while (data := await viewer.stream.follower.next()) is not None:
                        text += data.decode()
                assert '"question":{"id":"1","schema":{' in text
                assert "SECRET" not in text


@asynccontextmanager
async def process(uri: str, url: str, effect: Effect) -> AsyncIterator[Bench]:
    """Open a bench (one process) with a tool of the MCP server."""
    manner = Manner(effect=effect, approval=Approval.NEVER, timeout=60)
    named = [
        McpTool(name=name, own_name=own, description=None, manner=manner)
        for name, own in (("pay", "book"), ("odds", "book_later"))
    ]
    server = McpServer(name="s", url=url, command=(), headers={}, environment={}, internal=False, tools=tuple(named))
    tools, there = Tools([asking(Ledger(), "bet")]), asyncio.Event()

    def found(some: Any) -> None:
        tools.found([replace(one, check=lambda arguments: {}) for one in some])
        there.set()

    servers = tools.open_calls = McpServers([server], found)
    async with AsyncExitStack() as stack:
        await servers.open()
        stack.push_async_callback(servers.close)
        async with asyncio.timeout(PATIENCE):
            await there.wait()
        yield await stack.enter_async_context(bench(uri, tools=tools))


@pytest.mark.gen_test(timeout=110)
async def test_questions_of_real_servers(mongodb_uri: str, short_pauses: None) -> None:
    seen = Seen()
    with served("modern", seen) as url:
        async with process(mongodb_uri, url, Effect.ONCE) as a:
            conversation, parked = await asked(a, call(1, name="odds"))
        async with process(mongodb_uri, url, Effect.ONCE) as b:  # after a restart
            key = f"{parked.id}.1"
            decided = await b.deciding.reply(conversation, key, "1", Action.ACCEPT, {"row": 7})
            assert decided.answer.status is Status.WAITING
            b.model.reply("Booked.", STOP)
            await b.deciding.reply(conversation, key, "2", Action.CANCEL)
            (part,) = calls_of(await b.ended(conversation))
            assert part.output == "asked: {'row': ('accept', {'row': 7}), 'sure': ('cancel', None)}"
            assert {meta["chatstream/idempotency-key"] for _, meta, _ in seen.calls} == {key}
    seen = Seen()
    with served("legacy", seen) as url:
        async with process(mongodb_uri, url, Effect.ONCE) as a, process(mongodb_uri, url, Effect.ONCE) as b:
            conversation, parked = await asked(a)
            key = f"{parked.id}.1"
            await b.deciding.reply(conversation, key, "1", Action.ACCEPT, {"row": 7})
            a.model.reply("Booked.", STOP)
            await a.deciding.look()
            (part,) = calls_of(await a.ended(conversation))
            assert (part.output, len(seen.calls)) == ("row 7", 1)
            # A process dies while its user is asked.
            conversation, lost = await asked(a)
        async with process(mongodb_uri, url, Effect.ONCE) as b:
            await b.deciding.reply(conversation, f"{lost.id}.1", "1", Action.ACCEPT, {"row": 7})
            await overdue(b, lost)
            await b.deciding.look()
            answer = await b.ended(conversation)
            assert (answer.status, calls_of(answer)[0].state) == (Status.FAILED, CallState.UNKNOWN)
            assert len(seen.calls) == 2
        async with process(mongodb_uri, url, Effect.NONE) as a:
            conversation, lost = await asked(a)
        async with process(mongodb_uri, url, Effect.NONE) as b:  # called anew, and the same question is not asked again
            await b.deciding.reply(conversation, f"{lost.id}.1", "1", Action.ACCEPT, {"row": 13})
            await overdue(b, lost)
            await b.deciding.look()
            second = await waiting(b, conversation)
            (part,) = calls_of(second)
            assert part.message == "Really 13?"
            b.model.reply("Booked.", STOP)
            await b.deciding.reply(conversation, f"{lost.id}.1", "2", Action.ACCEPT, {})
            (part,) = calls_of(await b.ended(conversation))
            assert (part.output, len(seen.calls)) == ("row 13", 4)


@pytest.mark.gen_test(timeout=110)
async def test_an_open_call_ends_when_nobody_waits_for_it(mongodb_uri: str) -> None:
    """The answer is stopped, interrupted or deleted, here or in another process. The MCP server is informed at once, or
    with the next poll.
    """
    seen = Seen()
    with served("legacy", seen) as url:
        async with process(mongodb_uri, url, Effect.ONCE) as a, process(mongodb_uri, url, Effect.ONCE) as b:
            held = a.calling.tools.open_calls.callers
            kept, still = await asked(a)
            for at in (a, b):
                for interrupted in (False, True):
                    conversation, parked = await asked(a)
                    assert {caller.answer for caller in held()} == {still.id, parked.id}
                    await at.commands.stop(conversation, None, interrupted=interrupted)
                    if at is b:
                        assert len(held()) == 2  # this process does not know of it
                        await a.deciding.look()
                    assert [caller.answer for caller in held()] == [still.id]
            conversation, _ = await asked(a)
            await a.conversations.delete(conversation.user_id, conversation.id)
            await a.deciding.look()
            assert [caller.answer for caller in held()] == [still.id]
            async with asyncio.timeout(PATIENCE):
                while len(seen.ended) < 5:
                    await asyncio.sleep(0.005)
            assert seen.ended == ["cancel"] * 5
            a.model.reply("Booked.", STOP)
            await a.deciding.reply(kept, f"{still.id}.1", "1", Action.ACCEPT, {"row": 7})
            assert calls_of(await a.ended(kept))[0].output == "row 7"


@pytest.mark.gen_test(timeout=110)
async def test_an_open_call_gets_its_answer_while_another_call_waits(mongodb_uri: str) -> None:
    """The MCP server gets the answer at once, or with the next poll. The call's result is there when the other call is
    decided.
    """
    seen = Seen()
    with served("legacy", seen) as url:
        async with process(mongodb_uri, url, Effect.ONCE) as a, process(mongodb_uri, url, Effect.ONCE) as b:
            for number, at in enumerate((a, b), start=1):
                conversation, parked = await asked(a, call(1, name="pay"), call(2, name="bet"))
                await at.deciding.reply(conversation, f"{parked.id}.1", "1", Action.ACCEPT, {"row": 7})
                await a.deciding.look()
                async with asyncio.timeout(PATIENCE):
                    while len(seen.ended) < number:
                        await asyncio.sleep(0.005)
                assert (await a.newest(conversation)).status is Status.WAITING
                a.model.reply("Done.", STOP)
                await a.deciding.decide(conversation, f"{parked.id}.2", Decision.DENY)
                first, second = calls_of(await a.ended(conversation))
                assert (first.output, second.state) == ("row 7", CallState.DENIED)
            assert (seen.ended, len(seen.calls)) == (["row 7", "row 7"], 2)
