"""The whole route table: every handler authenticates, or is on the short list; and the headers that every response
has.
"""

import httpx
import pytest
from tornado.web import RequestHandler

from chatstream.handlers.assets import CONTENT_TYPES
from tests.support.client import API, Client
from tests.support.routes import methods, routes

# Public routes: they have no users' data.
PUBLIC = {"/", "/docs", "/healthz", "/metrics", "/openapi.json", "/readyz", *(f"/{name}" for name in CONTENT_TYPES)}


def test_the_public_doors_are_these() -> None:
    assert {path for path, door in routes().items() if door.public} == PUBLIC


@pytest.mark.gen_test
async def test_every_other_door_asks_who_is_there_whatever_the_method(client: Client) -> None:
    conversation = await client.create()
    guarded = [path.replace("{id}", id_) for path in {*routes()} - PUBLIC for id_ in (conversation, "nobody")]
    authorization = client.http.headers.pop("Authorization")
    for path in guarded:
        for method in {*RequestHandler.SUPPORTED_METHODS} - {"OPTIONS"}:
            for headers in (
                {},
                {"Authorization": "Bearer x"},
                {"Authorization": authorization.replace("Bearer", "Basic")},
            ):
                response = await client.http.request(method, path, headers=headers)
                assert response.status_code == 401, (method, path, headers)
                assert response.headers["WWW-Authenticate"].startswith('Bearer realm="chatstream"')
                # The response names the error of the token, but not whether the conversation exists.
                assert method == "HEAD" or "onversation" not in response.text


@pytest.mark.gen_test
async def test_a_token_in_the_query_opens_the_stream_alone(client: Client) -> None:
    conversation = await client.create()
    del client.http.headers["Authorization"]
    for path, door in routes().items():
        if door.public or door.accepts_query_token:
            continue
        for method in methods(door):
            url = path.replace("{id}", conversation)
            response = await client.http.request(method, url, params={"access_token": client.token})
            assert response.status_code == 401, (method, path)


@pytest.mark.gen_test
async def test_every_response_has_the_headers_that_keep_it_from_harm(client: Client) -> None:
    conversation = await client.create()
    for path in [*routes(), "/nowhere", f"{API}/%ff"]:
        url = path.replace("{id}", conversation)
        if url.endswith("/stream"):
            url += "?once=true"
        for method in RequestHandler.SUPPORTED_METHODS:
            if method == "DELETE":  # the other methods need a message to answer
                continue
            for headers in ({}, {"Authorization": ""}):
                assert_harmless(await client.http.request(method, url, headers=headers))
    assert_harmless(await client.http.delete(f"{API}/{conversation}"))
    async with client.stream(await client.create()) as watched:
        await watched.next()
        assert_harmless(watched.response)


def assert_harmless(response: httpx.Response) -> None:
    what = (response.request.method, response.url)
    assert "Server" not in response.headers, what
    assert response.headers["X-Content-Type-Options"] == "nosniff", what
    assert response.headers["Referrer-Policy"] == "no-referrer", what
    assert response.headers["X-Request-Id"], what
    # Users' data must not be cached. Public content may be cached, but must be revalidated.
    allowed = ("no-store", "no-cache, no-store, no-transform", *(["no-cache"] if response.url.path in PUBLIC else []))
    assert response.headers["Cache-Control"] in allowed, what
    if response.headers.get("Content-Type", "").startswith("text/html"):
        policy = response.headers["Content-Security-Policy"].split("; ")
        assert {"default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= {*policy}, (
            what
        )
    if response.is_error:
        assert response.headers["Content-Type"] == "application/problem+json", what
