"""Other events while an answer waits: retention, erasure, an expired token, a fault in one answer."""

import asyncio
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from msgspec.structs import replace

from chatstream.errors import NotFound
from chatstream.events import timestamp
from chatstream.generations.retaining import Retaining
from chatstream.models import Answer, Conversation, Status
from chatstream.pieces import CallState
from chatstream.plugins.tool import Ask
from chatstream.store.documents import now
from chatstream.store.leases import Leases
from chatstream.store.retention import Retention
from chatstream.tools.tool import Tools
from tests.generations.test_deciding import APPROVE, DENY, asked, asking, overdue, waiting
from tests.generations.test_erasing import documents, erasing
from tests.generations.test_tools import CALLED, Ledger, call, calls_of, told
from tests.support.scripted_model import STOP, Bench, bench, following

pytestmark = pytest.mark.usefixtures("nothing_waits")


async def age(b: Bench, conversation: Conversation) -> None:
    moment = await b.mongo.time() - timedelta(days=9)
    await b.mongo.conversations.update_one({"_id": ObjectId(conversation.key)}, {"$set": {"updatedAt": moment}})


@pytest.mark.gen_test(timeout=60)
async def test_what_waits_is_kept_however_old_it_is_until_its_time_is_over(mongodb_uri: str) -> None:
    async with bench(mongodb_uri, f"waiting-{uuid.uuid4().hex}", tools=Tools([asking(Ledger())])) as b:
        conversation, parked = await asked(b)
        retaining = Retaining(Retention(b.mongo), Leases(b.mongo, owner=b.owner), b.hub, b.metrics, days=3)
        await age(b, conversation)
        await retaining.look()
        assert (await b.newest(conversation)).status is Status.WAITING
        await overdue(b, parked)
        b.model.reply("Well.", STOP)
        await b.deciding.look()
        assert (await b.ended(conversation)).status is Status.COMPLETE
        await retaining.look()  # it has just been used
        assert await b.reading.conversation(conversation.key) is not None
        await age(b, conversation)
        await retaining.look()
        assert await b.reading.conversation(conversation.key) is None


@pytest.mark.gen_test(timeout=60)
async def test_with_its_user_goes_what_waits_and_what_the_tools_have_kept(mongodb_uri: str, short_pauses: None) -> None:
    user, ledger = f"user-{uuid.uuid4().hex}", Ledger()
    tools = Tools([asking(ledger)])
    async with bench(mongodb_uri, tools=tools) as a, bench(mongodb_uri, tools=tools) as b, following(b):
        conversation = await a.conversations.create(user)
        a.model.reply("I pay.", *call(1, name="pay"), CALLED)
        await a.post(conversation, "Pay.")
        parked = await waiting(a, conversation)
        await a.calling.storage(user, "test:plugin").put(f"{parked.id}.1", {"whose": user})
        async with b.viewer(conversation) as viewer:
            await viewer.until("tool_state")
            erasure = await erasing(a).erase(user)
            assert (erasure.completed_at is not None, erasure.erased.messages) == (True, 2)
            assert (await viewer.until("error"))["error"] == "conversation_deleted"
        assert user not in await documents(a.mongo)
        for process in (a, b):
            with pytest.raises(NotFound):
                await process.deciding.decide(conversation, f"{parked.id}.1", APPROVE)
        assert ledger.keys == []


