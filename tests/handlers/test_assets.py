"""The JavaScript client as the server gives it away: whole, to anybody, and nothing else."""

import gzip
import re

import pytest

from chatstream.handlers.assets import CONTENT_TYPES
from tests.support import node
from tests.support.client import Client


@pytest.mark.gen_test
async def test_a_module_comes_whole_to_a_page_of_any_origin(client: Client) -> None:
    del client.http.headers["Authorization"]
    for name, content_type in CONTENT_TYPES.items():
        response = await client.http.get(f"/{name}", headers={"Origin": "https://elsewhere.example"})
        assert response.status_code == 200
        assert response.content == (node.PACKAGE / name).read_bytes()
        assert response.headers["Content-Type"] == content_type
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.gen_test
async def test_who_has_it_already_is_told_so(client: Client) -> None:
    first = await client.http.get("/chatstream.js")
    assert first.headers["Cache-Control"] == "no-cache"
    again = await client.http.get("/chatstream.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.gen_test
async def test_a_module_finds_what_it_imports(client: Client) -> None:
    for name in CONTENT_TYPES:
        base = str(client.http.base_url.join(f"/{name}"))
        for imported in re.findall(r'from "(\.[^"]+)"', (await client.http.get(base)).text):
            assert (await client.http.get(client.http.base_url.join(base).join(imported))).status_code == 200


def test_the_page_is_light_when_it_is_first_loaded() -> None:
    """As a proxy compresses it; what colours code and sets maths is loaded when an answer has some."""
    when_met = {"vendor/highlight.js", "vendor/temml.js", "use-chat-sse.js"}
    loaded = ["index.html", *(name for name in CONTENT_TYPES if name not in when_met and not name.endswith(".d.ts"))]
    assert sum(len(gzip.compress((node.PACKAGE / name).read_bytes())) for name in loaded) < 150_000
    for name in ("page/colours.js", "page/maths.js"):
        imported = "".join(re.findall(r"^import .*", (node.PACKAGE / name).read_text(), re.MULTILINE))
        assert not any(vendored.rpartition("/")[2] in imported for vendored in when_met)


@pytest.mark.gen_test
async def test_nothing_else_is_given_away(client: Client) -> None:
    for path in ("/package.json", "/__init__.py", "/client/", "/client/../package.json", "/client%2Fsse-parser.js"):
        assert (await client.http.get(path)).status_code == 404
