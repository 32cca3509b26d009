"""Answers that wait for a person's decision or for the app's result: on a real database, with the hubs of several
processes.
"""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from msgspec.structs import replace

from chatstream.errors import (
    AlreadyDecided,
    AnswerInProgress,
    CallExpired,
    NotFound,
    NotWaiting,
    RequestError,
    StorageUnavailable,
)
from chatstream.events import Cursor, timestamp
from chatstream.formats.registry import FORMATS
from chatstream.generations import deciding, rounds
from chatstream.generations.commands import IfBusy
from chatstream.generations.deciding import Decided, Decision
from chatstream.llm.model import Finish
from chatstream.models import Answer, Conversation, Status, Usage
from chatstream.pieces import CallState, Effect, OpenText
from chatstream.plugins.tool import Approval, Manner
from chatstream.store.documents import now
from chatstream.store.outbox import Outbox
from chatstream.tools.tool import BadArguments, Tool, Tools, Where
from tests.generations.test_tools import CALLED, Ledger, call, calls_of, crashed, everything, flat, told, tool
from tests.support.scripted_model import PATIENCE, STOP, Bench, bench, following

pytestmark = pytest.mark.usefixtures("nothing_waits")

APPROVE, DENY = Decision.APPROVE, Decision.DENY


def asking(ledger: Ledger, name: str = "pay", *, timeout: float = 3600, where: Where = Where.SERVER) -> Tool:
    """A tool whose calls a person must approve, or a tool of the app."""
    approval = Approval.ALWAYS if where is Where.SERVER else Approval.NEVER
    manner = Manner(effect=Effect.ONCE, approval=approval, timeout=timeout, approval_timeout=timeout)
    return replace(tool(name, ledger), manner=manner, where=where)


async def waiting(b: Bench, conversation: Conversation) -> Answer:
    """Wait until the answer waits and its hub knows that; returns the answer."""
    async with asyncio.timeout(PATIENCE):
        while (newest := await b.newest(conversation)).status is not Status.WAITING or b.hub.generates_in(conversation):
            assert not newest.status.is_final, newest
            await asyncio.sleep(0.005)
    return newest


async def asked(b: Bench, *calls: Any, content: str = "Pay.") -> tuple[Conversation, Answer]:
    """Create a conversation whose answer waits."""
    b.model.reply("I pay.", *[piece for each in calls or (call(1, name="pay"),) for piece in each], CALLED)
    conversation = await b.conversation()
    await b.post(conversation, content)
    return conversation, await waiting(b, conversation)


async def overdue(b: Bench, answer: Answer) -> None:
    """Let the time of all waiting calls expire."""
    past = now() - timedelta(seconds=1)
    pieces = [
        {**piece, "expiresAt": timestamp(past)} if isinstance(piece, dict) and "expiresAt" in piece else piece
        for piece in (await b.mongo.messages.find_one({"_id": ObjectId(answer.id)}))["pieces"]
    ]
    change = {"$set": {"pieces": pieces, "waiting.expiresAt": past}}
    await b.mongo.messages.update_one({"_id": ObjectId(answer.id)}, change)


