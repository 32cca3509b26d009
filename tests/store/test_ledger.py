"""The ledger in a real database: each reservation is settled exactly once, by any process."""

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import ObjectId
from msgspec.structs import replace
from pymongo import MongoClient
from pymongo.monitoring import CommandStartedEvent
from tornado.ioloop import IOLoop

from chatstream.errors import BudgetExhausted, BudgetReserved
from chatstream.generations.budgets import Budgets
from chatstream.metrics import Metrics
from chatstream.models import NO_BUDGET, Answer, Budget, Conversation, Round, Status, Usage
from chatstream.store import report
from chatstream.store.conversations import Conversations
from chatstream.store.erasures import Erasures
from chatstream.store.ledger import Balance, Ledger, Spending
from chatstream.store.measuring import Commands
from chatstream.store.mongo import Mongo
from tests.support.storage import Storage

EXPECTED = 60


def usage(tokens: int, cost: int | None = None, **more: Any) -> Usage:
    taken = Usage(prompt_tokens=tokens - 1, completion_tokens=1, total_tokens=tokens, **more)
    return taken if cost is None else replace(taken, cost_micros=cost)


class Spender:
    """A user of `store`; each answer is expected to use 60 tokens."""

    def __init__(self, store: Storage, mongo: Mongo, user: str, **limits: int) -> None:
        self.store = store
        self.user = user
        self.conversations = Conversations(mongo, store.ledger)
        self.budget = Budget(**limits)
        self.befores: list[Usage | None] = []

    @property
    def spending(self) -> Spending:
        return Spending(self.user, self.budget, self._expect)

    def _expect(self, before: Usage | None) -> Usage:
        self.befores.append(before)
        return usage(EXPECTED, 100)

    async def begin(self, conversation: Conversation | None = None) -> tuple[Conversation, Answer]:
        conversation = conversation or await self.conversations.create(self.user)
        posted = await self.store.posting.post(conversation, "Tell me.", spending=self.spending)
        assert posted.answer is not None
        return conversation, posted.answer

    async def end(
        self, conversation: Conversation, answer: Answer, took: Usage | None, model: str = "m"
    ) -> Answer | None:
        return await self.store.attempts.finish(
            conversation, replace(answer, status=Status.STOPPED, usage=took, model=model)
        )

    async def balance(self, name: str = "tokensPerMonth") -> Balance:
        balances = await self.store.ledger.balances(self.user, self.budget, datetime.now(UTC))
        return next(one for one in balances if one.name == name)

    async def sums(self) -> tuple[int, int]:
        """The sums of used and of reserved tokens."""
        balance = await self.balance()
        return balance.used, balance.reserved


def spender(store: Storage, mongo: Mongo, **limits: int) -> Spender:
    return Spender(store, mongo, f"user-{uuid.uuid4().hex}", **limits)


@pytest.mark.gen_test
async def test_what_is_reserved_is_settled_by_whoever_ends_it(store: Storage, mongo: Mongo) -> None:
    one = spender(store, mongo, tokens_per_month=1000, cost_per_month=500)
    conversation, answer = await one.begin()
    assert await one.sums() == (0, EXPECTED)
    await one.end(conversation, answer, usage(7, 11))
    assert await one.sums() == (7, 0)
    cost = await one.balance("costPerMonth")
    assert (cost.used, cost.reserved, cost.left) == (11, 0, 489)
    assert (await one.balance("tokensPerDay")).used == 7
    # Ended by the sweeper of another process.
    _, lost = await one.begin(conversation)
    assert one.befores[-1] == usage(7, 11)
    [orphan] = [orphan for orphan in await store.attempts.orphans() if orphan.answer_id == lost.id]
    await store.attempts.finish_orphan(orphan, replace(lost, status=Status.INTERRUPTED, usage=usage(30)))
    # Its own process comes back and ends it, too: that counts nothing more.
    await one.end(conversation, lost, usage(900, 900))
    assert await one.sums() == (37, 0)


