"""The server sends the JavaScript client's files, complete and to anybody, and no other files."""

import re

import pytest

from chatstream.handlers.assets import CONTENT_TYPES
from chatstream.handlers.static import accepts_gzip
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


WHEN_MET = {"vendor/highlight.js", "vendor/temml.js", "use-chat-sse.js"}


@pytest.mark.gen_test
async def test_the_page_is_light_when_it_is_first_loaded(client: Client) -> None:
    """The compressed size in a browser. The libraries for code and maths are loaded when an answer first has some."""
    loaded = ["", *(name for name in CONTENT_TYPES if name not in WHEN_MET and not name.endswith(".d.ts"))]
    size = 0
    for name in loaded:
        async with client.http.stream("GET", f"/{name}", headers={"Accept-Encoding": "gzip, deflate, br"}) as response:
            assert response.headers["Content-Encoding"] == "gzip"
            size += sum([len(part) async for part in response.aiter_raw()])
    assert 50_000 < size < 150_000
    for name in ("page/colours.js", "page/maths.js"):
        imported = "".join(re.findall(r"^import .*", (node.PACKAGE / name).read_text(), re.MULTILINE))
        assert not any(vendored.rpartition("/")[2] in imported for vendored in WHEN_MET)


@pytest.mark.gen_test
async def test_who_does_not_take_gzip_gets_the_same_uncompressed(client: Client) -> None:
    """A cache can tell the two forms apart: by Vary, and by their ETags."""
    for path in ("/", "/chatstream.js", "/page/page.css", "/vendor/temml.js", "/docs", "/openapi.json"):
        zipped = await client.http.get(path, headers={"Accept-Encoding": "gzip"})
        plain = await client.http.get(path, headers={"Accept-Encoding": "identity"})
        head = await client.http.head(path, headers={"Accept-Encoding": "gzip"})
        assert zipped.headers["Content-Encoding"] == "gzip"
        assert int(zipped.headers["Content-Length"]) < len(plain.content) / 2
        assert "Content-Encoding" not in plain.headers
        assert zipped.content == plain.content
        assert {"Origin", "Accept-Encoding"} == set(zipped.headers["Vary"].split(", "))
        assert zipped.headers["Vary"] == plain.headers["Vary"]
        assert zipped.headers["ETag"] != plain.headers["ETag"]
        for name in ("Content-Length", "Content-Encoding", "ETag", "Vary"):
            assert head.headers[name] == zipped.headers[name]
        known = {"If-None-Match": zipped.headers["ETag"]}
        again = await client.http.get(path, headers=known | {"Accept-Encoding": "gzip"})
        assert (again.status_code, again.content, again.headers["Vary"]) == (304, b"", zipped.headers["Vary"])
        assert (await client.http.get(path, headers=known | {"Accept-Encoding": "identity"})).status_code == 200


def test_gzip_is_sent_to_those_alone_who_take_it() -> None:
    taken = ("gzip", "GZIP", "x-gzip", "br, gzip", "gzip;q=0.5", "gzip ; q=1", "*", "br;q=1, *;q=0.1", "gzip, *;q=0")
    refused = ("", "identity", "br", "gzip;q=0", "gzip; q=0.000", "*;q=0", "*, gzip;q=0", "gzipped", "gzip;x=1")
    assert [one for one in taken if not accepts_gzip(one)] == []
    assert [one for one in refused if accepts_gzip(one)] == []


@pytest.mark.gen_test
async def test_nothing_else_is_given_away(client: Client) -> None:
    for path in ("/package.json", "/__init__.py", "/client/", "/client/../package.json", "/client%2Fsse-parser.js"):
        assert (await client.http.get(path)).status_code == 404