@pytest.mark.gen_test(timeout=60)
async def test_what_a_person_agrees_to_is_carried_out_once_and_the_same_answer_goes_on(mongodb_uri: str) -> None:
    ledger = Ledger()
    usage = Usage(prompt_tokens=10, completion_tokens=2, total_tokens=12)
    async with bench(mongodb_uri, tools=Tools([asking(ledger)])) as b:
        b.model.reply("I pay.", *call(1, name="pay"), Finish(reason="tool_calls", usage=usage))
        conversation = await b.conversation("Pay.")
        async with b.viewer(conversation) as viewer:
            state = await viewer.until("tool_state")
            assert state["state"] == "ready"
            state = await viewer.until("tool_state")
            assert (state["state"], state["arguments"]) == ("awaiting_approval", '{"match":7}')
            assert state["expiresAt"] > timestamp()
            parked = await waiting(b, conversation)
            assert ledger.keys == []
            assert (parked.usage, parked.content, len(b.model.calls)) == (usage, "I pay.", 1)
            assert conversation.key not in [orphan.key for orphan in await b.attempts.orphans()]
            # Another viewer comes, with or without a cursor.
            for cursor in (None, Cursor(parked.id, 3), Cursor(parked.reply_to, Cursor.USER)):
                async with b.viewer(conversation, cursor) as late:
                    assert (await late.until("tool_state"))["state"] == "ready"
                    assert (await late.until("tool_state"))["state"] == "awaiting_approval"
            b.model.reply("Paid.", Finish(reason="stop", usage=usage))
            decided = await b.deciding.decide(conversation, f"{parked.id}.1", APPROVE)
            assert decided.call.state is CallState.APPROVED
            complete = await viewer.until("llm_complete")
        answer = await b.ended(conversation)
        assert (answer.id, answer.attempt, answer.status) == (parked.id, 1, Status.COMPLETE)
        assert answer.usage is not None
        assert answer.usage.total_tokens == 24
        assert answer.content == complete["content"] == viewer.text == "I pay.\n\nPaid."
        assert ledger.keys == [f"{parked.id}.1"]
        assert [state for type_, state in told(viewer.frames) if type_ == "tool_state"] == [
            "ready",
            "awaiting_approval",
            "approved",
            "running",
        ]
        (part,) = calls_of(answer)
        assert (part.state, part.decided_by) == (CallState.DONE, "user")
        # A stream from before the request for a decision lacks nothing.
        async with b.viewer(conversation, Cursor(answer.id, decided.position)) as late:
            await late.until("llm_complete")
        assert [type_ for type_, _ in told(late.frames)] == ["tool_state", "tool_state", "tool_result", "llm_chunk"]
        # The same decision again gets the same response; the opposite one comes too late.
        again = await b.deciding.decide(conversation, f"{parked.id}.1", APPROVE)
        assert again.call.state is CallState.DONE
        with pytest.raises(AlreadyDecided, match="approved"):
            await b.deciding.decide(conversation, f"{parked.id}.1", DENY)
        assert len(ledger.keys) == 1


@pytest.mark.gen_test(timeout=60)
async def test_asked_at_one_process_decided_at_another_shown_at_a_third(mongodb_uri: str, short_pauses: None) -> None:
    ledger, dead = Ledger(), Ledger()
    async with bench(mongodb_uri, tools=Tools([asking(dead)])) as a:
        conversation, parked = await asked(a)
    # That process is gone; two new ones start.
    async with bench(mongodb_uri, tools=Tools([asking(ledger)])) as b, bench(mongodb_uri) as c:
        async with following(c), c.viewer(conversation) as viewer:
            assert (await viewer.until("tool_state"))["state"] == "ready"
            assert (await viewer.until("tool_state"))["state"] == "awaiting_approval"
            b.model.reply("Paid.", STOP)
            await b.deciding.decide(conversation, f"{parked.id}.1", APPROVE)
            complete = await viewer.until("llm_complete")
        answer = await b.ended(conversation)
        assert complete["messageId"] == answer.id == parked.id
        assert viewer.text == answer.content == "I pay.\n\nPaid."
        assert (dead.keys, ledger.keys) == ([], [f"{parked.id}.1"])
        assert [state for type_, state in told(viewer.frames) if type_ == "tool_state"][2:] == ["approved", "running"]
        assert [turn.steps[0].content for turn in b.model.calls[0].turns if turn.steps] == ["I pay."]


