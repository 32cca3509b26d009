"""``python -m chatstream chat`` as its user sees it: with a real server, in a pipe and on a terminal."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeClient, StartServer
from tests.support.client import API, PATIENCE, Client
from tests.support.processes import REPOSITORY, SECRET, ServerProcess, free_port, measured
from tests.support.screen import Screen
from tests.support.upstream import Do, Upstream, answer, beginning, delta, ending, event, http_chunk


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[ServerProcess]:
    """A server for the tests of this file, without titles: these would be further requests to the scripted model."""
    settings = environment | {"MONGODB_DATABASE": "terminal", "CHATSTREAM_TITLES": "off"}
    server = ServerProcess(tmp_path_factory.mktemp("terminal"), settings).start().wait_until_ready()
    yield server
    assert server.stop() == 0


async def chat(
    client: Client, *arguments: str, environment: Mapping[str, str] | None = None, **options: Any
) -> asyncio.subprocess.Process:
    """Start a chat as the user of `client`."""
    inherited = {"PATH": os.environ["PATH"], **measured()}
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "chatstream", "chat", "--url", client.url, *arguments),
        env={**inherited, "PYTHONPATH": str(REPOSITORY), **(environment or {"CHAT_TOKEN": client.token})},
        **{**pipes, **options},
    )


async def outcome(process: asyncio.subprocess.Process, text: str = "") -> tuple[int | None, str, str]:
    """Send `text` to its input, and wait for its end. Returns the exit status, the output and the notes."""
    async with asyncio.timeout(PATIENCE):
        output, notes = await process.communicate(text.encode())
    return process.returncode, (output or b"").decode(), (notes or b"").decode()


@pytest.mark.gen_test
async def test_one_question_and_its_answer(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("I'd recommend a bet on **Arsenal to win** at odds of 2.10,", " with a stake of €10."))
    status, output, notes = await outcome(await chat(client, "Who wins?"))
    assert status == 0
    assert output == "I'd recommend a bet on **Arsenal to win** at odds of 2.10, with a stake of €10.\n"
    found = "odds 2.1 · oddsText 2.10 · selection Arsenal to win · stake €10"
    assert f"→ New bet recommendation available: {found}\n" in notes


@pytest.mark.gen_test
async def test_conversations_are_found_and_gone_on_with(client: Client, upstream: Upstream) -> None:
    for text in ("The capital is Canberra.", "Otto.", "In the south-east."):
        upstream.reply(answer(text))
    first = await client.create(id="geography", title="Geography", initialMessage="Which capital has Australia?")
    await client.answer(first)
    lines = ["A palindrome?", "/search canberra", "/search nowhere", "/search ?", "/open geography", "Where is it?"]
    status, output, notes = await outcome(await chat(client), "\n".join([*lines[:3], *lines[4:]]) + "\n")
    assert (status, output) == (0, "Otto.\nIn the south-east.\n")
    assert "geography  Geography\n1 found · /open ID goes there\n0 found\nGeography\n" in notes
    assert "Which capital has Australia?" in str(upstream.calls[-1].body["messages"])
    # A refused line does not end the chat, and one that lacks something is told what.
    status, _, notes = await outcome(
        await chat(client), "/search ?\n/search\n/open\n/edit\n/edit x\n/regenerate\n/id\n"
    )
    assert status == 1
    first, *told = notes.splitlines()
    assert "nothing to search for" in first
    assert [line.partition(":")[0] for line in told] == [
        "the words to search for are missing",
        "the conversation's id is missing",
        "the new text is missing",
        "there is no question yet for /edit NEW TEXT",
        "there is no answer yet",
        "not begun yet",
    ]
    status, _, notes = await outcome(await chat(client), "/open nowhere\n/id\n")  # what follows was meant for that one
    assert status == 1
    assert "no such conversation" in notes
    assert "not begun yet" not in notes


@pytest.mark.gen_test
async def test_a_conversation_gets_a_title(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    """The title is the question's beginning, and after the first answer the one that the model writes."""
    client, hold = make_client(start_server()), asyncio.Event()
    upstream.reply(beginning("Otto"), hold, ending())
    upstream.reply(answer("Palindromes"))
    question = "Which palindromes are there that are names of people, and which of them are in common use?"
    process = await chat(client, question)
    async with asyncio.timeout(PATIENCE):
        while not (found := (await client.http.get(API)).json()["conversations"]):
            await asyncio.sleep(0.05)
        assert found[0]["title"] == "Which palindromes are there that are names of people, and…"
        hold.set()
        assert (await outcome(process))[0] == 0
        while (await client.http.get(API)).json()["conversations"][0]["title"] != "Palindromes":
            await asyncio.sleep(0.05)


