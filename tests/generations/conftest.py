"""Fixtures for the tests of running answers."""

from typing import Any

import pytest
from pymongo import MongoClient


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses of a second to a hundredth of a second."""
    monkeypatch.setattr("chatstream.generations.checkpointer.CHECKPOINT_INTERVAL", 0.01)
    monkeypatch.setattr("chatstream.generations.generation._SAVE_PAUSE", 0.01)
    monkeypatch.setattr("chatstream.generations.commands._STOP_LOOK_INTERVAL", 0.01)
    monkeypatch.setattr("chatstream.generations.hub._SHUTDOWN_SPREAD", 0.01)
    monkeypatch.setattr("chatstream.generations.room._SECOND_POLL", 0.01)
    monkeypatch.setattr("chatstream.generations.room._POLL_INTERVAL", 0.01)
    monkeypatch.setattr("chatstream.generations.room._RETRY_PAUSE", 0.01)


@pytest.fixture
def nothing_waits(mongodb_uri: str) -> None:
    """Delete the waiting answers of earlier tests: `Deciding.look` would continue them with this test's model."""
    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        client["generations"]["messages"].delete_many({"status": "waiting"})
