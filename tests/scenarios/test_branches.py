"""A conversation with three branches, over two processes and a restart: earlier cursors continue exactly."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.conftest import MakeClient
from tests.support.client import API, Client, Stream
from tests.support.processes import ServerProcess
from tests.support.upstream import Upstream, answer


@pytest.fixture
def servers(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Two processes on one database."""
    directory, settings = tmp_path_factory.mktemp("branches"), environment | {"MONGODB_DATABASE": "branches"}
    first, second = ServerProcess(directory, settings).start(), ServerProcess(directory, settings).start()
    yield first.wait_until_ready(), second.wait_until_ready()
    first.stop()
    second.stop()


async def ask(client: Client, conversation: str, content: str, watched: Stream, **body: Any) -> dict[str, Any]:
    """Post a message, and read up to its answer's end."""
    response = await client.http.post(f"{API}/{conversation}/messages", json={"content": content, **body})
    assert response.status_code == 201, response.text
    await watched.until("llm_complete")
    return dict(response.json())


async def told(client: Client, conversation: str, cursor: str, until: str) -> list[tuple[str, str]]:
    """The id and text of each event after a cursor, up to the answer `until`."""
    events: list[tuple[str, str]] = []
    async with client.stream(conversation, headers={"Last-Event-ID": cursor}) as watched:
        assert (await watched.next()).data["resumed"] is True
        while not events or events[-1][0] != f"{until}.complete":
            frame = await watched.next()
            if frame.type in ("user_message", "llm_chunk", "llm_complete"):
                events.append((str(frame.id), frame.data["content"]))
    return events


@pytest.mark.gen_test(timeout=100)
async def test_three_branches_over_two_processes_and_a_restart(
    servers: tuple[ServerProcess, ServerProcess], make_client: MakeClient, upstream: Upstream
) -> None:
    for number in range(1, 7):
        upstream.reply(answer(f"Answer {number}."))
    here = make_client(servers[0])
    there = make_client(servers[1], here.user)
    conversation = await here.create()
    start = (await here.http.get(f"{API}/{conversation}/messages")).json()["streamCursor"]
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(here.stream(conversation))
        two = await stack.enter_async_context(there.stream(conversation))
        await one.next()
        await two.next()
        await ask(here, conversation, "One", one)
        second = await ask(there, conversation, "Two", one)
        before_edit = one.cursor
        first_answer = (await here.messages(conversation))[1]["id"]
        await ask(there, conversation, "Two, edited", one, parent=first_answer)
        third = await ask(here, conversation, "Two, again", one, parent=first_answer)
        # The other tab, at the other process, gets an event for each message, and for the branch that is shown then.
        for expected in ("One", "Two", "Two, edited", "Two, again"):
            assert (await two.until("user_message")).data["content"] == expected
        assert (await here.http.patch(f"{API}/{conversation}", json={"head": second["id"]})).status_code == 200
        shown = (await there.http.get(f"{API}/{conversation}/messages")).json()
        assert (await two.until("branch")).data["head"] == (await one.until("branch")).data["head"] == shown["head"]
        assert [message["content"] for message in shown["messages"]][2:] == ["Two", "Answer 2."]
        # It also gets the rating and the title.
        thumb = {"messageId": first_answer, "rating": "up"}
        for rating in ("up", None):
            await there.http.put(f"{API}/{conversation}/rating", json=thumb | {"rating": rating})
            for frame in (await one.until("rating"), await two.until("rating")):
                assert (frame.data["messageId"], frame.data["rating"]) == (first_answer, rating)
        for title in ("A title", None):
            await here.http.patch(f"{API}/{conversation}", json={"title": title})
            for watched in (one, two):
                assert (await watched.until("title")).data["title"] == title
        last = (await ask(there, conversation, "Three", two))["id"]
        seen = {cursor: (f.id, f.data) for f in one.frames if (cursor := f.id) and f.type == "user_message"}

    page = (await here.http.get(f"{API}/{conversation}/messages")).json()
    texts = [message["content"] for message in page["messages"]]
    assert texts == ["One", "Answer 1.", "Two", "Answer 2.", "Three", "Answer 5."]
    assert page["messages"][2]["siblings"].index(second["id"]) == page["messages"][2]["index"] == 0
    end = page["messages"][-1]["id"]
    assert page["messages"][-2]["id"] == last
    cursors = [start, before_edit, *seen]
    replays = [await told(here, conversation, cursor, end) for cursor in cursors]
    whole = replays[0]
    assert [text for id_, text in whole if id_.endswith(".user")] == [
        *("One", "Two", "Two, edited", "Two, again", "Three"),
    ]
    for cursor, replay in zip(cursors[1:], replays[1:], strict=True):
        ids = [id_ for id_, _ in whole]
        assert replay == whole[ids.index(cursor) + 1 :]

    await asyncio.to_thread(servers[0].stop)
    servers[0].start().wait_until_ready()
    again = make_client(servers[0], here.user)
    assert [await told(again, conversation, cursor, end) for cursor in cursors] == replays
    assert (await again.http.get(f"{API}/{conversation}/messages")).json() == page
    other = (await again.http.get(f"{API}/{conversation}/messages", params={"leaf": third["id"]})).json()
    assert [message["content"] for message in other["messages"]] == ["One", "Answer 1.", "Two, again"]
    async with again.stream(conversation, headers={"Last-Event-ID": cursors[-1]}) as watched:
        assert (await watched.next()).data["head"] == page["head"]
    await again.post(conversation, "Four")
    await again.answer(conversation)
    turns = [turn["content"] for turn in upstream.calls[-1].body["messages"] if turn["role"] != "system"]
    assert turns == ["One", "Answer 1.", "Two", "Answer 2.", "Three", "Answer 5.", "Four"]