@pytest.mark.gen_test(timeout=60)
async def test_it_is_heard_elsewhere_that_an_answer_waits_goes_on_and_waits_again(
    mongodb_uri: str, short_pauses: None
) -> None:
    tools = Tools([asking(Ledger()), asking(Ledger(), "send")])
    async with bench(mongodb_uri, tools=tools) as a, bench(mongodb_uri, tools=tools) as b, bench(mongodb_uri) as c:
        conversation = await a.conversation()
        async with following(c), following(b), b.viewer(conversation) as near, c.viewer(conversation) as far:
            a.model.reply("One.", *call(1, name="pay"), *call(2, name="send"), CALLED)
            b.model.reply("Two.", *call(1, name="pay"), CALLED)
            a.model.reply("Three.", STOP)
            await a.post(conversation, "Go.")
            first = await waiting(a, conversation)
            await a.deciding.decide(conversation, f"{first.id}.1", DENY, reason="Too much.")
            assert (await waiting(a, conversation)).waits_until is not None
            await b.deciding.decide(conversation, f"{first.id}.2", APPROVE)
            second = await waiting(b, conversation)
            await a.deciding.decide(conversation, f"{first.id}.3", APPROVE)
            for viewer in (near, far):
                complete = await viewer.until("llm_complete")
                assert complete["messageId"] == first.id == second.id
                assert viewer.text == complete["content"] == "One.\n\nTwo.\n\nThree."
                states = [state for type_, state in told(viewer.frames) if type_ == "tool_state"]
                assert states == [
                    *("ready", "ready", "awaiting_approval", "awaiting_approval", "denied", "approved", "running"),
                    *("ready", "awaiting_approval", "approved", "running"),
                ]
            steps = b.model.calls[0].turns[-1].steps
            assert [one.result for one in steps[0].calls] == [
                f"{deciding.DENIED} They say: Too much.",
                '{"odds":2.1,"match":7}',
            ]


@pytest.mark.gen_test(timeout=60)
async def test_of_decisions_in_the_same_moment_one_counts(mongodb_uri: str) -> None:
    ledger = Ledger()
    tools = Tools([asking(ledger)])
    async with bench(mongodb_uri, tools=tools) as a, bench(mongodb_uri, tools=tools) as b:
        a.model.reply("I pay.", *call(1, name="pay"), CALLED)
        conversation = await a.conversation()
        await a.post(conversation)
        parked = await waiting(a, conversation)
        a.model.reply("Well.", STOP)
        b.model.reply("Well.", STOP)
        decisions = (APPROVE, DENY, APPROVE)
        results = await asyncio.gather(
            *(
                at.deciding.decide(conversation, f"{parked.id}.1", decision)
                for at, decision in zip((a, b, b), decisions, strict=True)
            ),
            return_exceptions=True,
        )
        async with asyncio.timeout(PATIENCE):
            while not (await a.newest(conversation)).status.is_final:
                await asyncio.sleep(0.005)
        answer = await a.newest(conversation)
        (part,) = calls_of(answer)
        approved = part.state is CallState.DONE
        for decision, result in zip(decisions, results, strict=True):
            if (decision is APPROVE) is approved:
                assert isinstance(result, Decided)
            else:
                assert isinstance(result, AlreadyDecided)
        assert (answer.status, answer.content, len(ledger.keys)) == (Status.COMPLETE, "I pay.\n\nWell.", int(approved))
        assert len(a.model.calls) + len(b.model.calls) == 2


@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.gen_test(timeout=60)
async def test_what_the_tool_does_not_take_any_more_is_not_carried_out(mongodb_uri: str, gone: bool) -> None:
    def refuse(arguments: dict[str, Any]) -> Any:
        raise BadArguments("bad arguments: match: too old")

    ledger = Ledger()
    async with bench(mongodb_uri, tools=Tools([asking(ledger)])) as a:
        conversation, parked = await asked(a)
    async with bench(mongodb_uri, tools=Tools([] if gone else [replace(asking(ledger), check=refuse)])) as b:
        b.model.reply("Well.", STOP)
        await b.deciding.decide(conversation, f"{parked.id}.1", APPROVE)
        answer = await b.ended(conversation)
        (part,) = calls_of(answer)
        why = "not carried out: there is no tool pay" if gone else "bad arguments: match: too old"
        assert (part.output, part.failed, ledger.keys) == (why, True, [])
        assert answer.status is Status.COMPLETE
        assert b.model.calls[0].turns[-1].steps[0].calls[0].result == why


