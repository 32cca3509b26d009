"""Tool calls: the life of a call, on a real database, with a scripted model."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from chatstream.errors import ErrorCode, ModelError
from chatstream.events import Cursor
from chatstream.formats.format import Format
from chatstream.formats.registry import FORMATS, VERSIONS
from chatstream.generations import rounds
from chatstream.generations.calls import CallBounds
from chatstream.generations.room import Room
from chatstream.generations.sweeper import Sweeper
from chatstream.llm.model import Delta, Finish
from chatstream.models import Answer, Round, Status, Usage, UsageSource
from chatstream.pieces import (
    BEGINNING,
    CallState,
    Effect,
    OpenText,
    OpenToolCall,
    ToolCallPart,
    ToolResult,
    ToolState,
    cut,
    fold,
)
from chatstream.plugins.tool import Approval, Caller, Manner, OutcomeUnknown, ToolFailed
from chatstream.tools.tool import BadArguments, Tool, Tools
from tests.formats.test_positions import read
from tests.support.scripted_model import STOP, Bench, Viewer, beats, bench, following

CALLED = Finish(reason="tool_calls", usage=None)
Run = Callable[[Any, Caller], Awaitable[object]]


def tool(name: str, run: Run, effect: Effect = Effect.NONE, *, timeout: float = 30) -> Tool:
    def check(arguments: dict[str, Any]) -> Any:
        if "match" not in arguments:
            raise BadArguments("bad arguments: match: Field required")
        return arguments

    return Tool(
        name=name,
        description="",
        parameters={"type": "object"},
        manner=Manner(effect=effect, approval=Approval.NEVER, timeout=timeout),
        check=check,
        run=run,
        source="the test",
    )


class Ledger:
    """A tool that records the key of each call. If it is held, it waits until the test lets it continue."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self, arguments: Any, caller: Caller) -> object:
        self.keys.append(caller.key)
        self.began.set()
        await self.go_on.wait()
        return {"odds": 2.1, "match": arguments["match"]}

    def hold(self) -> None:
        self.go_on.clear()


def call(number: int, arguments: str = '{"match":7}', name: str = "odds") -> tuple[OpenToolCall, str]:
    return OpenToolCall(id=str(number), name=name), arguments


def calls_of(answer: Answer) -> list[ToolCallPart]:
    return [part for part in fold(answer.pieces) if isinstance(part, ToolCallPart)]


def told(frames: list[Any]) -> list[tuple[Any, ...]]:
    """The events' types and important fields, in order."""
    facts = {"tool_call": "arguments", "tool_state": "state", "tool_result": "output", "llm_chunk": "content"}
    return [(frame.type, frame.data[facts[frame.type]]) for frame in frames if frame.type in facts]


@pytest.mark.gen_test(timeout=60)
async def test_a_call_is_carried_out_and_its_result_told_to_the_model(mongodb_uri: str) -> None:
    ledger = Ledger()
    async with bench(mongodb_uri, tools=Tools([tool("odds", ledger)])) as b:
        b.model.reply("Let me ", "look.", *call(1), CALLED)
        b.model.reply("Take 2.10.", STOP)
        conversation = await b.conversation("Which?")
        async with b.viewer(conversation) as viewer:
            await viewer.until("llm_complete")
        answer = await b.ended(conversation)
        key = f"{answer.id}.1"
        assert ledger.keys == [key]
        assert b.model.told == 1
        assert answer.pieces == (
            "Let me look.",
            OpenToolCall(id=key, name="odds"),
            '{"match":7}',
            ToolState(id=key, name="odds", state=CallState.READY, arguments='{"match":7}'),
            ToolState(id=key, name="odds", state=CallState.RUNNING, effect=Effect.NONE),
            ToolResult(id=key, output={"odds": 2.1, "match": 7}),
            OpenText(),
            "\n\nTake 2.10.",
        )
        assert (answer.content, answer.status, answer.finish_reason) == (
            "Let me look.\n\nTake 2.10.",
            Status.COMPLETE,
            "stop",
        )
        assert told(viewer.frames) == [
            ("llm_chunk", "Let me "),
            ("llm_chunk", "look."),
            ("tool_call", ""),
            ("tool_call", '{"match":7}'),
            ("tool_state", "ready"),
            ("tool_state", "running"),
            ("tool_result", {"odds": 2.1, "match": 7}),
            ("llm_chunk", "\n\nTake 2.10."),
        ]
        assert viewer.frames[-1].data["parts"][1]["output"] == {"odds": 2.1, "match": 7}
        offsets = [frame.data["offset"] for frame in viewer.frames if frame.type == "llm_chunk"]
        assert offsets == [0, 7, 12]
        first, second = b.model.calls
        assert [offered.name for offered in first.tools] == ["odds"]
        (step,) = second.turns[-1].steps
        assert (step.content, step.calls[0].id, step.calls[0].result) == (
            "Let me look.",
            key,
            '{"odds":2.1,"match":7}',
        )
        # The next question is sent with the whole call.
        b.model.reply("Yes.", STOP)
        await b.post(conversation, "Sure?")
        await b.ended(conversation)
        steps = next(turn.steps for turn in b.model.calls[2].turns if turn.steps)
        assert [(each.content, len(each.calls)) for each in steps] == [("Let me look.", 1), ("Take 2.10.", 0)]


