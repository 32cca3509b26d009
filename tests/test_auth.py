"""Authentication over HTTP, as clients see it; the table of tokens is in `tests.auth`."""

import asyncio

import pytest

from chatstream.auth import mint
from tests.support.client import API, PATIENCE, Client
from tests.support.processes import SECRET, ServerProcess
from tests.support.tokens import BAD, HOUR, claims, signed
from tests.support.upstream import Upstream, answer

# A megabyte does not fit into the headers, httpx sends no header that is not ASCII, and spaces around one do not count.
SENDABLE = {
    name: token
    for name, token in BAD.items()
    if 0 < len(token) < 12_000 and token.isascii() and token.strip() == token != "\0"
}


@pytest.mark.gen_test
async def test_without_a_token_the_challenge_says_no_error(client: Client) -> None:
    del client.http.headers["Authorization"]
    for headers in ({}, {"Authorization": "Basic dTpw"}, {"Authorization": "Bearer"}, {"Authorization": ""}):
        response = await client.http.get(API, headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, "unauthenticated"), headers
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="chatstream"'


@pytest.mark.gen_test
async def test_with_a_bad_token_it_says_invalid_token(client: Client, shared_server: ServerProcess) -> None:
    for name, token in SENDABLE.items():
        client.http.headers["Authorization"] = f"Bearer {token}"
        response = await client.http.get(API)
        assert (response.status_code, response.json()["code"]) == (401, "invalid_token"), name
        assert response.headers["WWW-Authenticate"].startswith('Bearer realm="chatstream", error="invalid_token"'), name
        assert token not in response.text, name
    assert "Traceback" not in await shared_server.logged()


@pytest.mark.gen_test
async def test_a_token_longer_than_any_is_refused(client: Client) -> None:
    client.http.headers["Authorization"] = f"Bearer {signed(claims(padding='x' * 7000))}"
    response = await client.http.get(API)
    assert (response.status_code, response.json()["detail"]) == (401, "The token is too long.")


@pytest.mark.gen_test
async def test_the_scheme_has_no_case(client: Client) -> None:
    for scheme in ("bearer", "BEARER", "Bearer "):
        client.http.headers["Authorization"] = f"{scheme} {client.token}"
        assert (await client.http.get(API)).status_code == 200


@pytest.mark.gen_test
async def test_a_token_in_the_address_does_not_help_elsewhere_than_on_the_stream(client: Client) -> None:
    """Tokens in URLs end up in logs and histories: only clients that cannot set headers may send them."""
    conversation = await client.create()
    del client.http.headers["Authorization"]
    one = f"{API}/{conversation}"
    for name in ("access_token", "token"):
        for method, path in [
            ("GET", API),
            ("POST", API),
            ("GET", one),
            ("PATCH", one),
            ("DELETE", one),
            ("GET", f"{one}/messages"),
            ("POST", f"{one}/messages"),
            ("POST", f"{one}/stop"),
            ("POST", f"{one}/regenerate"),
        ]:
            response = await client.http.request(method, path, params={name: client.token}, json={})
            assert (response.status_code, response.json()["code"]) == (401, "unauthenticated"), (method, path)


@pytest.mark.gen_test
async def test_the_stream_takes_the_token_in_the_address_too(client: Client) -> None:
    conversation = await client.create()
    for params in ({"access_token": client.token}, {"token": client.token}):
        del client.http.headers["Authorization"]
        async with client.stream(conversation, params=params) as watched:
            assert (await watched.next()).type == "connected"
        client.http.headers["Authorization"] = f"Bearer {client.token}"
        # The same token twice is one token.
        async with client.stream(conversation, params=params) as watched:
            assert (await watched.next()).type == "connected"


@pytest.mark.gen_test
async def test_an_empty_token_in_the_address_is_none(client: Client) -> None:
    conversation = await client.create()
    async with client.stream(conversation, params={"access_token": ""}) as watched:
        assert (await watched.next()).type == "connected"
    del client.http.headers["Authorization"]
    response = await client.http.get(f"{API}/{conversation}/stream", params={"access_token": ""})
    assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")


