"""Start and end of a server: without configuration, without a database, ended by a signal, and killed."""

import asyncio
import re
import signal
import sys
import urllib.request
from pathlib import Path

import httpx
import pytest

from tests.conftest import MakeClient, StartServer
from tests.support.client import API, PATIENCE, Client
from tests.support.exposition import scrape
from tests.support.processes import SECRET, ServerProcess, children, free_port
from tests.support.replica_set import ReplicaSet
from tests.support.upstream import Do, Upstream, answer, beginning, delta, ending, event, http_chunk


@pytest.mark.gen_test
async def test_with_no_configuration_at_all(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "chatstream")  # as people start it
    server = ServerProcess(tmp_path, {"CHATSTREAM_LOG_FORMAT": "text"}, command=command).start().wait_until_ready()
    assert server.process is not None
    try:
        started = children(server.process.pid)
        printed = re.search(r'curl -N -H "Authorization: Bearer (\S+)" (http://localhost:\d+\S+)', server.output)
        assert printed is not None
        token, url = printed.groups()
        assert url.endswith("/123/stream")
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=30) as http:
            streamed = (await http.get(url, params={"once": "true"})).text
            assert '"type":"llm_complete"' in streamed
            assert '"type":"system"' in streamed
            await http.post(f"{server.url}{API}", json={"id": "kept"})
        page = urllib.request.urlopen(server.url).read()
        assert b"<title>chatstream</title>" in page
        assert token not in server.log
        assert len(server.output.splitlines()) < 12
        # The test polls `/readyz` more often if the start is slow.
        assert len([line for line in server.log.splitlines() if "GET /readyz" not in line]) < 12
    finally:
        server.signal(signal.SIGINT)
        assert server.wait() == 0
    assert started
    for pid in started:
        assert not Path(f"/proc/{pid}").exists()

    again = ServerProcess(tmp_path, {"CHATSTREAM_LOG_FORMAT": "text"}).start().wait_until_ready()
    try:
        token_again = re.findall(r"Bearer (\S+?)\"", again.output)[0]
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token_again}"}, timeout=30) as http:
            kept = (await http.get(f"{again.url}{API}")).json()["conversations"]
            assert {one["id"] for one in kept} == {"123", "kept"}
            # At every start, the demo conversation has a question without an answer.
            newest = (await http.get(f"{again.url}{API}/123/messages")).json()["messages"][-1]
            assert newest["role"] == "user"
    finally:
        assert again.stop() == 0


@pytest.mark.gen_test
async def test_killed_in_mid_answer(start_server: StartServer, make_client: MakeClient, upstream: Upstream) -> None:
    upstream.reply(beginning("Before the end. "), Do.HANG)
    upstream.reply(answer("After it."))
    server = start_server()
    before = make_client(server)
    conversation = await before.create(initialMessage="Survive.")
    async with before.stream(conversation) as watched:
        await watched.until("llm_chunk")
        await before.saved(conversation)
        await server.kill()
        cursor = watched.cursor
    server = start_server(server.port)
    after = make_client(server, before.user)
    async with after.stream(conversation, headers={"Last-Event-ID": cursor}) as again:
        assert (await again.next()).data["resumed"] is True
        interrupted = await again.until("llm_complete")
        assert (interrupted.data["status"], interrupted.data["content"]) == ("interrupted", "Before the end. ")
        complete = await again.until("llm_complete")
        assert (complete.data["status"], complete.data["content"]) == ("complete", "After it.")
        assert again.text == "After it."
    assert len(upstream.calls) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.gen_test
async def test_a_running_answer_may_finish(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream, number: signal.Signals
) -> None:
    """Also where the terminal is closed, which sends SIGHUP, often more than one, and a SIGTERM may follow."""
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("the tests run under nohup, and so does the server")
    go_on = asyncio.Event()
    upstream.reply(beginning("To the "), go_on, http_chunk(event(delta("end."))), ending())
    server = start_server()
    client = make_client(server)
    busy, idle = await client.create(initialMessage="Finish."), await client.create()
    async with client.stream(busy) as watched, client.stream(idle) as waiting:
        await watched.until("llm_chunk")
        await waiting.next()
        server.signal(number)
        assert (await waiting.until("error")).data["error"] == "server_shutdown"
        assert len(waiting.retries) == 2
        assert min(waiting.retries) >= 1000
        if number == signal.SIGHUP:
            server.signal(number)
            server.signal(signal.SIGTERM)
        with pytest.raises(httpx.ConnectError):
            await httpx.AsyncClient().get(f"{server.url}/readyz")
        go_on.set()
        assert (await watched.until("llm_complete")).data["status"] == "complete"
        assert (await watched.until("error")).data["retryable"] is True
        with pytest.raises(StopAsyncIteration):
            await watched.next()
    assert await server.ended() == 0


