"""Plug-ins' documents about users: one for each key, limited in number and size, separate for each plug-in and user."""

import asyncio
import uuid
from typing import Any

import pytest

from chatstream.store import plugin_documents
from chatstream.store.mongo import Mongo
from chatstream.store.plugin_documents import PluginDocument, PluginDocuments, TooMany


@pytest.fixture
def user() -> str:
    return f"user-{uuid.uuid4().hex}"


@pytest.mark.gen_test
async def test_a_write_that_is_repeated_stores_nothing_new(mongo: Mongo, user: str) -> None:
    here, there = PluginDocuments(mongo), PluginDocuments(mongo)
    made = await asyncio.gather(*(each.put("bets", user, "a.1", {"n": n}) for n, each in enumerate([here, there] * 5)))
    assert len({(one.key, one.data["n"], one.created_at) for one in made}) == 1
    assert await here.put("bets", user, "a.1", {"n": 99}) == made[0]
    assert await there.newest("bets", user, 10) == [made[0]]


@pytest.mark.gen_test
async def test_each_plug_in_and_each_user_has_documents_of_their_own(mongo: Mongo, user: str) -> None:
    documents = PluginDocuments(mongo)
    for plugin, who in (("bets", user), ("other", user), ("bets", user + "x")):
        await documents.put(plugin, who, "same", [plugin, who])
    found = await documents.get("bets", user, "same")
    assert found is not None
    assert found.data == ["bets", user]
    assert await documents.get("bets", user, "another") is None
    assert [one.plugin async for one in documents.all_of(user)] == ["bets", "other"]


@pytest.mark.gen_test
async def test_the_newest_come_first_and_not_more_than_there_may(mongo: Mongo, user: str) -> None:
    documents = PluginDocuments(mongo)
    for number in range(4):
        await documents.put("bets", user, str(number), number)
    assert [one.data for one in await documents.newest("bets", user, 3)] == [3, 2, 1]
    assert len(await documents.newest("bets", user, 10**9)) == 4
    assert len(await documents.newest("bets", user, -1)) == 1


@pytest.mark.gen_test
async def test_any_json_is_kept_as_it_is_and_nothing_else(mongo: Mongo, user: str) -> None:
    documents = PluginDocuments(mongo)
    data: list[Any] = [
        {"$ref": "#", "a.b": 1, "": None},
        2**80,
        [[[[]]]],
        "👍\0",
        None,
        1e300,
    ]
    for number, each in enumerate(data):
        assert (await documents.put("bets", user, f"$where.{number}", each)).data == each
        found = await documents.get("bets", user, f"$where.{number}")
        assert found is not None
        assert found.data == each
    for key, each in (("", 1), ("k" * 201, 1), ("a\0", 1), ("\ud800", 1), ("k", "x" * 16_385), ("k", object())):
        with pytest.raises(ValueError, match=r"key|JSON|bytes"):
            await documents.put("bets", user, key, each)
    assert len(await documents.newest("bets", user, 100)) == len(data)


@pytest.mark.gen_test
async def test_there_is_an_end_to_them(mongo: Mongo, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_documents, "MOST_DOCUMENTS", 2)
    documents = PluginDocuments(mongo)
    for key in ("a", "b"):
        await documents.put("bets", user, key, key)
    with pytest.raises(TooMany):
        await documents.put("bets", user, "c", "c")
    assert (await documents.put("bets", user, "a", "again")).data == "a"  # an existing document needs no room
    await documents.put("other", user, "c", "c")


@pytest.mark.gen_test
async def test_what_is_there_is_not_added_again(mongo: Mongo, user: str) -> None:
    documents = PluginDocuments(mongo)
    first = await documents.put("bets", user, "a", "first")
    more = PluginDocument(plugin="bets", key="b", data="b", created_at=first.created_at)
    changed = PluginDocument(plugin="bets", key="a", data="changed", created_at=first.created_at)
    await documents.add(user, [changed, more])
    assert [one.data async for one in documents.all_of(user)] == ["first", "b"]


@pytest.mark.gen_test
async def test_what_a_later_version_keeps_is_passed_over(mongo: Mongo, user: str) -> None:
    documents = PluginDocuments(mongo)
    kept = await documents.put("bets", user, "a", 1)
    strange: list[dict[str, Any]] = [{"key": "b"}, {"key": "c", "data": 7}, {"key": 8, "data": "8"}]
    await mongo.plugin_documents.insert_many([{"userId": user, "plugin": "bets"} | one for one in strange])
    assert [one async for one in documents.all_of(user)] == [kept]
    assert await documents.newest("bets", user, 10) == [kept]
    assert await documents.get("bets", user, "b") is None