@pytest.mark.gen_test
async def test_however_many_settle_at_once_each_counts_once(store: Storage, mongo: Mongo) -> None:
    one = spender(store, mongo)
    begun = [await one.begin() for _ in range(5)]
    await asyncio.gather(*(one.end(*each, usage(7)) for each in begun))
    await asyncio.gather(*(store.ledger.settle(one.user) for _ in range(5)), one.balance(), one.balance())
    assert await one.sums() == (35, 0)


@pytest.mark.gen_test
async def test_the_document_stays_small_though_nobody_asks(store: Storage, mongo: Mongo, mongodb_uri: str) -> None:
    one = spender(store, mongo)
    other = Storage(mongo, owner="other")  # this process only ends answers
    conversation, answer = await one.begin()
    for _ in range(40):
        await other.attempts.finish(conversation, replace(answer, status=Status.STOPPED, usage=usage(7)))
        conversation, answer = await one.begin(conversation)
    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        account = client["store"]["ledger"].find_one({"userId": one.user})
    assert account is not None
    assert len(account["open"]) < 40
    assert await one.sums() == (280, EXPECTED)


@pytest.mark.gen_test
async def test_when_nothing_is_left_nothing_begins(store: Storage, mongo: Mongo) -> None:
    one = spender(store, mongo, tokens_per_month=100)
    first, second = await one.begin(), await one.begin()  # of the second 20 are over: one reservation, and no more
    third = await one.conversations.create(one.user)
    with pytest.raises(BudgetReserved) as reserved:
        await one.begin(third)
    assert (reserved.value.name, reserved.value.retry_after) == ("tokensPerMonth", 10)
    assert "used up" not in reserved.value.detail
    assert await store.reading.newest(third.key) is None
    # They used less than expected.
    await one.end(*first, usage(7))
    await one.begin(third)
    await one.end(*second, usage(500))
    with pytest.raises(BudgetExhausted, match="The 100 tokens that you have a month are used up") as refused:
        await one.begin()
    assert refused.value.name == "tokensPerMonth"
    assert await one.sums() == (507, EXPECTED)


@pytest.mark.gen_test
async def test_of_two_limits_the_one_that_is_used_up_is_told(store: Storage, mongo: Mongo) -> None:
    """Although the other limit, whose rest is reserved, resets later."""
    one = spender(store, mongo, tokens_per_day=5, tokens_per_month=50)
    await one.end(*await one.begin(), usage(5))
    one.budget = Budget(tokens_per_month=50)
    await one.begin()
    one.budget = Budget(tokens_per_day=5, tokens_per_month=50)
    with pytest.raises(BudgetExhausted, match="The 5 tokens that you have a day are used up"):
        await one.begin()
    one.budget = Budget(tokens_per_day=1)
    with pytest.raises(BudgetExhausted, match="The 1 token that you have a day is used up"):
        await one.begin()
    # The same for a limit of 0, while answers run.
    one.budget = Budget(tokens_per_month=0, tokens_per_day=50)
    with pytest.raises(BudgetExhausted, match="The 0 tokens that you have a month are used up"):
        await one.begin()


@pytest.mark.gen_test
async def test_what_was_taken_beyond_the_expected_counts_at_once(store: Storage, mongo: Mongo) -> None:
    """Whether or not another request has read the balance: the next answer's check counts it."""
    one = spender(store, mongo, tokens_per_month=100)
    await one.end(*await one.begin(), usage(39))
    await one.end(*await one.begin(), usage(60))
    await one.balance()  # another request reads the balance
    await one.end(*await one.begin(), usage(1))
    with pytest.raises(BudgetExhausted):
        await one.begin()
    assert await one.sums() == (100, 0)


@pytest.mark.gen_test
async def test_another_process_may_have_settled_it(store: Storage, mongo: Mongo) -> None:
    one = spender(store, mongo, tokens_per_month=1000)
    other = Storage(mongo, owner="other")
    ended = await one.begin()
    await one.end(*ended, usage(7))
    await other.ledger.settle(one.user)
    await one.begin()
    assert await one.sums() == (7, EXPECTED)


