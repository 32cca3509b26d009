"""Stores the spending of each user: one document (an *account*) per user and month, which all processes share.

Reserving: the transaction that begins an attempt at an answer adds the expected usage to the account, and notes the
reservation there as open. The write that ends the attempt stores its final `usage` in the message, and does not write
to the ledger.

Settling: an update replaces the expected usage by the real one. If this process both reserved and ended the attempt,
the user's next reservation settles it. Otherwise it is settled when the exact sum is needed: for a refusal,
`GET …/usage`, a report, or a deletion. The update removes the reservation, and its filter requires that the reservation
is still there unchanged. So each attempt counts exactly once, even if several processes settle it.

An account's `_id` is a pseudonym that survives the user's erasure: an erased user who comes back gets no new budget.
See `pseudonyms`.

Days and months are in UTC; an attempt counts in those in which it began.
"""

import asyncio
import contextlib
import logging
import math
import re
import secrets
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import msgspec
from bson import ObjectId
from msgspec import Struct
from pymongo import UpdateOne
from pymongo.errors import DuplicateKeyError

from chatstream.errors import BudgetExhausted, BudgetReserved, OverBudget, StorageUnavailable
from chatstream.models import Answer, Budget, Round, Status, Usage
from chatstream.store.documents import ENDED, rounds_model, understanding, usage_model
from chatstream.store.gate import Document
from chatstream.store.mongo import Mongo
from chatstream.store.outbox import EventType, noted
from chatstream.store.pseudonyms import Pseudonyms, month_of

log = logging.getLogger("chatstream.store")

T = TypeVar("T")
LimitName = Literal["tokensPerDay", "tokensPerMonth", "costPerMonth"]

# Unsettled reservations of one process per account, after which it settles them. With some 100 bytes per reservation
# the document stays small, and two operations per 16 answers cost little.
_MOST_OPEN = 16
# After this time, a reservation whose message was deleted with its conversation is settled with the expected usage.
# Normally the process that generated the answer settles it earlier with the real usage, unless that process has died.
_GIVEN_UP_AFTER = timedelta(hours=1)
# Maximum number of entries in each cache of reservations: at some 500 bytes each, 10 MB. Evicted ones are read from the
# database.
_MOST_REMEMBERED = 20_000
# Longest wait, in seconds, while other answers of the same user begin: as long as the wait for a database slot.
_LONGEST_WAIT = 1.5
# Attempts to reserve: between two of them, another process may change the account.
_TRIES = 3


class Spending(Struct, frozen=True):
    """A user's budget, and the estimate of what an attempt will use.

    `expect` estimates it from the usage of the conversation's newest answer; None if there is none.
    """

    user_id: str
    budget: Budget
    expect: Callable[[Usage | None], Usage]


class Account(Struct, frozen=True, kw_only=True):
    """A user's spending in a month, and on one day of it. Reserved amounts are in the `open_` fields only."""

    tokens: int = 0
    cost_micros: int = 0
    tokens_today: int = 0
    open_tokens: int = 0
    open_cost_micros: int = 0
    open_tokens_today: int = 0


class Balance(NamedTuple):
    """One limit and how much of it is used: in tokens, or in millionths of the currency."""

    name: LimitName
    limit: int | None
    used: int
    reserved: int
    begins: datetime
    resets_at: datetime

    @property
    def left(self) -> int | None:
        """The rest of the budget; None if there is no limit."""
        return None if self.limit is None else max(0, self.limit - self.used - self.reserved)

    @property
    def is_used_up(self) -> bool:
        """Whether the limit is reached even if the running answers use nothing."""
        return self.limit is not None and self.used >= self.limit


class Row(Struct, frozen=True, kw_only=True, rename="camel"):
    """The usage of one model by one user in one month."""

    month: str
    user: str  # ``erased-…`` for an erased user
    model: str
    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens: int = 0
    cost_micros: int = 0


class _NotReserved(Exception):
    """The update did not match: the budget seems to be exhausted, or another process has changed the account."""


