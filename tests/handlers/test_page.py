"""The page: one file, no secret, and a policy that lets it do nothing but talk to its own server."""

import re

import pytest

from tests.support.client import Client


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
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for name in ("base-uri", "form-action", "frame-ancestors"):
        assert policy[name] == "'none'"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.gen_test
async def test_it_loads_nothing_and_writes_no_markup(client: Client) -> None:
    page = (await client.http.get("/")).text
    assert not re.search(r"(?:src|href)\s*=|https?://|@import|url\(", page)
    # What a model or a user wrote must stay text.
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", page)


@pytest.mark.gen_test
async def test_it_does_not_repeat_the_address(client: Client) -> None:
    marker = "<script>alert(1)</script>"
    response = await client.http.get("/", params={"conversation": marker, "token": "a-token"})
    assert marker not in response.text
    assert "a-token" not in response.text