@pytest.mark.gen_test
async def test_an_attempt_without_a_new_message_is_reserved_and_refused_too(store: Storage, mongo: Mongo) -> None:
    one = spender(store, mongo, tokens_per_month=100)
    conversation, answer = await one.begin()
    ended = replace(answer, status=Status.STOPPED, usage=usage(30))
    await store.attempts.finish(conversation, ended)
    options: dict[str, Any] = {"newest_seq": answer.seq, "previous": ended, "spending": one.spending}
    again = await store.attempts.begin(conversation.key, answer.reply_to, **options)
    assert await one.sums() == (30, EXPECTED)
    ended = replace(again, status=Status.STOPPED, usage=usage(70))
    await store.attempts.finish(conversation, ended)
    with pytest.raises(BudgetExhausted):
        await store.attempts.begin(
            conversation.key, answer.reply_to, **options | {"newest_seq": again.seq, "previous": ended}
        )
    assert await store.reading.newest(conversation.key) == ended


@pytest.mark.parametrize("limits", [{"tokens_per_day": 0}, {"cost_per_month": 0}])
@pytest.mark.gen_test
async def test_of_nothing_nothing_is_left(store: Storage, mongo: Mongo, limits: dict[str, int]) -> None:
    one = spender(store, mongo, **limits)
    with pytest.raises(BudgetExhausted):
        await one.begin()
    assert await one.sums() == (0, 0)


@pytest.mark.gen_test
async def test_two_processes_that_begin_at_once_go_over_by_one_reservation_at_most(
    store: Storage, mongo: Mongo, mongodb_uri: str
) -> None:
    other = Mongo(mongodb_uri, "store")
    limit = 10 * EXPECTED - 5
    here = spender(store, mongo, tokens_per_month=limit)
    there = Spender(Storage(other, owner="other"), other, here.user, tokens_per_month=limit)
    conversations = [await here.conversations.create(here.user) for _ in range(30)]
    results = await asyncio.gather(
        *((here, there)[number % 2].begin(each) for number, each in enumerate(conversations)), return_exceptions=True
    )
    other.close()
    begun = [result for result in results if not isinstance(result, BaseException)]
    assert len(begun) <= 10
    assert {type(result) for result in results} <= {tuple, BudgetReserved}
    assert await here.sums() == (0, EXPECTED * len(begun))
    for number, (conversation, answer) in enumerate(begun):
        await here.end(conversation, answer, usage(10 + number))
    stored = [await store.reading.newest(each.key) for each in conversations]
    taken = [one.usage.total_tokens for one in stored if isinstance(one, Answer) and one.usage]
    assert len(taken) == len(begun)
    assert await here.sums() == (sum(taken), 0)


@pytest.mark.gen_test
async def test_what_is_taken_within_an_answer_counts_before_it_ends(store: Storage, mongo: Mongo) -> None:
    one = spender(store, mongo, tokens_per_month=200, cost_per_month=1000)
    (conversation, answer), other = await one.begin(), await one.begin()

    async def extend(taken: int, more: int, ledger: Ledger = store.ledger) -> bool:
        return await ledger.extend(one.user, one.budget, answer, usage(taken, 10), usage(more, 10))

    assert await extend(50, 20)
    assert await one.sums() == (0, EXPECTED + 70)
    # After a wait, another process may continue the answer, and then this process again.
    elsewhere = Storage(mongo, owner="other")
    assert await extend(90, 40, elsewhere.ledger)
    assert await one.sums() == (0, EXPECTED + 130)
    assert not await extend(140, 40)  # together with the other answer's reservation
    await one.end(*other, usage(1))
    assert await extend(140, 50)
    await one.begin()  # 1 is used, 190 are reserved
    with pytest.raises(BudgetReserved):
        await one.begin()
    assert not await extend(200, 50)
    await one.end(conversation, answer, usage(205, 40))
    assert await one.sums() == (206, EXPECTED)
    assert (await one.balance("costPerMonth")).used == 40