@pytest.mark.gen_test
async def test_another_model_answers_from_now_on(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("One."))
    upstream.reply(answer("Two."))
    upstream.reply(answer("Three."))
    lines = ["/model", "First", "/model other", "Second", "/new", "Third", "/model"]
    status, output, notes = await outcome(await chat(client), "\n".join(lines) + "\n")
    assert (status, output) == (0, "One.\nTwo.\nThree.\n")
    assert [call.body["model"] for call in upstream.calls] == ["gpt-4", "other", "other"]
    assert notes.startswith("* gpt-4\n")
    assert "other answers from now on" in notes


@pytest.mark.gen_test
async def test_piped_lines_are_turns_of_one_conversation(client: Client, upstream: Upstream) -> None:
    for text in ("One.", "Two.", "Three."):
        upstream.reply(answer(text))
    process = await chat(client, "--model", "some-model")
    status, output, notes = await outcome(process, "First\n\nSecond\n/regenerate\n/quit\nnever read\n")
    assert (status, output) == (0, "One.\nTwo.\nThree.\n")
    assert "begins again" not in notes
    assert [turn["content"] for turn in upstream.calls[-1].body["messages"][1:]] == ["First", "One.", "Second"]
    assert upstream.calls[-1].body["model"] == "some-model"


@pytest.mark.gen_test
async def test_the_last_question_is_edited_and_a_cut_answer_continued(client: Client, upstream: Upstream) -> None:
    for text in ("One.", "Two.", "Edited."):
        upstream.reply(answer(text))
    process = await chat(client)
    status, output, _ = await outcome(process, "First\nSecnd\n/edit Second\n/quit\n")
    assert (status, output) == (0, "One.\nTwo.\nEdited.\n")
    assert [turn["content"] for turn in upstream.calls[-1].body["messages"][1:]] == ["First", "One.", "Second"]
    upstream.reply(beginning("So far"), Do.CLOSE)
    upstream.reply(answer(" and on."))
    _, output, notes = await outcome(await chat(client), "/edit nothing\nTell me.\n/continue\n/quit\n")
    assert output == "So far\nSo far and on.\n"
    assert "/edit NEW TEXT" in notes


@pytest.mark.gen_test
async def test_events_as_json(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("Hel", "lo."))
    conversation = await client.create()
    status, output, _ = await outcome(await chat(client, "--json", "--conversation", conversation, "Hi"))
    told = [json.loads(line) for line in output.splitlines()]
    assert status == 0
    assert [told[0]["type"], told[-1]["type"], told[-1]["content"]] == ["connected", "llm_complete", "Hello."]


@pytest.mark.gen_test
async def test_an_answer_that_fails_is_told_and_shows_in_the_exit_status(client: Client, upstream: Upstream) -> None:
    upstream.reply(beginning("So far"), Do.CLOSE)
    status, output, notes = await outcome(await chat(client, "Hi"))
    assert (status, output) == (1, "So far\n")
    assert "The answer broke off before it was finished." in notes


@pytest.mark.gen_test
async def test_what_is_wrong_is_said_in_one_line(client: Client) -> None:
    for arguments, said in [
        (("--conversation", "nope", "Hi"), "There is no such conversation. (404)\n"),
        (("--url", f"http://127.0.0.1:{free_port()}", "Hi"), "cannot be reached: Connection refused\n"),
        (("--token-file", "/nowhere", "Hi"), "/nowhere cannot be read: No such file or directory"),
        (
            ("--token", "eyJh.eyJz.c2lnbg", "Hi"),
            "--token-file takes a file's name, not a token: put the token in CHAT_TOKEN.",
        ),
    ]:
        status, output, notes = await outcome(await chat(client, *arguments))
        assert (status, output) == (1, "")
        assert said in notes
        assert notes.count("\n") == 1
    status, _, notes = await outcome(await chat(client, "--url", "localhost:3000", "Hi"))
    assert status == 2
    assert notes.endswith("argument --url: it must begin with http:// or https://\n")
    token, client.token = client.token, "no-token"
    assert (await outcome(await chat(client, "Hi")))[2] == "The token is not valid. (401)\n"
    client.token = token


