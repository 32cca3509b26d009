"""Revoked tokens: the calls of the check, their times, and a check that fails."""

import asyncio
import contextlib
from collections.abc import Collection, Sequence

import pytest

from chatstream.auth import Authenticator, Guard, OneKey, Rules, mint, revocation
from chatstream.errors import ConfigurationError, Unauthenticated, Unavailable
from chatstream.models import User
from tests.support.processes import SECRET
from tests.support.tokens import HOUR, NOW, claims, signed


class Sessions:
    """A check whose answers the test sets."""

    def __init__(self) -> None:
        self.revoked_users: set[str] = set()
        self.asked: list[list[User]] = []
        self.fault: Exception | None = None
        self.silent = False

    async def revoked(self, users: Sequence[User]) -> Collection[User]:
        self.asked.append([*users])
        if self.fault is not None:
            raise self.fault
        if self.silent:
            await asyncio.Event().wait()
        return [user for user in users if user.id in self.revoked_users]


def authenticator(sessions: Sessions) -> Authenticator:
    return Authenticator(OneKey(SECRET.encode()), Rules(), guard=Guard(sessions))


@pytest.mark.gen_test
async def test_whoever_comes_is_asked_about() -> None:
    sessions = Sessions()
    door, token = authenticator(sessions), signed(claims(jti="token 1", iat=NOW))
    user = await door.authenticate(token)
    assert user == User("u1", NOW + HOUR, "token 1", NOW)
    assert sessions.asked == [[user]]
    await door.confirm(user)
    sessions.revoked_users.add("u1")
    for coming in (door.authenticate(token), door.confirm(user)):
        with pytest.raises(Unauthenticated, match="has been revoked"):
            await coming
    assert (await door.authenticate(mint(SECRET, "u2", HOUR))).id == "u2"
    asked = len(sessions.asked)
    with pytest.raises(Unauthenticated):
        await door.authenticate(mint("another-secret-of-thirty-two-bytes", "u2", HOUR))
    assert len(sessions.asked) == asked  # no call for an unverified token


@pytest.mark.gen_test
async def test_nobody_new_comes_in_while_nobody_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(revocation, "_TIMEOUT_SECONDS", 0.05)
    sessions = Sessions()
    door, token = authenticator(sessions), mint(SECRET, "u1", HOUR)
    user, ended = await door.authenticate(token), []
    with door.guard.watch(user, lambda: ended.append(user)):
        for fault, silent in ((RuntimeError("what u1 wrote"), False), (None, True)):
            sessions.fault, sessions.silent = fault, silent
            with pytest.raises(Unavailable) as refused:
                await door.authenticate(token)
            assert (refused.value.code, refused.value.retry_after) == ("auth_unavailable", 5)
            await door.guard.look()
    assert not ended  # open streams stay
    assert caplog.text.count("cannot be known: RuntimeError") == 1  # one line for any number of failures
    assert "TimeoutError" not in caplog.text
    assert "what u1 wrote" not in caplog.text


@pytest.mark.gen_test
async def test_whoever_stays_is_asked_about_again_and_again() -> None:
    sessions = Sessions()
    guard, ended = Guard(sessions), []
    one, two = User("u1", 1.0), User("u2", 1.0)
    with guard.watch(one, lambda: ended.append("tab 1")), guard.watch(two, lambda: ended.append("other")):
        with guard.watch(one, lambda: ended.append("tab 2")):
            await guard.look()
            assert sessions.asked == [[one, two]]  # each user once, for any number of tabs
            sessions.revoked_users.add("u1")
            await guard.look()
            assert ended == ["tab 1", "tab 2"]
        await guard.look()
        assert ended == ["tab 1", "tab 2", "tab 1"]
    sessions.asked.clear()
    await guard.look()
    assert sessions.asked == []


@pytest.mark.gen_test
async def test_many_are_asked_about_in_batches() -> None:
    sessions = Sessions()
    guard, ended = Guard(sessions), []
    users = [User(f"u{number}", 1.0) for number in range(1200)]
    sessions.revoked_users = {"u3", "u1199"}
    with contextlib.ExitStack() as stack:
        for user in users:
            stack.enter_context(guard.watch(user, lambda: ended.append("ended")))
        await guard.look()
    assert [len(batch) for batch in sessions.asked] == [500, 500, 200]
    assert ended == ["ended"] * 2


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nowhere.at_all:make", "cannot be called: there is no module nowhere: nowhere.py must be"),
        ("chatstream.auth:nothing", "cannot be called: there is no nothing in /"),
        ("chatstream.auth:__name__", "cannot be called: TypeError"),
        ("builtins:dict", "what builtins:dict returns has no `async def revoked(users)`."),
    ],
)
def test_what_cannot_be_asked_is_said_at_start(name: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        revocation.load(name)
    assert str(refused.value).startswith("CHATSTREAM_REVOCATION: ")
    assert problem in str(refused.value)
