"""The chat page: it has no secrets, and its policy only allows requests to its own server."""

import json
import re
from html import unescape
from typing import Any

import pytest

from chatstream.config.page_file import PageFile
from chatstream.handlers.assets import PAGE
from chatstream.handlers.page import Facts, page
from chatstream.llm.demo import FAULTS
from chatstream.settings import Settings
from tests.conftest import MakeClient, StartServer
from tests.support.client import Client
from tests.support.processes import REPOSITORY

WEB = REPOSITORY / "chatstream" / "web"


@pytest.mark.gen_test
async def test_the_page_comes_whole_to_anybody(client: Client) -> None:
    del client.http.headers["Authorization"]
    for path in ("/", "/?conversation=123"):
        response = await client.http.get(path)
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert response.text.startswith("<!doctype html>")
        assert response.text.rstrip().endswith("</html>")
    head = await client.http.head("/")
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.gen_test
async def test_its_policy_lets_it_talk_to_its_own_server_only(client: Client) -> None:
    response = await client.http.get("/")
    policy = dict(
        directive.strip().split(" ", 1) for directive in response.headers["Content-Security-Policy"].split(";")
    )
    assert policy == {
        **dict.fromkeys(("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'"),
        **dict.fromkeys(("script-src", "style-src", "connect-src"), "'self'"),
        "img-src": "data:",
        "require-trusted-types-for": "'script'",
        "trusted-types": "dompurify",
    }
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.gen_test
async def test_all_that_it_loads_is_its_own_and_is_served(client: Client) -> None:
    text = (await client.http.get("/")).text
    assert not re.search(r'<script(?! type="module" src=)|<style|\sstyle=|\son\w+=|javascript:', text)
    addresses = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert {one for one in addresses if not one.startswith(("#", "data:"))} == {"page/page.css", "page/main.js"}
    assert not re.search(r"@import|url\(", (await client.http.get("/page/page.css")).text)
    assert {str(path.relative_to(WEB)) for folder in ("page", "vendor") for path in (WEB / folder).glob("*.*s")} == {
        *PAGE
    }


def test_its_own_code_makes_no_markup_from_text() -> None:
    for path in (WEB / "page").glob("*.js"):
        assert not re.search(
            r"(inner|outer)HTML|insertAdjacentHTML|document\.write|\beval\(|new Function", path.read_text()
        )


@pytest.mark.gen_test
async def test_it_does_not_repeat_the_address(client: Client) -> None:
    marker = "<script>alert(1)</script>"
    response = await client.http.get("/", params={"conversation": marker, "token": "a-token"})
    assert marker not in response.text
    assert "a-token" not in response.text


def facts(page: str) -> dict[str, Any]:
    """The server's facts in the page."""
    (written,) = re.findall(r'<meta name="chatstream" content="([^"]*)">', page)
    found: dict[str, Any] = json.loads(unescape(written))
    return found


def test_it_proposes_every_demo_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert facts(page(Facts.of(Settings(), PageFile(), {}, {}, FAULTS)).decode())["demoModels"] == dict(FAULTS)


@pytest.mark.gen_test
async def test_it_knows_what_it_must_and_no_secret(
    start_server: StartServer, make_client: MakeClient, environment: dict[str, str]
) -> None:
    login = "https://id.example/in?a='1'&b=2"
    server = start_server(CHATSTREAM_LOGIN_URL=login, CHATSTREAM_CONTENT_CHARACTERS="123")
    text = (await make_client(server).http.get("/")).text
    found = facts(text)
    assert {*found.pop("words")} == {"en", "de"}
    assert found == {
        "contentCharacters": 123,
        "loginUrl": login,
        "demo": False,
        "demoModels": {},
        "name": "chatstream",
        "language": None,
        "colours": {},
        "logo": None,
        "cards": {"recommendation": ["recommendation.js", "recommendation.css"]},
        "titles": True,
        "userPrompts": True,
    }
    for name in ("JWT_SECRET", "OPENAI_API_KEY", "MONGODB_URI", "OPENAI_BASE_URL"):
        assert environment[name] not in text


@pytest.mark.gen_test
async def test_in_production_it_is_there_only_if_it_is_asked_for(
    start_server: StartServer, make_client: MakeClient
) -> None:
    for mode, status in (("auto", 404), ("on", 200)):
        client = make_client(start_server(CHATSTREAM_ENV="production", CHATSTREAM_PAGE=mode))
        for path in ("/", "/page/main.js", "/vendor/marked.js"):
            assert (await client.http.get(path)).status_code == status
        assert (await client.http.get("/chatstream.js")).status_code == 200