@pytest.mark.gen_test
async def test_a_token_is_made_for_this_machines_server_alone(client: Client, tmp_path: Path) -> None:
    for url, said in [
        ("http://localhost.example.com:3000", "A token is needed: "),
        (client.url, f"There is no secret in {tmp_path}/none to make a token with: "),
    ]:
        environment = {"CHATSTREAM_DATA_DIR": f"{tmp_path}/none"}
        process = await chat(client, "--url", url, "Hi", environment=environment, cwd=tmp_path)
        status, output, notes = await outcome(process)
        assert (status, output) == (1, "")
        assert notes.startswith(said)


@pytest.mark.gen_test
async def test_that_token_says_what_the_server_asks_for(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    upstream.reply(answer("Hello."))
    asked = {"CHATSTREAM_JWT_ISSUER": "us", "CHATSTREAM_JWT_AUDIENCE": "chat"}
    client = make_client(start_server(**asked))
    status, output, notes = await outcome(await chat(client, "Hi", environment={"JWT_SECRET": SECRET, **asked}))
    assert (status, output) == (0, "Hello.\n"), notes


@pytest.mark.gen_test
async def test_a_restart_of_the_server_loses_nothing(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    server = start_server(CHATSTREAM_DRAIN_TIMEOUT="0.1")
    upstream.reply(beginning("First part,"), Do.HANG)
    upstream.reply(answer("the whole answer."))
    process = await chat(make_client(server), "Hi")
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await process.stdout.readexactly(11) == b"First part,"
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(start_server, server.port)
        status, output, notes = await outcome(process)
    assert status == 0, (output, notes)
    assert output.endswith("the whole answer.\n")
    assert "the answer begins again" in notes


@pytest.mark.gen_test
async def test_thinking_is_dim_on_a_terminal_and_not_in_a_pipe(client: Client, upstream: Upstream) -> None:
    upstream.reply(answer("<think>Form first.</think>Take Leeds."))
    status, output, notes = await outcome(await chat(client, "Who wins?"))
    assert (status, output) == (0, "Take Leeds.\n")
    assert "Form" not in notes
    screen = Screen()
    process = await chat(client, "Who wins?", **screen.ends)
    screen.started()
    await screen.until("Leeds")
    assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    screen.close()
    assert "\033[2mForm first.\033[0m\r\n\r\nTake Leeds" in screen.text


@pytest.mark.gen_test
async def test_ctrl_c_stops_the_answer_and_nothing_else(client: Client, upstream: Upstream) -> None:
    go_on = asyncio.Event()
    upstream.reply(beginning("Endless"), Do.HANG)
    upstream.reply(beginning("Short"), go_on, http_chunk(event(delta("."))), ending())
    screen = Screen()
    process = await chat(
        client,
        **screen.ends,
        start_new_session=True,
        # A shell that runs the tests in the background makes them and their child processes ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    screen.started()
    await screen.until("> ")
    screen.type(b"First\n")
    await screen.until("Endless")
    process.send_signal(signal.SIGINT)
    await screen.until("stopped")
    await asyncio.wait_for(upstream.calls[0].aborted.wait(), PATIENCE)
    await screen.until("> ")
    screen.type(b"Second\n")
    await screen.until("Short")
    go_on.set()
    await screen.until("> ")
    screen.type(b"/quit\n")
    async with asyncio.timeout(PATIENCE):
        assert await process.wait() == 0
    screen.close()


@pytest.mark.gen_test
async def test_a_reader_who_has_seen_enough_ends_it(client: Client, upstream: Upstream) -> None:
    upstream.reply(beginning("Hello"), Do.HANG)
    reading, writing = os.pipe()
    process = await chat(client, "--json", "Hi", stdout=writing)
    os.close(writing)
    assert b"connected" in await asyncio.to_thread(os.read, reading, 4096)
    os.close(reading)
    await client.stop_all()  # the end of the answer makes it write
    status, _, notes = await outcome(process)
    assert status == 1
    assert "Traceback" not in notes
