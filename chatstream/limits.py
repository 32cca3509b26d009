"""Limits of use per user, per address and per process. Independent of HTTP and of the database.

A refusal must cost less than what it prevents: each check takes about a microsecond. All limits are per process: a user
whose requests go to several processes has each limit in each of them.
"""

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from types import TracebackType
from typing import Self

from msgspec import Struct

from chatstream.capacity import Capacity
from chatstream.errors import ErrorCode, Quota, TooManyConversations, TooManyRequests, Unavailable, counted
from chatstream.settings import Settings

# The most keys (users or addresses) that a `Rate` remembers for a minute: at 200 bytes each, 20 MB if a botnet tries.
_MOST_KEYS = 100_000
# Seconds to wait before retrying when something must end first (a stream, an answer), which cannot be foreseen.
_RETRY_AFTER = 5
# The most bytes of unfinished request bodies in memory. Per user: ten of the longest messages in their longest
# encoding. For all users: what a small machine can spare.
_UPLOADED_PER_USER = 8 * 1024 * 1024
_UPLOADED = 128 * 1024 * 1024
# Erasures and exports that one user may request in a minute. They are rare, but a client may ask again after a 202 or a
# lost connection.
_ERASURES_PER_MINUTE = 10
# The most exports at the same time. Each reads the database as fast as its client does; more could slow down the chats.
_EXPORTS = 4
_BUSY = "The server is busy. Try again shortly."


