"""The demo model's faults as clients see them, with a real server without any configuration."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chatstream.llm.demo import FAULTS
from chatstream.plugins.bets.demo import DEMO
from tests.conftest import MakeClient
from tests.support.client import API, Client
from tests.support.processes import SECRET, ServerProcess

pytestmark = pytest.mark.xdist_group("demo-faults")  # these tests share a server and its database

COMPLETE = "complete"
# The outcome of each fault: the answer's stored status, its error code, and whether it has any text.
OUTCOMES = {
    "demo-429": (COMPLETE, None, True),
    "demo-429-always": ("failed", "upstream_rate_limited", False),
    "demo-500": ("failed", "upstream_unavailable", False),
    "demo-stall-start": ("failed", "upstream_timeout", False),
    "demo-stall": ("failed", "upstream_timeout", True),
    "demo-drop": ("failed", "upstream_truncated", True),
    "demo-truncate": ("failed", "upstream_truncated", True),
    "demo-bad-json": ("failed", "upstream_protocol", True),
    "demo-azure": (COMPLETE, None, True),
    "demo-reasoning": (COMPLETE, None, True),
    "demo-reasoning-content": (COMPLETE, None, True),
    "demo-reasoning-tags": (COMPLETE, None, True),
    "demo-reasoning-parts": (COMPLETE, None, True),
    "demo-refusal": (COMPLETE, None, True),
    "demo-length": (COMPLETE, None, True),
    "demo-filter": (COMPLETE, None, True),
    "demo-error": ("failed", "upstream_unavailable", True),
    "demo-huge": (COMPLETE, None, True),
    "demo-crlf": (COMPLETE, None, True),
    "demo-surrogates": (COMPLETE, None, True),
    "demo-no-usage": (COMPLETE, None, True),
    "demo-no-system": (COMPLETE, None, True),
    "demo-no-stream": (COMPLETE, None, True),
    "demo-strict": (COMPLETE, None, True),
    "demo-each-ends": (COMPLETE, None, True),
    "demo-bad-key": ("failed", "upstream_misconfigured", False),
    "demo-context": ("failed", "context_too_long", False),
    "demo-slow": (COMPLETE, None, True),
    "demo-long": (COMPLETE, None, True),
    "demo-empty": (COMPLETE, None, False),
    **{name: (COMPLETE, None, True) for name in FAULTS if name.startswith("demo-tools")},
    "demo-tools-stall": ("failed", "upstream_timeout", False),
    "demo-tools-endless": (COMPLETE, None, False),
    "demo-tools-silent": (COMPLETE, None, False),
    "demo-none-bet": (COMPLETE, None, True),
}
# These models take as long as a person would wait; otherwise they do the same as `demo`.
UNHURRIED = {"demo-slow", "demo-long"}
# Concurrent tests: all thirty at once would be thirty simultaneous transactions, of which a slow machine's database
# refuses some.
SIDE_BY_SIDE = 8


@pytest.fixture(scope="module")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server without configuration, except that long intervals are short."""
    directory = tmp_path_factory.mktemp("demo")
    settings = {
        "JWT_SECRET": SECRET,
        # The answers and their model share one event loop: on a slow machine, seconds pass between two words.
        "CHATSTREAM_FIRST_TOKEN_TIMEOUT": "5",
        "CHATSTREAM_IDLE_TIMEOUT": "5",
        "CHATSTREAM_OVERLOAD_LAG": "60",
        "CHATSTREAM_MODEL_RETRIES": "1",
        "CHATSTREAM_HEARTBEAT_INTERVAL": "1",
    }
    server = ServerProcess(directory, settings).start().wait_until_ready()
    yield server
    assert server.stop() == 0
    shutil.rmtree(directory / "var")


@pytest.fixture
def client(demo_server: ServerProcess, make_client: MakeClient) -> Client:
    """A client of the demo server."""
    return make_client(demo_server)


def test_every_fault_is_known_here() -> None:
    assert {*FAULTS, *DEMO.models} - {"demo"} == set(OUTCOMES)


@pytest.mark.gen_test(timeout=110)  # thirty answers and their faults; the heartbeats alone show that nothing hangs
async def test_a_fault_is_told_and_stored_and_the_next_message_is_answered(
    demo_server: ServerProcess, make_client: MakeClient
) -> None:
    """Several run concurrently, since each takes a while; each has its own user."""
    names = sorted(set(OUTCOMES) - UNHURRIED)
    places = asyncio.Semaphore(SIDE_BY_SIDE)

    async def try_(name: str) -> None:
        async with places:
            await _try(make_client(demo_server), name)

    results = await asyncio.gather(*map(try_, names), return_exceptions=True)
    assert {name: result for name, result in zip(names, results, strict=True) if result is not None} == {}


async def _try(client: Client, name: str) -> None:
    status, code, has_text = OUTCOMES[name]
    conversation = await client.create(model=name)
    async with client.stream(conversation) as watched:
        question = await _post(client, conversation, "Who wins on Sunday?")
        if code:
            error = await watched.until("error")
            assert error.id is not None
            assert error.data["error"] == code
            assert error.data["requestId"]
            assert error.data["messageId"]
        if has_text or not code or name == "demo-tools-stall":  # which has half a call
            complete = await watched.until("llm_complete")
            assert complete.data["status"] == status
            assert bool(complete.data["content"]) == has_text
            assert complete.data["content"] == watched.text
        stored = await client.messages(conversation)
        assert [message["role"] for message in stored] == ["user", "assistant"]
        assert stored[0]["content"] == question["content"]
        assert stored[1]["status"] == status
        assert stored[1]["content"] == watched.text
        assert (stored[1]["error"] or {}).get("error") == code

        await client.http.patch(f"{API}/{conversation}", json={"model": "demo"})
        await _post(client, conversation, "And on Monday?")
        assert (await watched.until("llm_complete")).data["status"] == COMPLETE


async def _post(client: Client, conversation: str, content: str) -> dict[str, Any]:
    """Post as clients do: repeat with the same key while a busy database does not respond in time."""
    while True:
        posted = await client.post(conversation, content, headers={"Idempotency-Key": content[:3]})
        if posted.status_code != 503:
            assert posted.is_success, posted.text
            return dict(posted.json())
        await asyncio.sleep(float(posted.headers["Retry-After"]))


@pytest.mark.gen_test
async def test_an_empty_answer_that_failed_is_not_completed(client: Client, demo_server: ServerProcess) -> None:
    conversation = await client.create(model="demo-500")
    async with client.stream(conversation) as watched:
        posted = await client.post(conversation, "Who wins?")
        error = await watched.until("error")
        assert error.data["requestId"] == posted.headers["X-Request-Id"]
        log = await demo_server.logged()
        assert '"answer failed: ' in log
        assert log.count(error.data["requestId"]) >= 2  # the line of the request, and why
        await watched.until("heartbeat")
        assert watched.types == ["connected", "user_message", "error"]


def test_nothing_of_it_is_in_the_log(demo_server: ServerProcess) -> None:
    assert "Traceback" not in demo_server.log
    assert "Sunday" not in demo_server.log
    assert SECRET not in demo_server.log + demo_server.output


def test_the_data_directory_is_where_it_belongs(
    demo_server: ServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert Path(demo_server.log_path.parent, "var", "db").is_dir()