@pytest.mark.gen_test(timeout=60)
async def test_every_call_is_answered_whatever_is_wrong_with_it(mongodb_uri: str) -> None:
    async def fails(arguments: Any, caller: Caller) -> object:
        raise {"known": ToolFailed("no such match"), "secret": RuntimeError("password=hunter2")}[arguments["match"]]

    async def odd(arguments: Any, caller: Caller) -> object:
        return {1: object()} if arguments["match"] == 1 else "x" * 300

    async def late(arguments: Any, caller: Caller) -> object:
        await asyncio.Event().wait()
        return None

    tools = Tools([tool("fails", fails), tool("odd", odd), tool("late", late, timeout=0.01)])
    bounds = CallBounds(calls=9, output_characters=100, argument_characters=100)
    async with bench(mongodb_uri, tools=tools, call_bounds=bounds) as b:
        made = [
            call(1, name="gone"),
            call(2, "[1]", name="odd"),
            call(3, '{"match"', name="odd"),
            call(4, "", name="odd"),
            call(5, '{"match":"known"}', name="fails"),
            call(6, '{"match":"secret"}', name="fails"),
            call(7, '{"match":1}', name="odd"),
            call(8, '{"match":2}', name="odd"),
            call(9, name="late"),
            call(10, name="odd"),
        ]
        b.model.reply(*[piece for each in made for piece in each], CALLED)
        b.model.reply(*call(1, '{"match":"' + "x" * 100 + '"}', name="odd"), CALLED)
        b.model.reply("Sorry.", STOP)
        conversation = await b.conversation()
        await b.post(conversation)
        answer = await b.ended(conversation)
        assert answer.status is Status.COMPLETE
        outputs = [part.output for part in calls_of(answer)]
        assert outputs == [
            "not carried out: there is no tool gone",
            "bad arguments: they are not a JSON object",
            "bad arguments: they are not a JSON object",
            "bad arguments: match: Field required",
            "failed: no such match",
            "failed",
            "failed: it was carried out, but what it returned is not JSON",
            "x" * 100 + "… (cut: 100 of 300 characters)",
            "failed: no answer within 0.01 s",
            "not carried out: at most 9 calls are possible at a time",
            "bad arguments: they have more than 100 characters",
        ]
        assert [part.failed for part in calls_of(answer)] == [True] * 7 + [False] + [True] * 3
        # The endpoint gets arguments that are valid for it.
        arguments = [each.arguments for each in b.model.calls[1].turns[-1].steps[0].calls]
        assert arguments[1:4] == ["{}"] * 3


@pytest.mark.gen_test(timeout=60)
async def test_how_far_a_call_is_is_told_seldom(mongodb_uri: str) -> None:
    async def slow(arguments: Any, caller: Caller) -> object:
        for text in ("", "\ud800 half " + "x" * 1000, "nearly", "nearly"):
            caller.progress(text)
        await asyncio.to_thread(caller.progress, "from a thread")
        await told_of_it.wait()
        caller.progress("too soon again")
        return "done"

    told_of_it = asyncio.Event()
    async with bench(mongodb_uri, tools=Tools([tool("odds", slow), tool("pay", slow)])) as b:
        b.model.reply("Look.", *call(1), *call(2, name="pay"), CALLED)
        b.model.reply("Done.", STOP)
        conversation = await b.conversation("Which?")
        async with b.viewer(conversation) as viewer:
            progress: list[tuple[Any, ...]] = []
            while len(progress) < 2:
                state = await viewer.until("tool_state")
                if "message" in state:
                    progress.append(
                        (state["toolCallId"][-1], state["state"], state["message"][:7], len(state["message"]))
                    )
            told_of_it.set()
            await viewer.until("llm_complete")
        assert sorted(progress) == [(number, "running", "? half ", 231) for number in "12"]
        answer = await b.ended(conversation)
        assert (answer.status, answer.content) == (Status.COMPLETE, "Look.\n\nDone.")
        assert [(part.state, part.output, part.message) for part in calls_of(answer)] == [
            (CallState.DONE, "done", None)
        ] * 2


