"""``chatstream usage`` prints each user's usage, and nothing else."""

import asyncio
import csv
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from chatstream.models import NO_BUDGET, Status, Usage
from chatstream.store.conversations import Conversations
from chatstream.store.ledger import Spending
from chatstream.store.mongo import Mongo
from tests.support.processes import chatstream
from tests.support.storage import Storage

DATABASE = "usage-report"
TOOK = Usage(prompt_tokens=10, completion_tokens=5, total_tokens=15, cached_tokens=4, cost_micros=30)
MONTH = f"{datetime.now(UTC):%Y-%m}"


def usage(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return chatstream(directory, "usage", *arguments, MONGODB_DATABASE=DATABASE, **environment)


async def fill(uri: str) -> None:
    """Two users with three answers each, of which two were deleted with their conversation."""
    mongo = Mongo(uri, DATABASE)
    await mongo.prepare()
    store = Storage(mongo)
    conversations = Conversations(mongo, store.ledger)
    for user in ("ann", 'b"o,b'):
        for model in ("m", "n, large", "gone"):
            conversation = await conversations.create(user)
            spending = Spending(user, NO_BUDGET, lambda before: TOOK)
            posted = await store.posting.post(conversation, "Tell me.", spending=spending)
            assert posted.answer is not None
            ended = replace(posted.answer, status=Status.STOPPED, usage=TOOK, model=model)
            await store.attempts.finish(conversation, ended)
            if model == "gone":
                await conversations.delete(user, conversation.id)
    mongo.close()


@pytest.fixture(scope="module")
def filled(mongodb_uri: str) -> str:
    asyncio.run(fill(mongodb_uri))
    return mongodb_uri


def row(user: str, model: str) -> dict[str, Any]:
    return {
        "month": MONTH,
        "user": user,
        "model": model,
        "answers": 1,
        "promptTokens": 10,
        "completionTokens": 5,
        "cachedTokens": 4,
        "reasoningTokens": 0,
        "totalTokens": 15,
        "costMicros": 30,
    }


@pytest.mark.parametrize("source", ["ledger", "messages"])
def test_a_month_by_user_and_model(filled: str, tmp_path: Path, source: str) -> None:
    told = usage(tmp_path, "--format", "json", "--source", source, MONGODB_URI=filled)
    assert (told.returncode, told.stderr) == (0, "")
    rows = sorted(map(json.loads, told.stdout.splitlines()), key=lambda one: (one["user"], one["model"]))
    models = ["gone", "m", "n, large"] if source == "ledger" else ["m", "n, large"]
    assert rows == [row(user, model) for user in ("ann", 'b"o,b') for model in models]


def test_csv_of_what_the_settings_say(filled: str, tmp_path: Path) -> None:
    told = usage(tmp_path, MONGODB_URI=filled)
    assert len(told.stdout.splitlines()) == 1 + 4
    told = usage(tmp_path, MONGODB_URI=filled, CHATSTREAM_USER_TOKENS_PER_DAY="10")
    rows = [*csv.DictReader(told.stdout.splitlines())]
    assert len(rows) == 6
    assert {one["user"] for one in rows} == {"ann", 'b"o,b'}
    assert sum(int(one["costMicros"]) for one in rows) == 180


def test_a_month_without_anything(filled: str, tmp_path: Path) -> None:
    for source in ("ledger", "messages"):
        told = usage(tmp_path, "--month", "2025-02", "--source", source, MONGODB_URI=filled)
        assert (told.returncode, len(told.stdout.splitlines())) == (0, 1)


@pytest.mark.parametrize("month", ["2026-13", "2026", "last", "2026-1", ""])
def test_what_is_no_month(tmp_path: Path, month: str) -> None:
    told = usage(tmp_path, "--month", month)
    assert (told.returncode, told.stdout) == (2, "")
    assert "must be a month, such as 2026-11" in told.stderr
