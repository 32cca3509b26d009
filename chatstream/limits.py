"""What one user, one address and the whole process may have. Knows no HTTP, and asks no database.

A refusal must be cheaper than what it prevents: each check costs about a microsecond. All of it is per process: a user
who is spread over several has as much of each.
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

# What is remembered of those who came within the last minute: at 200 bytes each, 20 MB if a botnet tries.
_MOST_KEYS = 100_000
# When to come back if something must end first, which nobody can foresee: a client's second thought, an answer's end.
_RETRY_AFTER = 5
# What is held of bodies until all of it is there, in bytes. For one user: ten of the longest messages in their longest
# spelling. For all: what a small machine can spare.
_UPLOADED_PER_USER = 8 * 1024 * 1024
_UPLOADED = 128 * 1024 * 1024
# Nobody erases or exports themselves often; but who was told 202, or lost a connection, may ask again at once.
_ERASURES_PER_MINUTE = 10
# Exports at the same time. Each reads the database as fast as its client does; more of them could slow down the chats.
_EXPORTS = 4
_BUSY = "The server is busy. Try again shortly."


class Rate:
    """At most `quota` a minute for each key: all at once, or evenly spread, or anything between.

    The generic cell rate algorithm (ITU-T I.371): of each key one number is kept, the time at which its quota will be
    whole again. Not the library `limits`: importing it takes 57 ms, and its memory never forgets a key.
    """

    WINDOW = 60

    def __init__(self, policy: str, quota: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`policy` is its name for clients; `clock` counts seconds, and never backwards."""
        self._policy = policy
        self._quota = quota
        self._interval = self.WINDOW / quota
        self._clock = clock
        self._whole_at: OrderedDict[Hashable, float] = OrderedDict()  # those that came last are last

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._whole_at)

    def take(self, key: Hashable) -> Quota:
        """Count one, and say what is left. Raises `TooManyRequests`."""
        now = self.check(key)
        whole_at = max(self._whole_at.pop(key, now), now) + self._interval
        self._whole_at[key] = whole_at
        self._forget(now)
        return self._left(whole_at - now)

    def check(self, key: Hashable) -> float:
        """Raises `TooManyRequests` if one more would be too many; counts nothing. Returns the time."""
        now = self._clock()
        used = self._whole_at.get(key, now) - now
        if used > self.WINDOW - self._interval * 0.999:  # the sum of floats may be a little more than the whole
            left = self._left(used)
            raise TooManyRequests("Too many requests. Try again shortly.", retry_after=left.reset, quota=left)
        return now

    def give_back(self, key: Hashable) -> None:
        """What was taken last was not used."""
        if key in self._whole_at:
            self._whole_at[key] -= self._interval

    def _left(self, used: float) -> Quota:
        """What is left of the quota, if it takes `used` seconds until all of it is there again."""
        remaining = max(0, int((self.WINDOW - used) / self._interval + 0.001))
        next_one = used - self.WINDOW + (remaining + 1) * self._interval
        return Quota(self._policy, self._quota, remaining, self.WINDOW, next_one)

    def _forget(self, now: float) -> None:
        for _ in range(2):  # two for each one that may have been added: it shrinks as fast as it grew
            key, whole_at = next(iter(self._whole_at.items()))
            if whole_at > now and len(self._whole_at) <= _MOST_KEYS:
                return
            del self._whole_at[key]