@pytest.mark.gen_test(timeout=60)
async def test_what_nobody_decides_in_time_is_not_carried_out(mongodb_uri: str) -> None:
    ledger = Ledger()
    tools = Tools([asking(ledger), asking(ledger, "show", where=Where.CLIENT)])
    async with bench(mongodb_uri, tools=tools) as a, bench(mongodb_uri, tools=tools) as b:
        conversation, parked = await asked(a, call(1, name="pay"), call(2, name="show"))
        await b.deciding.look()
        assert (await b.newest(conversation)).status is Status.WAITING
        await overdue(a, parked)
        b.model.reply("Well.", STOP)
        await asyncio.gather(b.deciding.look(), b.deciding.look())
        answer = await b.ended(conversation)
        assert (answer.id, answer.content, ledger.keys) == (parked.id, "I pay.\n\nWell.", [])
        assert [(part.state, part.output) for part in calls_of(answer)] == [
            (CallState.EXPIRED, deciding.NOT_AGREED_IN_TIME),
            (CallState.DONE, deciding.NOT_ANSWERED_IN_TIME),
        ]
        with pytest.raises(CallExpired):
            await a.deciding.decide(conversation, f"{parked.id}.1", APPROVE)
        with pytest.raises(CallExpired):
            await a.deciding.answer(conversation, f"{parked.id}.2", "late")


@pytest.mark.gen_test(timeout=60)
async def test_what_a_later_version_waits_for_holds_up_nothing(mongodb_uri: str) -> None:
    ledger = Ledger()
    async with bench(mongodb_uri, f"waiting-{ObjectId()}", tools=Tools([asking(ledger)])) as b:
        past = now() - timedelta(days=1)
        strange: list[dict[str, Any]] = [
            {"waiting": [{"expiresAt": past}]},
            {"conversationId": "one"},
            {"conversationId": None},
            {"waiting": {"expiresAt": [past]}},
            {"_id": "one"},
            *({"status": "parked"} for _ in range(deciding._AT_ONCE)),
        ]
        for one in strange:
            document = {"conversationId": ObjectId(), "role": "assistant", "seq": 1, "status": "waiting"}
            await b.mongo.messages.insert_one(document | {"waiting": {"expiresAt": past}} | one)
        conversation, parked = await asked(b)
        await overdue(b, parked)
        b.model.reply("Well.", STOP)
        await b.deciding.look()
        assert (await b.ended(conversation)).content == "I pay.\n\nWell."


@pytest.mark.gen_test(timeout=60)
async def test_a_decision_that_comes_before_the_look_but_after_the_time_is_refused(mongodb_uri: str) -> None:
    ledger = Ledger()
    async with bench(mongodb_uri, tools=Tools([asking(ledger)])) as b:
        conversation, parked = await asked(b)
        await overdue(b, parked)
        b.model.reply("Well.", STOP)
        with pytest.raises(CallExpired):
            await b.deciding.decide(conversation, f"{parked.id}.1", APPROVE)
        assert (await b.ended(conversation)).content == "I pay.\n\nWell."
        assert ledger.keys == []


@pytest.mark.gen_test(timeout=60)
async def test_what_waits_for_nobody_cannot_be_decided(mongodb_uri: str) -> None:
    ledger = Ledger()
    tools = Tools([asking(ledger), asking(ledger, "show", where=Where.CLIENT), tool("odds", Ledger())])
    async with bench(mongodb_uri, tools=tools) as b:
        conversation, parked = await asked(
            b, call(1, name="pay"), call(2, name="show"), call(3, name="odds"), call(4, "[]", name="pay")
        )
        other, _ = await asked(b)
        decide, answer = b.deciding.decide, b.deciding.answer
        refusals: list[tuple[Callable[[], Any], type[RequestError]]] = [
            (lambda: decide(conversation, f"{parked.id}.9", APPROVE), NotFound),
            (lambda: decide(conversation, f"{ObjectId()}.1", APPROVE), NotFound),
            (lambda: decide(other, f"{parked.id}.1", APPROVE), NotFound),
            (lambda: decide(conversation, f"{parked.reply_to}.1", APPROVE), NotFound),
            (lambda: decide(conversation, f"{parked.id}.2", APPROVE), NotWaiting),
            (lambda: decide(conversation, f"{parked.id}.3", APPROVE), NotWaiting),
            (lambda: decide(conversation, f"{parked.id}.4", DENY), NotWaiting),
            (lambda: answer(conversation, f"{parked.id}.1", "x"), NotWaiting),
            (lambda: answer(conversation, f"{parked.id}.3", "x"), NotWaiting),
        ]
        for request, refusal in refusals:
            with pytest.raises(refusal):
                await request()
        assert await b.newest(conversation) == parked
        assert ledger.keys == []


