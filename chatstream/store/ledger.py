"""What each user has spent: one document for a user and a month, which all processes share.

An attempt at an answer is *reserved* in the transaction that begins it: what it is expected to take is added to what
the user has spent, and noted as open. It is *settled* by the write that ends it, whoever ends it: the message has its
`usage` from then on, once and for all, and the ledger needs no write. What was taken comes in the place of what was
expected with the user's next reservation, if this process has both; else whoever needs the exact sum (a refusal,
`GET …/usage`, a report, a deletion) looks up how the open ones have ended. The update that does it takes the
reservation away, and asks for its being there as it is known: so each counts once, whoever does it, however often.

Its `_id` is a name for the user that goes on counting when they are erased: that is no new budget. See `pseudonyms`.

Days and months are UTC's, by the moment at which an attempt began.
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
from chatstream.store.documents import ENDED, rounds_model, usage_model
from chatstream.store.gate import Document
from chatstream.store.mongo import Mongo
from chatstream.store.outbox import EventType, noted
from chatstream.store.pseudonyms import Pseudonyms, month_of

log = logging.getLogger("chatstream.store")

T = TypeVar("T")
LimitName = Literal["tokensPerDay", "tokensPerMonth", "costPerMonth"]

# When one process has reserved so often without settling it, what is open is looked up: at some 100 bytes each the
# document stays small, and two operations in 16 answers are no cost.
_MOST_OPEN = 16
# An open reservation whose message is gone: its conversation was deleted, and the process that generated it tells what
# it took as soon as it notices. If it never does, it is gone, too, and what was expected counts.
_GIVEN_UP_AFTER = timedelta(hours=1)
# What this process has reserved, and how it ended: at some 500 bytes each, 10 MB. What is forgotten is looked up.
_MOST_REMEMBERED = 20_000
# Behind other answers of the same user that begin, in seconds: as long as for a place at the database.
_LONGEST_WAIT = 1.5
# Between a refusal and a second try others may have been faster.
_TRIES = 3


class Spending(Struct, frozen=True):
    """What a user may spend, and what an attempt is likely to take.

    `expect` is given the usage of the conversation's newest answer, if it has one.
    """

    user_id: str
    budget: Budget
    expect: Callable[[Usage | None], Usage]


class Account(Struct, frozen=True, kw_only=True):
    """What a user has spent in a month, and on one of its days; the `open_` ones are reserved, and not among them."""

    tokens: int = 0
    cost_micros: int = 0
    tokens_today: int = 0
    open_tokens: int = 0
    open_cost_micros: int = 0
    open_tokens_today: int = 0


class Balance(NamedTuple):
    """One limit, and how the user stands: in tokens, or in millionths of the currency."""

    name: LimitName
    limit: int | None
    used: int
    reserved: int
    begins: datetime
    resets_at: datetime

    @property
    def left(self) -> int | None:
        """What is left; None if there is no limit."""
        return None if self.limit is None else max(0, self.limit - self.used - self.reserved)

    @property
    def is_used_up(self) -> bool:
        """However little the answers take that still run."""
        return self.limit is not None and self.used >= self.limit


class Row(Struct, frozen=True, kw_only=True, rename="camel"):
    """What one user took of one model in one month."""

    month: str
    user: str  # ``erased-…`` if they were
    model: str
    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens: int = 0
    cost_micros: int = 0


class _NotReserved(Exception):
    """The user's budget is exhausted, as far as is known; or another process was faster."""


class _Reservation(NamedTuple):
    """What is expected of an answer, noted in the document `account`."""

    account: str
    answer: str
    day: str
    tokens: int
    cost: int

    @property
    def field(self) -> str:
        """Where it is noted."""
        return f"open.{self.answer}"

    @property
    def as_noted(self) -> Document:
        """What holds of its account as long as it is there, and nobody has extended it."""
        return {f"{self.field}.tokens": self.tokens, f"{self.field}.costMicros": self.cost}