@pytest.mark.parametrize(("models", "left"), [(("free", "paid"), True), (("paid", "free"), False)])
@pytest.mark.gen_test
async def test_between_rounds_each_counts_with_the_price_of_its_model(
    store: Storage, mongo: Mongo, models: tuple[str, str], left: bool
) -> None:
    def priced(used: Usage | None, model: str | None) -> Usage | None:
        return replace(used, cost_micros=used.total_tokens) if used is not None and model == "paid" else used

    one = spender(store, mongo, cost_per_month=500)
    conversation, answer = await one.begin()
    budgets = Budgets(store.ledger, one.budget, priced=priced)
    rounds = [
        Round(model=name, finish_reason="tool_calls", usage=usage(n)) for name, n in zip(models, (900, 7), strict=True)
    ]
    assert await budgets.goes_on(conversation, answer, usage(907), usage(7), models[1], rounds) == left


@pytest.mark.gen_test
async def test_who_settles_what_has_been_extended_meanwhile_settles_what_is_there(
    store: Storage, mongo: Mongo, mongodb_uri: str
) -> None:
    one = spender(store, mongo, tokens_per_month=1000)
    conversation, answer = await one.begin()
    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        before = client["store"]["ledger"].find_one({"userId": one.user})
    assert before is not None
    assert await store.ledger.extend(one.user, one.budget, answer, usage(200, 10), usage(100, 10))
    await Storage(mongo, owner="other").attempts.finish(
        conversation, replace(answer, status=Status.STOPPED, usage=usage(250))
    )
    await store.ledger._settle(before)  # with the account that another request has just read
    assert await one.sums() == (250, 0)


@pytest.mark.gen_test
async def test_what_has_no_limit_or_has_ended_is_not_asked_about(store: Storage, mongo: Mongo) -> None:
    one = spender(store, mongo, tokens_per_month=100)
    conversation, answer = await one.begin()
    assert await store.ledger.extend(one.user, NO_BUDGET, answer, usage(900), usage(900))
    await one.end(conversation, answer, usage(7))
    assert await one.sums() == (7, 0)
    assert await store.ledger.extend(one.user, one.budget, answer, usage(900), usage(900))
    assert await one.sums() == (7, 0)


@pytest.mark.gen_test
async def test_what_is_deleted_was_spent(store: Storage, mongo: Mongo) -> None:
    one = spender(store, mongo)
    conversation, answer = await one.begin()
    await one.end(conversation, answer, usage(7))
    await one.conversations.delete(one.user, conversation.id)
    assert await one.sums() == (7, 0)
    # Deleted while it runs: its process finds the answer gone, and charges its usage.
    conversation, answer = await one.begin()
    await one.conversations.delete(one.user, conversation.id)
    assert await one.sums() == (7, EXPECTED)
    assert await one.end(conversation, answer, usage(20)) is None
    assert await one.end(conversation, answer, usage(20)) is None  # a save whose result was lost
    assert await one.sums() == (27, 0)


@pytest.mark.parametrize("took", [None, usage(3), usage(3, cached_tokens=2)])
@pytest.mark.gen_test
async def test_what_costs_nothing_or_has_no_price(store: Storage, mongo: Mongo, took: Usage | None) -> None:
    one = spender(store, mongo)
    await one.end(*await one.begin(), took)
    assert await one.sums() == (took.total_tokens if took else 0, 0)
    assert (await one.balance("costPerMonth")).used == 0


@pytest.mark.gen_test
async def test_what_a_later_version_wrote_counts_as_expected(store: Storage, mongo: Mongo, mongodb_uri: str) -> None:
    one = spender(store, mongo)
    _, answer = await one.begin()
    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        changed = {"$set": {"status": "dreaming", "usage": {"tokens": "many"}}}
        client["store"]["messages"].update_one({"_id": ObjectId(answer.id)}, changed)
        account = client["store"]["ledger"].find_one_and_update({"userId": one.user}, {"$set": {"new": [1]}})
    assert account is not None
    assert await one.sums() == (0, EXPECTED)