@pytest.mark.gen_test(timeout=60)
async def test_what_was_cut_off_is_not_carried_out(mongodb_uri: str) -> None:
    ledger = Ledger()
    async with bench(mongodb_uri, tools=Tools([tool("odds", ledger)])) as b:
        b.model.reply(*call(1), Finish(reason="length", usage=None))
        b.model.reply(*call(1), Finish(reason="content_filter", usage=None))
        conversation = await b.conversation()
        await b.post(conversation)
        answer = await b.ended(conversation)
        assert ledger.keys == []
        assert (answer.status, answer.finish_reason) == (Status.COMPLETE, "content_filter")
        assert all(part.failed for part in calls_of(answer))
        assert len(b.model.calls) == 2


@pytest.mark.gen_test(timeout=60)
async def test_rounds_have_an_end(mongodb_uri: str) -> None:
    ledger = Ledger()
    async with bench(mongodb_uri, tools=Tools([tool("odds", ledger)]), call_bounds=CallBounds(rounds=2)) as b:
        for _ in range(9):
            b.model.reply(*call(1), CALLED)
        conversation = await b.conversation()
        await b.post(conversation)
        answer = await b.ended(conversation)
        assert len(ledger.keys) == 2
        assert (answer.status, answer.finish_reason) == (Status.COMPLETE, "tool_limit")
        assert [part.failed for part in calls_of(answer)] == [False, False, True, True]
        assert len(b.model.calls) == 4


@pytest.mark.gen_test(timeout=60)
async def test_a_model_that_says_nothing_of_what_it_called_is_not_asked_again(mongodb_uri: str) -> None:
    ledger = Ledger()
    async with bench(mongodb_uri, tools=Tools([tool("odds", ledger)])) as b:
        b.model.reply(*call(1), CALLED)
        b.model.reply(STOP)
        conversation = await b.conversation()
        await b.post(conversation)
        answer = await b.ended(conversation)
        assert (answer.status, answer.finish_reason, answer.content) == (Status.COMPLETE, "stop", "")
        assert (len(b.model.calls), len(ledger.keys)) == (2, 1)


@pytest.mark.gen_test(timeout=60)
async def test_tokens_of_all_requests_are_one_sum(mongodb_uri: str) -> None:
    usage = Usage(prompt_tokens=10, completion_tokens=2, total_tokens=12)
    async with bench(mongodb_uri, tools=Tools([tool("odds", Ledger())])) as b:
        b.model.reply(*call(1), Finish(reason="tool_calls", usage=usage))
        b.model.reply("Two.", Finish(reason="stop", usage=usage))
        conversation = await b.conversation()
        await b.post(conversation)
        answer = await b.ended(conversation)
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (20, 4, 24)
        assert answer.rounds == (
            Round(model=None, finish_reason="tool_calls", usage=usage),
            Round(model=None, finish_reason="stop", usage=usage),
        )


@pytest.mark.parametrize(
    ("models", "cost"),
    [(("free", "paid"), 24), (("paid", "free"), 24), (("free", "free"), None), (("paid", "paid"), 48)],
)
@pytest.mark.gen_test(timeout=60)
async def test_a_request_to_a_model_without_a_price_costs_nothing(
    mongodb_uri: str, models: tuple[str, str], cost: int | None
) -> None:
    def priced(usage: Usage | None, model: str | None) -> Usage | None:
        return replace(usage, cost_micros=2 * usage.total_tokens) if usage is not None and model == "paid" else usage

    usage = Usage(prompt_tokens=10, completion_tokens=2, total_tokens=12)
    async with bench(mongodb_uri, tools=Tools([tool("odds", Ledger())]), priced=priced) as b:
        b.model.reply(Delta([], model=models[0]), *call(1), Finish(reason="tool_calls", usage=usage))
        b.model.reply(Delta([], model=models[1]), "Two.", Finish(reason="stop", usage=usage))
        conversation = await b.conversation()
        await b.post(conversation)
        answer = await b.ended(conversation)
        assert answer.usage is not None
        assert answer.usage.total_tokens == 24
        assert answer.usage.cost_micros == (UNSET if cost is None else cost)


