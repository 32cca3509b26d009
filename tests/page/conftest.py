"""One browser for the tests of a file; each test has a context, a user and a model's script of its own."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from chatstream import auth
from tests.support.browser import ChatPage, Model
from tests.support.client import API
from tests.support.processes import SECRET, ServerProcess

OpenPage = Callable[..., ChatPage]

# Debian's. Its own services would call home; a container has neither a sandbox nor a graphics card.
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
# No test waits longer than this for one thing to be seen, in ms, unless it says so. What takes longest on an idle
# machine are the five seconds after which a message is given up that cannot be sent.
_PATIENCE = 60_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests share a browser, so they stay in one of the test processes."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group(f"page-{item.path.stem}"))


# Not for the session: as long as Playwright runs, no test in the same process can run an event loop of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    expect.set_options(timeout=_PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def model(upstream_port: int) -> Iterator[Model]:
    """What answers."""
    model = Model(upstream_port)
    yield model
    model.close()


@pytest.fixture(scope="session")
def page_server(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[ServerProcess]:
    """A server whose answers outlive a reload: a browser on a busy machine takes more than a second for one."""
    settings = environment | {
        "MONGODB_DATABASE": "page",
        "CHATSTREAM_DISCONNECT_GRACE": "30",
        "CHATSTREAM_TITLES": "off",  # they would ask the model once more than a script says
    }
    server = ServerProcess(tmp_path_factory.mktemp("page"), settings).start().wait_until_ready()
    yield server
    server.stop()


@pytest.fixture
def problems() -> Iterator[list[str]]:
    """What the browser told the page's developer. A test that does not expect it must end without any."""
    problems: list[str] = []
    yield problems
    assert problems == []


@pytest.fixture
def context(browser: Browser, problems: list[str]) -> Iterator[BrowserContext]:
    """A browser profile that nobody used."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    context.set_default_timeout(_PATIENCE)
    context.grant_permissions(["clipboard-read", "clipboard-write"])

    def on_console(message: ConsoleMessage) -> None:
        # What the network did is the tests' own doing; a policy that had to act, or a script that failed, is not.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            problems.append(f"{message.text} ({message.location})")

    def on_page(page: Page) -> None:
        page.on("console", on_console)
        page.on("pageerror", lambda error: problems.append(str(error)))

    context.on("page", on_page)
    yield context
    context.close()


@pytest.fixture
def open_page(context: BrowserContext, page_server: ServerProcess, model: Model) -> Iterator[OpenPage]:
    """`open_page(conversation, url=…, seconds=…)`: a tab with the page, of the same user in all of a test's.

    The token is good for `seconds`. No answer is left behind that would ask the next test's model.
    """
    user = f"user-{uuid.uuid4().hex}"

    def open_(conversation: str | None = None, *, url: str = page_server.url, seconds: float = 3600) -> ChatPage:
        return ChatPage(context, url, auth.mint(SECRET, user, seconds)).open(conversation)

    yield open_
    context.close()
    headers = {"Authorization": f"Bearer {auth.mint(SECRET, user, 3600)}"}
    with httpx.Client(base_url=page_server.url, headers=headers) as http:
        for conversation in http.get(API, params={"limit": 200}).json()["conversations"]:
            while http.post(f"{API}/{conversation['id']}/stop").is_success:
                pass  # what was queued behind the stopped answer may have begun