class _Settlement(NamedTuple):
    """What is added to an account in the place of a reservation."""

    reservation: _Reservation
    added: dict[str, int]  # by field


class _Turn:
    """Those of a user's answers that are about to begin in this process."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.takers = 0
        self.refusal: OverBudget | None = None  # the last one, of this budget
        self.budget: Budget | None = None
        self.refused_at = -math.inf  # on the loop's clock

    def check(self, budget: Budget, arrived: float) -> None:
        """Raises `OverBudget` if that was found out while the caller, who `arrived` then, waited."""
        if self.refusal is not None and self.budget == budget and self.refused_at >= arrived:
            raise self.refusal.again(datetime.now(UTC))


class _Reserving(Struct):
    """A transaction that reserves, as it went the last time."""

    spending: Spending
    reservation: _Reservation | None = None
    settled: list[_Settlement] = []


class Reserve(Protocol):
    """For a transaction that stores `answer`, in the conversation `key`: notes what it is expected to take.

    `before` is the usage of the answer before it.
    """

    def __call__(self, key: str, answer: Answer, before: Usage | None, session: Any, /) -> Awaitable[None]: ...


class Ledger:
    """All methods raise `StorageUnavailable` when the database does not answer."""

    def __init__(self, mongo: Mongo, *, webhooks: bool = False) -> None:
        """`webhooks`: somebody is to be told of the first refusal of a day or a month."""
        self._webhooks = webhooks
        self._mongo = mongo
        self._accounts = mongo.ledger
        self._messages = mongo.messages
        self._names = Pseudonyms(mongo)
        self._turns: dict[str, _Turn] = {}  # by user
        self._settling: dict[str, asyncio.Task[None]] = {}  # by user
        self._reserved: OrderedDict[str, _Reservation] = OrderedDict()  # by answer: those that run in this process
        self._ended: OrderedDict[str, dict[str, _Settlement]] = OrderedDict()  # by account and answer: those that did
        self._left_open: OrderedDict[str, int] = OrderedDict()  # by account: how many this process has yet to settle

    # Reserving --------------------------------------------------------------------------------------------------------

    async def within(self, spending: Spending | None, begin: Callable[["Reserve | None"], Awaitable[T]]) -> T:
        """The result of `begin`, a transaction that calls what it is given: None if nothing is to be reserved.

        Raises `OverBudget`, and nothing has begun. What others have reserved is looked up before that is said: they may
        have taken less.
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
        """One answer of a user begins at a time: in the database they would only be in each other's way."""
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
        # No document says that, as long as nothing was spent.
        none = [Balance(name, 0, 0, 0, *_period(name, now)) for name, limit in _limits(spending.budget) if limit == 0]
        if none:
            raise await self._refusal(spending.user_id, none, now)
        for _ in range(_TRIES):
            reserving = _Reserving(spending)
            try:
                begun = await begin(partial(self._reserve, reserving))
            except _NotReserved:
                account = await self._names.account(spending.user_id, now)
                self._ended.pop(account, None)  # somebody may have settled it: it is looked up
                await self.check(spending)
            else:
                self._committed(reserving)
                return begun
        raise StorageUnavailable

    async def check(self, spending: Spending) -> None:
        """Raises `BudgetExhausted` if all is used up, `BudgetReserved` if answers that run have reserved the rest."""
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
        """That the webhook is to be told, if it is the first refusal of its period."""
        told = f"told.{refusal.name}" + (f"-{moment.day:02}" if refusal.name == "tokensPerDay" else "")
        budget = {"name": refusal.name, "limit": refusal.limit, "resetsAt": refusal.resets_at}
        # Whose it is stands beside it: who comes back after an erasure has an account without a name.
        about = {"budget": budget, "id": secrets.token_hex(16), "userId": user_id}
        webhook = noted(EventType.BUDGET_EXHAUSTED, timedelta(0)) | about
        which = {
            "_id": await self._names.account(user_id, moment),
            told: {"$exists": False},
            "webhook.dueAt": {"$exists": False},
        }
        new = {"userId": user_id, "month": month_of(moment)}
        with contextlib.suppress(DuplicateKeyError):  # it is there, and has been told, or something else is to be
            # Who may spend nothing has no account as long as nothing was spent.
            await self._accounts.update_one(
                which, {"$set": {told: moment, "webhook": webhook}, "$setOnInsert": new}, upsert=refusal.limit == 0
            )

    def _committed(self, reserving: "_Reserving") -> None:
        """What this process remembers of an account is in it now."""
        reservation = reserving.reservation
        if reservation is None:  # an earlier request had stored it all
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
            which[field] = {"$not": {"$gte": limit - settled[field]}}  # what has no such field has spent nothing
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
            # No `findAndModify`: where that fails, MongoDB's own log has the whole command, with the user's id.
            result = await self._accounts.update_one(which, update, upsert=not ended, session=session)
        except DuplicateKeyError as exc:  # it is there, and nothing is left; or another process has just made it
            raise _NotReserved from exc
        if not result.matched_count and result.upserted_id is None:
            raise _NotReserved
        reserving.reservation, reserving.settled = reservation, ended

    async def extend(self, user_id: str, budget: Budget, answer: Answer, taken: Usage, more: Usage) -> bool:
        """Before the model is asked again within `answer`, which has `taken` so much: whether anything is left.

        If so, that and `more`, for what comes, is reserved in the place of what was expected: from now on it counts for
        everybody. One operation, as long as something is left; none for whoever has no limit.
        """
        limits = _limits(budget)
        if not limits:
            return True
        for _ in range(_TRIES):
            # If the update's result is lost, nobody here knows how much is reserved, and it is looked up.
            reservation = self._reserved.pop(answer.id, None) or await self._open(user_id, answer)
            if reservation is None:  # somebody has ended it, or there was no budget when it began
                return True
            now = reservation._replace(
                tokens=taken.total_tokens + more.total_tokens,
                cost=(taken.cost_micros or 0) + (more.cost_micros or 0),
            )
            if await self._change(reservation, now, limits, taken):
                self._reserved[answer.id] = now
                return True
            self._ended.pop(reservation.account, None)  # somebody may have settled it: it is looked up
            if await self._is_over(reservation, limits, taken):
                return False
        raise StorageUnavailable

    async def _change(
        self, old: _Reservation, new: _Reservation, limits: Sequence[tuple[LimitName, int]], taken: Usage
    ) -> bool:
        """Reserve as much as `new` says, if something is left once the answer has `taken` so much."""
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
        """What is reserved for this answer."""
        name = await self._names.account(user_id, answer.created_at)
        account = await self._accounts.find_one({"_id": name, f"open.{answer.id}": {"$exists": True}})
        return None if account is None else _reservations(account)[answer.id]

    async def _is_over(self, reservation: _Reservation, limits: Sequence[tuple[LimitName, int]], taken: Usage) -> bool:
        """Nothing is left, once what has ended is settled, and with so much `taken` in the place of `reservation`."""
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
        """Nobody generates `answer` from now on, and who goes on with it may be another process: it is looked up."""
        self._reserved.pop(answer.id, None)

    # Settling ---------------------------------------------------------------------------------------------------------

    def ended(self, answer: Answer) -> None:
        """`answer` has been stored like this by this process. Nothing is written: the next reservation says it, too."""
        reservation = self._reserved.pop(answer.id, None)
        if reservation is not None:
            settlement = _Settlement(reservation, _taken(reservation, answer.usage, answer.model, answer.rounds))
            self._ended.setdefault(reservation.account, {})[answer.id] = settlement
            _forget_oldest(self._ended)

    async def settle(self, user_id: str, going: Collection[str] = ()) -> None:
        """Put what has ended in the place of what was expected.

        The conversations with the keys `going` are about to be deleted: what waits there has ended, too, since nobody
        can go on with it any more.
        """
        which = {"userId": user_id, "open": {"$nin": [{}, None]}}
        for account in await self._accounts.find(which).to_list(None):
            await self._settle(account, {ObjectId(key) for key in going})

    async def settle_one(self, user_id: str, answer: Answer) -> None:
        """`answer` has ended like this, and its message is gone with its conversation."""
        reservation = await self._open(user_id, answer)
        if reservation is not None:
            taken = _taken(reservation, answer.usage, answer.model, answer.rounds)
            await self._write([_Settlement(reservation, taken)])

    async def add(self, user_id: str, moment: datetime, usage: Usage, model: str | None) -> None:
        """What was taken beside an answer, which began at this `moment`: for its conversation's title, say.

        Nothing is reserved for it, and it is no answer of its own.
        """
        counts = _counts(usage)
        tokens, name = counts.get("totalTokens", 0), _escaped(model or "")
        more = {"tokens": tokens, f"days.{moment.day:02}": tokens, "costMicros": counts.get("costMicros", 0)}
        more |= {f"models.{name}.{count}": value for count, value in counts.items()}
        # The account is there: the answer was reserved in it. If not, it is made by nobody: an erased user has none.
        await self._accounts.update_one({"_id": await self._names.account(user_id, moment)}, {"$inc": more})

    def _settle_soon(self, user_id: str) -> None:
        """Nobody waits for it, and if it fails somebody else does it."""
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
        """Whether anything had ended."""
        open_ = _reservations(account)
        which = {
            "_id": {"$in": [ObjectId(answer) for answer in open_]},
            "conversationId": {"$in": list({one["conversation"] for one in account["open"].values()})},
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
        """How the user stands with each limit, and what was spent where there is none."""
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
        """What each user took of each model in this month (``2026-11``), as far as it has ended."""
        async for account in self._accounts.find({"month": month}).sort("_id", 1):
            if account.get("open") and await self._settle(account):
                account = await self._accounts.find_one({"_id": account["_id"]}) or account
            for name, counts in sorted(account.get("models", {}).items()):
                names = {"month": month, "user": account.get("userId"), "model": _unescaped(name)}
                yield msgspec.convert(names | counts, Row)


def over(balances: list[Balance], now: datetime) -> OverBudget:
    """The refusal: of several limits that are used up, the one that lasts longest; else the one that is reserved."""
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
    """Where an account has what counts for this limit."""
    return {"tokensPerDay": f"days.{day}", "tokensPerMonth": "tokens", "costPerMonth": "costMicros"}[name]


def _period(name: str, moment: datetime) -> tuple[datetime, datetime]:
    """When the day or the month of a limit began, and when the next one begins."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if name == "tokensPerDay":
        return day, day + timedelta(days=1)
    first = day.replace(day=1)
    return first, (first + timedelta(days=31)).replace(day=1)


def _account_model(account: Document, day: str) -> Account:
    """What is spent and what is reserved stand in one sum, as the limit is for both."""
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
    """The open ones, by answer."""
    return {
        answer: _Reservation(account["_id"], answer, one["day"], one["tokens"], one["costMicros"])
        for answer, one in account.get("open", {}).items()
    }


def _taken(
    reservation: _Reservation, usage: Usage | None, model: str | None, rounds: Sequence[Round]
) -> dict[str, int]:
    """What is to be added. None was taken where no model was asked, or where it refused.

    Where several models have answered, one after the other, each has what its requests took; the answer is the last's.
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
    """Its numbers, by the names that `Row` has for them."""
    told: Document = msgspec.to_builtins(usage)
    return {name: count for name, count in told.items() if isinstance(count, int)}


def _forget_oldest(known: "OrderedDict[str, Any]") -> None:
    if len(known) > _MOST_REMEMBERED:
        known.popitem(last=False)


def _escaped(name: str) -> str:
    """As a field's name: of any length, without dots and dollars, and never empty."""
    return "=" + re.sub(r"[%.$\0]", lambda match: f"%{ord(match[0]):02X}", name)


def _unescaped(name: str) -> str:
    return re.sub(r"%([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), name.removeprefix("="))