@pytest.mark.gen_test(timeout=60)
async def test_a_request_that_broke_off_is_counted_behind_those_that_did_not(mongodb_uri: str) -> None:
    usage = Usage(prompt_tokens=10, completion_tokens=2, total_tokens=12)
    for said, refused in ((["Two."], False), ([], True)):
        async with bench(mongodb_uri, tools=Tools([tool("odds", Ledger())])) as b:
            b.model.reply(*call(1), Finish(reason="tool_calls", usage=usage))
            b.model.reply(*said, ModelError(ErrorCode.UPSTREAM_UNAVAILABLE, "gone"))
            conversation = await b.conversation()
            await b.post(conversation)
            answer = await b.ended(conversation)
            assert answer.status is Status.FAILED
            assert answer.usage is not None
            assert (answer.usage == usage) == refused
            assert answer.usage.prompt_tokens >= 10
            if refused:
                assert answer.rounds == ()
            else:
                assert [one.finish_reason for one in answer.rounds] == ["tool_calls", None]
                assert sum(one.usage.total_tokens for one in answer.rounds if one.usage) == answer.usage.total_tokens


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.gen_test(timeout=60)
async def test_a_stop_in_the_second_round_has_both(mongodb_uri: str, counted: bool) -> None:
    first = Usage(prompt_tokens=10, completion_tokens=2, total_tokens=12)
    so_far = Usage(prompt_tokens=20, completion_tokens=1, total_tokens=21, source=UsageSource.PARTIAL)
    async with bench(mongodb_uri, tools=Tools([tool("odds", Ledger())])) as b:
        b.model.reply(*call(1), Finish(reason="tool_calls", usage=first))
        b.model.reply(Delta(["Two and "], usage=so_far if counted else None))
        conversation = await b.conversation("Which?")
        async with b.viewer(conversation) as viewer:
            await viewer.until("llm_chunk")
            receipt = await b.commands.stop(conversation, None)
        answer = await b.ended(conversation)
        one, two = answer.rounds
        assert (one.usage, one.finish_reason, two.finish_reason) == (first, "tool_calls", None)
        assert answer.usage is not None
        assert two.usage is not None
        assert two.usage == (so_far if counted else replace(two.usage, source=UsageSource.ESTIMATED))
        assert answer.usage.total_tokens == 12 + two.usage.total_tokens
        assert receipt.usage == answer.usage


@pytest.mark.gen_test(timeout=60)
async def test_the_model_is_not_asked_again_where_the_budget_has_no_room(mongodb_uri: str) -> None:
    taken = Usage(prompt_tokens=10, completion_tokens=2, total_tokens=12)
    asked: list[tuple[int, int]] = []

    async def may_go_on(so_far: Usage, newest: Usage, model: str | None, ended: Sequence[Round]) -> bool:
        assert len(ended) == len(b.model.calls)
        asked.append((so_far.total_tokens, newest.total_tokens))
        return len(asked) < 2

    async with bench(mongodb_uri, tools=Tools([tool("odds", Ledger())]), may_go_on=may_go_on) as b:
        for _ in range(9):
            b.model.reply(*call(1), Finish(reason="tool_calls", usage=taken))
        conversation = await b.conversation()
        await b.post(conversation)
        answer = await b.ended(conversation)
        assert (answer.status, answer.failure and answer.failure.code) == (Status.FAILED, ErrorCode.BUDGET_EXHAUSTED)
        assert asked == [(12, 12), (24, 12)]
        assert (len(b.model.calls), len(answer.rounds), answer.usage) == (
            2,
            2,
            replace(taken, prompt_tokens=20, completion_tokens=4, total_tokens=24),
        )
        assert [part.state for part in calls_of(answer)] == [CallState.DONE, CallState.DONE]