class _Reservation(NamedTuple):
    """The expected usage of an answer, as stored in the document with the `_id` `account`."""

    account: str
    answer: str
    day: str
    tokens: int
    cost: int

    @property
    def field(self) -> str:
        """The document's field that holds the reservation."""
        return f"open.{self.answer}"

    @property
    def as_noted(self) -> Document:
        """A filter that matches the account while the reservation is open and has not been extended."""
        return {f"{self.field}.tokens": self.tokens, f"{self.field}.costMicros": self.cost}


class _Settlement(NamedTuple):
    """The amounts to add to an account when a reservation is removed."""

    reservation: _Reservation
    added: dict[str, int]  # by field


class _Turn:
    """Lets the answers of one user begin one after the other in this process."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.takers = 0
        self.refusal: OverBudget | None = None  # the last refusal, with the budget below
        self.budget: Budget | None = None
        self.refused_at = -math.inf  # on the loop's clock

    def check(self, budget: Budget, arrived: float) -> None:
        """Raises `OverBudget` if another request with the same budget was refused after the caller `arrived`."""
        if self.refusal is not None and self.budget == budget and self.refused_at >= arrived:
            raise self.refusal.again(datetime.now(UTC))


class _Reserving(Struct):
    """The result of a transaction that reserves budget. If the transaction is retried, the last try counts."""

    spending: Spending
    reservation: _Reservation | None = None
    settled: list[_Settlement] = []


class Reserve(Protocol):
    """Reserves the expected usage of `answer`, within the transaction that stores it in the conversation `key`.

    `before` is the usage of the previous answer.
    """

    def __call__(self, key: str, answer: Answer, before: Usage | None, session: Any, /) -> Awaitable[None]: ...


class Ledger:
    """All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo, *, webhooks: bool = False) -> None:
        """`webhooks`: send a webhook event for the first refusal in a day or month."""
        self._webhooks = webhooks
        self._mongo = mongo
        self._accounts = mongo.ledger
        self._messages = mongo.messages
        self._names = Pseudonyms(mongo)
        self._turns: dict[str, _Turn] = {}  # by user
        self._settling: dict[str, asyncio.Task[None]] = {}  # by user
        self._reserved: OrderedDict[str, _Reservation] = OrderedDict()  # by answer id: running in this process
        self._ended: OrderedDict[str, dict[str, _Settlement]] = OrderedDict()  # by account and answer id: to settle
        self._left_open: OrderedDict[str, int] = OrderedDict()  # by account: unsettled ones of this process

    # Reserving --------------------------------------------------------------------------------------------------------

    async def within(self, spending: Spending | None, begin: Callable[["Reserve | None"], Awaitable[T]]) -> T:
        """Run the transaction `begin` and return its result. It gets a `Reserve` to call; None if there is no budget.

        Raises `OverBudget`, and then nothing is stored. Before that, the open reservations are settled: they may
        have used less than expected.
        """
        if spending is None:
            return await begin(None)
        arrived = asyncio.get_running_loop().time()
        async with self._turn(spending.user_id) as turn:
            turn.check(spending.budget, arrived)
            try:
                return await self._within(spending, begin)
            except OverBudget as exc:
                turn.refusal, turn.budget = exc, spending.budget
                turn.refused_at = asyncio.get_running_loop().time()
                raise

    @contextlib.asynccontextmanager
    async def _turn(self, user_id: str) -> AsyncIterator["_Turn"]:
        """Wait until no other answer of this user begins: concurrent transactions on one account would conflict."""
        turn = self._turns.setdefault(user_id, _Turn())
        turn.takers += 1
        try:
            try:
                async with asyncio.timeout(_LONGEST_WAIT):
                    await turn.lock.acquire()
            except TimeoutError:
                raise StorageUnavailable from None
            try:
                yield turn
            finally:
                turn.lock.release()
        finally:
            turn.takers -= 1
            if not turn.takers:
                del self._turns[user_id]

    async def _within(self, spending: Spending, begin: Callable[["Reserve | None"], Awaitable[T]]) -> T:
        now = datetime.now(UTC)
        # A limit of 0 is checked here: there may be no account to check it in, as long as nothing was spent.
        none = [Balance(name, 0, 0, 0, *_period(name, now)) for name, limit in _limits(spending.budget) if limit == 0]
        if none:
            raise await self._refusal(spending.user_id, none, now)
        for _ in range(_TRIES):
            reserving = _Reserving(spending)
            try:
                begun = await begin(partial(self._reserve, reserving))
            except _NotReserved:
                account = await self._names.account(spending.user_id, now)
                self._ended.pop(account, None)  # another process may have settled these: `check` reads them
                await self.check(spending)
            else:
                self._committed(reserving)
                return begun
        raise StorageUnavailable

    async def check(self, spending: Spending) -> None:
        """Raises `BudgetExhausted` if a limit is used up, `BudgetReserved` if running answers reserve its rest."""
        now = datetime.now(UTC)
        balances = await self.balances(spending.user_id, spending.budget, now)
        if any(one.left == 0 for one in balances):
            raise await self._refusal(spending.user_id, balances, now)

    async def _refusal(self, user_id: str, balances: list[Balance], now: datetime) -> OverBudget:
        refusal = over(balances, now)
        if self._webhooks and isinstance(refusal, BudgetExhausted):
            await self._note(user_id, refusal, now)
        return refusal

    async def _note(self, user_id: str, refusal: BudgetExhausted, moment: datetime) -> None:
        """Store a webhook event to be sent, if this is the first refusal in the day or month."""
        told = f"told.{refusal.name}" + (f"-{moment.day:02}" if refusal.name == "tokensPerDay" else "")
        budget = {"name": refusal.name, "limit": refusal.limit, "resetsAt": refusal.resets_at}
        # The event has the user's id itself: the account of a user who came back after an erasure has none.
        about = {"budget": budget, "id": secrets.token_hex(16), "userId": user_id}
        webhook = noted(EventType.BUDGET_EXHAUSTED, timedelta(0)) | about
        which = {
            "_id": await self._names.account(user_id, moment),
            told: {"$exists": False},
            "webhook.dueAt": {"$exists": False},
        }
        new = {"userId": user_id, "month": month_of(moment)}
        with contextlib.suppress(DuplicateKeyError):  # the event was noted before, or another one is unsent
            # With a limit of 0 there may be no account yet.
            await self._accounts.update_one(
                which, {"$set": {told: moment, "webhook": webhook}, "$setOnInsert": new}, upsert=refusal.limit == 0
            )

    def _committed(self, reserving: "_Reserving") -> None:
        """The transaction has committed: update what this process remembers of the account."""
        reservation = reserving.reservation
        if reservation is None:  # an earlier request has stored the answer and its reservation
            return
        self._reserved[reservation.answer] = reservation
        _forget_oldest(self._reserved)
        for one in reserving.settled:
            self._forget(one.reservation)
        open_ = self._left_open.pop(reservation.account, 0) + 1 - len(reserving.settled)
        if open_ >= _MOST_OPEN:
            self._settle_soon(reserving.spending.user_id)
        elif open_ > 0:
            self._left_open[reservation.account] = open_
            _forget_oldest(self._left_open)

    async def _reserve(
        self, reserving: "_Reserving", key: str, answer: Answer, before: Usage | None, session: Any
    ) -> None:
        """See `Reserve`."""
        spending = reserving.spending
        expected = spending.expect(before)
        moment = answer.created_at
        account, day = await self._names.account(spending.user_id, moment), f"{moment.day:02}"
        reservation = _Reservation(account, answer.id, day, expected.total_tokens, expected.cost_micros or 0)
        ended = [*self._ended.get(account, {}).values()]
        more = Counter(
            {"tokens": reservation.tokens, "costMicros": reservation.cost, f"days.{day}": reservation.tokens}
        )
        settled: Counter[str] = Counter()
        for one in ended:
            settled.update(one.added)
        which: Document = {"_id": account}
        for one in ended:
            which |= one.reservation.as_noted
        for name, limit in _limits(spending.budget):
            field = _field(name, day)
            which[field] = {"$not": {"$gte": limit - settled[field]}}  # matches a missing field, too
        more.update(settled)
        noted = {
            "conversation": ObjectId(key),
            "day": day,
            "tokens": reservation.tokens,
            "costMicros": reservation.cost,
        }
        update: Document = {
            "$inc": dict(more),
            "$set": {reservation.field: noted, "userId": spending.user_id, "month": month_of(moment)},
        }
        if ended:
            update["$unset"] = {one.reservation.field: "" for one in ended}
        try:
            # Not `findAndModify`: when that fails, MongoDB logs the whole command, including the user's id.
            result = await self._accounts.update_one(which, update, upsert=not ended, session=session)
        except DuplicateKeyError as exc:  # nothing is left, or another process has just made it
            raise _NotReserved from exc
        if not result.matched_count and result.upserted_id is None:
            raise _NotReserved
        reserving.reservation, reserving.settled = reservation, ended

    async def extend(self, user_id: str, budget: Budget, answer: Answer, taken: Usage, more: Usage) -> bool:
        """Before another model request within `answer`: return whether any budget is left.

        If so, the reservation becomes `taken` (the answer's usage so far) plus `more` (expected of the next request).
        Takes one operation while budget is left, and none for a user without limits.
        """
        limits = _limits(budget)
        if not limits:
            return True
        for _ in range(_TRIES):
            # `pop`: if the update's result is lost, the amount is unknown, and the next call reads it.
            reservation = self._reserved.pop(answer.id, None) or await self._open(user_id, answer)
            if reservation is None:  # the answer was ended, or began without a budget
                return True
            now = reservation._replace(
                tokens=taken.total_tokens + more.total_tokens,
                cost=(taken.cost_micros or 0) + (more.cost_micros or 0),
            )
            if await self._change(reservation, now, limits, taken):
                self._reserved[answer.id] = now
                return True
            self._ended.pop(reservation.account, None)  # reread: another process may have settled them
            if await self._is_over(reservation, limits, taken):
                return False
        raise StorageUnavailable

    async def _change(
        self, old: _Reservation, new: _Reservation, limits: Sequence[tuple[LimitName, int]], taken: Usage
    ) -> bool:
        """Replace the reservation `old` by `new`, if any budget is left when `taken` is counted in place of `old`."""
        more = Counter({"tokens": new.tokens - old.tokens, "costMicros": new.cost - old.cost})
        more[f"days.{old.day}"] = more["tokens"]
        room = Counter({"tokens": old.tokens - taken.total_tokens, "costMicros": old.cost - (taken.cost_micros or 0)})
        room[f"days.{old.day}"] = room["tokens"]
        for one in self._ended.get(old.account, {}).values():
            room.subtract(one.added)
        which: Document = {"_id": old.account} | old.as_noted
        for name, limit in limits:
            field = _field(name, old.day)
            which[field] = {"$lt": limit + room[field]}
        result = await self._accounts.update_one(which, {"$inc": dict(more), "$set": new.as_noted})
        return bool(result.matched_count)

    async def _open(self, user_id: str, answer: Answer) -> _Reservation | None:
        """Read the open reservation of this answer; None if there is none."""
        name = await self._names.account(user_id, answer.created_at)
        account = await self._accounts.find_one({"_id": name, f"open.{answer.id}": {"$exists": True}})
        return None if account is None else _reservations(account)[answer.id]

    async def _is_over(self, reservation: _Reservation, limits: Sequence[tuple[LimitName, int]], taken: Usage) -> bool:
        """Whether a limit is reached: after settling, and with `taken` counted in place of `reservation`."""
        which = {"_id": reservation.account}
        account: Document = await self._accounts.find_one(which) or {}
        if account.get("open") and await self._settle(account):
            account = await self._accounts.find_one(which) or {}
        mine = _reservations(account).get(reservation.answer)
        if mine is None:
            return False
        spent = Counter(
            {"tokens": taken.total_tokens - mine.tokens, "costMicros": (taken.cost_micros or 0) - mine.cost}
        )
        spent[f"days.{mine.day}"] = spent["tokens"] + account.get("days", {}).get(mine.day, 0)
        spent["tokens"] += account.get("tokens", 0)
        spent["costMicros"] += account.get("costMicros", 0)
        return any(spent[_field(name, mine.day)] >= limit for name, limit in limits)

    def waits(self, answer: Answer) -> None:
        """`answer` is paused. Forget its reservation, since another process may continue the answer and change it."""
        self._reserved.pop(answer.id, None)

    # Settling ---------------------------------------------------------------------------------------------------------

    def ended(self, answer: Answer) -> None:
        """This process has stored the end of `answer`. Writes nothing: the user's next reservation settles it."""
        reservation = self._reserved.pop(answer.id, None)
        if reservation is not None:
            settlement = _Settlement(reservation, _taken(reservation, answer.usage, answer.model, answer.rounds))
            self._ended.setdefault(reservation.account, {})[answer.id] = settlement
            _forget_oldest(self._ended)

    async def settle(self, user_id: str, going: Collection[str] = ()) -> None:
        """Settle the user's answers that have ended.

        The conversations with the keys `going` are about to be deleted: their waiting answers count as ended, since
        nobody can continue them.
        """
        which = {"userId": user_id, "open": {"$nin": [{}, None]}}
        for account in await self._accounts.find(which).to_list(None):
            await self._settle(account, {ObjectId(key) for key in going})

    async def settle_one(self, user_id: str, answer: Answer) -> None:
        """Settle `answer`, which has ended, and whose message was deleted with its conversation."""
        reservation = await self._open(user_id, answer)
        if reservation is not None:
            taken = _taken(reservation, answer.usage, answer.model, answer.rounds)
            await self._write([_Settlement(reservation, taken)])

    async def add(self, user_id: str, moment: datetime, usage: Usage, model: str | None) -> None:
        """Add usage beside an answer, such as for a title, to the month and day of `moment`, when the answer began.

        It needs no reservation, and does not count as an answer.
        """
        counts = _counts(usage)
        tokens, name = counts.get("totalTokens", 0), _escaped(model or "")
        more = {"tokens": tokens, f"days.{moment.day:02}": tokens, "costMicros": counts.get("costMicros", 0)}
        more |= {f"models.{name}.{count}": value for count, value in counts.items()}
        # No upsert: the answer's reservation has made the account. If it is missing, the user was erased.
        await self._accounts.update_one({"_id": await self._names.account(user_id, moment)}, {"$inc": more})

    def _settle_soon(self, user_id: str) -> None:
        """Settle in a background task. If that fails, a later call settles the same answers."""
        if user_id in self._settling:
            return

        async def settle() -> None:
            try:
                await self.settle(user_id)
            except StorageUnavailable:
                log.info("reservations are looked up later: the database does not answer")

        task = asyncio.create_task(settle())
        self._settling[user_id] = task
        task.add_done_callback(lambda _: self._settling.pop(user_id))

    async def _settle(self, account: Document, going: Collection[ObjectId] = ()) -> bool:
        """Settle the ended answers of this account. Returns whether there were any."""
        open_ = _reservations(account)
        which = {
            "_id": {"$in": [ObjectId(answer) for answer in open_]},
            "conversationId": {"$in": [account["open"][answer]["conversation"] for answer in open_]},
        }
        fields = {"status": 1, "usage": 1, "model": 1, "rounds": 1, "conversationId": 1}
        found = await self._messages.find(which, fields).batch_size(len(open_) + 1).to_list(None)
        settlements = []
        for message in found:
            reservation = open_.pop(str(message["_id"]))
            status = message.get("status")
            if status in ENDED or (status == Status.WAITING.value and message["conversationId"] in going):
                usage = next(iter(self._mongo.understood(usage_model, message)), None)
                rounds = next(iter(self._mongo.understood(rounds_model, message)), ())
                settlements.append(_Settlement(reservation, _taken(reservation, usage, message.get("model"), rounds)))
        given_up = datetime.now(UTC) - _GIVEN_UP_AFTER
        settlements += [
            _Settlement(one, {}) for answer, one in open_.items() if ObjectId(answer).generation_time < given_up
        ]
        if settlements:
            await self._write(settlements)
        return bool(settlements)

    async def _write(self, settlements: Sequence[_Settlement]) -> None:
        updates = []
        for reservation, added in settlements:
            update: Document = {"$unset": {reservation.field: ""}} | ({"$inc": added} if added else {})
            updates.append(UpdateOne({"_id": reservation.account} | reservation.as_noted, update))
        await self._accounts.bulk_write(updates, ordered=False)
        for reservation, _ in settlements:
            self._forget(reservation)

    def _forget(self, reservation: _Reservation) -> None:
        self._reserved.pop(reservation.answer, None)
        ended = self._ended.get(reservation.account, {})
        ended.pop(reservation.answer, None)
        if not ended:
            self._ended.pop(reservation.account, None)

    # Reading ----------------------------------------------------------------------------------------------------------

    async def balances(self, user_id: str, budget: Budget, moment: datetime) -> list[Balance]:
        """Return the user's balance for each limit; without a limit, it has the amount used."""
        which = {"_id": await self._names.account(user_id, moment)}
        account = await self._accounts.find_one(which)
        if account is not None and account.get("open") and await self._settle(account):
            account = await self._accounts.find_one(which)
        have = _account_model(account or {}, f"{moment.day:02}")
        spent: dict[LimitName, tuple[int, int]] = {
            "tokensPerDay": (have.tokens_today, have.open_tokens_today),
            "tokensPerMonth": (have.tokens, have.open_tokens),
            "costPerMonth": (have.cost_micros, have.open_cost_micros),
        }
        limits = dict(_limits(budget))
        return [Balance(name, limits.get(name), *spent[name], *_period(name, moment)) for name in spent]

    async def rows(self, month: str) -> AsyncIterator[Row]:
        """The usage of each model by each user in this month (``2026-11``), without running answers."""
        async for account in self._accounts.find({"month": month}).sort("_id", 1):
            if account.get("open") and await self._settle(account):
                account = await self._accounts.find_one({"_id": account["_id"]}) or account
            models = account.get("models", {})
            if not isinstance(models, dict):
                models = {"": models}  # one row, which cannot be read
            for name, counts in sorted(models.items()):
                rows = self._mongo.understood(_row, {"account": account, "model": name, "counts": counts})
                for row in rows:
                    yield row
                if not rows:
                    log.warning("the usage of a model in a user's account is left out: this version cannot read it")


