"""Branches over REST and on the stream: edit a question, show another branch, continue and rate an answer."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.support.client import API, Client
from tests.support.exposition import scrape
from tests.support.upstream import DONE, END, Do, Upstream, answer, beginning, delta, ending, event, http_chunk

Page = dict[str, Any]


def status_and_code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


async def page(client: Client, conversation: str, **params: str) -> Page:
    response = await client.http.get(f"{API}/{conversation}/messages", params=params)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def said(client: Client, conversation: str, **params: str) -> list[str]:
    return [message["content"] for message in (await page(client, conversation, **params))["messages"]]


async def ask(client: Client, conversation: str, content: str, **body: Any) -> Page:
    """Post a message and wait for its answer; returns the message."""
    response = await client.http.post(f"{API}/{conversation}/messages", json={"content": content, **body})
    assert response.status_code == 201, response.text
    await client.answer(conversation)
    return dict(response.json())


async def show(client: Client, conversation: str, head: str) -> httpx.Response:
    return await client.http.patch(f"{API}/{conversation}", json={"head": head})


def replies(upstream: Upstream, *texts: str) -> None:
    for text in texts:
        upstream.reply(answer(text))


def asked(upstream: Upstream, number: int = -1) -> list[str]:
    """The messages of a request to the model, without the system prompt."""
    return [turn["content"] for turn in upstream.calls[number].body["messages"] if turn["role"] != "system"]


@pytest.mark.gen_test
async def test_an_edited_question_begins_a_branch_and_the_first_one_stays_within_reach(
    client: Client, upstream: Upstream
) -> None:
    replies(upstream, "To one.", "To two.", "To two, edited.", "To three.")
    conversation = await client.create()
    await ask(client, conversation, "One")
    two = await ask(client, conversation, "Two")
    before = await page(client, conversation)
    assert "head" not in before
    assert all({"parent", "siblings"}.isdisjoint(message) for message in before["messages"])

    first_answer = before["messages"][1]["id"]
    edited = await ask(client, conversation, "Two!", parent=first_answer)
    assert edited["parent"] == first_answer
    assert asked(upstream) == ["One", "To one.", "Two!"]
    shown = await page(client, conversation)
    assert [message["content"] for message in shown["messages"]] == ["One", "To one.", "Two!", "To two, edited."]
    assert (shown["head"], shown["nextCursor"]) == (edited["id"], None)
    question = shown["messages"][2]
    assert (question["siblings"], question["index"]) == ([two["id"], edited["id"]], 1)
    assert question["parent"] == first_answer
    assert "siblings" not in shown["messages"][0]

    # The next message continues the shown branch. The other branch can be read, and shown again.
    await ask(client, conversation, "Three")
    assert asked(upstream) == ["One", "To one.", "Two!", "To two, edited.", "Three"]
    old = before["messages"][-1]["id"]
    assert await said(client, conversation, leaf=old) == ["One", "To one.", "Two", "To two."]
    switched = await show(client, conversation, two["id"])  # in the middle of a branch: its end is meant
    assert (switched.status_code, switched.json()["head"]) == (200, old)
    assert await said(client, conversation) == ["One", "To one.", "Two", "To two."]
    replies(upstream, "To four.")
    await ask(client, conversation, "Four")
    assert asked(upstream) == ["One", "To one.", "Two", "To two.", "Four"]


@pytest.mark.gen_test
async def test_the_first_question_can_be_edited(client: Client, upstream: Upstream) -> None:
    replies(upstream, "A.", "B.")
    conversation = await client.create()
    await ask(client, conversation, "First")
    edited = await ask(client, conversation, "First!", parent=None)
    assert edited["parent"] is None
    assert asked(upstream) == ["First!"]
    shown = (await page(client, conversation))["messages"]
    assert [message["content"] for message in shown] == ["First!", "B."]
    assert shown[0]["index"] == 1


@pytest.mark.gen_test
async def test_a_parent_that_is_the_end_begins_no_branch(client: Client, upstream: Upstream) -> None:
    replies(upstream, "A.", "B.")
    conversation = await client.create()
    await ask(client, conversation, "One", parent=None)
    end = (await client.messages(conversation))[-1]["id"]
    assert "parent" not in await ask(client, conversation, "Two", parent=end)
    assert "head" not in await page(client, conversation)


@pytest.mark.gen_test
async def test_pages_of_a_branch_are_as_the_whole(client: Client, upstream: Upstream) -> None:
    conversation = await client.create()
    replies(upstream, *[f"{n}." for n in range(5)])
    first = await ask(client, conversation, "a")
    await ask(client, conversation, "b")
    end = (await client.messages(conversation))[1]["id"]
    for content in ("c", "d", "e"):
        await ask(client, conversation, content, **({"parent": end} if content == "c" else {}))
    whole = await page(client, conversation)
    everything = whole["messages"]
    assert [message["content"] for message in everything] == ["a", "0.", "c", "2.", "d", "3.", "e", "4."]
    assert "previous" not in whole
    for limit in (1, 2, 3, 7, 8):
        seen: list[Page] = []
        params = {"limit": str(limit)}
        previous = everything[-1]["id"]
        while True:
            one = await page(client, conversation, **params)
            assert len(one["messages"]) <= limit
            assert one["messages"][-1]["id"] == previous
            seen[:0] = one["messages"]
            if one["nextCursor"] is None:
                break
            previous = one["previous"]
            params["before"] = one["nextCursor"]
        assert seen == everything
    assert await said(client, conversation, leaf=first["id"]) == ["a"]


@pytest.mark.gen_test
async def test_earlier_attempts_stay_within_reach_and_can_be_gone_on_from(client: Client, upstream: Upstream) -> None:
    replies(upstream, "First.", "Second.", "On.")
    conversation = await client.create()
    await ask(client, conversation, "Say it.")
    await client.http.post(f"{API}/{conversation}/regenerate")
    await client.answer(conversation)
    _, one, two = await client.messages(conversation)
    assert one["siblings"] == two["siblings"] == [one["id"], two["id"]]
    assert (one["index"], two["index"]) == (0, 1)
    assert (await show(client, conversation, one["id"])).status_code == 200
    assert await said(client, conversation) == ["Say it.", "First."]
    await ask(client, conversation, "And?")
    assert asked(upstream) == ["Say it.", "First.", "And?"]
    assert await said(client, conversation) == ["Say it.", "First.", "And?", "On."]


@pytest.mark.gen_test
async def test_an_older_question_can_be_answered_again(client: Client, upstream: Upstream) -> None:
    replies(upstream, "A.", "B.", "A again.")
    conversation = await client.create()
    one = await ask(client, conversation, "One")
    await ask(client, conversation, "Two")
    async with client.stream(conversation) as watched:
        await watched.next()
        body = {"messageId": one["id"]}
        begun = await client.http.post(f"{API}/{conversation}/regenerate", json=body)
        assert (begun.status_code, begun.json()["attempt"]) == (202, 2)
        assert (await watched.until("branch")).data["head"] == one["id"]
        assert (await watched.until("llm_complete")).data["content"] == "A again."
    assert asked(upstream) == ["One"]
    assert await said(client, conversation) == ["One", "A again."]


@pytest.mark.gen_test
@pytest.mark.parametrize("where", ["parent", "head", "leaf", "messageId", "continue", "rating"])
async def test_what_is_no_message_of_this_conversation_is_refused_and_changes_nothing(
    client: Client, upstream: Upstream, where: str
) -> None:
    replies(upstream, "A.", "B.")
    conversation, other = await client.create(), await client.create()
    mine, foreign = await ask(client, conversation, "Mine"), await ask(client, other, "Foreign")
    before = await page(client, conversation)
    path = f"{API}/{conversation}"

    async def sent(id_: object) -> httpx.Response:
        match where:
            case "parent":
                return await client.http.post(f"{path}/messages", json={"content": "x", "parent": id_})
            case "head":
                return await client.http.patch(path, json={"head": id_, "title": "Changed"})
            case "leaf":
                return await client.http.get(f"{path}/messages", params={"leaf": str(id_)})
            case "rating":
                return await client.http.put(f"{path}/rating", json={"messageId": id_, "rating": "up"})
        body = {"messageId": id_} | ({"continue": True} if where == "continue" else {})
        return await client.http.post(f"{path}/regenerate", json=body)

    wrong: list[object] = [foreign["id"], "0" * 24, "nothing", "", mine["id"].upper()]
    wrong += {
        "head": [None],
        "messageId": [before["messages"][1]["id"]],  # an answer
        "continue": [mine["id"]],  # none
        "rating": [mine["id"], None],
    }.get(where, [])
    for id_ in wrong:
        response = await sent(id_)
        known = {"leaf": ((400, "invalid_request"), (404, "not_found")), "rating": ((404, "not_found"),)}
        assert status_and_code(response) in ((422, "invalid_content"), *known.get(where, ())), (id_, response.text)
    assert await page(client, conversation) == before
    assert (await client.http.get(path)).json()["title"] is None
    assert len(upstream.calls) == 2


@pytest.mark.gen_test
async def test_all_who_watch_are_told_of_another_branch_and_who_comes_back_finds_it(
    client: Client, upstream: Upstream
) -> None:
    replies(upstream, "A.", "B.")
    conversation = await client.create()
    one = await ask(client, conversation, "One")
    async with client.stream(conversation) as here, client.stream(conversation) as there:
        assert "head" not in (await here.next()).data
        await there.next()
        edited = await ask(client, conversation, "One!", parent=None)
        for watched in (here, there):
            told = (await watched.until("user_message")).data
            assert (told["messageId"], told["parent"]) == (edited["id"], None)
            await watched.until("llm_complete")
        assert (await show(client, conversation, one["id"])).status_code == 200
        for watched in (here, there):
            branch = await watched.until("branch")
            assert str(branch.id).endswith(".complete")  # of the event before: it has none of its own
            assert branch.data["head"] == (await page(client, conversation))["head"]
        cursor = here.cursor
    async with client.stream(conversation, headers={"Last-Event-ID": cursor}) as again:
        connected = (await again.next()).data
        assert (connected["resumed"], connected["head"]) == (True, branch.data["head"])


@pytest.mark.gen_test
async def test_another_branch_is_shown_while_an_answer_runs_which_goes_on(client: Client, upstream: Upstream) -> None:
    go_on = asyncio.Event()
    replies(upstream, "A.")
    upstream.reply(beginning("B so far"), go_on, http_chunk(event(delta(" and on."))), ending())
    conversation = await client.create()
    one = await ask(client, conversation, "One")
    async with client.stream(conversation) as watched:
        await watched.next()
        two = (
            await client.http.post(f"{API}/{conversation}/messages", json={"content": "One!", "parent": None})
        ).json()
        await watched.until("llm_chunk")
        assert (await show(client, conversation, one["id"])).status_code == 200
        shown = await page(client, conversation)
        assert [message["content"] for message in shown["messages"]] == ["One", "A."]
        # While the answer runs, a message on this branch is refused or queued; a queued one can be edited.
        posted = f"{API}/{conversation}/messages"
        assert status_and_code(await client.post(conversation, "Now?")) == (409, "answer_in_progress")
        end = shown["messages"][-1]["id"]
        for content in ("Wait", "Wait!"):
            body = {"content": content, "parent": end}
            waits = await client.http.post(posted, json=body, params={"ifBusy": "queue"})
            assert waits.status_code == 201
        replies(upstream, "Waited.")
        async with client.stream(conversation, headers={"Last-Event-ID": shown["streamCursor"]}) as resumed:
            go_on.set()
            assert (await resumed.until("llm_complete")).data["content"] == "B so far and on."
            assert [(await resumed.until("user_message")).data["content"] for _ in range(2)] == ["Wait", "Wait!"]
            assert (await resumed.until("llm_complete")).data["content"] == "Waited."
    assert asked(upstream) == ["One", "A.", "Wait!"]
    assert await said(client, conversation) == ["One", "A.", "Wait!", "Waited."]
    assert await said(client, conversation, leaf=two["id"]) == ["One!"]


@pytest.mark.gen_test
async def test_the_same_edit_again_is_the_first_result(client: Client, upstream: Upstream) -> None:
    replies(upstream, "A.", "B.")
    conversation = await client.create()
    await ask(client, conversation, "One")
    body = {"content": "One!", "parent": None, "clientMessageId": "k"}
    path = f"{API}/{conversation}/messages"
    first = await client.http.post(path, json=body)
    await client.answer(conversation)
    again = await client.http.post(path, json=body)
    assert (again.status_code, again.json()) == (200, first.json())
    end = (await client.messages(conversation))[-1]["id"]
    assert status_and_code(await client.http.post(path, json=body | {"parent": end})) == (422, "invalid_content")
    assert len(upstream.calls) == 2


@pytest.mark.gen_test
async def test_the_history_of_the_ai_sdk_is_that_of_the_branch(client: Client, upstream: Upstream) -> None:
    replies(upstream, "A.", "B.", "C.")
    conversation = await client.create()
    await ask(client, conversation, "One")
    end = (await client.messages(conversation))[-1]["id"]
    await ask(client, conversation, "Two")
    await ask(client, conversation, "Two!", parent=end)
    listed = (await client.http.get(f"{API}/{conversation}/ui-messages")).json()
    texts = ["".join(part["text"] for part in message["parts"]) for message in listed["messages"]]
    assert texts == ["One", "A.", "Two!", "C."]
    assert listed["streamCursor"] is not None


# Continuing -----------------------------------------------------------------------------------------------------------


async def stopped(client: Client, conversation: str, content: str, upstream: Upstream, so_far: str) -> Page:
    """Create an answer that is stopped after this text."""
    upstream.reply(beginning(so_far), Do.HANG)
    async with client.stream(conversation) as watched:
        await client.post(conversation, content)
        await watched.until("llm_chunk")
        await client.http.post(f"{API}/{conversation}/stop")
        await watched.until("llm_complete")
    return await client.answer(conversation)


@pytest.mark.gen_test
@pytest.mark.parametrize("rest", [" the moon.", "over the moon.", "The cow jumps over the moon."])
async def test_a_cut_answer_is_continued_in_one_piece(client: Client, upstream: Upstream, rest: str) -> None:
    conversation = await client.create()
    cut = await stopped(client, conversation, "Tell me.", upstream, "The cow jumps over")
    upstream.reply(answer(rest))
    async with client.stream(conversation) as watched:
        await watched.next()
        begun = await client.http.post(f"{API}/{conversation}/regenerate", json={"continue": True})
        assert begun.status_code == 202
        complete = await watched.until("llm_complete")
        assert complete.data["content"] == watched.text == "The cow jumps over the moon."
        assert complete.data["status"] == "complete"
    roles = [turn["role"] for turn in upstream.calls[-1].body["messages"]]
    assert roles[-3:] == ["user", "assistant", "user"]  # the request does not end with an assistant turn
    assert asked(upstream)[:2] == ["Tell me.", "The cow jumps over"]
    _, old, new = await client.messages(conversation)
    assert (old["id"], old["content"], old["status"]) == (cut["id"], "The cow jumps over", "stopped")
    assert (new["content"], new["continues"], new["attempt"]) == (complete.data["content"], cut["id"], 2)
    # Each attempt has the usage of its own request.
    assert (old["usage"]["source"], new["usage"]["source"]) == ("estimated", "exact")
    # The next turn has the continued text as one answer; the prompt that asked for the rest is not a message.
    replies(upstream, "Yes.")
    await ask(client, conversation, "Really?")
    assert asked(upstream) == ["Tell me.", "The cow jumps over the moon.", "Really?"]


@pytest.mark.gen_test
async def test_only_what_was_cut_is_continued(client: Client, upstream: Upstream) -> None:
    conversation = await client.create()
    path = f"{API}/{conversation}/regenerate"
    body = {"continue": True}
    assert status_and_code(await client.http.post(path, json=body)) == (409, "nothing_to_answer")
    replies(upstream, "Whole.")
    await ask(client, conversation, "Hi")
    assert status_and_code(await client.http.post(path, json=body)) == (409, "nothing_to_continue")
    cut = await stopped(client, conversation, "More.", upstream, "So far")
    upstream.reply(beginning(" and on"), Do.HANG)
    assert (await client.http.post(path, json=body)).status_code == 202
    assert status_and_code(await client.http.post(path, json=body)) == (409, "answer_in_progress")
    async with client.stream(conversation) as watched:
        while "on" not in watched.text:
            await watched.until("llm_chunk")
    await client.http.post(f"{API}/{conversation}/stop")
    # The attempt is cut again, and both attempts can be continued.
    for id_, expected in ((None, "So far and on!"), (cut["id"], "So far!")):
        replies(upstream, "!")
        assert (await client.http.post(path, json=body | {"messageId": id_})).status_code == 202
        assert (await client.answer(conversation))["content"] == expected


@pytest.mark.gen_test
async def test_an_answer_that_was_cut_at_the_maximum_length_is_continued(client: Client, upstream: Upstream) -> None:
    conversation = await client.create()
    upstream.reply(
        beginning("To be or"), http_chunk(event(delta(finish_reason="length"))) + http_chunk(event(DONE)) + END
    )
    await ask(client, conversation, "Say it.")
    replies(upstream, " not to be.")
    await client.http.post(f"{API}/{conversation}/regenerate", json={"continue": True})
    assert (await client.answer(conversation))["content"] == "To be or not to be."


# Ratings --------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_each_attempt_has_a_rating_of_its_own(client: Client, upstream: Upstream) -> None:
    replies(upstream, "First.", "Second.")
    conversation = await client.create()
    await ask(client, conversation, "Say it.")
    await client.http.post(f"{API}/{conversation}/regenerate")
    await client.answer(conversation)
    _, one, two = await client.messages(conversation)
    path = f"{API}/{conversation}/rating"
    for rating in ("up", "down", "down"):
        response = await client.http.put(path, json={"messageId": one["id"], "rating": rating})
        assert (response.status_code, response.json()) == (200, {"messageId": one["id"], "rating": rating})
    await client.http.put(path, json={"messageId": two["id"], "rating": "up"})
    assert [message.get("rating") for message in await client.messages(conversation)] == [None, "down", "up"]
    await client.http.put(path, json={"messageId": two["id"], "rating": None})
    assert [message.get("rating") for message in await client.messages(conversation)] == [None, "down", None]
    refused = await client.http.put(path, json={"messageId": two["id"], "rating": "sideways"})
    assert status_and_code(refused) == (422, "invalid_content")
    model = one["model"]
    counted = await scrape(client.http)
    assert [counted["chatstream_ratings_total", model, rating] for rating in ("up", "down", "none")] == [2, 1, 1]