@pytest.mark.gen_test(timeout=60)
async def test_the_app_answers_once_and_is_asked_again_after_it_died(mongodb_uri: str, short_pauses: None) -> None:
    ledger = Ledger()
    tools = Tools([asking(ledger, "show", where=Where.CLIENT)])
    async with bench(mongodb_uri, tools=tools) as a:
        conversation, parked = await asked(a, call(1, name="show"))
        async with a.viewer(conversation) as viewer:
            assert (await viewer.until("tool_state"))["state"] == "ready"
            assert (await viewer.until("tool_state"))["state"] == "awaiting_client"
    async with bench(mongodb_uri, tools=tools) as b:
        async with b.viewer(conversation, viewer.cursor, start=False) as late:
            pass
        async with b.viewer(conversation) as late:  # an app that has lost its state
            await late.until("tool_state")
            state = await late.until("tool_state")
            assert (state["state"], state["arguments"]) == ("awaiting_client", '{"match":7}')
            b.model.reply("Shown.", STOP)
            results = await asyncio.gather(
                b.deciding.answer(conversation, f"{parked.id}.1", {"seen": 1}),
                b.deciding.answer(conversation, f"{parked.id}.1", {"seen": 2}),
                return_exceptions=True,
            )
            assert [type(one) for one in results if isinstance(one, Exception)] == [AlreadyDecided]
            await late.until("llm_complete")
        answer = await b.ended(conversation)
        (part,) = calls_of(answer)
        assert part.output in ({"seen": 1}, {"seen": 2})
        assert (await b.deciding.answer(conversation, f"{parked.id}.1", part.output)).call.output == part.output
        assert [type_ for type_, _ in told(late.frames)].count("tool_result") == 1
        (step,) = b.model.calls[0].turns[-1].steps
        assert len(step.calls) == len(b.model.calls) == 1
        assert ledger.keys == []


@pytest.mark.gen_test(timeout=60)
async def test_an_app_may_say_that_it_could_not(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, tools=Tools([asking(Ledger(), "show", where=Where.CLIENT)])) as b:
        conversation, parked = await asked(b, call(1, name="show"))
        b.model.reply("Sorry.", STOP)
        await b.deciding.answer(conversation, f"{parked.id}.1", "no camera", failed=True)
        (part,) = calls_of(await b.ended(conversation))
        assert (part.output, part.failed) == ("failed: no camera", True)