def over(balances: list[Balance], now: datetime) -> OverBudget:
    """Return the refusal for these balances: for the used-up limit that resets last, else for a reserved one."""
    reached = [one for one in balances if one.left == 0]
    longest = max(reached, key=lambda one: (one.is_used_up, one.resets_at))
    limit, begins, resets_at = longest.limit or 0, longest.begins, longest.resets_at
    if longest.is_used_up:
        return BudgetExhausted(longest.name, limit, begins=begins, resets_at=resets_at, now=now)
    return BudgetReserved(longest.name, limit, begins=begins, resets_at=resets_at)


def _limits(budget: Budget) -> list[tuple[LimitName, int]]:
    limits: dict[LimitName, int | None] = {
        "tokensPerDay": budget.tokens_per_day,
        "tokensPerMonth": budget.tokens_per_month,
        "costPerMonth": budget.cost_per_month,
    }
    return [(name, limit) for name, limit in limits.items() if limit is not None]


def _field(name: LimitName, day: str) -> str:
    """The account's field that is compared with this limit."""
    return {"tokensPerDay": f"days.{day}", "tokensPerMonth": "tokens", "costPerMonth": "costMicros"}[name]


def _period(name: str, moment: datetime) -> tuple[datetime, datetime]:
    """The beginning of a limit's current day or month, and of the next one."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if name == "tokensPerDay":
        return day, day + timedelta(days=1)
    first = day.replace(day=1)
    return first, (first + timedelta(days=31)).replace(day=1)


def _account_model(account: Document, day: str) -> Account:
    """Split the document's sums, which include the reservations, into spent and reserved amounts."""
    open_ = _reservations(account).values()
    tokens = sum(one.tokens for one in open_)
    cost = sum(one.cost for one in open_)
    today = sum(one.tokens for one in open_ if one.day == day)
    return Account(
        tokens=account.get("tokens", 0) - tokens,
        cost_micros=account.get("costMicros", 0) - cost,
        tokens_today=account.get("days", {}).get(day, 0) - today,
        open_tokens=tokens,
        open_cost_micros=cost,
        open_tokens_today=today,
    )


