"""Conversations, in the real database."""

import asyncio
import uuid
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient

from chatstream.errors import AlreadyExists, InvalidRequest, NotFound, StorageUnavailable
from chatstream.models import Answer, Conversation
from chatstream.store.conversations import Conversations
from chatstream.store.mongo import Mongo
from chatstream.store.thinning import AT_ONCE
from tests.support.storage import Storage, added, begun, checkpoint, stored


@pytest.fixture
def conversations(mongo: Mongo) -> Conversations:
    return Conversations(mongo)


@pytest.fixture
def user() -> str:
    return f"user-{uuid.uuid4().hex}"


@pytest.mark.gen_test
async def test_what_was_created_can_be_read_by_its_owner(conversations: Conversations, user: str) -> None:
    created = await conversations.create(user, id="mine", title="T", system_prompt="P", model="m")
    found = await conversations.get(user, "mine")
    assert (found.key, found.id, found.title, found.system_prompt, found.model) == (created.key, "mine", "T", "P", "m")
    assert found.user_id == user


@pytest.mark.gen_test
async def test_a_creation_returns_what_is_stored(conversations: Conversations, user: str) -> None:
    created = await conversations.create(user)
    assert await conversations.get(user, created.id) == created


@pytest.mark.gen_test
async def test_an_id_is_taken_once_per_user(conversations: Conversations, user: str) -> None:
    await conversations.create(user, id="mine")
    with pytest.raises(AlreadyExists):
        await conversations.create(user, id="mine")
    assert (await conversations.create(f"{user}-other", id="mine")).id == "mine"


@pytest.mark.gen_test
async def test_without_an_id_one_is_made(conversations: Conversations, user: str) -> None:
    first, second = await conversations.create(user), await conversations.create(user)
    assert first.id != second.id
    assert (await conversations.get(user, first.id)).key == first.key


@pytest.mark.gen_test
async def test_nobody_else_can_read_change_or_delete_it(conversations: Conversations, user: str) -> None:
    await conversations.create(user, id="mine", title="Before")
    other = f"{user}-other"
    with pytest.raises(NotFound):
        await conversations.get(other, "mine")
    with pytest.raises(NotFound):
        await conversations.update(other, "mine", {"title": "After"})
    with pytest.raises(NotFound):
        await conversations.delete(other, "mine")
    assert (await conversations.get(user, "mine")).title == "Before"


@pytest.mark.gen_test
async def test_an_update_changes_what_it_names_and_nothing_else(conversations: Conversations, user: str) -> None:
    created = await conversations.create(user, id="mine", title="T", system_prompt="P", model="m")
    updated = await conversations.update(user, "mine", {"system_prompt": None, "title": "U"})
    assert (updated.title, updated.system_prompt, updated.model) == ("U", None, "m")
    assert updated.updated_at >= created.updated_at.replace(microsecond=0)
    assert await conversations.get(user, "mine") == updated
    assert (await conversations.update(user, "mine", {})).title == "U"


@pytest.mark.gen_test
async def test_pages_show_each_conversation_once_most_recently_active_first(
    conversations: Conversations, mongo: Mongo, user: str
) -> None:
    created = [await conversations.create(user, title=str(number)) for number in range(5)]
    same = created[0].updated_at  # with equal times, no conversation may be repeated or left out
    await mongo.conversations.update_many({"userId": user}, {"$set": {"updatedAt": same}})
    await conversations.update(user, created[2].id, {"title": "2"})
    await conversations.create(f"{user}-other")

    shown: list[Conversation] = []
    before = None
    while True:
        page, before = await conversations.page(user, limit=2, before=before)
        shown += page
        if before is None:
            break
        assert len(page) == 2
    ties = sorted((each for each in created if each.title != "2"), key=lambda each: each.key, reverse=True)
    assert [each.key for each in shown] == [created[2].key, *(each.key for each in ties)]


@pytest.mark.gen_test
async def test_a_page_that_is_just_full_is_the_last(conversations: Conversations, user: str) -> None:
    await conversations.create(user)
    page, before = await conversations.page(user, limit=1, before=None)
    assert (len(page), before) == (1, None)
    assert await conversations.page(f"{user}-other", limit=1, before=None) == ([], None)


@pytest.mark.parametrize(
    "before", ["", "1", "-", "x-" + "0" * 24, "1-xyz", "9" * 15 + "-" + "0" * 24, "\u0661-" + "0" * 24]
)
@pytest.mark.gen_test
async def test_a_cursor_that_no_page_returned_is_refused(conversations: Conversations, user: str, before: str) -> None:
    with pytest.raises(InvalidRequest):
        await conversations.page(user, limit=1, before=before)