@pytest.mark.gen_test(timeout=60)
async def test_a_message_meanwhile_follows_what_its_sender_wants(mongodb_uri: str) -> None:
    ledger = Ledger()
    async with bench(mongodb_uri, tools=Tools([asking(ledger)])) as b:
        conversation, parked = await asked(b)
        with pytest.raises(AnswerInProgress):
            await b.post(conversation, "And?")
        with pytest.raises(AnswerInProgress):
            await b.commands.regenerate(conversation, request_id="r")
        assert (await b.post(conversation, "Then this.", if_busy=IfBusy.QUEUE)).answer is None
        b.model.reply("Paid.", STOP)
        b.model.reply("This.", STOP)
        async with b.viewer(conversation) as viewer:
            await b.deciding.decide(conversation, f"{parked.id}.1", APPROVE)
            await viewer.until("llm_complete")
            assert (await viewer.until("user_message"))["content"] == "Then this."
            assert (await viewer.until("llm_complete"))["content"] == "This."
        conversation, parked = await asked(b)
        b.model.reply("Fine.", STOP)
        async with b.viewer(conversation) as viewer:
            await b.post(conversation, "No!", if_busy=IfBusy.INTERRUPT)
            assert (await viewer.until("llm_complete"))["status"] == "stopped"
            assert (await viewer.until("llm_complete"))["content"] == "Fine."
        stopped = await b.reading.get(conversation.key, parked.id)
        assert isinstance(stopped, Answer)
        (part,) = calls_of(stopped)
        assert (part.state, part.output) == (CallState.DENIED, deciding.INTERRUPTED)
        (step,) = b.model.calls[-1].turns[-2].steps
        assert step.calls[0].result == deciding.INTERRUPTED
        assert len(ledger.keys) == 1
        with pytest.raises(AlreadyDecided):
            await b.deciding.decide(conversation, f"{parked.id}.1", APPROVE)


@pytest.mark.gen_test(timeout=60)
async def test_what_waits_can_be_stopped_from_anywhere(mongodb_uri: str, short_pauses: None) -> None:
    ledger = Ledger()
    async with bench(mongodb_uri, tools=Tools([asking(ledger)])) as a, bench(mongodb_uri) as b:
        conversation, parked = await asked(a)
        async with following(a), a.viewer(conversation) as viewer:
            stopped = await b.commands.stop(conversation, None)
            assert (stopped.message_id, stopped.status) == (parked.id, Status.STOPPED)
            assert (await viewer.until("llm_complete"))["status"] == "stopped"
        (part,) = calls_of(await b.newest(conversation))
        assert (part.state, part.output) == (CallState.DONE, rounds.STOPPED)
        with pytest.raises(NotWaiting):
            await a.deciding.decide(conversation, f"{parked.id}.1", APPROVE)
        assert ledger.keys == []
        a.model.reply("Fine.", STOP)
        await a.post(conversation, "Never mind.")
        assert (await a.ended(conversation)).content == "Fine."


@pytest.mark.gen_test(timeout=60)
async def test_a_process_that_dies_with_a_decision_leaves_it_to_the_next_attempt(mongodb_uri: str) -> None:
    ledger = Ledger()
    async with bench(mongodb_uri, tools=Tools([asking(ledger)])) as a:
        conversation, parked = await asked(a)
        a.store.lost["move_on"] = 1  # the write succeeds, but this process does not learn that
        with pytest.raises(StorageUnavailable):
            await a.deciding.decide(conversation, f"{parked.id}.1", APPROVE)
        assert not a.hub.generates_in(conversation)
        async with bench(mongodb_uri, tools=Tools([asking(ledger)])) as b:
            await crashed(b, conversation)
            b.model.reply("Paid.", STOP)
            async with b.viewer(conversation) as viewer:
                await viewer.until("llm_complete")
                await viewer.until("llm_complete")
            assert ledger.keys == [f"{parked.id}.1"]
            # The response names the attempt that has the call now.
            decided = await b.deciding.decide(conversation, f"{parked.id}.1", APPROVE)
            assert (decided.call.state, decided.answer.attempt) == (CallState.DONE, 2)


@pytest.mark.gen_test(timeout=60)
async def test_a_decision_whose_result_was_lost_can_be_made_again(mongodb_uri: str) -> None:
    ledger = Ledger()
    async with bench(mongodb_uri, tools=Tools([asking(ledger)])) as b:
        conversation, parked = await asked(b)
        b.store.lost["move_on"] = 1
        with pytest.raises(StorageUnavailable):
            await b.deciding.decide(conversation, f"{parked.id}.1", APPROVE)
        b.model.reply("Paid.", STOP)
        await b.deciding.decide(conversation, f"{parked.id}.1", APPROVE)
        answer = await b.ended(conversation)
        assert (answer.id, answer.attempt, len(ledger.keys)) == (parked.id, 1, 1)


