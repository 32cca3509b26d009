"""The limits per user and per process, with a clock that the test sets."""

import asyncio
import gc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatstream import limits as module
from chatstream.errors import Quota, RequestError, TooManyConversations, TooManyRequests, Unavailable
from chatstream.limits import Answers, Kept, Rate, Slots


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refusal(request: Callable[[], object]) -> TooManyRequests:
    with pytest.raises(TooManyRequests) as refused:
        request()
    return refused.value


# Rates ----------------------------------------------------------------------------------------------------------------


def test_a_rate_allows_its_quota_at_once_and_then_one_at_a_time(clock: Clock) -> None:
    rate = Rate("messages", 6, clock=clock)
    assert [rate.take("a").remaining for _ in range(6)] == [5, 4, 3, 2, 1, 0]
    refused = refusal(lambda: rate.take("a"))
    assert refused.code == "rate_limited"
    assert refused.retry_after == pytest.approx(10)
    assert refused.quota == Quota("messages", 6, 0, 60, refused.retry_after)
    clock.now += 9.9
    assert refusal(lambda: rate.take("a")).retry_after == pytest.approx(0.1)
    clock.now += 0.1
    assert rate.take("a").remaining == 0
    refusal(lambda: rate.take("a"))
    clock.now += 60
    assert [rate.take("a").remaining for _ in range(6)] == [5, 4, 3, 2, 1, 0]


def test_one_key_does_not_use_up_anothers(clock: Clock) -> None:
    rate = Rate("messages", 1, clock=clock)
    rate.take("a")
    rate.take("b")
    refusal(lambda: rate.take("a"))


def test_what_is_only_checked_is_not_counted(clock: Clock) -> None:
    rate = Rate("failures", 1, clock=clock)
    rate.check("a")
    rate.check("a")
    rate.take("a")
    refusal(lambda: rate.check("a"))


def test_what_is_refused_is_not_counted(clock: Clock) -> None:
    rate = Rate("messages", 2, clock=clock)
    rate.take("a")
    rate.take("a")
    for _ in range(1000):
        refusal(lambda: rate.take("a"))
    clock.now += 30
    rate.take("a")


def test_what_was_not_used_can_be_given_back(clock: Clock) -> None:
    rate = Rate("messages", 1, clock=clock)
    for _ in range(3):
        rate.take("a")
        rate.give_back("a")
    rate.take("a")
    refusal(lambda: rate.take("a"))


@given(quota=st.integers(1, 1000), pauses=st.lists(st.floats(0, 90), max_size=200))
def test_in_no_minute_there_are_more_than_two_quotas_and_a_patient_one_is_never_refused(
    quota: int, pauses: list[float]
) -> None:
    clock = Clock()
    rate = Rate("any", quota, clock=clock)
    accepted: list[float] = []
    for pause in pauses:
        clock.now += pause
        try:
            left = rate.take("a")
        except TooManyRequests as exc:
            clock.now += exc.retry_after or 0
            left = rate.take("a")
        assert 0 <= left.remaining < quota
        assert left.reset is not None
        assert 0 < left.reset <= 60 / quota + 1e-6
        accepted.append(clock.now)
        assert sum(moment > clock.now - 60 for moment in accepted) <= 2 * quota


def test_who_does_not_come_back_is_forgotten(clock: Clock) -> None:
    rate = Rate("messages", 10, clock=clock)
    for number in range(1000):
        rate.take(number)
    assert len(rate) == 1000
    clock.now += 60
    for number in range(500):
        rate.take(-number)
    assert len(rate) == 500


