"""The OpenAPI document: it is valid and has exactly the server's routes. Also its page."""

import asyncio
import html
import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, OpenAPIV32SpecValidator, validate

from chatstream.errors import RequestError
from chatstream.handlers.assets import AssetHandler
from chatstream.handlers.openapi import REFUSALS
from tests.support.client import Client
from tests.support.routes import methods, routes


async def fetch(client: Client, **query: str) -> dict[str, Any]:
    response = await client.http.get("/openapi.json", params=query)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    document: dict[str, Any] = response.json()
    return document


@pytest.mark.gen_test
async def test_the_document_is_openapi(client: Client) -> None:
    del client.http.headers["Authorization"]
    document = await fetch(client)
    assert document["openapi"] == "3.1.1"
    validate(document, cls=OpenAPIV31SpecValidator)
    assert document == await fetch(client, version="3.1")
    with_events = await fetch(client, version="3.2")
    assert with_events["openapi"] == "3.2.0"
    validate(with_events, cls=OpenAPIV32SpecValidator)
    refused = await client.http.get("/openapi.json", params={"version": "2.0"})
    assert (refused.status_code, refused.json()["detail"]) == (400, "`version` must be one of: 3.1, 3.2.")


def mappings(value: object) -> Iterator[dict[str, Any]]:
    """All objects nested in a value."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from mappings(each)


@pytest.mark.gen_test
async def test_what_generators_stumble_over_is_not_in_it(client: Client) -> None:
    document = await fetch(client)
    for each in mappings(document):
        assert each.get("default", "") is not None  # a client would send this null for a field that it leaves out
        assert "itemSchema" not in each
        assert "const" not in each
    schemas = document["components"]["schemas"]
    for name in ("NewConversation", "NewMessage", "ConversationChanges", "StopRequest"):
        fields = schemas[name]["properties"]
        assert not any("default" in field for field in fields.values())
    assert schemas["NewMessage"]["required"] == ["content"]
    assert "required" not in schemas["NewConversation"]
    # Fields of every response are marked as required.
    assert "type" in schemas["Problem"]["required"]
    assert "errors" not in schemas["Problem"]["required"]
    # Version 3.1 has one type for each reply: a reply that is only a stream is text.
    for item in document["paths"].values():
        for operation in item.values():
            for reply in operation["responses"].values():
                content = reply.get("content", {})
                assert len(content) <= 1
                if "text/event-stream" in content:
                    assert content["text/event-stream"] == {"schema": {"type": "string"}}


@pytest.mark.gen_test
async def test_it_describes_every_route_and_nothing_else(client: Client) -> None:
    described = {path: {*item} for path, item in (await fetch(client))["paths"].items()}
    # Files are not described as operations.
    assert described == {path: methods(door) for path, door in routes().items() if door is not AssetHandler}


@pytest.mark.gen_test
async def test_it_says_of_every_door_who_may_come_in(client: Client) -> None:
    doors = routes()
    for path, item in (await fetch(client))["paths"].items():
        for operation in item.values():
            schemes = {name for scheme in operation["security"] for name in scheme}
            assert (not schemes) == doors[path].public, path
            assert ("accessToken" in schemes) == doors[path].accepts_query_token, path
            assert ("401" in operation["responses"]) == (not doors[path].public), path


def kinds(error: type[RequestError]) -> Iterator[type[RequestError]]:
    """The leaf classes of an error's tree."""
    if not error.__subclasses__():
        yield error
    for each in error.__subclasses__():
        yield from kinds(each)


def test_every_refusal_is_described_with_its_codes() -> None:
    for error in kinds(RequestError):
        assert error.code in REFUSALS[error.status].codes, error


@pytest.mark.gen_test
async def test_it_is_asked_for_again_only_when_it_has_changed(client: Client) -> None:
    for path in ("/openapi.json", "/docs"):
        response = await client.http.get(path)
        again = await client.http.get(path, headers={"If-None-Match": response.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        head = await client.http.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["ETag"] == response.headers["ETag"]


@pytest.mark.gen_test
async def test_the_page_names_every_operation_parameter_code_and_shape(client: Client) -> None:
    document = await fetch(client, version="3.2")
    page = (await client.http.get("/docs")).text
    anchors = {*re.findall(r'id="([^"]+)"', page)}
    assert {*document["components"]["schemas"]} <= anchors
    for item in document["paths"].values():
        for method, operation in item.items():
            assert method == "head" or operation["operationId"] in anchors
            assert all(f"<code>{parameter['name']}</code>" in page for parameter in operation.get("parameters", []))
    for refusal in document["components"]["responses"].values():
        for code in refusal["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"]["code"]["enum"]:
            assert f"<code>{code}</code>" in page
    # Each link has its target, and the page loads and runs nothing.
    assert {target for target in re.findall(r'href="([^"]+)"', page) if target != "openapi.json"} <= {
        f"#{anchor}" for anchor in anchors
    }
    assert not re.search(r"<script|src\s*=|https?://|@import|url\(", page)


@pytest.mark.gen_test
async def test_each_operation_has_a_request_to_try_that_the_server_takes(client: Client) -> None:
    sections = html.unescape((await client.http.get("/docs")).text).split("<section id=")
    document = await fetch(client)
    environment = {"SERVER": client.url, "TOKEN": client.token, "PATH": os.environ["PATH"]}
    await client.create(id="derby")
    for item in document["paths"].values():
        for method, operation in item.items():
            if method == "head":
                continue
            [section] = [one for one in sections if one.startswith(f'"{operation["operationId"]}"')]
            found = re.search(r'<pre tabindex="0"><code>(curl [^\n]+?)</code></pre>', section)
            assert found
            for parameter in operation.get("parameters", ()):
                if parameter.get("required") and parameter["in"] == "query":
                    assert re.search(rf"[?&]{parameter['name']}=[0-9a-f]{{24}}", found[1])
            if operation["operationId"] not in (
                "createConversation",
                "changeConversation",
                "listMessages",
                "getHealth",
            ):
                continue
            command = await asyncio.create_subprocess_shell(
                f"{found[1]} --silent --fail", env=environment, stdout=asyncio.subprocess.PIPE
            )
            assert json.loads((await command.communicate())[0])
            assert command.returncode == 0


@pytest.mark.gen_test
async def test_the_pages_policy_allows_its_style_sheet_and_nothing_else(client: Client) -> None:
    policy = (await client.http.get("/docs")).headers["Content-Security-Policy"]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; base-uri 'none'; form-action 'none'; "
        r"frame-ancestors 'none'",
        policy,
    )