@pytest.mark.gen_test(timeout=60)
async def test_that_an_answer_waits_is_known_though_the_result_of_storing_it_was_lost(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, tools=Tools([asking(Ledger())])) as b:
        b.store.lost["park"] = 1
        conversation = await b.conversation("Pay.")
        b.model.reply("I pay.", *call(1, name="pay"), CALLED)
        b.model.reply("Paid.", STOP)
        async with b.viewer(conversation) as viewer:
            await viewer.until("tool_state")
            assert (await viewer.until("tool_state"))["state"] == "awaiting_approval"
            parked = await waiting(b, conversation)
            await b.deciding.decide(conversation, f"{parked.id}.1", APPROVE)
            assert (await viewer.until("llm_complete"))["content"] == viewer.text == "I pay.\n\nPaid."


@pytest.mark.gen_test(timeout=60)
async def test_a_stop_in_the_moment_in_which_it_begins_to_wait(mongodb_uri: str) -> None:
    for behind in (False, True):
        ledger = Ledger()
        async with bench(mongodb_uri, tools=Tools([asking(ledger)])) as b:
            arrived, gate = b.store.hold("park", behind=behind)
            conversation = await b.conversation()
            b.model.reply("I pay.", *call(1, name="pay"), CALLED)
            await b.post(conversation)
            await arrived.wait()
            stopping = asyncio.create_task(b.commands.stop(conversation, None))
            await asyncio.sleep(0)
            gate.set()
            assert (await stopping).status is Status.STOPPED
            assert (await b.ended(conversation)).status is Status.STOPPED
            assert ledger.keys == []


@pytest.mark.gen_test(timeout=60)
async def test_a_process_that_ends_leaves_what_waits_alone(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, tools=Tools([asking(Ledger())])) as b:
        conversation, parked = await asked(b)
        async with b.viewer(conversation) as viewer:
            await b.hub.drain(60)
            await viewer.rest()
        assert await b.newest(conversation) == parked
        await overdue(b, parked)
        await b.deciding.look()  # for another process
        assert (await b.newest(conversation)).status is Status.WAITING


@pytest.mark.gen_test(timeout=60)
async def test_a_conversation_in_which_an_answer_waits_can_be_deleted(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, tools=Tools([asking(Ledger())])) as b:
        conversation, parked = await asked(b)
        assert await b.reading.waiting_in("user", [conversation.key]) == {conversation.key}
        assert ObjectId(conversation.key) in await b.reading.waiting_for("user")
        assert await b.reading.waiting_in("other", [conversation.key]) == set()
        async with b.viewer(conversation) as viewer:
            await b.conversations.delete("user", conversation.id)
            b.hub.deleted(conversation)
            assert (await viewer.rest())[-1].data["error"] == "conversation_deleted"
        with pytest.raises(NotFound):
            await b.deciding.decide(conversation, f"{parked.id}.1", APPROVE)
        assert await b.reading.waiting_in("user", [conversation.key]) == set()


@pytest.mark.gen_test(timeout=60)
async def test_a_process_of_the_version_before_takes_it_for_running(mongodb_uri: str) -> None:
    """The version before knows neither the status nor its fields. Whatever it does, nothing is lost."""
    async with bench(mongodb_uri, tools=Tools([asking(Ledger())])) as b:
        _, parked = await asked(b)
        document = await b.mongo.messages.find_one({"_id": ObjectId(parked.id)})
        assert document["status"] not in ("streaming", "complete", "stopped", "failed", "interrupted")
        assert isinstance(document["length"], int)
        assert {piece if isinstance(piece, str) else piece["mark"] for piece in document["pieces"]} <= {
            *("I pay.", '{"match":7}', "tool_call", "tool_state"),
        }