def test_however_many_come_only_so_many_are_remembered(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_KEYS", 100)
    rate = Rate("messages", 1, clock=clock)
    for number in range(1000):
        rate.take(number)
    assert len(rate) == 100
    refusal(lambda: rate.take(999))  # the newest keys are remembered
    rate.take(0)


# Slots ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def slots() -> Slots:
    return Slots("streams", per_user=2, per_process=3, code="too_many_streams", too_many="Yours.", full="All.")


def test_the_newest_of_a_user_is_refused_until_one_is_given_back(slots: Slots) -> None:
    first, _second = slots.take("a"), slots.take("a")
    refused = refusal(lambda: slots.take("a"))
    assert (refused.code, refused.detail) == ("too_many_streams", "Yours.")
    assert refused.quota == Quota("streams", 2, 0, None, None)
    assert refused.retry_after
    first.release()
    with slots.take("a"):
        assert slots.total == 2


def test_all_users_share_the_process(slots: Slots) -> None:
    slots.take("a")
    slots.take("b")
    with slots.take("c"):
        with pytest.raises(Unavailable) as refused:
            slots.take("d")
        assert (refused.value.code, refused.value.detail) == ("too_many_streams", "All.")
        assert refused.value.retry_after
    slots.take("d")


def test_a_place_is_given_back_once_and_also_after_a_fault(slots: Slots) -> None:
    with pytest.raises(RequestError), slots.take("a"):
        raise RequestError("Whatever happens.")
    slot = slots.take("a")
    slots.take("b")
    slot.release()
    slot.release()
    assert slots.total == 1


def test_what_was_promised_is_granted_and_counts(slots: Slots) -> None:
    granted = [slots.grant("a") for _ in range(3)]
    refusal(lambda: slots.check("a"))
    with pytest.raises(Unavailable):
        slots.check("b")
    for one in granted:
        one.release()
    slots.check("a")


def test_no_answer_begins_while_the_loop_is_late() -> None:
    lag = 0.5
    answers = Answers(lambda: lag, 0.5, per_user=1, per_process=1)
    answers.check("a")
    lag = 0.6
    with pytest.raises(Unavailable) as refused:
        answers.take("a")
    assert (refused.value.code, answers.total) == ("rate_limited", 0)
    assert refused.value.retry_after
    lag = 0.1
    answers.take("a")


def test_nothing_is_kept_of_who_has_nothing(slots: Slots) -> None:
    for number in range(1000):
        with slots.take(f"user-{number}"):
            pass
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) is dict and "user-999" in one]  # not a weak proxy of one


# What is kept ---------------------------------------------------------------------------------------------------------


class Counted:
    """A replacement for the database: the number of stored conversations, and how often they were counted."""

    def __init__(self, there: int) -> None:
        self.there = there
        self.asked = 0

    async def __call__(self, most: int) -> int:
        self.asked += 1
        there = self.there
        await asyncio.sleep(0)
        return min(there, most)


async def created(kept: Kept, counted: Counted, user: str = "a") -> bool:
    """Create one more conversation if that is allowed; returns whether it was."""
    try:
        await kept.take(user, counted)
    except TooManyConversations:
        return False
    counted.there += 1
    return True


@pytest.mark.gen_test
async def test_only_so_many_are_kept_and_they_are_counted_once_a_minute(clock: Clock) -> None:
    kept, counted = Kept(100, clock=clock), Counted(95)
    assert [await created(kept, counted) for _ in range(8)] == [True] * 5 + [False] * 3
    assert counted.asked == 1
    assert await created(kept, Counted(0), "b")
    counted.there -= 1
    kept.give_back("a")
    assert [await created(kept, counted) for _ in range(2)] == [True, False]
    assert counted.asked == 2
    # Deletions by other processes are noticed some seconds later.
    counted.there -= 2
    assert not await created(kept, counted)
    clock.now += 5
    assert [await created(kept, counted) for _ in range(3)] == [True, True, False]
    assert counted.asked == 3
    counted.there = 10
    clock.now += 60
    for _ in range(50):
        assert await created(kept, counted)
        clock.now += 1
    assert counted.asked == 4


@pytest.mark.gen_test
async def test_many_who_come_at_once_get_no_more_than_there_is_room_for(clock: Clock) -> None:
    kept, counted = Kept(100, clock=clock), Counted(90)
    assert sum(await asyncio.gather(*(created(kept, counted) for _ in range(50)))) == 10
    assert counted.there == 100


@pytest.mark.gen_test
async def test_more_than_the_bound_is_no_room_either(clock: Clock) -> None:
    """The limit was set lower than the number of existing conversations."""
    kept, counted = Kept(10, clock=clock), Counted(500)
    assert not await created(kept, counted)
    kept.give_back("a")  # of 500
    clock.now += 5
    assert not await created(kept, counted)


@pytest.mark.gen_test
async def test_only_so_many_users_are_remembered(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_KEYS", 10)
    kept = Kept(10, clock=clock)
    for number in range(100):
        assert await created(kept, Counted(0), str(number))
    assert len(kept) == 10
