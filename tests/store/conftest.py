"""Fixtures: a real database, and a conversation in it."""

from collections.abc import Iterator

import pytest
from tornado.ioloop import IOLoop

from chatstream.models import Conversation
from chatstream.store.conversations import Conversations
from chatstream.store.mongo import Mongo
from tests.support.storage import Storage


@pytest.fixture
def mongo(io_loop: IOLoop, mongodb_uri: str) -> Iterator[Mongo]:
    mongo = Mongo(mongodb_uri, "store")
    io_loop.run_sync(mongo.prepare)
    yield mongo
    mongo.close()


@pytest.fixture
def store(mongo: Mongo) -> Storage:
    return Storage(mongo)


@pytest.fixture
def conversation(io_loop: IOLoop, mongo: Mongo) -> Conversation:
    conversation: Conversation = io_loop.run_sync(lambda: Conversations(mongo).create("user"))
    return conversation


@pytest.fixture
def key(conversation: Conversation) -> str:
    return conversation.key