@pytest.mark.gen_test(timeout=60)
async def test_nothing_runs_before_it_is_stored_and_nobody_hears_a_result_before(mongodb_uri: str) -> None:
    ledger = Ledger()
    async with bench(mongodb_uri, tools=Tools([tool("odds", ledger, Effect.ONCE)])) as b:
        arrived, gate = b.store.hold("checkpoint")
        b.model.reply(*call(1), CALLED)
        b.model.reply("Done.", STOP)
        conversation = await b.conversation("Which?")
        async with b.viewer(conversation) as viewer:
            await arrived.wait()
            assert ledger.keys == []
            ledger.hold()
            gate.set()
            assert (await viewer.until("tool_state"))["state"] == "ready"
            assert (await viewer.until("tool_state"))["state"] == "running"
            await ledger.began.wait()
            stored = await b.newest(conversation)
            assert [part.state for part in calls_of(stored)] == [CallState.RUNNING]
            arrived, gate = b.store.hold("checkpoint")
            ledger.go_on.set()
            await arrived.wait()
            assert len(b.model.calls) == 1
            assert "tool_result" not in viewer.types
            gate.set()
            await viewer.until("llm_complete")
        assert len(ledger.keys) == 1


@pytest.mark.parametrize("effect", [Effect.NONE, Effect.ONCE])
@pytest.mark.gen_test(timeout=60)
async def test_a_stop_ends_a_running_tool_and_says_what_is_known(mongodb_uri: str, effect: Effect) -> None:
    ledger = Ledger()
    ledger.hold()
    async with bench(mongodb_uri, tools=Tools([tool("odds", ledger, effect)])) as b:
        b.model.reply("Wait.", *call(1), CALLED)
        conversation = await b.conversation("Which?")
        async with b.viewer(conversation) as viewer:
            await ledger.began.wait()
            await b.commands.stop(conversation, None, 2)
            complete = await viewer.until("llm_complete")
        answer = await b.ended(conversation)
        (part,) = calls_of(answer)
        assert (answer.status, answer.content) == (Status.STOPPED, "Wa")
        if effect is Effect.ONCE:
            assert part.state is CallState.UNKNOWN
        else:
            assert (part.state, part.failed, part.output) == (CallState.DONE, True, rounds.BROKEN_OFF)
        assert complete["parts"][-1]["state"] == part.state
        b.model.reply("No.", STOP)
        await b.post(conversation, "Did it?")
        await b.ended(conversation)
        (step,) = b.model.calls[-1].turns[-2].steps
        assert step.calls[0].result == (rounds.UNKNOWN if effect is Effect.ONCE else rounds.BROKEN_OFF)


@pytest.mark.gen_test(timeout=60)
async def test_what_nobody_knows_ends_the_answer(mongodb_uri: str) -> None:
    async def broke(arguments: Any, caller: Caller) -> object:
        raise OutcomeUnknown

    async def late(arguments: Any, caller: Caller) -> object:
        await asyncio.Event().wait()
        return None

    for run in (broke, late):
        ledger = Ledger()
        tools = [tool("pay", run, Effect.ONCE, timeout=0.05 if run is late else 30), tool("odds", ledger)]
        async with bench(mongodb_uri, tools=Tools(tools)) as b:
            b.model.reply(*call(1, name="pay"), *call(2), CALLED)
            conversation = await b.conversation("Which?")
            async with b.viewer(conversation) as viewer:
                error = await viewer.until("error")
                assert error["error"] == ErrorCode.TOOL_OUTCOME_UNKNOWN
                assert not error["retryable"]
                assert [part["state"] for part in (await viewer.until("llm_complete"))["parts"]] == ["unknown", "done"]
            answer = await b.ended(conversation)
            assert answer.status is Status.FAILED
            assert [part.state for part in calls_of(answer)] == [CallState.UNKNOWN, CallState.DONE]
            assert len(b.model.calls) == 1
            # After the user's request the answer starts again, from the beginning.
            b.model.reply("Again.", STOP)
            await b.commands.regenerate(conversation, request_id="r")
            assert (await b.ended(conversation)).content == "Again."
            assert b.model.calls[1].turns[-1].role == "user"


async def at_work(b: Bench, ledger: Ledger) -> Any:
    """Create a conversation in which a tool runs that never ends."""
    ledger.hold()
    b.model.reply("Let me look.", *call(1), CALLED)
    conversation = await b.conversation()
    await b.post(conversation)
    await ledger.began.wait()
    return conversation