class Rate:
    """A rate limit: at most `quota` uses a minute for each key, all at once or spread out.

    The generic cell rate algorithm (ITU-T I.371): one number is kept for each key, the time at which its quota is full
    again. Not the library `limits`: importing it takes 57 ms, and its memory never forgets a key.
    """

    WINDOW = 60

    def __init__(self, policy: str, quota: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`policy` is the limit's name for clients; `clock` returns seconds and never goes back."""
        self._policy = policy
        self._quota = quota
        self._interval = self.WINDOW / quota
        self._clock = clock
        self._whole_at: OrderedDict[Hashable, float] = OrderedDict()  # in the order of their last use

    def __len__(self) -> int:
        """The number of remembered keys."""
        return len(self._whole_at)

    def take(self, key: Hashable) -> Quota:
        """Count one use, and return the rest of the quota. Raises `TooManyRequests`."""
        now = self.check(key)
        whole_at = max(self._whole_at.pop(key, now), now) + self._interval
        self._whole_at[key] = whole_at
        self._forget(now)
        return self._left(whole_at - now)

    def check(self, key: Hashable) -> float:
        """Raises `TooManyRequests` if another use would be too many; counts nothing. Returns the time."""
        now = self._clock()
        used = self._whole_at.get(key, now) - now
        if used > self.WINDOW - self._interval * 0.999:  # tolerance: the sum of floats may slightly exceed the window
            left = self._left(used)
            raise TooManyRequests("Too many requests. Try again shortly.", retry_after=left.reset, quota=left)
        return now

    def give_back(self, key: Hashable) -> None:
        """Undo the last `take`."""
        if key in self._whole_at:
            self._whole_at[key] -= self._interval

    def _left(self, used: float) -> Quota:
        """Return the rest of the quota, if it takes `used` seconds until it is full again."""
        remaining = max(0, int((self.WINDOW - used) / self._interval + 0.001))
        next_one = used - self.WINDOW + (remaining + 1) * self._interval
        return Quota(self._policy, self._quota, remaining, self.WINDOW, next_one)

    def _forget(self, now: float) -> None:
        for _ in range(2):  # up to two removals for each addition: it shrinks as fast as it grew
            key, whole_at = next(iter(self._whole_at.items()))
            if whole_at > now and len(self._whole_at) <= _MOST_KEYS:
                return
            del self._whole_at[key]


class Kept:
    """The limit on stored conversations per user.

    The stored conversations are counted at most once a minute for each user; every 5 s while the user has no room, as
    another process may have deleted some. Between two counts, this process tracks what it creates and deletes. With
    several processes a user may exceed the limit by the conversations created within a minute.
    """

    WINDOW = 60
    WINDOW_WITHOUT_ROOM = 5

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds and never goes back."""
        self._most = most
        self._clock = clock
        # By user: how many more conversations are allowed, and when the stored ones were counted.
        self._left: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        """The number of remembered users."""
        return len(self._left)

    async def take(self, user_id: str, count: Callable[[int], Awaitable[int]]) -> None:
        """Count one more conversation. `count(most)` counts the stored ones, up to `most`. Raises
        `TooManyConversations`."""
        known = self._known(user_id)
        if known is None:
            found = self._most - await count(self._most)
            # Another call may have finished counting during the await; then use its number, which includes its own
            # `take`.
            known = self._known(user_id) or (found, self._clock())
        left, counted_at = known
        self._left.pop(user_id, None)
        self._left[user_id] = max(0, left - 1), counted_at
        if len(self._left) > _MOST_KEYS:
            self._left.popitem(last=False)
        if left <= 0:
            raise TooManyConversations(
                f"You have {counted(self._most, 'conversation')}, and cannot have more. "
                "Delete some of them, then try again."
            )

    def give_back(self, user_id: str) -> None:
        """A conversation was deleted, or was not created after all."""
        left, counted_at = self._left.pop(user_id, (0, 0.0))
        if left:  # with 0 left, count again: there may be more than allowed, if the limit was higher before
            self._left[user_id] = left + 1, counted_at

    def forget(self, user_id: str) -> None:
        """All of the user's conversations may have been deleted: count again."""
        self._left.pop(user_id, None)

    def _known(self, user_id: str) -> tuple[int, float] | None:
        """Return the remembered number and its time, unless it is too old."""
        left, counted_at = self._left.get(user_id, (0, -math.inf))
        age = self._clock() - counted_at
        return (left, counted_at) if age < (self.WINDOW if left else self.WINDOW_WITHOUT_ROOM) else None


class Uploads:
    """The limit on bytes of request bodies that are incomplete or not yet processed."""

    def __init__(self, per_user: int, per_process: int) -> None:
        self._per_user = per_user
        self._per_process = per_process
        self._held: Counter[str] = Counter()
        self._total = 0

    @property
    def total(self) -> int:
        """The bytes that are held now."""
        return self._total

    def take(self, user_id: str, size: int) -> None:
        """Hold `size` more bytes. Raises `TooManyRequests` or `Unavailable`."""
        if self._held[user_id] + size > self._per_user:
            words = "You are sending too much at once. Try again when some of it has arrived."
            raise TooManyRequests(words, retry_after=_RETRY_AFTER)
        if self._total + size > self._per_process:
            raise Unavailable(_BUSY, code=ErrorCode.RATE_LIMITED, retry_after=_RETRY_AFTER)
        self._held[user_id] += size
        self._total += size

    def give_back(self, user_id: str, size: int) -> None:
        """Release `size` bytes."""
        self._total -= size
        self._held[user_id] -= size
        if not self._held[user_id]:
            del self._held[user_id]


class Slot:
    """A taken slot of `Slots`. Leaving its context, or `release`, gives it back."""

    def __init__(self, slots: "Slots", user_id: str) -> None:
        self._slots: Slots | None = slots
        self._user_id = user_id

    def release(self) -> None:
        """Give the slot back; only the first call counts."""
        if self._slots is not None:
            self._slots.give_back(self._user_id)
            self._slots = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.release()


class Slots:
    """A concurrency limit: `per_user`, and `per_process` for all users together. A request over the limit is
    refused."""

    def __init__(self, policy: str, per_user: int, per_process: int, *, code: str, too_many: str, full: str) -> None:
        """`policy` is the limit's name for clients; `too_many` and `full` are the error texts for clients."""
        self._policy = policy
        self._per_user = per_user
        self._per_process = per_process
        self._code = code
        self._too_many = too_many
        self._full = full
        self._taken: Counter[str] = Counter()
        self._total = 0

    @property
    def total(self) -> int:
        """The number of taken slots."""
        return self._total

    def check(self, user_id: str) -> None:
        """Raises `TooManyRequests` or `Unavailable` if no slot is free; takes none."""
        if self._taken[user_id] >= self._per_user:
            quota = Quota(self._policy, self._per_user, 0, window=None, reset=None)
            raise TooManyRequests(self._too_many, code=self._code, retry_after=_RETRY_AFTER, quota=quota)
        if self._total >= self._per_process:
            raise Unavailable(self._full, code=self._code, retry_after=_RETRY_AFTER)

    def take(self, user_id: str) -> Slot:
        """Take a slot. Raises `TooManyRequests` or `Unavailable`."""
        self.check(user_id)
        return self.grant(user_id)

    def grant(self, user_id: str) -> Slot:
        """Take a slot without checking the limit; for work that is already accepted."""
        self._taken[user_id] += 1
        self._total += 1
        return Slot(self, user_id)

    def give_back(self, user_id: str) -> None:
        """Called by `Slot`."""
        self._total -= 1
        self._taken[user_id] -= 1
        if not self._taken[user_id]:
            del self._taken[user_id]


class Answers(Slots):
    """The limit on running answers. No answer begins while the event loop is too late to stream the running ones in
    time."""

    def __init__(self, lag: Callable[[], float], most_lag: float, *, per_user: int, per_process: int) -> None:
        """`lag` returns how late the event loop is, in seconds; `most_lag` is the most that is allowed."""
        super().__init__(
            "answers",
            per_user,
            per_process,
            code=ErrorCode.RATE_LIMITED,
            too_many="You have too many answers running. Try again when one has ended.",
            full=_BUSY,
        )
        self._lag = lag
        self._most_lag = most_lag

    def check(self, user_id: str) -> None:
        """Raises `TooManyRequests` or `Unavailable` if no answer may begin."""
        if self._lag() > self._most_lag:
            raise Unavailable(_BUSY, code=ErrorCode.RATE_LIMITED, retry_after=_RETRY_AFTER)
        super().check(user_id)


class Limits(Struct, frozen=True, kw_only=True):
    """All limits of one process."""

    streams: Slots  # open streams
    answers: Answers  # running answers, and those about to begin
    openings: Rate  # opened streams, by user
    tickets: Rate  # new tickets, by user; each opens one stream and lives a minute, so no more than this exist
    conversations: Rate  # new conversations, by user
    kept: Kept  # stored conversations, by user
    reads: Rate  # reads of stored data, by user
    searches: Rate  # searches, by user
    changes: Rate  # changes to conversations, deletions and stops, by user
    messages: Rate  # messages and other requests that begin an answer, by user
    failures: Rate  # failed authentications, by address
    bad_tickets: Rate  # rejected tickets, by address. Not in `failures`: bad tokens must not block good tickets
    erasures: Rate  # erasure requests, by user
    uploads: Uploads  # request bodies in memory
    exports: Slots  # exports being sent
    export_openings: Rate  # new exports, by user
    repeats: Rate  # look-ups of idempotency keys by users who are over their message rate

    @classmethod
    def of(cls, settings: Settings, capacity: Capacity, lag: Callable[[], float]) -> "Limits":
        """The configured limits; where nothing is configured, what the process can hold. `lag` is the event loop's, in
        seconds."""
        return cls(
            streams=Slots(
                "streams",
                per_user=settings.streams_per_user,
                per_process=settings.streams_per_process or capacity.streams,
                code=ErrorCode.TOO_MANY_STREAMS,
                too_many="You have too many streams open. Close one and try again.",
                full="The server has too many streams open. Try again shortly.",
            ),
            answers=Answers(
                lag,
                settings.overload_lag,
                per_user=settings.answers_per_user,
                per_process=settings.answers_per_process or capacity.answers,
            ),
            openings=Rate("openings", settings.openings_per_minute),
            tickets=Rate("tickets", settings.openings_per_minute),
            conversations=Rate("conversations", settings.messages_per_minute),
            kept=Kept(settings.conversations_per_user),
            reads=Rate("reads", settings.reads_per_minute),
            searches=Rate("searches", settings.searches_per_minute),
            changes=Rate("changes", settings.changes_per_minute),
            messages=Rate("messages", settings.messages_per_minute),
            failures=Rate("failures", settings.failures_per_minute),
            bad_tickets=Rate("failures", settings.failures_per_minute),
            erasures=Rate("erasures", _ERASURES_PER_MINUTE),
            uploads=Uploads(_UPLOADED_PER_USER, _UPLOADED),
            export_openings=Rate("exports", _ERASURES_PER_MINUTE),
            exports=Slots(
                "exports",
                per_user=1,
                per_process=_EXPORTS,
                code=ErrorCode.RATE_LIMITED,
                too_many="An export of yours is being sent. Let it finish, or end it, then try again.",
                full=_BUSY,
            ),
            repeats=Rate("messages", settings.messages_per_minute),
        )