@pytest.mark.gen_test
async def test_deleting_takes_the_messages_along(conversations: Conversations, mongo: Mongo, user: str) -> None:
    store = Storage(mongo)
    kept, gone = await conversations.create(user, id="kept"), await conversations.create(user, id="gone")
    for conversation in (kept, gone):
        await store.posting.post(conversation, "Tell me.")
    assert (await conversations.delete(user, "gone")).key == gone.key
    assert await store.reading.page(gone.key, limit=10, before=None) == []
    assert len(await store.reading.page(kept.key, limit=10, before=None)) == 2
    with pytest.raises(NotFound):
        await conversations.get(user, "gone")
    with pytest.raises(NotFound):
        await store.posting.post(gone, "Tell me.")


# With its newest messages --------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_a_conversation_is_read_with_its_newest_messages(store: Storage, conversations: Conversations) -> None:
    created = await conversations.create("user")
    assert await conversations.get_with_newest("user", created.id, 2) == (created, [])
    first = await added(store, created, "One")
    second = await added(store, created, "Two")
    third = await added(store, created, "Three")
    _, newest = await conversations.get_with_newest("user", created.id, 2)
    assert newest == [second, third]
    _, newest = await conversations.get_with_newest("user", created.id, 9)
    assert newest == [first, second, third]


@pytest.mark.gen_test
async def test_nobody_reads_messages_of_another_ones_conversation(
    store: Storage, conversations: Conversations, user: str
) -> None:
    created = await conversations.create(user)
    await added(store, created, "Mine")
    for owner, name in (("another", created.id), (user, "another")):
        with pytest.raises(NotFound):
            await conversations.get_with_newest(owner, name, 2)


@pytest.mark.gen_test
async def test_messages_of_a_later_version_are_left_to_whoever_reads_on(
    mongo: Mongo, store: Storage, conversations: Conversations
) -> None:
    created = await conversations.create("user")
    await added(store, created, "One")
    later = {"conversationId": ObjectId(created.key), "seq": 2, "role": "referee"}
    await mongo.messages.insert_one(later)
    assert await conversations.get_with_newest("user", created.id, 2) == (
        await conversations.get("user", created.id),
        None,
    )


@pytest.mark.gen_test
async def test_where_the_database_cannot_join_it_is_asked_once(
    mongo: Mongo, conversations: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    created, asked = await conversations.create("user"), []
    collection = mongo.conversations.in_thread

    def aggregate(pipeline: list[Any]) -> Any:
        asked.append(pipeline)
        return type(collection).aggregate(collection, [{"$noSuchStage": {}}])

    monkeypatch.setattr(collection, "aggregate", aggregate)
    for _ in range(2):
        assert await conversations.get_with_newest("user", created.id, 2) == (created, None)
    assert len(asked) == 1


@pytest.mark.gen_test
async def test_checkpoints_without_a_pause_do_not_keep_conversations_from_being_deleted(
    conversations: Conversations, mongo: Mongo, user: str
) -> None:
    store = Storage(mongo)

    async def save_until_deleted(key: str, running: Answer) -> None:
        while await checkpoint(store, key, running, 0, "") is not None:
            pass

    for _ in range(10):
        conversation = await conversations.create(user)
        running = await begun(store, conversation)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(save_until_deleted(conversation.key, running))
            await conversations.delete(user, conversation.id)
        assert await stored(store, conversation.key) == []


@pytest.mark.gen_test
async def test_a_large_conversation_is_deleted_step_by_step(
    conversations: Conversations, mongo: Mongo, user: str, mongodb_uri: str
) -> None:
    conversation = await conversations.create(user)
    key = ObjectId(conversation.key)
    many = [{"_id": ObjectId(), "conversationId": key, "seq": seq} for seq in range(1, 2 * AT_ONCE + 50)]
    await mongo.messages.insert_many(many)
    with MongoClient[dict[str, Any]](mongodb_uri) as client, client.start_session() as session:
        session.start_transaction()  # it holds the conversation, so that the end of the deletion fails
        client["store"]["conversations"].update_one({"_id": key}, {"$set": {"held": 1}}, session=session)
        with pytest.raises(StorageUnavailable):
            await conversations.delete(user, conversation.id)
        left = [one["seq"] async for one in mongo.messages.find({"conversationId": key}).sort("seq", 1)]
        assert left == [one["seq"] for one in many[2 * AT_ONCE :]]
    await conversations.delete(user, conversation.id)
    assert await mongo.messages.count_documents({"conversationId": key}) == 0
