"""The OpenAPI document: valid, about these routes and no others; and the page of it."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV32SpecValidator, validate

from chatstream.errors import RequestError
from chatstream.handlers.assets import AssetHandler
from chatstream.handlers.openapi import REFUSALS
from tests.support.client import Client
from tests.support.routes import methods, routes


async def fetch(client: Client) -> dict[str, Any]:
    response = await client.http.get("/openapi.json")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    document: dict[str, Any] = response.json()
    return document


@pytest.mark.gen_test
async def test_the_document_is_openapi_3_2(client: Client) -> None:
    del client.http.headers["Authorization"]
    document = await fetch(client)
    assert document["openapi"] == "3.2.0"
    validate(document, cls=OpenAPIV32SpecValidator)


@pytest.mark.gen_test
async def test_it_describes_every_route_and_nothing_else(client: Client) -> None:
    described = {path: {*item} for path, item in (await fetch(client))["paths"].items()}
    # Files are no operations.
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
    """The most particular kinds of an error."""
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
    document = await fetch(client)
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
    # No link leads nowhere, and nothing is loaded or run.
    assert {target for target in re.findall(r'href="([^"]+)"', page) if target != "openapi.json"} <= {
        f"#{anchor}" for anchor in anchors
    }
    assert not re.search(r"<script|src\s*=|https?://|@import|url\(", page)


@pytest.mark.gen_test
async def test_the_pages_policy_allows_its_style_sheet_and_nothing_else(client: Client) -> None:
    policy = (await client.http.get("/docs")).headers["Content-Security-Policy"]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; base-uri 'none'; form-action 'none'; "
        r"frame-ancestors 'none'",
        policy,
    )