@pytest.mark.gen_test
async def test_two_different_tokens_are_refused(client: Client) -> None:
    conversation = await client.create()
    path = f"{API}/{conversation}/stream"
    other = mint(SECRET, client.user, 2 * HOUR)
    for query in (
        {"access_token": other},
        {"token": other},
        {"access_token": client.token, "token": other},
        {"access_token": [client.token, other]},
        {"access_token": "garbage"},
    ):
        response = await client.http.get(path, params=query, headers={"Accept": "text/event-stream"})
        assert (response.status_code, response.json()["code"]) == (400, "invalid_request"), query


@pytest.mark.gen_test
async def test_a_bad_token_keeps_its_status_on_the_stream(client: Client) -> None:
    """A temporary refusal is sent as a stream, after which an EventSource reconnects; this one is permanent."""
    conversation = await client.create()
    del client.http.headers["Authorization"]
    for token in (BAD["exp past"], BAD["other secret"], "garbage"):
        async with client.stream(conversation, params={"access_token": token}) as refused:
            assert refused.response.status_code == 401
            assert 'error="invalid_token"' in refused.response.headers["WWW-Authenticate"]


@pytest.mark.gen_test
async def test_no_token_no_secret_and_no_message_is_ever_in_the_log(
    client: Client, upstream: Upstream, shared_server: ServerProcess
) -> None:
    upstream.reply(answer("The answer that nobody logs."))
    conversation = await client.create(title="A title that nobody logs", systemPrompt="A prompt that nobody logs")
    stream, messages, good = f"{API}/{conversation}/stream", f"{API}/{conversation}/messages", client.token
    async with client.stream(conversation, params={"access_token": good}) as watched:
        await watched.next()
        await client.post(conversation, "The question that nobody logs.")
        await watched.until("llm_complete")
    bad = [BAD["other secret"], BAD["exp past"], mint(SECRET, client.user, 2 * HOUR)]
    for token in [good, *bad]:
        for name in ("access_token", "token", "ticket"):
            query = {name: token}
            await client.http.get(f"{API}/{conversation}x/stream", params=query)  # not found
            await client.http.get(f"{stream}/x", params=query)  # no route
            await client.http.get("/x", params=query)
            await client.http.request("PUT", stream, params=query)  # no such method
            await client.http.request("BREW", stream, params=query)
            await client.http.get(f"{API}/%ff/stream", params=query)
            await client.http.get(stream, params=query | {"once": "perhaps"})
            await client.http.get("/", params=query)
            await client.http.get("/healthz", params=query)
            await client.http.post(messages, params=query, content=b"The question that {")
            await client.http.post(messages, params=query, json={"content": token, "role": token})
        await client.http.get(stream, params={"access_token": [token, "other"]})
        client.http.headers["Authorization"] = f"Bearer {token}"
        await client.http.get(f"{API}/{conversation}x")
        await client.http.get(stream, params={"access_token": "other"})
        for scheme in ("Basic", "Token", ""):
            await client.http.get(API, headers={"Authorization": f"{scheme} {token}".strip()})
        await client.http.get(API, headers={"X-Request-Id": token, "Cookie": f"token={token}", "Referer": f"/?{token}"})
        # The HTTP parser quotes a header that it refuses.
        await raw(shared_server.port, f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\x01\r\n\r\n")
        await raw(shared_server.port, f"GET / HTTP/1.1\r\nHost: x\r\nBearer {token}: x\r\n\r\n")
        await raw(shared_server.port, f"GET /?token={token} HTTP/9\r\nHost: x\r\n\r\n")
        await raw(shared_server.port, f"GET / HTTP/1.1\r\nHost: {token}@{token}\r\n\r\n")
        await raw(shared_server.port, f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {token}\r\n\r\n")
        await raw(shared_server.port, f"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {token}\r\n\r\n")
    log = await shared_server.logged() + shared_server.output
    assert "/messages 201" in log  # the log is not empty
    for token in [good, *bad]:
        for part in token.split("."):
            # All tokens have the same header part, which is not secret.
            assert part not in log or part == good.split(".")[0]
    for secret in (SECRET, "sk-test-this-must-never-be-seen", "nobody logs", "The question that"):
        assert secret not in log
    assert "Traceback" not in log


async def raw(port: int, request: str) -> bytes:
    """Send bytes that no client library would send; returns the response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request.encode("latin-1"))
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    finally:
        writer.close()
