"""Cached tokens get the same result as verified ones, and are not valid for longer."""

import time

import pytest

from chatstream.auth import Authenticator, OneKey, Rules, memory, mint
from chatstream.auth.keys import Key
from chatstream.auth.memory import Memory
from chatstream.errors import Unauthenticated
from chatstream.models import User
from tests.support.processes import SECRET
from tests.support.tokens import HOUR


class Counted(OneKey):
    """A source of keys that counts the verifications."""

    asked = 0

    async def find(self, token: str) -> Key:
        self.asked += 1
        return await super().find(token)


@pytest.mark.gen_test
async def test_a_token_is_verified_once_in_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Counted(SECRET.encode())
    authenticator, token = Authenticator(keys, Rules()), mint(SECRET, "u1", HOUR)
    users = [await authenticator.authenticate(token) for _ in range(3)]
    assert users == [users[0]] * 3
    assert keys.asked == 1
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert await authenticator.authenticate(token) == users[0]
    assert keys.asked == 2


@pytest.mark.gen_test
async def test_it_is_remembered_by_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Counted(SECRET.encode())
    authenticator, token = Authenticator(keys, Rules()), mint(SECRET, "u1", HOUR)
    await authenticator.authenticate(token)
    changed = token[:-1] + ("A" if token[-1] != "A" else "Q")
    for other in (changed, token.upper(), mint("another-secret-of-thirty-two-bytes", "u1", HOUR)):
        for _ in range(2):  # refused tokens are not cached
            with pytest.raises(Unauthenticated):
                await authenticator.authenticate(other)
    assert keys.asked == 7


@pytest.mark.gen_test
async def test_it_is_not_good_beyond_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    authenticator, token = Authenticator(OneKey(SECRET.encode()), Rules()), mint(SECRET, "u1", 30)
    user = await authenticator.authenticate(token)
    monkeypatch.setattr(time, "time", lambda: user.token_expires_at)
    with pytest.raises(Unauthenticated, match="has expired"):
        await authenticator.authenticate(token)


def test_the_least_used_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MOST_TOKENS", 2)
    remembered = Memory()
    users = {token: User(token, time.time() + HOUR) for token in ("one", "two", "three")}
    for token in ("one", "two"):
        remembered.remember(token, users[token])
    assert remembered.recall("one") == users["one"]
    remembered.remember("three", users["three"])
    assert [remembered.recall(token) for token in users] == [users["one"], None, users["three"]]
    assert len(remembered) == 2
