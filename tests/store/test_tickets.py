"""Tickets in a real database: valid once, for a minute, for one conversation; and their stored form."""

import asyncio
import hashlib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from tornado.ioloop import IOLoop

from chatstream.models import User
from chatstream.store.mongo import Mongo
from chatstream.store.tickets import Tickets

# User ids that MongoDB could evaluate as expressions.
USERS = [
    User("user", 2e9),
    User("$where", 2e9, "jti", 1e9),
    User("$$NOW", 1.5, "$userId", None),
    User('{"$gt": ""}', 2e9, "jti", 0.0),
]


@pytest.fixture
def mongo(io_loop: IOLoop, mongodb_uri: str) -> Iterator[Mongo]:
    mongo = Mongo(mongodb_uri, f"tickets-{uuid.uuid4().hex}")
    io_loop.run_sync(mongo.prepare)
    yield mongo
    mongo.close()


@pytest.mark.gen_test
async def test_a_ticket_gives_back_who_asked_for_it_once(mongo: Mongo) -> None:
    tickets = Tickets(mongo)
    for user in USERS:
        ticket = await tickets.issue(user, "conversation")
        lasts = ticket.expires_at - datetime.now(UTC)
        assert timedelta(seconds=50) < lasts <= timedelta(seconds=61)
        assert await tickets.redeem(ticket.text, "conversation") == user
        assert await tickets.redeem(ticket.text, "conversation") is None
    assert await mongo.tickets.count_documents({}) == 0


@pytest.mark.gen_test
async def test_only_its_hash_is_stored_and_deleted_by_itself(mongo: Mongo) -> None:
    ticket = await Tickets(mongo).issue(USERS[0], "conversation")
    [stored] = await mongo.tickets.find().to_list(None)
    assert stored["_id"] == hashlib.sha256(ticket.text.encode()).digest()
    assert ticket.text not in str(stored)
    indexes = await mongo.tickets.index_information()
    assert indexes["expired"]["expireAfterSeconds"] == 0


@pytest.mark.gen_test
async def test_for_another_conversation_it_is_none_and_not_used_up(mongo: Mongo) -> None:
    tickets = Tickets(mongo)
    ticket = await tickets.issue(USERS[0], "conversation")
    for other in ("another", "", "Conversation", "$conversationId"):
        assert await tickets.redeem(ticket.text, other) is None
    assert await tickets.redeem(ticket.text, "conversation") == USERS[0]


@pytest.mark.gen_test
async def test_an_expired_one_is_none_although_it_is_still_there(mongo: Mongo) -> None:
    tickets = Tickets(mongo)
    ticket = await tickets.issue(USERS[0], "conversation")
    await mongo.tickets.update_many({}, [{"$set": {"expiresAt": {"$subtract": ["$expiresAt", 61_000]}}}])
    assert await tickets.redeem(ticket.text, "conversation") is None


@pytest.mark.gen_test
async def test_of_twenty_who_try_at_once_one_succeeds(mongo: Mongo, mongodb_uri: str) -> None:
    ticket = await Tickets(mongo).issue(USERS[0], "conversation")
    tried = await asyncio.gather(*(Tickets(mongo).redeem(ticket.text, "conversation") for _ in range(20)))
    assert [user for user in tried if user is not None] == [USERS[0]]


@pytest.mark.gen_test
async def test_what_is_no_ticket_is_not_looked_up() -> None:
    nowhere = Mongo("mongodb://127.0.0.1:1", "none")  # a query would raise an error
    for text in ("", "x", "x" * 42, "x" * 44, "x" * 42 + "\n", "ä" * 43, "$" * 43, "x" * 100_000, "\ud800" * 43):
        assert await Tickets(nowhere).redeem(text, "conversation") is None
    nowhere.close()