def _reservations(account: Document) -> dict[str, _Reservation]:
    """The open reservations, by answer id."""
    open_, found = account.get("open"), dict[str, _Reservation]()
    for answer, one in open_.items() if isinstance(open_, dict) else ():
        match one:  # what a later version has stored otherwise is left to it
            case {"day": str(day), "tokens": int(tokens), "costMicros": int(cost), "conversation": ObjectId()}:
                if ObjectId.is_valid(answer):
                    found[answer] = _Reservation(account["_id"], answer, day, tokens, cost)
    return found


@understanding
def _row(found: Document) -> Row:
    """The usage of one model in an account. Raises `NotUnderstood`."""
    account = found["account"]
    names = {"month": account["month"], "user": account.get("userId"), "model": _unescaped(found["model"])}
    return msgspec.convert(names | found["counts"], Row)


def _taken(
    reservation: _Reservation, usage: Usage | None, model: str | None, rounds: Sequence[Round]
) -> dict[str, int]:
    """The amounts to add to the account. `usage` is None if no model was asked, or if the model refused.

    If several models took part in an answer, each is charged for its own requests; the answer counts for the last one.
    """
    counts = {} if usage is None else _counts(usage)
    tokens, cost = counts.get("totalTokens", 0), counts.get("costMicros", 0)
    added = Counter(
        {
            "tokens": tokens - reservation.tokens,
            f"days.{reservation.day}": tokens - reservation.tokens,
            "costMicros": cost - reservation.cost,
            f"models.{_escaped(model or '')}.answers": 1,
        }
    )
    shares = [(one.model or model, one.usage) for one in rounds]
    if len({name for name, _ in shares}) < 2 or any(share is None for _, share in shares):
        shares = [(model, usage)]
    for name, share in shares:
        of_it = {} if share is None else _counts(share)
        added.update({f"models.{_escaped(name or '')}.{count}": value for count, value in of_it.items()})
    return dict(added)


def _counts(usage: Usage) -> dict[str, int]:
    """The numbers of `usage`, under the field names of `Row`."""
    told: Document = msgspec.to_builtins(usage)
    return {name: count for name, count in told.items() if isinstance(count, int)}


def _forget_oldest(known: "OrderedDict[str, Any]") -> None:
    if len(known) > _MOST_REMEMBERED:
        known.popitem(last=False)


def _escaped(name: str) -> str:
    """`name` as a field name of MongoDB: never empty, with dots, dollars and NUL escaped."""
    return "=" + re.sub(r"[%.$\0]", lambda match: f"%{ord(match[0]):02X}", name)


def _unescaped(name: str) -> str:
    return re.sub(r"%([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), name.removeprefix("="))
