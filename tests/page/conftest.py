"""Fixtures for browser tests. The tests of a file share one browser; each has its own context, user and model
script.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from chatstream import auth
from tests.support.browser import ChatPage, Model
from tests.support.client import API
from tests.support.processes import SECRET, ServerProcess, without_tls

OpenPage = Callable[..., ChatPage]

# Debian's Chromium. The options turn off its background requests to Google, and the sandbox and the GPU, which a
# container does not have.
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
# The same browser without its windows, if it is there: a test then needs two thirds of the CPU time.
_HEADLESS = "chromium-headless-shell"
# All tabs of a test share one process, which makes each further one cheaper.
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"),
    "--process-per-site",
]
# Default timeout of each wait in the browser, in ms. On an idle machine the longest wait is five seconds, until the
# page gives up a message that cannot be sent.
_PATIENCE = 60_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests share a browser, so they stay in one of the test processes. They measure no coverage: what the
    page asks of the server, the server's own tests ask, too.
    """
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group(f"page-{item.path.stem}"))
            item.add_marker("unmeasured")


# Not of scope "session": while Playwright runs, no test in the same process can run an event loop of its own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    expect.set_options(timeout=_PATIENCE)
    with sync_playwright() as playwright:
        executable = os.environ.get("CHROMIUM") or shutil.which(_HEADLESS) or CHROMIUM
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def model(upstream_port: int) -> Iterator[Model]:
    """The model that answers in these tests."""
    model = Model(upstream_port)
    yield model
    model.close()


@pytest.fixture(scope="session")
def page_server(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[ServerProcess]:
    """A server whose answers outlive a reload: a browser on a busy machine takes more than a second for one."""
    settings = environment | {
        "MONGODB_DATABASE": "page",
        "CHATSTREAM_DISCONNECT_GRACE": "30",
        "CHATSTREAM_TITLES": "off",  # a title would be one more request to the model than the script expects
    }
    server = ServerProcess(tmp_path_factory.mktemp("page"), settings, measure=False).start().wait_until_ready()
    yield server
    server.stop()


@pytest.fixture
def problems() -> Iterator[list[str]]:
    """The errors and warnings in the browser's console. There must be none at the end of a test, unless the test
    removes them.
    """
    problems: list[str] = []
    yield problems
    assert problems == []


@pytest.fixture
def context(browser: Browser, problems: list[str]) -> Iterator[BrowserContext]:
    """A new browser profile."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    context.set_default_timeout(_PATIENCE)
    context.grant_permissions(["clipboard-read", "clipboard-write"])

    def on_console(message: ConsoleMessage) -> None:
        # Network errors are ignored, since tests cause them. Violations of the Content-Security-Policy and script
        # errors are not ignored.
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

    The token is good for `seconds`. After the test its answers are stopped, so that none asks the next test's model.
    """
    user = f"user-{uuid.uuid4().hex}"

    def open_(conversation: str | None = None, *, url: str = page_server.url, seconds: float = 3600) -> ChatPage:
        return ChatPage(context, url, auth.mint(SECRET, user, seconds)).open(conversation)

    yield open_
    context.close()
    headers = {"Authorization": f"Bearer {auth.mint(SECRET, user, 3600)}"}
    with httpx.Client(base_url=page_server.url, headers=headers, verify=without_tls()) as http:
        for conversation in http.get(API, params={"limit": 200}).json()["conversations"]:
            while http.post(f"{API}/{conversation['id']}/stop").is_success:
                pass  # the message queued behind the stopped answer may have begun