class Kept:
    """How many conversations each user may keep.

    Somebody else counts them, for each user at most once a minute, and every 5 s while there is no room, as another
    process may have deleted some; what is created and deleted meanwhile is counted here. Other processes do the same:
    there may be some more, as many as they create in a minute.
    """

    WINDOW = 60
    WINDOW_WITHOUT_ROOM = 5

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` counts seconds, and never backwards."""
        self._most = most
        self._clock = clock
        self._left: OrderedDict[str, tuple[int, float]] = OrderedDict()  # how many more, and when they were counted

    def __len__(self) -> int:
        """How many users are remembered."""
        return len(self._left)

    async def take(self, user_id: str, count: Callable[[int], Awaitable[int]]) -> None:
        """Count one more. `count(most)` counts what is stored, up to `most`. Raises `TooManyConversations`."""
        known = self._known(user_id)
        if known is None:
            found = self._most - await count(self._most)
            # Of several who have waited, the first has noted it, and taken one.
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
        """One was deleted, or was not created after all."""
        left, counted_at = self._left.pop(user_id, (0, 0.0))
        if left:  # else they are counted again: there may be more than the bound allows, if it was a higher one
            self._left[user_id] = left + 1, counted_at

    def forget(self, user_id: str) -> None:
        """All may have been deleted: they are counted again."""
        self._left.pop(user_id, None)

    def _known(self, user_id: str) -> tuple[int, float] | None:
        """What is remembered, unless it is too old."""
        left, counted_at = self._left.get(user_id, (0, -math.inf))
        age = self._clock() - counted_at
        return (left, counted_at) if age < (self.WINDOW if left else self.WINDOW_WITHOUT_ROOM) else None


class Uploads:
    """How many bytes of requests may be held at a time, as they are still being sent, or not looked at yet."""

    def __init__(self, per_user: int, per_process: int) -> None:
        self._per_user = per_user
        self._per_process = per_process
        self._held: Counter[str] = Counter()
        self._total = 0

    @property
    def total(self) -> int:
        """How many are held."""
        return self._total

    def take(self, user_id: str, size: int) -> None:
        """Hold so many more. Raises `TooManyRequests` or `Unavailable`."""
        if self._held[user_id] + size > self._per_user:
            words = "You are sending too much at once. Try again when some of it has arrived."
            raise TooManyRequests(words, retry_after=_RETRY_AFTER)
        if self._total + size > self._per_process:
            raise Unavailable(_BUSY, code=ErrorCode.RATE_LIMITED, retry_after=_RETRY_AFTER)
        self._held[user_id] += size
        self._total += size

    def give_back(self, user_id: str, size: int) -> None:
        """They are held no more."""
        self._total -= size
        self._held[user_id] -= size
        if not self._held[user_id]:
            del self._held[user_id]


class Slot:
    """A place that somebody has; leaving its context, or `release`, gives it back."""

    def __init__(self, slots: "Slots", user_id: str) -> None:
        self._slots: Slots | None = slots
        self._user_id = user_id

    def release(self) -> None:
        """Give it back; only the first time counts."""
        if self._slots is not None:
            self._slots.give_back(self._user_id)
            self._slots = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.release()


class Slots:
    """So many of something at a time: `per_user`, and `per_process` for all together. The newest is refused."""

    def __init__(self, policy: str, per_user: int, per_process: int, *, code: str, too_many: str, full: str) -> None:
        """`policy` is its name for clients; `too_many` and `full` are what they are told."""
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
        """How many are taken."""
        return self._total

    def check(self, user_id: str) -> None:
        """Raises `TooManyRequests` or `Unavailable` if there is no place; takes none."""
        if self._taken[user_id] >= self._per_user:
            quota = Quota(self._policy, self._per_user, 0, window=None, reset=None)
            raise TooManyRequests(self._too_many, code=self._code, retry_after=_RETRY_AFTER, quota=quota)
        if self._total >= self._per_process:
            raise Unavailable(self._full, code=self._code, retry_after=_RETRY_AFTER)

    def take(self, user_id: str) -> Slot:
        """A place. Raises `TooManyRequests` or `Unavailable`."""
        self.check(user_id)
        return self.grant(user_id)

    def grant(self, user_id: str) -> Slot:
        """A place, even if there is none: for what was promised."""
        self._taken[user_id] += 1
        self._total += 1
        return Slot(self, user_id)

    def give_back(self, user_id: str) -> None:
        """For `Slot`."""
        self._total -= 1
        self._taken[user_id] -= 1
        if not self._taken[user_id]:
            del self._taken[user_id]


class Answers(Slots):
    """Running answers. None begins while this process is so late that it cannot stream those that it has in time."""

    def __init__(self, lag: Callable[[], float], most_lag: float, *, per_user: int, per_process: int) -> None:
        """`lag` is how late the event loop is, in seconds; `most_lag` is how late it may be."""
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
    """All of them, in one process."""

    streams: Slots  # open ones
    answers: Answers  # running ones, and those that are about to
    openings: Rate  # of streams, by user
    tickets: Rate  # each of which opens a stream, by user: as they live a minute, no more of them exist
    conversations: Rate  # new ones, by user
    kept: Kept  # existing ones, by user
    reads: Rate  # of what is stored, by user
    searches: Rate  # by user
    changes: Rate  # to conversations, deletions and stops, by user
    messages: Rate  # and whatever else begins an answer, by user
    failures: Rate  # to show a good token, by address
    bad_tickets: Rate  # by address; apart, as over it tickets are refused unseen: not for what others' tokens were
    erasures: Rate  # by user
    uploads: Uploads  # bodies of requests
    exports: Slots  # that are being sent
    export_openings: Rate  # by user
    repeats: Rate  # of messages that would be too many, if they were no repetition of earlier ones: they are looked up

    @classmethod
    def of(cls, settings: Settings, capacity: Capacity, lag: Callable[[], float]) -> "Limits":
        """As configured, and where nothing is, what the process can hold; `lag` is the event loop's, in seconds."""
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