async def crashed(b: Bench, conversation: Any) -> None:
    """Let the answer's process disappear; another process notices that."""
    (orphan,) = [one for one in await b.attempts.orphans() if one.key == conversation.key]
    sweeper = Sweeper(b.attempts, b.reading, b.hub, b.metrics)
    await sweeper._end(orphan)


@pytest.mark.parametrize("effect", [Effect.NONE, Effect.IDEMPOTENT])
@pytest.mark.gen_test(timeout=60)
async def test_after_a_crash_a_call_is_repeated_under_its_key_and_the_model_not_asked_again(
    mongodb_uri: str, effect: Effect
) -> None:
    dead, ledger = Ledger(), Ledger()
    async with bench(mongodb_uri, tools=Tools([tool("odds", dead, effect)])) as a:
        conversation = await at_work(a, dead)
        async with bench(mongodb_uri, tools=Tools([tool("odds", ledger, effect)])) as b:
            await crashed(b, conversation)
            b.model.reply("Take 2.10.", STOP)
            async with b.viewer(conversation) as viewer:
                assert (await viewer.until("llm_complete"))["status"] == Status.INTERRUPTED
                await viewer.until("llm_complete")
            answer = await b.ended(conversation)
            first = (await b.reading.page(conversation.key, limit=9, before=None))[1]
            assert isinstance(first, Answer)
            assert (first.status, answer.status, answer.attempt) == (Status.INTERRUPTED, Status.COMPLETE, 2)
            assert dead.keys == ledger.keys == [f"{first.id}.1"]
            assert answer.content == "Let me look.\n\nTake 2.10."
            assert viewer.text == answer.content
            assert len(b.model.calls) == 1


@pytest.mark.gen_test(timeout=60)
async def test_after_a_crash_an_effect_that_may_happen_once_is_not_repeated(mongodb_uri: str) -> None:
    dead, ledger = Ledger(), Ledger()
    dead.hold()
    async with bench(mongodb_uri, tools=Tools([tool("odds", dead, Effect.ONCE)])) as a:
        a.model.reply(*call(1), CALLED)
        conversation = await a.conversation()
        await a.post(conversation)
        await dead.began.wait()
        async with bench(mongodb_uri, tools=Tools([tool("odds", ledger, Effect.ONCE)])) as b:
            await crashed(b, conversation)
            async with b.viewer(conversation) as viewer:
                assert (await viewer.until("error"))["error"] == ErrorCode.TOOL_OUTCOME_UNKNOWN
            answer = await b.newest(conversation)
            assert answer.status is Status.FAILED
            assert [part.state for part in calls_of(answer)] == [CallState.UNKNOWN]
            assert ledger.keys == []
            assert b.model.calls == []
            b.model.reply("I do not know.", STOP)
            await b.post(conversation, "Did it?")
            assert (await b.ended(conversation)).content == "I do not know."


@pytest.mark.gen_test(timeout=60)
async def test_results_that_are_there_are_used_by_the_next_attempt(mongodb_uri: str) -> None:
    ledger = Ledger()
    async with bench(mongodb_uri, tools=Tools([tool("odds", ledger, Effect.ONCE)])) as a:
        a.model.reply("One.", *call(1), CALLED)
        a.model.reply("Half of")
        conversation = await a.conversation()
        await a.post(conversation)
        await a.model.call(2)
        await beats(a, 2)
        async with bench(mongodb_uri, tools=Tools()) as b:  # the tool may be gone by now
            await crashed(b, conversation)
            b.model.reply(*call(1, name="gone"), CALLED)
            b.model.reply("Two.", STOP)
            async with b.viewer(conversation) as viewer:
                await viewer.until("llm_complete")
                answer = await b.ended(conversation)  # nothing was read during the call
                await viewer.until("llm_complete")
            ids = [frame.id for frame in viewer.frames]
            assert len(ids) == len(set(ids)), "told twice"
            assert answer.content == "One.\n\nTwo."
            old, new = calls_of(answer)
            assert (old.output, new.failed) == ({"odds": 2.1, "match": 7}, True)
            assert new.tool_call_id == f"{answer.id}.1"
            assert not old.tool_call_id.startswith(answer.id)
            assert len(ledger.keys) == 1