@pytest.mark.gen_test
async def test_a_request_that_has_begun_is_answered(start_server: StartServer, make_client: MakeClient) -> None:
    server = start_server()
    client = make_client(server)
    body = b'{"id": "late"}'
    head = (
        f"POST {API} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.token}\r\nExpect: 100-continue\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(head.encode())
        assert b"100" in await reader.readuntil(b"\r\n\r\n")  # the request is admitted
        server.signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            while "stopping" not in server.log:
                await asyncio.sleep(0.01)  # between two polls of a file
        writer.write(body)
        assert b" 201 " in await reader.readline()
    finally:
        writer.close()
    assert await server.ended() == 0


@pytest.mark.gen_test
async def test_sigterm_cuts_what_does_not_finish_in_time(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    upstream.reply(beginning("Not to "), Do.HANG)
    upstream.reply(answer("Now it is."))
    server = start_server(CHATSTREAM_DRAIN_TIMEOUT="1")
    client = make_client(server)
    conversation = await client.create(initialMessage="Finish.")
    async with client.stream(conversation) as watched:
        await watched.until("llm_chunk")
        server.signal(signal.SIGTERM)
        assert (await watched.until("llm_complete")).data["content"] == "Not to "
        assert (await watched.until("error")).data["error"] == "server_shutdown"
    assert await server.ended() == 0
    assert upstream.calls[0].aborted.is_set()
    again = make_client(start_server(server.port), client.user)
    async with again.stream(conversation, headers={"Last-Event-ID": watched.cursor}) as resumed:
        assert (await resumed.until("llm_complete")).data["content"] == "Now it is."
        assert resumed.types == ["connected", "llm_chunk", "llm_complete"]


@pytest.mark.gen_test
async def test_a_second_sigterm_is_immediate(
    start_server: StartServer, make_client: MakeClient, upstream: Upstream
) -> None:
    upstream.reply(beginning("For ever"), Do.HANG)
    server = start_server()
    client = make_client(server)
    conversation, idle = await client.create(initialMessage="Never end."), await client.create()
    async with client.stream(conversation) as watched, client.stream(idle) as waiting:
        await watched.until("llm_chunk")
        server.signal(signal.SIGTERM)
        await waiting.until("error")  # so the server has received the first signal
        server.signal(signal.SIGTERM)
        assert await server.ended() != 0


async def collections(http: httpx.AsyncClient) -> float:
    """The number of runs of the garbage collector."""
    return (await scrape(http))["python_gc_collections_total", "0"]


@pytest.mark.gen_test
async def test_a_database_that_comes_later(tmp_path: Path, start_server: StartServer, make_client: MakeClient) -> None:
    mongo = ReplicaSet(tmp_path / "mongo")
    server = start_server(MONGODB_URI=mongo.uri, ready=False)
    async with httpx.AsyncClient(base_url=server.url, transport=httpx.AsyncHTTPTransport(retries=20)) as http:
        while (health := await http.get("/healthz")).status_code != 200:
            pass
        assert health.json() == {"status": "ok"}
        unready = await http.get("/readyz")
        assert (unready.status_code, unready.headers["Retry-After"]) == (503, "2")
        client = Client(server.url, "early")
        refused = await client.http.post(API, json={})
        assert (refused.status_code, refused.json()["code"]) == (503, "storage_unavailable")
        async with client.stream("123") as stream:
            assert (await stream.next()).data["retryable"] is True
            assert stream.types == ["error"]
        await client.close()
    while "does not answer" not in server.log:
        await asyncio.sleep(0.05)  # between two polls; there is no event to wait for in another process
    async with httpx.AsyncClient(base_url=server.url) as http:
        before = await collections(http)
        while await collections(http) == before:  # the garbage of refused requests is collected
            pass
    with mongo:
        await asyncio.to_thread(server.wait_until_ready)
        assert server.log.count("does not answer") == 1
        await make_client(server).create()
        assert server.stop() == 0


def test_a_model_whose_library_cannot_be_loaded_ends_it_with_a_clear_message(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    program = "import sys; sys.modules['openai'] = None; from chatstream.__main__ import main; sys.exit(main())"
    settings = environment | {"MONGODB_DATABASE": "no-library"}
    server = ServerProcess(tmp_path, settings, command=[sys.executable, "-c", program]).start()
    assert server.wait() == 1
    assert "The model's library cannot be loaded: import of openai halted" in server.log
    assert "Traceback" not in server.log


def test_wrong_credentials_end_it_with_a_clear_message(start_server: StartServer, mongodb_uri: str) -> None:
    uri = mongodb_uri.replace("mongodb://", "mongodb://somebody:the-password@")
    server = start_server(MONGODB_URI=uri, ready=False)
    assert server.wait() == 1
    assert "refuses the credentials in MONGODB_URI" in server.log
    assert "the-password" not in server.log
    assert "Traceback" not in server.log


def test_a_port_that_is_taken(start_server: StartServer, shared_server: ServerProcess) -> None:
    server = start_server(shared_server.port, ready=False)
    assert server.wait() == 1
    assert f"Cannot listen on 127.0.0.1:{shared_server.port}" in server.log


def test_production_makes_nothing_up(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, {"CHATSTREAM_ENV": "production"}, free_port()).start()
    assert server.wait() == 2
    for name in ("JWT_SECRET", "MONGODB_URI", "OPENAI_API_KEY"):
        assert name in server.log
    assert SECRET not in server.log