@pytest.mark.gen_test(timeout=60)
async def test_one_that_cannot_be_gone_on_with_does_not_keep_the_others(
    mongodb_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(mongodb_uri, f"waiting-{uuid.uuid4().hex}", tools=Tools([asking(Ledger())])) as b:
        (first, broken), (second, parked) = await asked(b), await asked(b)
        await overdue(b, broken)
        await overdue(b, parked)
        expire = b.deciding._expire

        async def fails(conversation: Conversation, answer: Answer) -> None:
            if conversation.key == first.key:
                raise ValueError("a field of it cannot be read")
            await expire(conversation, answer)

        monkeypatch.setattr(b.deciding, "_expire", fails)
        b.model.reply("Well.", STOP)
        await b.deciding.look()
        assert (await b.ended(second)).status is Status.COMPLETE
        assert (await b.newest(first)).status is Status.WAITING


@pytest.mark.parametrize("decided", [True, False])
@pytest.mark.gen_test(timeout=60)
async def test_whose_token_expires_while_an_answer_waits_finds_what_came_of_it(mongodb_uri: str, decided: bool) -> None:
    """Also if the approval has expired by then."""
    ledger = Ledger()
    async with bench(mongodb_uri, tools=Tools([asking(ledger)])) as b:
        conversation, parked = await asked(b)
        expires_at = asyncio.get_running_loop().time() + 3600
        async with b.viewer(conversation, expires_at=expires_at) as viewer:
            while (await viewer.until("tool_state"))["state"] != "awaiting_approval":
                pass
            viewer.stream.follower.tick(expires_at, 10)  # an hour later
            error = await viewer.until("error")
            assert await viewer.next() is None
        assert (error["error"], error["messageId"]) == ("token_expired", None)  # this error does not end the answer
        assert (await b.newest(conversation)).status is Status.WAITING
        b.model.reply("Well.", STOP)
        if decided:  # with the new token
            await b.deciding.decide(conversation, f"{parked.id}.1", APPROVE)
        else:
            await overdue(b, parked)
            await b.deciding.look()
        async with b.viewer(conversation, viewer.cursor) as back:
            complete = await back.until("llm_complete")
        states = ["approved", "running"] if decided else ["expired"]
        assert [state for type_, state in told(back.frames) if type_ == "tool_state"] == states
        assert viewer.text + back.text == complete["content"] == "I pay.\n\nWell."
        assert len(ledger.keys) == int(decided)


@pytest.mark.gen_test(timeout=60)
async def test_two_devices_that_decide_the_opposite_of_two_calls_at_once_are_both_heard(mongodb_uri: str) -> None:
    """One answer has two cards: each is decided separately, and the answer continues once, after the last decision."""
    ledger = Ledger()
    tools = Tools([asking(ledger)])
    async with bench(mongodb_uri, tools=tools) as a, bench(mongodb_uri, tools=tools) as b:
        conversation, parked = await asked(a, call(1, name="pay"), call(2, name="pay"))
        for each in (a, b):
            each.model.reply("So be it.", STOP)
        await asyncio.gather(
            a.deciding.decide(conversation, f"{parked.id}.1", APPROVE),
            b.deciding.decide(conversation, f"{parked.id}.2", DENY),
        )
        while not (await a.newest(conversation)).status.is_final:
            await asyncio.sleep(0.005)
        answer = await a.newest(conversation)
        assert [part.state for part in calls_of(answer)] == [CallState.DONE, CallState.DENIED]
        assert ledger.keys == [f"{parked.id}.1"]
        assert len(a.model.calls) + len(b.model.calls) == 2


@pytest.mark.gen_test(timeout=60)
async def test_what_was_agreed_to_is_not_carried_out_when_its_time_is_over(mongodb_uri: str) -> None:
    """One of two calls was approved in time, but had to wait too long for the other one."""
    ledger = Ledger()
    async with bench(mongodb_uri, tools=Tools([asking(ledger)])) as b:
        conversation, parked = await asked(b, call(1, name="pay"), call(2, name="pay"))
        await b.deciding.decide(conversation, f"{parked.id}.1", APPROVE)
        which = {"_id": ObjectId(parked.id)}
        pieces = (await b.mongo.messages.find_one(which))["pieces"]
        (first,) = [
            one
            for one in pieces
            if isinstance(one, dict) and one["id"] == f"{parked.id}.1" and one.get("state") == "awaiting_approval"
        ]
        first["expiresAt"] = timestamp(now() - timedelta(seconds=1))
        await b.mongo.messages.update_one(which, {"$set": {"pieces": pieces}})
        b.model.reply("One of them.", STOP)
        await b.deciding.decide(conversation, f"{parked.id}.2", APPROVE)
        answer = await b.ended(conversation)
        assert ledger.keys == [f"{parked.id}.2"]
        assert [part.failed for part in calls_of(answer)] == [True, False]
        assert answer.content == "I pay.\n\nOne of them."


def _fails(**arguments: Any) -> Ask:
    raise ZeroDivisionError


def _refuses(**arguments: Any) -> Ask:
    raise ValueError("that match is over")


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (_fails, "not carried out: nobody can be asked to agree to it"),
        (_refuses, "not carried out: that match is over"),
        (lambda **arguments: None, "not carried out: nobody can be asked to agree to it"),
        (lambda **arguments: Ask(text=7), "not carried out: nobody can be asked to agree to it"),  # type: ignore[arg-type]  # nonsense
        (lambda **arguments: Ask(seconds="soon"), "not carried out"),  # type: ignore[arg-type]  # nonsense
        (lambda **arguments: Ask(seconds=float("nan")), "not carried out: its time is over"),
        (lambda **arguments: Ask(seconds=-1), "not carried out: its time is over"),
    ],
)
@pytest.mark.gen_test(timeout=60)
async def test_nobody_is_asked_what_cannot_be_asked(mongodb_uri: str, ask: Callable[..., Ask], why: str) -> None:
    ledger = Ledger()
    one = asking(ledger)
    async with bench(mongodb_uri, tools=Tools([replace(one, manner=replace(one.manner, ask=ask))])) as b:
        b.model.reply(*call(1, name="pay"), CALLED)
        b.model.reply("Well.", STOP)
        conversation = await b.conversation()
        await b.post(conversation)
        answer = await b.ended(conversation)
        (part,) = calls_of(answer)
        assert (answer.status, part.failed, ledger.keys) == (Status.COMPLETE, True, [])
        assert str(part.output).startswith(why)


@pytest.mark.gen_test(timeout=60)
async def test_a_question_is_asked_in_few_words_and_not_for_longer_than_the_tool_allows(mongodb_uri: str) -> None:
    one = asking(Ledger(), timeout=60)
    manner = replace(one.manner, ask=lambda **arguments: Ask(text="\ud800" + "x" * 10**6, seconds=10**9))
    async with bench(mongodb_uri, tools=Tools([replace(one, manner=manner)])) as b:
        _, parked = await asked(b)
        (part,) = calls_of(parked)
        assert part.message is not None
        assert len(part.message) < 1100
        assert part.expires_at is not None
        assert part.expires_at <= timestamp(now() + timedelta(seconds=60))