@pytest.mark.gen_test
async def test_a_report_tells_users_and_models_apart_by_any_name(store: Storage, mongo: Mongo) -> None:
    one, names = spender(store, mongo), ["gpt-4.1", "a$b", "", "%2E", ".", "ü/x#y"]
    for name in names:
        await one.end(*await one.begin(), usage(7, 11, cached_tokens=5), model=name)
    await one.end(*await one.begin(), usage(9, 13, reasoning_tokens=1), model=names[0])
    month = f"{datetime.now(UTC):%Y-%m}"
    rows = [row async for row in store.ledger.rows(month) if row.user == one.user]
    assert sorted(row.model for row in rows) == sorted(names)
    first = next(row for row in rows if row.model == names[0])
    assert (first.answers, first.total_tokens, first.cost_micros, first.cached_tokens) == (2, 16, 24, 5)
    assert [row async for row in store.ledger.rows("1999-12")] == []


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.gen_test
async def test_of_an_answer_by_several_models_each_has_its_own(store: Storage, mongo: Mongo, here: bool) -> None:
    one = spender(store, mongo, tokens_per_month=1000)
    conversation, answer = await one.begin()
    rounds = [Round(model=name, finish_reason="stop", usage=usage(tokens, 5)) for name, tokens in (("a", 7), ("b", 9))]
    ended = replace(answer, status=Status.COMPLETE, usage=usage(16, 10), model="b", rounds=tuple(rounds))
    whoever = store if here else Storage(mongo, owner="other")
    await whoever.attempts.finish(conversation, ended)
    if here:
        await one.begin()  # the next reservation settles it
    month = f"{datetime.now(UTC):%Y-%m}"
    for rows in (store.ledger.rows(month), report.rows(mongo, month)):
        told = {row.model: row async for row in rows if row.user == one.user and row.total_tokens}
        assert {name: (row.answers, row.total_tokens, row.cost_micros) for name, row in told.items()} == {
            "a": (0, 7, 5),
            "b": (1, 9, 5),
        }
    assert (await one.sums())[0] == 16


@pytest.mark.gen_test
async def test_to_be_erased_is_no_new_budget(store: Storage, mongo: Mongo, mongodb_uri: str) -> None:
    one = spender(store, mongo, tokens_per_day=5)
    await one.end(*await one.begin(), usage(7))
    erasures = Erasures(mongo, store.ledger)
    erasure = await erasures.begin(one.user)
    batch = await erasures.next_batch(erasure.id)
    assert batch is not None
    await erasures.erase_conversations(erasure.id, batch)
    async for _ in erasures.erase_belongings(batch):
        pass
    await erasures.finish_batch(erasure.id, batch)
    await erasures.erase_rest(erasure.id)
    assert await erasures.complete(erasure.id)
    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        accounts = [*client["store"]["ledger"].find()]
    assert one.user not in repr(accounts)
    with pytest.raises(BudgetExhausted):
        await one.begin()
    assert await one.sums() == (7, 0)


@pytest.mark.parametrize(
    ("moment", "day", "month"),
    [
        ("2026-12-31T23:59:59", "2027-01-01", "2027-01-01"),
        ("2028-02-28T00:00:00", "2028-02-29", "2028-03-01"),
        ("2026-01-31T05:00:00", "2026-02-01", "2026-02-01"),
    ],
)
@pytest.mark.gen_test
async def test_when_it_begins_again(store: Storage, moment: str, day: str, month: str) -> None:
    balances = await store.ledger.balances("nobody", NO_BUDGET, datetime.fromisoformat(f"{moment}+00:00"))
    assert {one.name: one.resets_at.isoformat().removesuffix("T00:00:00+00:00") for one in balances} == {
        "tokensPerDay": day,
        "tokensPerMonth": month,
        "costPerMonth": month,
    }


