"""Placing bets: a person approves while the price is valid, and the ledger has each bet once."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from chatstream.errors import CallExpired
from chatstream.events import timestamp
from chatstream.generations import deciding
from chatstream.generations.deciding import Decision
from chatstream.llm.demo_answers import Called, Wanted
from chatstream.models import Answer, Conversation, Status
from chatstream.pieces import CallState, OpenToolCall, ToolState
from chatstream.plugins.bets.asking import step
from chatstream.plugins.bets.reader import extract
from chatstream.plugins.bets.tools import best_price
from chatstream.plugins.loading import load
from chatstream.settings import DEFAULT_PLUGINS
from chatstream.store.plugin_documents import PluginDocuments
from chatstream.tools.python import python_tools
from chatstream.tools.tool import Tools
from tests.generations.test_deciding import overdue, waiting
from tests.generations.test_tools import CALLED, calls_of, crashed
from tests.support.scripted_model import STOP, Bench, bench

BETS = DEFAULT_PLUGINS[0]


def tools() -> Tools:
    return Tools(python_tools(load(DEFAULT_PLUGINS)))


def soon(minutes: float = 5) -> str:
    return timestamp(datetime.now(UTC) + timedelta(minutes=minutes))


def place(**changed: str) -> tuple[OpenToolCall, str]:
    bet = {"selection": "Arsenal to win", "odds": "2.10", "stake": "€10", "good_until": soon()}
    return OpenToolCall(id="1", name="place_bet"), json.dumps(bet | changed)


async def ledger(b: Bench, user: str) -> list[Any]:
    return [one.data for one in await PluginDocuments(b.mongo).newest(BETS, user, 100)]


async def asked(b: Bench, user: str, **changed: str) -> tuple[Conversation, Answer]:
    b.model.reply(*place(**changed), CALLED)
    conversation = await b.conversations.create(user)
    await b.post(conversation, "Place €10 on Arsenal.")
    return conversation, await waiting(b, conversation)


@pytest.fixture
def user() -> str:
    return f"user-{uuid.uuid4().hex}"


@pytest.mark.gen_test(timeout=60)
async def test_what_a_person_agrees_to_stands_in_the_ledger_once(mongodb_uri: str, user: str) -> None:
    async with bench(mongodb_uri, tools=tools()) as b:
        until = soon(3)
        conversation, parked = await asked(b, user, good_until=until)
        (part,) = calls_of(parked)
        assert part.message == (
            "Place €10 on Arsenal to win (Arsenal v Chelsea) at 2.10 with Quayside. If it wins, €21.00 is paid back. "
            "The bookmaker and the price are made up."
        )
        assert part.expires_at is not None
        late = datetime.fromisoformat(part.expires_at) - datetime.fromisoformat(until)
        assert abs(late) < timedelta(milliseconds=5)
        assert await ledger(b, user) == []
        b.model.reply("It is placed.", STOP)
        await b.deciding.decide(conversation, part.tool_call_id, Decision.APPROVE)
        answer = await b.ended(conversation)
        (part,) = calls_of(answer)
        (bet,) = await ledger(b, user)
        assert (part.state, part.output, part.message) == (CallState.DONE, bet, None)
        assert (bet["bet"], bet["stake"], bet["pays"]) == (part.tool_call_id, "€10", "€21.00")
        b.model.reply(OpenToolCall(id="1", name="placed_bets"), "{}", CALLED)
        b.model.reply("That one.", STOP)
        await b.post(conversation, "Which bets have I placed?")
        assert calls_of(await b.ended(conversation))[0].output == [bet]


@pytest.mark.gen_test(timeout=60)
async def test_at_a_price_that_is_over_nothing_is_placed(mongodb_uri: str, user: str) -> None:
    async with bench(mongodb_uri, tools=tools()) as b:
        conversation, parked = await asked(b, user)
        await overdue(b, parked)
        b.model.reply("It was too late.", STOP)
        with pytest.raises(CallExpired):
            await b.deciding.decide(conversation, f"{parked.id}.1", Decision.APPROVE)
        answer = await b.ended(conversation)
        assert answer.content == "It was too late."
        assert calls_of(answer)[0].output == deciding.NOT_AGREED_IN_TIME
        assert await ledger(b, user) == []


@pytest.mark.gen_test(timeout=60)
async def test_an_agreement_that_is_carried_out_only_after_its_time_places_nothing(mongodb_uri: str, user: str) -> None:
    """The person approved in time, but the process died, and the next process carries the call out too late."""
    async with bench(mongodb_uri, tools=tools()) as b:
        conversation, parked = await asked(b, user, good_until=(until := soon()))
        approved = ToolState(id=f"{parked.id}.1", name="place_bet", state=CallState.APPROVED, decided_by=user)
        moved = await b.attempts.move_on(conversation.key, parked, [approved], until=None)
        assert moved is not None
        which = {"_id": ObjectId(parked.id)}
        pieces = (await b.mongo.messages.find_one(which))["pieces"]
        # Only the price has expired, not the approval: the tool itself checks that, too.
        later = [one.replace(until, soon(-1)) if isinstance(one, str) else one for one in pieces]
        await b.mongo.messages.update_one(which, {"$set": {"pieces": later}})
        await crashed(b, conversation)
        b.model.reply("Too late.", STOP)
        async with b.viewer(conversation) as viewer:
            assert (await viewer.until("llm_complete"))["status"] == "interrupted"
            assert (await viewer.until("llm_complete"))["content"] == "Too late."
        assert "this price is not good any more" in str(calls_of(await b.newest(conversation))[0].output)
        assert await ledger(b, user) == []


@pytest.mark.gen_test(timeout=60)
async def test_a_model_may_leave_the_time_out_and_write_numbers(mongodb_uri: str, user: str) -> None:
    async with bench(mongodb_uri, tools=tools()) as b:
        arguments = json.dumps({"selection": "Arsenal", "odds": 2.1, "stake": 5.5})
        b.model.reply(OpenToolCall(id="1", name="place_bet"), arguments, CALLED)
        conversation = await b.conversations.create(user)
        await b.post(conversation, "Place it.")
        parked = await waiting(b, conversation)
        (part,) = calls_of(parked)
        assert str(part.message).startswith("Place €5.50 on Arsenal to win")
        assert part.expires_at is not None
        assert part.expires_at <= soon(10)
        b.model.reply("It is placed.", STOP)
        await b.deciding.decide(conversation, part.tool_call_id, Decision.APPROVE)
        await b.ended(conversation)
        (bet,) = await ledger(b, user)
        assert (bet["odds"], bet["stake"], bet["pays"]) == ("2.10", "€5.50", "€11.55")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"odds": "9.99"}, "the price is 2.10, and not 9.99"),
        ({"odds": "sNaN"}, "the price is 2.10, and not sNaN"),
        ({"selection": "Everton to win"}, "there is no price for that"),
        ({"good_until": soon(-1)}, "this price is not good any more"),
        ({"good_until": soon(60 * 24 * 365)}, "this price is not good any more"),  # no price has this time
        ({"good_until": "tomorrow"}, "good_until must be the time"),
        ({"good_until": "2026-11-28T10:00:00"}, "good_until must be the time"),  # the time zone is missing
        ({"stake": "all I have"}, "stake must be an amount"),
        ({"stake": "-10"}, "stake must be an amount"),
        ({"stake": "0"}, "stake must be an amount"),
        ({"stake": "€1001"}, "stake must be an amount"),
        ({"stake": "€0.001"}, "from €0.01 to €1000"),
        ({"stake": "\u0661\u0660"}, "stake must be an amount"),
    ],
)
@pytest.mark.gen_test(timeout=60)
async def test_nobody_is_asked_about_a_bet_that_cannot_be_placed(
    mongodb_uri: str, user: str, changed: dict[str, str], why: str
) -> None:
    async with bench(mongodb_uri, tools=tools()) as b:
        b.model.reply(*place(**changed), CALLED)
        b.model.reply("I could not.", STOP)
        conversation = await b.conversations.create(user)
        await b.post(conversation, "Place it.")
        answer = await b.ended(conversation)
        (part,) = calls_of(answer)
        assert (answer.status, part.failed) == (Status.COMPLETE, True)
        assert why in str(part.output)
        assert await ledger(b, user) == []


@pytest.mark.parametrize(
    ("question", "selection", "stake"),
    [
        ("place €10 on Arsenal", "Arsenal to win", "€10"),
        ("bet 10 on Leeds", "Leeds United to win", "€10"),
        ("Put 10 euros on Ireland to win, please!", "Ireland to win", "€10"),
        ("I want to place a £5.50 bet on Chelsea to beat Arsenal", "Chelsea to win", "£5.50"),
        ("Place a bet of $20 on Bayern Munich at 1.65", "Bayern München to win", "$20"),
        ("Place a bet on PSG with €10", "Paris Saint-Germain to win", "€10"),
        ("Place 10€ on the draw", "A draw", "€10"),
        ("bet €5 on under 2.5 goals", "Under 2.5 goals", "€5"),
        ("Setze 10 Euro auf Sevilla", "Sevilla to win", "€10"),
        ("place €0.001 on Arsenal", "Arsenal to win", "€0.001"),  # the tool refuses this, with a reason
        ("Place a bet on Arsenal with €1,000,000", "Arsenal to win", "€1,000,000"),
    ],
)
@pytest.mark.gen_test
async def test_the_demo_model_places_what_it_is_asked_to(question: str, selection: str, stake: str) -> None:
    looked = step(question, [])
    assert isinstance(looked, list)
    (look,) = looked
    price = await best_price(**look.arguments)
    called = [Called("best_price", look.arguments, json.dumps(price))]
    placing = step(question, called)
    assert isinstance(placing, list)
    (bet,) = placing
    assert bet == Wanted(
        "place_bet",
        {
            "selection": selection,
            "odds": price["odds"],
            "stake": stake,
            "good_until": price["good_until"],
        },
    )
    results = {
        json.dumps({**price, "stake": stake, "pays": "€21.00"}): "It is placed",
        deciding.NOT_AGREED_IN_TIME: "nobody agreed to it while the price was good",
        deciding.DENIED: "As you like",
        "failed: the sky fell": "I have placed no bet: the sky fell",
    }
    for result, said in results.items():
        text = step(question, [*called, Called("place_bet", bet.arguments, result)])
        assert isinstance(text, str)
        assert said in text
        assert not extract("a", text)  # the text recommends nothing


@pytest.mark.parametrize(
    "question",
    [
        "Should I bet 10 on Arsenal?",
        "Who wins on Sunday, and is there a bet worth taking?",
        "Explain what odds of 11/8 mean, with an example",
        "Compare Arsenal's and Chelsea's form over the last five games",
        "I bet 10 people know that",
    ],
)
def test_the_demo_model_places_nothing_unasked(question: str) -> None:
    assert step(question, []) is None


def test_the_demo_model_says_what_it_needs() -> None:
    assert "How much?" in str(step("Place a bet on Arsenal", []))
    assert "no price for that" in str(
        step("bet 10 on Everton", [Called("best_price", {}, "failed: no price for that")])
    )
    assert step("Which bets have I placed?", []) == [Wanted("placed_bets", {})]
    assert "no bets yet" in str(step("Show my bets", [Called("placed_bets", {}, "[]")]))