@pytest.mark.gen_test(timeout=120)
async def test_a_stream_goes_on_from_every_position(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, tools=Tools([tool("odds", Ledger())])) as b:
        b.model.reply("Hm 👍", *call(1), *call(2, '{"match":"ö"}'), CALLED)
        b.model.reply(*call(1, "{}"), CALLED)
        b.model.reply("Take it.", STOP)
        conversation = await b.conversation("Which?")
        async with b.viewer(conversation) as viewer:
            await viewer.until("llm_complete")
        answer = await b.ended(conversation)
        whole = flat(viewer)
        for position in range(answer.length + 1):
            async with b.viewer(conversation, Cursor(answer.id, position)) as late:
                await late.until("llm_complete")
            before = [each for place, each in whole if place <= position]
            assert before + [each for place, each in flat(late) if place > position] == [each for _, each in whole]


@pytest.mark.gen_test(timeout=110)
async def test_a_stream_of_the_ai_sdks_goes_on_from_every_position(mongodb_uri: str, short_pauses: None) -> None:
    """In each of its versions: while a call runs, in the same and in another process, and from the store."""
    held = Ledger()
    held.hold()
    tools = Tools([tool("odds", Ledger()), tool("slow", held)])
    wires = [FORMATS["ui-message-stream"], *VERSIONS["ui-message-stream"].values()]
    async with bench(mongodb_uri, tools=tools) as a, bench(mongodb_uri) as b, following(b):
        a.model.reply("Hm 👍", *call(1), *call(2, '{"match":"ö"}'), CALLED)
        a.model.reply("So.", *call(1, name="slow"), *call(2), CALLED)
        a.model.reply("Take it.", STOP)
        conversation = await a.conversation()
        await a.post(conversation, "Which?")
        await held.began.wait()
        running = await a.newest(conversation)
        async with contextlib.AsyncExitStack() as stack:

            async def come(where: Bench, wire: Format, position: int) -> tuple[Format, int, Viewer]:
                cursor = Cursor(running.id, position)
                opened = where.viewer(conversation, cursor, once=True, wire=wire)
                return wire, position, await stack.enter_async_context(opened)

            live = [
                await come(where, wire, position)
                for where in (a, b)
                for wire in wires
                for position in range(running.length + 1)
            ]
            held.go_on.set()
            told = [(wire, position, await everything(viewer)) for wire, position, viewer in live]
            answer = await a.ended(conversation)
            stored = [await come(b, wire, position) for wire in wires for position in range(answer.length + 1)]
            told += [(wire, position, await everything(viewer)) for wire, position, viewer in stored]
        whole = {wire: read(rest) for wire, position, rest in told if position == 0}
        for wire, position, rest in told:
            before = wire.chunks(answer, cut(answer.pieces, 0, position), BEGINNING, "") if position else b""
            assert read(before + rest) == whole[wire], position


async def everything(viewer: Viewer) -> bytes:
    """All frames of a stream, to its end."""
    said = b""
    async with asyncio.timeout(60):
        while (frames := await viewer.stream.follower.next()) is not None:
            said += b"" if frames.startswith(b":") else frames
    return said


def flat(viewer: Viewer) -> list[tuple[int, tuple[str, Any]]]:
    """Each code point and each mark, with the position after it."""
    found: list[tuple[int, tuple[str, Any]]] = []
    for frame in viewer.frames:
        data, cursor = frame.data, Cursor.parse(frame.id) if frame.id else None
        if cursor is None or cursor.position < 0 or cursor.position >= Cursor.ERROR:
            continue
        text = data.get("content") or data.get("arguments") if frame.type in ("llm_chunk", "tool_call") else None
        if text:
            begin = cursor.position - len(text)
            found += [(begin + number, (frame.type, sign)) for number, sign in enumerate(text, start=1)]
        else:
            found.append((cursor.position, (frame.type, data.get("state") or data.get("output"))))
    return found


@pytest.mark.gen_test(timeout=60)
async def test_a_model_that_knows_no_calls_ends_as_it_always_did(mongodb_uri: str) -> None:
    async with bench(mongodb_uri) as b:
        b.model.reply(Delta(["Hi"]), " there.", STOP)
        conversation = await b.conversation()
        await b.post(conversation)
        answer = await b.ended(conversation)
        assert (answer.mixed, answer.pieces) == ((), ("Hi there.",))