def test_it_costs_one_operation_at_the_beginning_and_none_at_the_end(
    io_loop: IOLoop, mongodb_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    def started(_self: Commands, event: CommandStartedEvent) -> None:
        sent.append(event.command_name)

    monkeypatch.setattr(Commands, "started", started)
    mongo = Mongo(mongodb_uri, "store", Metrics())
    one = spender(Storage(mongo), mongo, tokens_per_month=1000)

    async def told(spending: Spending | None) -> tuple[int, int, int]:
        conversation = await one.conversations.create(one.user)
        sent.clear()
        posted = await one.store.posting.post(conversation, "Tell me.", spending=spending)
        beginning = len(sent)
        assert posted.answer is not None
        ended = await one.end(conversation, posted.answer, usage(7))
        end = len(sent) - beginning
        assert ended is not None
        sent.clear()
        options: dict[str, Any] = {"previous": ended, "newest_seq": ended.seq, "spending": spending}
        again = await one.store.attempts.begin(conversation.key, posted.message.id, **options)
        another = len(sent)
        await one.end(conversation, again, usage(7))
        return beginning, end, another

    io_loop.run_sync(lambda: told(None))  # opens the connections
    io_loop.run_sync(lambda: told(one.spending))  # reads this month's key, once per process
    without = io_loop.run_sync(lambda: told(None))
    # The usage of the answer before is settled with the same operation.
    with_ = [io_loop.run_sync(lambda: told(one.spending)) for _ in range(3)]
    mongo.close()
    # An attempt without a new message is one insert; with a reservation it is a transaction, which has its own commit.
    assert with_ == [(without[0] + 1, without[1], without[2] + 2)] * 3
    assert without[2] == 1


@pytest.mark.gen_test
async def test_what_a_later_version_has_stored_is_reported_around(
    store: Storage, mongo: Mongo, caplog: pytest.LogCaptureFixture
) -> None:
    one = spender(store, mongo, tokens_per_month=1000)
    conversation, answer = await one.begin()
    await store.attempts.finish(conversation, replace(answer, status=Status.COMPLETE, usage=usage(7), model="m"))
    month, moment = f"{datetime.now(UTC):%Y-%m}", datetime.now(UTC)
    strange: list[dict[str, Any]] = [
        {"model": ["m"], "usage": {"totalTokens": float("nan")}},
        {"model": moment, "usage": {"totalTokens": float("inf"), "costMicros": "much"}},
        {"rounds": 7, "usage": [1], "model": "m"},
    ]
    for seq, fields in enumerate(strange, start=100):
        document = {"conversationId": ObjectId(conversation.key), "seq": seq, "role": "assistant", "createdAt": moment}
        await mongo.messages.insert_one(document | fields)
    keys = [{"userId": {"of": one.user}, "id": one.user}, {"userId": one.user, "id": f"{one.user}-2"}]
    await mongo.conversations.insert_many(keys)
    accounts: list[dict[str, Any]] = [
        {"open": "all", "userId": one.user},
        {"open": {"x": 1, str(ObjectId()): {"day": 7}}, "userId": one.user},
        {"models": {"=m": 7, "=n": {"totalTokens": 5}}, "userId": one.user},
        {"models": 7, "userId": one.user},
        {"models": {"=m": {"totalTokens": "7"}}},
    ]
    await mongo.ledger.insert_many([{"_id": f"{one.user}-{n}", "month": month} | a for n, a in enumerate(accounts)])
    await store.ledger.settle(one.user)
    for rows in (store.ledger.rows(month), report.rows(mongo, month)):
        assert [row.total_tokens async for row in rows if (row.user, row.model) == (one.user, "m")] == [7]
    assert [row.total_tokens async for row in store.ledger.rows(month) if row.model == "n"] == [5]
    assert "the usage of a model in a user's account is left out" in caplog.text
    await mongo.conversations.delete_many({"id": {"$regex": one.user}})
