"""Conversations over REST: create, list, read, change, delete."""

import re
from datetime import UTC, datetime

import httpx
import pytest

from tests.conftest import MakeClient
from tests.support.client import API, Client
from tests.support.processes import ServerProcess
from tests.support.upstream import Do, Upstream, answer, delta, event, head, http_chunk


def status_and_code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


@pytest.mark.gen_test
async def test_a_new_conversation_says_where_it_is(client: Client) -> None:
    response = await client.http.post(API, json={})
    made = response.json()
    assert response.status_code == 201
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Location"] == f"{API}/{made['id']}"
    assert (await client.http.get(response.headers["Location"])).json() == made
    assert {*made} == {"id", "title", "systemPrompt", "model", "background", "createdAt", "updatedAt"}
    assert (made["title"], made["systemPrompt"], made["model"]) == (None, None, None)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", made["id"])
    for name in ("createdAt", "updatedAt"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", made[name])
        assert abs(datetime.fromisoformat(made[name]) - datetime.now(UTC)).total_seconds() < 60


@pytest.mark.gen_test
async def test_what_was_given_comes_back(client: Client) -> None:
    given = {"id": "My_own-1", "title": "Sunday ⚽\n", "systemPrompt": "Be brief.", "model": "org/model:1.0@x"}
    response = await client.http.post(API, json=given)
    assert response.status_code == 201
    assert response.headers["Location"] == f"{API}/My_own-1"
    assert (await client.http.get(f"{API}/My_own-1")).json() == response.json()
    assert response.json() == response.json() | given


@pytest.mark.gen_test
async def test_an_id_is_unique_per_user(client: Client, make_client: MakeClient, shared_server: ServerProcess) -> None:
    assert await client.create(id="a" * 64, title="First") == "a" * 64
    assert status_and_code(await client.http.post(API, json={"id": "a" * 64, "title": "Second"})) == (
        409,
        "already_exists",
    )
    assert (await client.http.get(f"{API}/{'a' * 64}")).json()["title"] == "First"
    other = make_client(shared_server)
    assert await other.create(id="a" * 64, title="Another") == "a" * 64
    assert (await client.http.get(f"{API}/{'a' * 64}")).json()["title"] == "First"


@pytest.mark.gen_test
async def test_ids_differ_by_case_and_none_is_special(client: Client) -> None:
    for id_ in ("a", "A", "-", "_", "stream", "messages", "null", "0"):
        assert await client.create(id=id_) == id_
        assert (await client.http.get(f"{API}/{id_}")).json()["id"] == id_


@pytest.mark.gen_test
async def test_a_first_message_is_stored_and_answered(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Arsenal."))
    response = await client.http.post(API, json={"initialMessage": "Who wins?", "systemPrompt": "Be brief."})
    assert response.status_code == 201
    first = response.json()["initialMessage"]
    assert (first["role"], first["content"]) == ("user", "Who wins?")
    stored = await client.answer(response.json()["id"])
    assert (stored["content"], stored["replyTo"]) == ("Arsenal.", first["id"])
    assert upstream.calls[0].body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who wins?"},
    ]


@pytest.mark.gen_test
async def test_the_list_is_the_callers_most_recently_active_first(
    client: Client, make_client: MakeClient, shared_server: ServerProcess, upstream: Upstream
) -> None:
    upstream.reply(answer("Yes."))
    assert (await client.http.get(API)).json() == {"conversations": [], "nextCursor": None}
    await make_client(shared_server).create(title="Somebody else's")
    for number in range(3):
        await client.create(id=f"c{number}")
    assert await listed(client) == ["c2", "c1", "c0"]
    await client.http.patch(f"{API}/c1", json={"title": "Changed"})
    assert await listed(client) == ["c1", "c2", "c0"]
    await client.post("c0", "Hello")
    assert await listed(client) == ["c0", "c1", "c2"]
    await client.http.delete(f"{API}/c1")
    assert await listed(client) == ["c0", "c2"]


async def listed(client: Client) -> list[str]:
    page = (await client.http.get(API)).json()
    assert page["nextCursor"] is None
    return [conversation["id"] for conversation in page["conversations"]]


@pytest.mark.gen_test
async def test_pages_follow_each_other_without_a_gap(client: Client) -> None:
    made = [await client.create() for _ in range(7)]
    for limit in (1, 2, 3, 6, 7, 200):
        seen: list[str] = []
        params: dict[str, str] = {"limit": str(limit)}
        while True:
            response = await client.http.get(API, params=params)
            assert response.status_code == 200
            page = response.json()
            assert len(page["conversations"]) <= limit
            seen += [conversation["id"] for conversation in page["conversations"]]
            if page["nextCursor"] is None:
                break
            params["before"] = page["nextCursor"]
        assert seen == made[::-1]


@pytest.mark.gen_test
async def test_a_page_of_a_list_is_nobody_elses(
    client: Client, make_client: MakeClient, shared_server: ServerProcess
) -> None:
    other = make_client(shared_server)
    for one in (client, other):
        for _ in range(2):
            await one.create()
    cursor = (await other.http.get(API, params={"limit": "1"})).json()["nextCursor"]
    page = (await client.http.get(API, params={"before": cursor})).json()
    theirs = {conversation["id"] for conversation in (await other.http.get(API)).json()["conversations"]}
    assert not theirs & {conversation["id"] for conversation in page["conversations"]}


@pytest.mark.gen_test
async def test_a_change_changes_what_it_names_and_nothing_else(client: Client) -> None:
    path = f"{API}/{await client.create(title='Old', systemPrompt='Be brief.', model='m1')}"
    before = (await client.http.get(path)).json()
    response = await client.http.patch(path, json={"title": "New"})
    assert response.status_code == 200
    after = response.json()
    assert after == before | {"title": "New", "updatedAt": after["updatedAt"]}
    assert after["updatedAt"] >= before["updatedAt"]
    assert (await client.http.get(path)).json() == after
    reset = (await client.http.patch(path, json={"title": None, "systemPrompt": None, "model": None})).json()
    assert (reset["title"], reset["systemPrompt"], reset["model"]) == (None, None, None)
    assert status_and_code(await client.http.patch(path, json={})) == (422, "invalid_content")


@pytest.mark.gen_test
async def test_a_changed_prompt_and_model_count_from_the_next_answer_on(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("One."))
    conversation = await client.create(systemPrompt="Old.", model="old-model", initialMessage="One?")
    await client.answer(conversation)
    await client.http.patch(f"{API}/{conversation}", json={"systemPrompt": "New.", "model": "new-model"})
    await client.post(conversation, "Two?")
    await client.answer(conversation)
    assert [(call.body["model"], call.body["messages"][0]["content"]) for call in upstream.calls] == [
        ("old-model", "Old."),
        ("new-model", "New."),
    ]


@pytest.mark.gen_test
async def test_a_deleted_conversation_is_gone_with_its_messages(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Yes."))
    conversation = await client.create(id="again", initialMessage="Hello")
    await client.answer(conversation)
    response = await client.http.delete(f"{API}/{conversation}")
    assert (response.status_code, response.content) == (204, b"")
    for path in (f"{API}/{conversation}", f"{API}/{conversation}/messages", f"{API}/{conversation}/stream"):
        assert status_and_code(await client.http.get(path)) == (404, "not_found")
    assert status_and_code(await client.http.delete(f"{API}/{conversation}")) == (404, "not_found")
    assert await client.create(id="again") == "again"
    assert await client.messages("again") == []


@pytest.mark.gen_test
async def test_deleting_ends_the_running_answer_and_the_streams(client: Client, upstream: Upstream) -> None:
    upstream.reply(head() + http_chunk(event(delta("So far"))), Do.HANG)
    conversation = await client.create(initialMessage="Tell me.")
    async with client.stream(conversation) as watched:
        await watched.until("llm_chunk")
        assert (await client.http.delete(f"{API}/{conversation}")).status_code == 204
        last = (await watched.rest())[-1]
        assert (last.type, last.data["error"]) == ("error", "conversation_deleted")
        assert (last.data["messageId"], last.data["retryable"]) == (None, False)
    await upstream.calls[0].aborted.wait()


@pytest.mark.parametrize("blank", ["", "   ", "\n\t", "\u200b\u2060", "\u202e", "\0"])
@pytest.mark.gen_test
async def test_a_title_that_shows_nothing_is_none(client: Client, blank: str) -> None:
    conversation = await client.create(title=blank)
    assert (await client.http.get(f"{API}/{conversation}")).json()["title"] is None
    await client.http.patch(f"{API}/{conversation}", json={"title": "Seals"})
    assert (await client.http.patch(f"{API}/{conversation}", json={"title": blank})).json()["title"] is None
