"""``GET /api/v1/chat/conversations?q=``."""

import pytest

from tests.conftest import MakeClient, StartServer
from tests.support.client import API, Client
from tests.support.upstream import Upstream, answer


async def found(client: Client, text: str, **parameters: str) -> list[str]:
    """The titles of the found conversations."""
    response = await client.http.get(API, params={"q": text, **parameters})
    assert response.status_code == 200, response.text
    page = response.json()
    assert page["complete"] is True
    return [one["title"] for one in page["conversations"]]


@pytest.mark.gen_test
async def test_what_was_asked_and_answered_is_found(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("The capital is Canberra."))
    conversation = await client.create(title="Geography", initialMessage="What is Australia's capital?")
    await client.create(title="Another one")
    await client.answer(conversation)
    assert await found(client, "canberra") == ["Geography"]
    assert await found(client, "  AUSTRALIA   capital ") == ["Geography"]
    assert await found(client, "geo") == ["Geography"]
    assert await found(client, "sydney") == []
    assert (await client.http.delete(f"{API}/{conversation}")).status_code == 204
    assert await found(client, "canberra") == []


@pytest.mark.gen_test
async def test_pages_of_what_is_found(client: Client) -> None:
    for number in range(5):
        await client.create(title=f"Match {number}")
        await client.create(title=f"Other {number}")
    seen: list[str] = []
    before = None
    while True:
        response = await client.http.get(
            API, params={"q": "match", "limit": "2"} | ({"before": before} if before else {})
        )
        page = response.json()
        seen += [one["title"] for one in page["conversations"]]
        if (before := page["nextCursor"]) is None:
            break
    assert seen == [f"Match {number}" for number in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "?!",
        "\u200b\u200d",
        "a" * 201,
        " ".join(f"word{number}" for number in range(33)),
        "字" * 100 + "\u0301",
    ],
)
@pytest.mark.gen_test
async def test_what_cannot_be_searched_for_is_refused(client: Client, text: str) -> None:
    response = await client.http.get(API, params={"q": text})
    if text.startswith("字"):  # a repeated character is always the same pair
        assert response.status_code == 200
        return
    assert response.status_code == 422
    assert set(response.json()["errors"]) == {"q"}


@pytest.mark.parametrize(
    "text", ["$where", "{'$gt': ''}", "^.*", "a\x00b", "[a-z]+", "\\", "%", "' OR 1=1", "\U0001f600"]
)
@pytest.mark.gen_test
async def test_odd_text_is_only_text(client: Client, text: str) -> None:
    await client.create(title="Quite ordinary")
    response = await client.http.get(API, params={"q": text})
    assert response.status_code in (200, 422)
    assert response.status_code == 422 or response.json()["conversations"] == []


@pytest.mark.gen_test
async def test_it_has_a_rate_of_its_own(start_server: StartServer, make_client: MakeClient) -> None:
    client = make_client(start_server(CHATSTREAM_SEARCHES_PER_MINUTE="2"))
    responses = [await client.http.get(API, params={"q": "x"}) for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert responses[-1].headers["Retry-After"]
    assert (await client.http.get(API)).status_code == 200