@pytest.mark.gen_test(timeout=110)
async def test_a_stream_goes_on_from_every_position_of_what_waits_at_another_process(
    mongodb_uri: str, short_pauses: None
) -> None:
    tools = Tools([asking(Ledger()), tool("odds", Ledger())])
    async with bench(mongodb_uri, tools=tools) as a, bench(mongodb_uri) as b, following(b):
        a.model.reply("Hm 👍", *call(1), *call(2, '{"match":"ö"}'), CALLED)
        a.model.reply("So.", *call(1, name="pay"), *call(2), CALLED)
        a.model.reply("Paid.", STOP)
        conversation = await a.conversation()
        await a.post(conversation, "Pay.")
        parked = await waiting(a, conversation)
        async with contextlib.AsyncExitStack() as stack:
            cursors = [Cursor(parked.id, position) for position in range(parked.length + 1)]
            viewers = [await stack.enter_async_context(b.viewer(conversation, cursor)) for cursor in cursors]
            await a.deciding.decide(conversation, f"{parked.id}.3", APPROVE)
            for viewer in viewers:
                await viewer.until("llm_complete")
        whole = flat(viewers[0])
        answer = await a.ended(conversation)
        silent = sum(isinstance(piece, OpenText) for piece in answer.pieces)
        assert len({place for place, _ in whole}) == len(whole) == answer.length - silent
        for cursor, viewer in zip(cursors, viewers, strict=True):
            assert flat(viewer) == [each for each in whole if each[0] > cursor.position]


@pytest.mark.gen_test(timeout=60)
async def test_whoever_decides_is_told_what_comes_of_it_also_while_others_watch(mongodb_uri: str) -> None:
    """In the AI SDK's format, the response to a decision continues the message at once."""
    wire = FORMATS["ui-message-stream"]
    async with bench(mongodb_uri, tools=Tools([asking(Ledger())])) as b:
        conversation, parked = await asked(b, call(1, name="pay"), call(2, name="pay"))
        async with b.viewer(conversation) as other:
            await other.until("tool_state")
            streams = []
            for number, decision in ((2, DENY), (1, APPROVE)):
                b.model.reply("Paid.", STOP)
                decided = await b.deciding.decide(conversation, f"{parked.id}.{number}", decision)
                cursor = Cursor(parked.id, decided.position)
                async with b.viewer(conversation, cursor, once=True, accepted=True, wire=wire) as viewer:
                    assert not viewer.stream.replay.nothing_comes(wire)
                    streams.append((await everything(viewer)).decode())
            complete = await other.until("llm_complete")
        assert complete["content"].endswith("Paid.")
        waits, goes_on = streams
        assert '"status":"waiting"' in waits
        # The other request for a decision was sent before; it is not sent again, whatever was decided about it
        # meanwhile.
        assert waits.count(f'"id":"{parked.id}.1"') == 0
        assert '"delta":"\\n\\nPaid."' in goes_on
        assert '"status":"complete"' in goes_on


@pytest.mark.gen_test(timeout=60)
async def test_the_webhook_is_told_of_each_wait_until_somebody_decides_or_sees_it(mongodb_uri: str) -> None:
    tools = Tools([asking(Ledger())])
    async with bench(mongodb_uri, tools=tools, database="waiting-webhooks") as b:
        b.attempts._webhook_delay = timedelta(0)
        outbox = Outbox(b.mongo)
        conversation, parked = await asked(b)
        (event,) = await outbox.due()
        assert (event.type, event.data["status"], event.data["conversationId"]) == (
            "answer.waiting",
            "waiting",
            conversation.id,
        )
        assert [(one["toolCallId"], one["state"]) for one in event.data["toolCalls"]] == [
            (f"{parked.id}.1", "awaiting_approval")
        ]
        assert "match" not in str(event.data)  # the text that says what the call would do
        b.model.reply("Once more.", *call(1, name="pay"), CALLED)
        await b.deciding.decide(conversation, f"{parked.id}.1", APPROVE)
        await waiting(b, conversation)
        (again,) = await outbox.due()
        assert (again.type, again.id != event.id) == ("answer.waiting", True)
        await b.attempts.mark_seen(conversation.key)
        assert await outbox.due() == []