@pytest.mark.gen_test(timeout=60)
async def test_an_attempt_that_is_stopped_before_it_goes_on_is_stopped(
    mongodb_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Room._begin

    async def stopped(room: Room, generation: Any, message: Any) -> None:
        await begin(room, generation, message)
        if generation.answer.attempt > 1:
            while not generation._may_ask._callbacks:  # wait until its request is prepared
                await asyncio.sleep(0.005)
            generation.cut(Status.STOPPED)

    monkeypatch.setattr(Room, "_begin", stopped)
    dead = Ledger()
    async with bench(mongodb_uri, tools=Tools([tool("odds", dead, Effect.IDEMPOTENT)])) as a:
        conversation = await at_work(a, dead)
        async with bench(mongodb_uri, tools=Tools([tool("odds", Ledger(), Effect.IDEMPOTENT)])) as b:
            await crashed(b, conversation)
            async with b.viewer(conversation) as viewer:
                assert (await viewer.until("llm_complete"))["status"] == "interrupted"
                assert (await viewer.until("llm_complete"))["status"] == "stopped"
            assert b.model.calls == []


@pytest.mark.parametrize("raised", [ConnectionResetError, KeyError, asyncio.CancelledError])
@pytest.mark.gen_test(timeout=60)
async def test_what_raises_anything_may_have_been_carried_out_before(
    mongodb_uri: str, raised: type[BaseException]
) -> None:
    async def breaks(arguments: Any, caller: Caller) -> object:
        raise raised

    for effect in (Effect.ONCE, Effect.IDEMPOTENT):
        async with bench(mongodb_uri, tools=Tools([tool("odds", breaks, effect)])) as b:
            b.model.reply(*call(1), CALLED)
            b.model.reply("Well.", STOP)
            conversation = await b.conversation()
            await b.post(conversation)
            answer = await b.ended(conversation)
            (part,) = calls_of(answer)
            if effect is Effect.ONCE:
                assert (answer.status, part.state) == (Status.FAILED, CallState.UNKNOWN)
            else:
                assert (answer.status, part.output) == (Status.COMPLETE, "failed")


@pytest.mark.gen_test(timeout=60)
async def test_nobody_is_told_that_a_call_was_not_carried_out_which_ran_before_the_crash(mongodb_uri: str) -> None:
    """The tool is gone with the process: it cannot be repeated."""
    dead = Ledger()
    async with bench(mongodb_uri, tools=Tools([tool("odds", dead, Effect.IDEMPOTENT)])) as a:
        conversation = await at_work(a, dead)
        async with bench(mongodb_uri) as b:
            await crashed(b, conversation)
            b.model.reply("I cannot tell.", STOP)
            async with b.viewer(conversation) as viewer:
                assert (await viewer.until("llm_complete"))["status"] == "interrupted"
                assert (await viewer.until("llm_complete"))["status"] == "complete"
            (part,) = calls_of(await b.newest(conversation))
            assert part.failed
            assert str(part.output).startswith(rounds.BROKEN_OFF)
            assert b.model.calls[0].turns[-1].steps[0].calls[0].result == part.output


@pytest.mark.parametrize("effect", [Effect.ONCE, Effect.IDEMPOTENT])
@pytest.mark.gen_test(timeout=60)
async def test_a_process_that_is_told_to_end_while_a_tool_works_says_what_is_known(
    mongodb_uri: str, effect: Effect
) -> None:
    ending, ledger = Ledger(), Ledger()
    async with bench(mongodb_uri, tools=Tools([tool("odds", ending, effect)])) as a:
        conversation = await at_work(a, ending)
        await a.hub.drain(0)
        answer = await a.newest(conversation)
        (part,) = calls_of(answer)
    async with bench(mongodb_uri, tools=Tools([tool("odds", ledger, effect)])) as b:
        b.model.reply("Take 2.10.", STOP)
        if effect is Effect.ONCE:
            assert (answer.status, part.state) == (Status.FAILED, CallState.UNKNOWN)
            await b.post(conversation, "And?")
            assert (await b.ended(conversation)).status is Status.COMPLETE
            assert ledger.keys == []
        else:
            assert answer.status is Status.INTERRUPTED
            async with b.viewer(conversation) as viewer:
                assert (await viewer.until("llm_complete"))["status"] == "interrupted"
                assert (await viewer.until("llm_complete"))["status"] == "complete"
            assert ledger.keys == ending.keys
