import asyncio
import contextlib
import gzip
import logging
import socket
import tracemalloc
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any

import pytest
from msgspec.structs import replace
from tornado.ioloop import IOLoop

from chatstream.errors import ConfigurationError, ErrorCode, ModelError
from chatstream.llm import openai_model
from chatstream.llm.arranging import Tags
from chatstream.llm.dialects import Dialects, ReasoningBack
from chatstream.llm.faults import Part
from chatstream.llm.model import Delta, Finish, Tell, Turn
from chatstream.llm.openai_model import Deadlines, OpenAIModel
from chatstream.metrics import Metrics
from chatstream.models import Usage
from chatstream.pieces import OpenToolCall, Piece
from chatstream.pieces import text as text_of
from tests.conftest import NameProxies
from tests.support.client import PATIENCE
from tests.support.scripted_model import turns
from tests.support.upstream import (
    DONE,
    END,
    USAGE,
    Do,
    Step,
    Upstream,
    answer,
    delta,
    event,
    head,
    http_chunk,
    silent,
    stream,
    whole,
)

TURNS = [Turn("system", "Be brief."), Turn("user", "PROMPT-7f3a")]
KEY = "sk-KEY-91bc"
STOP = delta(finish_reason="stop")
HOURS = Deadlines(connect=3600, first_token=3600, idle=3600, total=3600)  # no deadline passes
NOW = 0.05  # a deadline that a silent endpoint misses

Open = Callable[..., OpenAIModel]


@pytest.fixture
def open_model(io_loop: IOLoop, upstream: Upstream) -> Iterator[Open]:
    models = []

    def open_model(**options: Any) -> OpenAIModel:
        defaults = {
            "api_key": KEY,
            "base_url": upstream.url,
            "model": "m",
            "metrics": Metrics(),
            "deadlines": HOURS,
            "backoff": 0.0,
        }
        models.append(OpenAIModel(**{**defaults, **options}))
        return models[-1]

    yield open_model
    for model in models:
        io_loop.run_sync(model.close)


async def read(deltas: AsyncGenerator[Delta, None]) -> tuple[str, Finish | None, ModelError | None]:
    """Text, end and error of an answer."""
    told: list[Piece] = []
    finish, error = None, None
    try:
        async with contextlib.aclosing(deltas):
            async for delta_ in deltas:
                assert finish is None, "nothing comes after the finish"
                assert "" not in delta_.pieces
                told += delta_.pieces
                finish = delta_.finish
    except ModelError as exc:
        error = exc
    assert finish is None or error is None
    assert not any(secret in str(error) for secret in (KEY, "PROMPT", "SECRET"))
    return text_of(told), finish, error


@pytest.mark.gen_test
async def test_an_answer(upstream: Upstream, open_model: Open) -> None:
    upstream.reply(answer("Hel", "lo ", "Zoë 😀"))
    text, finish, error = await read(open_model().stream(TURNS))
    assert (text, error) == ("Hello Zoë 😀", None)
    assert finish == Finish(reason="stop", usage=Usage(prompt_tokens=5, completion_tokens=2, total_tokens=7))
    [call] = upstream.calls
    assert call.request_line == "POST /v1/chat/completions HTTP/1.1"
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "PROMPT-7f3a"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.gen_test
async def test_another_model(upstream: Upstream, open_model: Open) -> None:
    upstream.reply(answer("a"))
    await read(open_model().stream(TURNS, model="other"))
    assert upstream.calls[0].body["model"] == "other"


@pytest.mark.gen_test
async def test_a_text_is_handed_on_before_the_next_one_comes(upstream: Upstream, open_model: Open) -> None:
    seen = asyncio.Event()
    upstream.reply(
        head(), http_chunk(event(delta("a")) + event(delta("b"))), seen, http_chunk(event(STOP) + event(DONE)), END
    )
    async with contextlib.aclosing(open_model().stream(TURNS)) as deltas:
        assert (await anext(deltas)).pieces == ["a", "b"]
        seen.set()
        assert (await anext(deltas)).finish is not None


@pytest.mark.gen_test
async def test_a_connection_is_used_again(upstream: Upstream, open_model: Open) -> None:
    upstream.reply(head(), http_chunk(event(delta("a")) + event(STOP) + event(DONE)), END)
    model = open_model()
    for _ in range(3):
        async with contextlib.aclosing(model.stream(TURNS)) as deltas:
            async for delta_ in deltas:
                if delta_.finish:
                    break
    assert [call.connection for call in upstream.calls] == [1, 1, 1]


@pytest.mark.gen_test
async def test_many_answers_at_once(upstream: Upstream, open_model: Open) -> None:
    """Many HTTP clients open at most 100 connections by default. The 101st answer must not wait for one of them."""
    go = asyncio.Event()
    upstream.reply(head(), go, http_chunk(event(delta("a")) + event(STOP)), END)
    model = open_model()
    answers = [asyncio.create_task(read(model.stream(TURNS))) for _ in range(130)]
    await upstream.until_called(130)
    go.set()
    assert {text for text, _, _ in await asyncio.gather(*answers)} == {"a"}


def compressed() -> bytes:
    data = gzip.compress(event(delta("zipped")) + event(STOP))
    return head(Content_Encoding="gzip") + b"".join(http_chunk(data[i : i + 1]) for i in range(len(data))) + END


WHOLE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("response", "text", "reason"),
    [
        pytest.param(compressed(), "zipped", "stop", id="compressed"),
        pytest.param(whole("200 OK", WHOLE), "whole", "stop", id="not streamed"),
        pytest.param(stream(delta(refusal="No."), STOP), "No.", "refusal", id="refusal"),
        pytest.param(stream(delta("a"), delta(finish_reason="content_filter")), "a", "content_filter", id="filter"),
        pytest.param(stream(STOP), "", "stop", id="empty"),
        pytest.param(
            head(content_type="TEXT/Event-Stream; charset=utf-8") + answer("a").partition(b"\r\n\r\n")[2],
            "a",
            "stop",
            id="content type",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + event(delta("a")) + event(STOP)[:-2],
            "a",
            "stop",
            id="no content type, no end",
        ),
    ],
)
@pytest.mark.gen_test
async def test_good_answers(upstream: Upstream, open_model: Open, response: bytes, text: str, reason: str) -> None:
    upstream.reply(response, Do.CLOSE)
    answered, finish, error = await read(open_model().stream(TURNS))
    assert error is None
    assert finish is not None
    assert (answered, finish.reason) == (text, reason)


def problem(status: str, code: str | None = None, message: str = "SECRET", **headers: str) -> bytes:
    return whole(status, {"error": {"message": message, "type": "some_type", "code": code}}, **headers)


TOO_LONG = "This model's maximum context length is 8192 tokens. SECRET"
CUT = head() + http_chunk(event(delta("a")))


@pytest.mark.parametrize(
    ("steps", "code", "calls"),
    [
        pytest.param([problem("401 Unauthorized", "invalid_api_key")], "upstream_misconfigured", 1, id="401"),
        pytest.param([problem("402 Payment Required")], "upstream_misconfigured", 1, id="402"),
        pytest.param([problem("403 Forbidden")], "upstream_misconfigured", 1, id="403"),
        pytest.param([problem("404 Not Found", "model_not_found")], "upstream_misconfigured", 1, id="404"),
        pytest.param([problem("400 Bad Request")], "upstream_rejected", 1, id="400"),
        pytest.param(
            [problem("400 Bad Request", "context_length_exceeded")], "context_too_long", 1, id="context, code"
        ),
        pytest.param([problem("400 Bad Request", None, TOO_LONG)], "context_too_long", 1, id="context, words"),
        pytest.param([whole("422 No", {"detail": TOO_LONG})], "context_too_long", 1, id="context, FastAPI"),
        pytest.param(
            [whole("400 No", [{"error": {"message": TOO_LONG}}])], "context_too_long", 1, id="context, Gemini"
        ),
        pytest.param([problem("408 Request Timeout")], "upstream_unavailable", 3, id="408"),
        pytest.param([problem("409 Conflict")], "upstream_unavailable", 3, id="409"),
        pytest.param([problem("429 Too Many Requests")], "upstream_rate_limited", 3, id="429"),
        pytest.param([problem("429 Too Many Requests", "insufficient_quota")], "upstream_misconfigured", 1, id="quota"),
        pytest.param([problem("500 Internal Server Error")], "upstream_unavailable", 3, id="500"),
        pytest.param([problem("503 No", x_should_retry="false")], "upstream_unavailable", 1, id="do not retry"),
        pytest.param(
            [head("502 Bad Gateway", content_type="text/html") + http_chunk(b"<h1>SECRET</h1>") + END],
            "upstream_unavailable",
            3,
            id="502, a page",
        ),
        pytest.param([head("503 No") + http_chunk(b"x"), Do.RESET], "upstream_unavailable", 3, id="503, cut"),
        pytest.param(
            [head("502 Bad Gateway"), *[http_chunk(b"SECRET" * 10_000)] * 10, Do.HANG],
            "upstream_unavailable",
            3,
            id="502, an endless page",
        ),
        pytest.param(
            [head(content_type="application/json"), *[http_chunk(b" " * 1_000_000)] * 5, Do.HANG],
            "upstream_protocol",
            1,
            id="an endless document",
        ),
        pytest.param([b"HTTP/1.1 204 No Content\r\n\r\n"], "upstream_truncated", 3, id="204"),
        pytest.param([head(), END], "upstream_truncated", 3, id="nothing"),
        pytest.param([head(), Do.CLOSE], "upstream_truncated", 3, id="closed at once"),
        pytest.param([head(), Do.RESET], "upstream_truncated", 3, id="reset at once"),
        pytest.param([Do.CLOSE], "upstream_unavailable", 3, id="closed before the headers"),
        pytest.param([Do.RESET], "upstream_unavailable", 3, id="reset before the headers"),
        pytest.param([b"SSH-2.0-OpenSSH\r\n\r\n", Do.CLOSE], "upstream_protocol", 1, id="not HTTP"),
        pytest.param([stream({"error": {"code": 503}})], "upstream_unavailable", 3, id="503 in the stream"),
        pytest.param([whole("200 OK", {"error": {"code": 401}})], "upstream_misconfigured", 1, id="401 with 200"),
        pytest.param([whole("200 OK", {"hello": "SECRET"})], "upstream_misconfigured", 1, id="other JSON"),
        pytest.param([whole("200 OK", "SECRET")], "upstream_protocol", 1, id="a JSON string"),
        pytest.param(
            [head(content_type="text/html") + http_chunk(b"<h1>SECRET</h1>") + END],
            "upstream_misconfigured",
            1,
            id="a page",
        ),
        pytest.param(
            [head(Content_Encoding="gzip") + http_chunk(b"SECRET") + END], "upstream_protocol", 1, id="bad gzip"
        ),
        pytest.param([head("307 See", Location="http://SECRET/"), END], "upstream_misconfigured", 1, id="redirect"),
        pytest.param(
            [head("302 Found", Location="/SECRET"), *[http_chunk(b"SECRET" * 10_000)] * 10, Do.HANG],
            "upstream_misconfigured",
            1,
            id="redirect with an endless body",
        ),
        pytest.param(
            [head(Content_Encoding="br") + http_chunk(b"SECRET") + END], "upstream_protocol", 1, id="packed with brotli"
        ),
        pytest.param([stream(b"SECRET")], "upstream_protocol", 1, id="not JSON"),
        pytest.param([stream(delta(reasoning="hm"))], "upstream_truncated", 1, id="cut after reasoning"),
    ],
)
@pytest.mark.gen_test
async def test_answers_that_do_not_begin(
    upstream: Upstream,
    open_model: Open,
    caplog: pytest.LogCaptureFixture,
    steps: list[Step],
    code: str,
    calls: int,
) -> None:
    caplog.set_level(logging.INFO, "chatstream")
    upstream.reply(*steps)
    text, _, error = await read(open_model().stream(TURNS))
    assert error is not None, text
    assert (error.code, text) == (code, "")
    assert len(upstream.calls) == calls
    # A line for each retry, and one for the operator.
    assert len(caplog.records) == calls - 1 + (code == "upstream_misconfigured")
    assert "SECRET" not in caplog.text
    assert KEY not in caplog.text
    assert "PROMPT" not in caplog.text


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        pytest.param([CUT, END], "upstream_truncated", id="ended"),
        pytest.param([CUT, Do.CLOSE], "upstream_truncated", id="closed"),
        pytest.param([CUT, Do.RESET], "upstream_truncated", id="reset"),
        pytest.param([CUT, http_chunk(event({"error": {"code": 502}}))], "upstream_unavailable", id="error"),
        pytest.param([CUT, http_chunk(event(delta(finish_reason="error")))], "upstream_unavailable", id="reason"),
        pytest.param([CUT, http_chunk(event(b"{"))], "upstream_protocol", id="not JSON"),
        pytest.param([CUT, b"zz\r\n", Do.HANG], "upstream_protocol", id="bad framing"),
        pytest.param([CUT, http_chunk(b"x" * (5 * 1024 * 1024))], "upstream_protocol", id="an endless line"),
    ],
)
@pytest.mark.gen_test
async def test_answers_that_break_off(upstream: Upstream, open_model: Open, steps: list[Step], code: str) -> None:
    upstream.reply(*steps)
    text, _, error = await read(open_model().stream(TURNS))
    assert error is not None
    assert (error.code, text) == (code, "a")
    assert len(upstream.calls) == 1, "what has begun is not repeated"


@pytest.mark.gen_test
async def test_text_before_an_error_in_the_same_read_stands(upstream: Upstream, open_model: Open) -> None:
    upstream.reply(head() + http_chunk(event(delta("a")) + event(b"{") + event(delta("b"))))
    text, _, error = await read(open_model().stream(TURNS))
    assert text == "a"
    assert error is not None


@pytest.mark.gen_test
async def test_a_retry_that_succeeds(upstream: Upstream, open_model: Open, caplog: pytest.LogCaptureFixture) -> None:
    upstream.reply(problem("503 Service Unavailable", "overloaded"))
    upstream.reply(head(), http_chunk(b": hello\n\n"), Do.RESET)
    upstream.reply(answer("at last"))
    text, _, error = await read(open_model().stream(TURNS))
    assert (text, error) == ("at last", None)
    assert "overloaded" in caplog.messages[0]
    assert "503" in caplog.messages[0]


@pytest.mark.gen_test
async def test_a_refused_connection(open_model: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    _, _, error = await read(open_model(base_url=f"http://127.0.0.1:{port}/v1").stream(TURNS))
    assert error is not None
    assert error.code is ErrorCode.UPSTREAM_UNAVAILABLE
    assert str(port) not in str(error)


@pytest.mark.parametrize("headers", [{"Retry_After": "3600"}, {"retry_after_ms": "3600000"}])
@pytest.mark.gen_test
async def test_whoever_asks_to_wait_long_is_not_asked_again(
    upstream: Upstream, open_model: Open, headers: dict[str, str]
) -> None:
    upstream.reply(problem("429 Too Many Requests", **headers))
    _, _, error = await read(open_model().stream(TURNS))
    assert error is not None
    assert error.retry_after == 3600
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("value", ["soon", "", "-1", "nan", "Wed, 21 Oct 2015 07:28:00 GMT", "9" * 400])
@pytest.mark.gen_test
async def test_a_retry_after_that_says_nothing(upstream: Upstream, open_model: Open, value: str) -> None:
    upstream.reply(problem("429 Too Many Requests", Retry_After=value))
    upstream.reply(answer("a"))
    text, _, _ = await read(open_model().stream(TURNS))
    assert text == "a"


@pytest.mark.gen_test
async def test_no_retry_after_the_deadline(upstream: Upstream, open_model: Open) -> None:
    upstream.reply(problem("503 Service Unavailable"))
    deadlines = Deadlines(connect=5, first_token=5, idle=5, total=5)
    _, _, error = await read(open_model(deadlines=deadlines, backoff=60.0).stream(TURNS))
    assert error is not None
    assert error.code is ErrorCode.UPSTREAM_UNAVAILABLE
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("status", ["400 Bad Request", "422 Unprocessable Entity"])
@pytest.mark.gen_test
async def test_an_endpoint_without_stream_options(upstream: Upstream, open_model: Open, status: str) -> None:
    upstream.reply(problem(status, None, "Unrecognized request argument supplied: stream_options"))
    upstream.reply(answer("a"))
    model = open_model(retries=0)
    assert (await read(model.stream(TURNS)))[0] == "a"
    assert (await read(model.stream(TURNS)))[0] == "a"
    assert ["stream_options" in call.body for call in upstream.calls] == [True, False, False]


@pytest.mark.gen_test
async def test_an_endpoint_that_always_speaks_of_stream_options(upstream: Upstream, open_model: Open) -> None:
    upstream.reply(problem("400 Bad Request", None, "stream_options"))
    _, _, error = await read(open_model().stream(TURNS))
    assert error is not None
    assert error.code is ErrorCode.UPSTREAM_REJECTED
    assert len(upstream.calls) == 2


@pytest.mark.parametrize(
    ("steps", "deadlines", "text"),
    [
        pytest.param([Do.HANG], {"first_token": NOW}, "", id="headers"),
        pytest.param([head(), Do.HANG], {"first_token": NOW}, "", id="first token"),
        pytest.param(
            [head("200 OK", content_type="application/json"), Do.HANG], {"first_token": NOW}, "", id="document"
        ),
        pytest.param([head(), http_chunk(b": hi\n\n"), Do.HANG], {"first_token": NOW}, "", id="a comment is no token"),
        pytest.param([head(), http_chunk(event(delta(""))), Do.HANG], {"first_token": NOW}, "", id="nor is a role"),
        pytest.param([CUT, Do.HANG], {"idle": NOW}, "a", id="next token"),
        pytest.param([head(), http_chunk(event(delta(reasoning="a"))), Do.HANG], {"idle": NOW}, "", id="reasoning"),
        pytest.param([CUT, Do.HANG], {"total": NOW}, "a", id="end"),
    ],
)
@pytest.mark.gen_test
async def test_deadlines(
    upstream: Upstream, open_model: Open, steps: list[Step], deadlines: dict[str, float], text: str
) -> None:
    upstream.reply(*steps)
    limits = {"connect": 3600.0, "first_token": 3600.0, "idle": 3600.0, "total": 3600.0, **deadlines}
    for name in {"first_token", "total"} & set(deadlines):
        limits[name] = 1.0  # long enough to send the request and read the token, also on a busy machine
    answered, _, error = await read(open_model(deadlines=Deadlines(**limits)).stream(TURNS))
    assert error is not None
    assert (error.code, answered) == (ErrorCode.UPSTREAM_TIMEOUT, text)
    await upstream.calls[0].aborted.wait()
    assert len(upstream.calls) == 1


@pytest.mark.gen_test
async def test_a_host_that_does_not_accept(open_model: Open) -> None:
    with silent() as (host, port):
        model = open_model(base_url=f"http://{host}:{port}/v1", deadlines=replace(HOURS, connect=NOW))
        _, _, error = await read(model.stream(TURNS))
    assert error is not None
    assert error.code is ErrorCode.UPSTREAM_TIMEOUT


@pytest.mark.gen_test
async def test_a_deadline_does_not_hit_a_slow_reader(upstream: Upstream, open_model: Open) -> None:
    go = [asyncio.Event() for _ in "bc"]
    upstream.reply(CUT, go[0], http_chunk(event(delta("b"))), go[1], http_chunk(event(delta("c")) + event(STOP)), END)
    deadlines = Deadlines(connect=3600, first_token=3600, idle=0.5, total=3600)
    text = ""
    async with contextlib.aclosing(open_model(deadlines=deadlines).stream(TURNS)) as deltas:
        async for delta_ in deltas:
            text += text_of(delta_.pieces)
            # Longer than `idle`: this test is about time.
            await asyncio.sleep(0.6)
            if go:
                go.pop(0).set()
    assert text == "abc"


@pytest.mark.gen_test
async def test_a_deadline_that_passes_while_the_reader_is_busy(upstream: Upstream, open_model: Open) -> None:
    upstream.reply(CUT, Do.HANG)
    deadlines = Deadlines(connect=3600, first_token=3600, idle=3600, total=1)
    async with contextlib.aclosing(open_model(deadlines=deadlines).stream(TURNS)) as deltas:
        await anext(deltas)
        await asyncio.sleep(1.1)  # longer than `total`
        with pytest.raises(ModelError) as caught:
            await anext(deltas)
    assert caught.value.code is ErrorCode.UPSTREAM_TIMEOUT


@pytest.mark.parametrize("steps", [[Do.HANG], [head(), Do.HANG], [CUT, Do.HANG]], ids=["headers", "token", "next"])
@pytest.mark.gen_test
async def test_cancelling_the_reader_ends_the_call(upstream: Upstream, open_model: Open, steps: list[Step]) -> None:
    upstream.reply(*steps)
    task = asyncio.create_task(read(open_model().stream(TURNS)))
    await upstream.until_called()
    await upstream.calls[0].hanging.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await upstream.calls[0].aborted.wait()


@pytest.mark.gen_test
async def test_closing_the_generator_ends_the_call(upstream: Upstream, open_model: Open) -> None:
    upstream.reply(CUT, Do.HANG)
    deltas = open_model().stream(TURNS)
    await anext(deltas)
    await deltas.aclose()
    await upstream.calls[0].aborted.wait()


@pytest.mark.gen_test
async def test_a_cancellation_beats_a_deadline(upstream: Upstream, open_model: Open) -> None:
    """If both happen at once, the reader's own cancellation must not turn into a `ModelError`."""
    upstream.reply(CUT, Do.HANG)
    model = open_model(deadlines=Deadlines(connect=3600, first_token=3600, idle=NOW, total=3600))
    task = asyncio.create_task(read(model.stream(TURNS)))
    await upstream.until_called()
    await upstream.calls[0].hanging.wait()
    loop = asyncio.get_running_loop()
    loop.call_later(NOW, task.cancel)
    loop.call_later(NOW, lambda: loop.call_soon(task.cancel))
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await upstream.calls[0].aborted.wait()


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param([Do.HANG], id="silence"),
        pytest.param([Do.RESET], id="reset"),
        pytest.param([http_chunk(b"data: {\n\n"), Do.HANG], id="not JSON"),
        pytest.param([http_chunk(event({"error": {"code": 500}})), END], id="error"),
        pytest.param([http_chunk(event(DONE)), Do.HANG], id="no end of the body"),
        pytest.param([http_chunk(event(DONE) + event(delta("no"))), END], id="text after the end mark"),
        pytest.param([http_chunk(b"x" * 5_000_000), Do.HANG], id="an endless line"),
    ],
)
@pytest.mark.gen_test
async def test_no_fault_counts_after_the_finish_reason(upstream: Upstream, open_model: Open, rest: list[Step]) -> None:
    upstream.reply(CUT, http_chunk(event(STOP)), *rest)
    text, finish, error = await read(open_model().stream(TURNS))
    assert (text, finish, error) == ("a", Finish(reason="stop", usage=None), None)


@pytest.mark.gen_test
async def test_usage_that_comes_later(upstream: Upstream, open_model: Open) -> None:
    seen = asyncio.Event()
    upstream.reply(head(), http_chunk(event(delta("a")) + event(STOP)), seen, http_chunk(event(USAGE)), END)
    async with contextlib.aclosing(open_model().stream(TURNS)) as deltas:
        assert (await anext(deltas)).pieces == ["a"]
        seen.set()
        finish = (await anext(deltas)).finish
    assert finish is not None
    assert finish.usage is not None
    assert finish.usage.total_tokens == 7


@pytest.mark.gen_test
async def test_closing_the_model_breaks_its_streams_off(upstream: Upstream, open_model: Open) -> None:
    upstream.reply(CUT, Do.HANG)
    model = open_model()
    task = asyncio.create_task(read(model.stream(TURNS)))
    await upstream.until_called()
    await upstream.calls[0].hanging.wait()
    await model.close()
    text, _, error = await task
    assert text == "a"
    assert error is not None
    _, _, error = await read(model.stream(TURNS))
    assert error is not None
    assert len(upstream.calls) == 1


@pytest.mark.gen_test
async def test_a_large_answer_arrives_whole(upstream: Upstream, open_model: Open) -> None:
    text = "".join(f"wörd{number} " for number in range(200_000))
    upstream.reply(answer(text[:1_500_000], text[1_500_000:]))
    answered, finish, _ = await read(open_model().stream(TURNS))
    assert finish is not None
    assert answered == text


# Proxies --------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_a_proxy_is_not_asked_for_loopback(upstream: Upstream, open_model: Open, proxies: NameProxies) -> None:
    proxies(HTTP_PROXY="http://127.0.0.1:9")
    upstream.reply(answer("a"))
    text, _, _ = await read(open_model().stream(TURNS))
    assert text == "a"


@pytest.mark.parametrize("other", [{}, {"ALL_PROXY": "socks5://127.0.0.1:9", "NO_PROXY": "another.invalid"}])
@pytest.mark.gen_test
async def test_a_proxy_is_asked_for_other_hosts(
    upstream: Upstream, open_model: Open, proxies: NameProxies, other: dict[str, str]
) -> None:
    proxies(HTTP_PROXY=upstream.url.removesuffix("/v1"), **other)
    upstream.reply(answer("a"))
    text, _, _ = await read(open_model(base_url="http://model.invalid/v1").stream(TURNS))
    assert text == "a"
    assert upstream.calls[0].request_line == "POST http://model.invalid/v1/chat/completions HTTP/1.1"


@pytest.mark.gen_test
async def test_a_proxy_may_be_named_without_its_protocol(
    upstream: Upstream, open_model: Open, proxies: NameProxies
) -> None:
    proxies(ALL_PROXY=upstream.url.removesuffix("/v1").removeprefix("http://"))
    upstream.reply(answer("a"))
    text, _, _ = await read(open_model(base_url="http://model.invalid/v1").stream(TURNS))
    assert text == "a"


@pytest.mark.gen_test
async def test_a_proxy_is_not_asked_for_hosts_that_need_none(open_model: Open, proxies: NameProxies) -> None:
    with silent() as (host, port):
        proxies(HTTP_PROXY=f"http://{host}:{port}", NO_PROXY="invalid")
        _, _, error = await read(open_model(base_url="http://model.invalid/v1", retries=0).stream(TURNS))
    assert error is not None
    assert error.code is ErrorCode.UPSTREAM_UNAVAILABLE  # this host name does not exist


@pytest.mark.parametrize("proxy", ["socks5://user:SECRET@127.0.0.1:9", "gopher://SECRET", "http://SECRET:port"])
def test_a_proxy_that_cannot_be_used(open_model: Open, proxies: NameProxies, proxy: str) -> None:
    proxies(ALL_PROXY=proxy)
    with pytest.raises(ConfigurationError, match="proxy") as raised:
        open_model(base_url="http://model.invalid/v1")
    assert "SECRET" not in str(raised.value)


@pytest.mark.gen_test
async def test_a_proxy_that_does_not_answer(open_model: Open, proxies: NameProxies) -> None:
    with silent() as (host, port):
        proxies(HTTP_PROXY=f"http://{host}:{port}")
        model = open_model(base_url="http://model.invalid/v1", deadlines=replace(HOURS, connect=NOW), retries=0)
        _, _, error = await read(model.stream(TURNS))
    assert error is not None
    assert error.code is ErrorCode.UPSTREAM_TIMEOUT


# What a model refuses, and who is told -------------------------------------------------------------------------------


def refusing(text: str) -> bytes:
    return problem("400 Bad Request", None, text)


ECHO = (
    "Invalid request: {'model': 'm', 'messages': [{'role': 'system', 'content': 'x'}], 'stream': True, "
    "'stream_options': {'include_usage': True}}"
)
FOLDED = [{"role": "user", "content": "Be brief.\n\nPROMPT-7f3a"}]


@pytest.mark.parametrize(
    ("refusal", "without"),
    [
        pytest.param(refusing("Unrecognized request argument supplied: stream_options"), "stream_options", id="OpenAI"),
        pytest.param(
            whole(
                "422 No",
                {
                    "detail": [
                        {
                            "loc": ["body", "stream_options"],
                            "msg": "Extra inputs are not permitted",
                            "input": {"messages": [1]},
                        }
                    ]
                },
            ),
            "stream_options",
            id="FastAPI",
        ),
        pytest.param(
            whole("400 No", {"object": "error", "message": "System role not supported", "code": 400}),
            "system",
            id="vLLM, Gemma",
        ),
        pytest.param(
            problem("500 No", None, "Jinja Exception: System role not supported"), "system", id="llama.cpp's template"
        ),
        pytest.param(
            refusing("Developer instruction is not enabled for models/gemma-3-27b-it"), "system", id="Google, Gemma"
        ),
        pytest.param(
            refusing("Conversation roles must alternate user/assistant/user/assistant/..."), "system", id="Mistral"
        ),
        pytest.param(
            refusing("Unsupported value: 'messages[0].role' does not support 'system' with this model."),
            "system",
            id="o1-mini",
        ),
        pytest.param(
            stream({"error": {"message": "System role not supported", "code": 400}}), "system", id="in the stream"
        ),
        pytest.param(
            whole(
                "400 No",
                {
                    "error": {
                        "message": "Your organization must be verified to stream this model.",
                        "type": "invalid_request_error",
                        "param": "stream",
                        "code": "unsupported_value",
                    }
                },
            ),
            "stream",
            id="OpenAI, not verified",
        ),
        pytest.param(refusing("Streaming is not supported for this model"), "stream", id="no streaming"),
    ],
)
@pytest.mark.gen_test
async def test_a_model_is_asked_without_what_it_refuses(
    upstream: Upstream, open_model: Open, caplog: pytest.LogCaptureFixture, refusal: bytes, without: str
) -> None:
    caplog.set_level(logging.INFO, "chatstream")
    upstream.reply(refusal)
    upstream.reply(whole("200 OK", WHOLE) if without == "stream" else answer("whole"))
    model = open_model(retries=0)
    for name in ("m", "m", "other"):  # the last model differs from the requested one
        assert (await read(model.stream(TURNS, model=name)))[0] == "whole"
    first, *again, other = [call.body for call in upstream.calls]
    assert len(again) == 2
    for body in again:
        assert body["stream"] is (without != "stream")
        assert ("stream_options" in body) is (without == "system")
        assert (body["messages"] == FOLDED) is (without == "system")
    assert other == first | {"model": "other"}
    assert len(caplog.records) == 1


@pytest.mark.gen_test
async def test_a_model_may_refuse_several_things(upstream: Upstream, open_model: Open) -> None:
    upstream.reply(refusing("Unknown parameter: stream_options"))
    upstream.reply(refusing("System role not supported"))
    upstream.reply(refusing("streaming is disabled"))
    upstream.reply(whole("200 OK", WHOLE))
    model = open_model(retries=0)
    for _ in range(2):
        assert (await read(model.stream(TURNS)))[0] == "whole"
    assert len(upstream.calls) == 5
    assert upstream.calls[-1].body == {"model": "m", "messages": FOLDED, "stream": False}


@pytest.mark.gen_test
async def test_a_refusal_that_repeats_the_request_teaches_nothing(upstream: Upstream, open_model: Open) -> None:
    upstream.reply(refusing(ECHO))
    upstream.reply(answer("a"))
    model = open_model(retries=0)
    await read(model.stream(TURNS))
    upstream.scripts = [(answer("a"),)]
    await read(model.stream(TURNS))
    assert "stream_options" in upstream.calls[-1].body
    assert upstream.calls[-1].body["messages"][0]["role"] == "system"


@pytest.mark.gen_test
async def test_what_did_not_help_is_not_learnt(upstream: Upstream, open_model: Open) -> None:
    upstream.reply(refusing("stream_options is not known"))
    upstream.reply(problem("500 No"))
    upstream.reply(answer("a"))
    model = open_model(retries=0)
    _, _, error = await read(model.stream(TURNS))
    assert error is not None
    await read(model.stream(TURNS))
    assert "stream_options" in upstream.calls[-1].body


def test_what_is_learnt_is_forgotten_after_an_hour_and_bounded() -> None:
    now = 0.0
    dialects = Dialects(lambda: now)
    for number in range(1000):
        dialects.learn(f"m{number}", frozenset({Part.USAGE}))
    assert dialects.of("m999") == {Part.USAGE}
    assert dialects.of("m0") == frozenset()
    now = 3599.0
    assert dialects.of("m999") == {Part.USAGE}
    now = 3600.0
    assert dialects.of("m999") == frozenset()


@pytest.mark.parametrize(
    ("response", "mend"),
    [
        pytest.param(problem("401 Unauthorized", "invalid_api_key"), "OPENAI_API_KEY", id="key"),
        pytest.param(problem("403 Forbidden"), "OPENAI_API_KEY", id="forbidden"),
        pytest.param(
            problem("400 Bad Request", None, "API key not valid. Please pass a valid API key."),
            "OPENAI_API_KEY",
            id="Google's key",
        ),
        pytest.param(problem("404 Not Found", "model_not_found"), "OPENAI_MODEL", id="model"),
        pytest.param(
            problem("404 Not Found", None, "model 'llama9' not found, try pulling it first"),
            "OPENAI_MODEL",
            id="Ollama",
        ),
        pytest.param(
            problem("400 Bad Request", None, "nope is not a valid model ID"), "OPENAI_MODEL", id="OpenRouter's model"
        ),
        pytest.param(
            head("404 Not Found", content_type="text/plain") + http_chunk(b"404 page not found") + END, "/v1", id="path"
        ),
        pytest.param(whole("405 Method Not Allowed", {"detail": "Method Not Allowed"}), "/v1", id="method"),
        pytest.param(head(content_type="text/html") + http_chunk(b"<html>") + END, "/v1", id="page"),
        pytest.param(head("308 See", Location="https://x.example/") + END, "redirects to", id="redirect"),
        pytest.param(problem("402 Payment Required"), "credit", id="account"),
    ],
)
@pytest.mark.gen_test
async def test_the_operator_is_told_what_to_mend_and_how_once_a_minute(
    upstream: Upstream, open_model: Open, caplog: pytest.LogCaptureFixture, response: bytes, mend: str
) -> None:
    upstream.reply(response)
    model = open_model(base_url=upstream.url.replace("//", "//user:SECRET@") + "/")
    for _ in range(3):
        _, _, error = await read(model.stream(TURNS))
        assert error is not None
        assert error.code is ErrorCode.UPSTREAM_MISCONFIGURED
    assert len(upstream.calls) == 3
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert f"POST {upstream.url}/chat/completions: " in record.message
    assert mend in record.message
    assert "SECRET" not in record.message


@pytest.mark.gen_test
async def test_a_prompt_that_is_refused_is_nobodys_misconfiguration(upstream: Upstream, open_model: Open) -> None:
    for response in (
        problem("400 Bad Request", "content_filter"),
        problem("403 Forbidden", None, "Your input was flagged by moderation"),
        whole("400 No", {"error": {"message": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
    ):
        upstream.reply(response)
        _, _, error = await read(open_model().stream(TURNS))
        assert error is not None
        assert error.code is ErrorCode.UPSTREAM_REJECTED


# Waiting --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "headers", "seconds"),
    [
        ([{"error": {"code": 429, "details": [{"retryDelay": "34s"}]}}], {}, 34),
        ({"error": {"message": "Please retry in 34.5s."}}, {}, 34.5),
        ({"error": {"message": "Rate limit reached. Please try again in 7m34.5s. Visit"}}, {}, 454.5),
        ({"error": {"message": "Rate limit. Please try again in 20s."}}, {}, 20),
        ({"error": {"message": "x"}}, {"x_ratelimit_reset_requests": "20s"}, 20),
        (
            {"error": {"message": "x"}},
            {
                "x_ratelimit_reset_requests": "1s",
                "x_ratelimit_remaining_requests": "5",
                "x_ratelimit_reset_tokens": "6m0s",
                "x_ratelimit_remaining_tokens": "0",
            },
            360,
        ),
        ({"error": {"message": "x"}}, {"x_ratelimit_reset_tokens": "60s", "retry_after": "12"}, 12),
        ({"error": {"message": "x"}}, {"RateLimit": '"default";r=0;t=30'}, 30),
        ({"error": {"message": "x", "metadata": {"headers": {"Retry-After": "15"}}}}, {}, 15),
        ({"detail": "slow down", "retry_after": 30}, {}, 30),
        ("busy: retry after 45 seconds", {}, 45),
        ({"error": {"message": "x"}}, {}, None),
    ],
)
@pytest.mark.gen_test
async def test_how_long_to_wait_is_found_wherever_it_is_said(
    upstream: Upstream, open_model: Open, document: object, headers: dict[str, str], seconds: float | None
) -> None:
    upstream.reply(whole("429 Too Many Requests", document, **headers))
    _, _, error = await read(open_model().stream(TURNS))
    assert error is not None
    assert (error.code, error.retry_after) == (ErrorCode.UPSTREAM_RATE_LIMITED, seconds)
    assert len(upstream.calls) == (3 if seconds is None else 1)  # no retry before this time


@pytest.mark.gen_test
async def test_a_wait_that_is_told_in_the_stream(upstream: Upstream, open_model: Open) -> None:
    upstream.reply(stream({"error": {"code": 429, "message": "Try again in 40 s"}}))
    _, _, error = await read(open_model().stream(TURNS))
    assert error is not None
    assert error.retry_after == 40
    assert len(upstream.calls) == 1


@pytest.mark.gen_test
async def test_a_model_that_is_being_loaded_is_waited_for(upstream: Upstream, open_model: Open) -> None:
    """llama.cpp reports it at once, with each request."""
    for _ in range(5):
        upstream.reply(problem("503 No", "unavailable_error", "Loading model"))
    upstream.reply(answer("a"))
    assert (await read(open_model(retries=0).stream(TURNS)))[0] == "a"


@pytest.mark.gen_test
async def test_the_first_byte_has_a_deadline_of_its_own(upstream: Upstream, open_model: Open) -> None:
    loaded = asyncio.Event()
    upstream.reply(loaded, answer("a"))
    model = open_model(deadlines=replace(HOURS, first_byte=3600, first_token=NOW))
    reading = asyncio.create_task(read(model.stream(TURNS)))
    await upstream.until_called()
    await asyncio.sleep(3 * NOW)  # longer than the deadline of the first token: this test is about time
    loaded.set()
    assert (await reading)[0] == "a"


@pytest.mark.gen_test
async def test_a_first_byte_that_does_not_come_is_not_asked_for_again(upstream: Upstream, open_model: Open) -> None:
    upstream.reply(Do.HANG)
    _, _, error = await read(open_model(deadlines=replace(HOURS, first_byte=1)).stream(TURNS))
    assert error is not None
    assert error.code is ErrorCode.UPSTREAM_TIMEOUT
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("late", [problem("504 Gateway Timeout"), Do.CLOSE], ids=["a gateway's word", "closed"])
@pytest.mark.gen_test
async def test_whoever_has_worked_for_long_is_not_made_to_begin_anew(
    upstream: Upstream, open_model: Open, monkeypatch: pytest.MonkeyPatch, late: Step
) -> None:
    monkeypatch.setattr(openai_model, "_LONG_ATTEMPT", 0.0)
    upstream.reply(late)
    _, _, error = await read(open_model().stream(TURNS))
    assert error is not None
    assert len(upstream.calls) == 1


@pytest.mark.gen_test
async def test_a_kept_connection_that_is_just_being_closed_costs_no_retry(
    upstream: Upstream, open_model: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """But it is told: the endpoint may have read both requests, and may charge for both."""
    caplog.set_level(logging.INFO, "chatstream")
    upstream.reply(answer("a"))
    upstream.reply(Do.CLOSE)
    upstream.reply(answer("b"))
    metrics = Metrics()
    model = open_model(retries=0, metrics=metrics)
    assert (await read(model.stream(TURNS)))[0] == "a"
    assert (await read(model.stream(TURNS)))[0] == "b"
    assert [call.connection for call in upstream.calls] == [1, 1, 2]
    assert [line for line in caplog.messages if "model retry" in line]
    assert 'chatstream_model_retries_total{code="upstream_unavailable"} 1.0' in metrics.expose("")[1].decode()


# Size -----------------------------------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_what_is_packed_small_and_large_unpacked_fills_no_memory(upstream: Upstream, open_model: Open) -> None:
    packed = gzip.compress(b"data: " + b"\0" * 100_000_000)
    assert len(packed) < 200_000
    upstream.reply(head(Content_Encoding="gzip") + http_chunk(packed), END)
    tracemalloc.start()
    try:
        _, _, error = await read(open_model(retries=0).stream(TURNS))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert error is not None
    assert error.code is ErrorCode.UPSTREAM_PROTOCOL
    assert peak < 30_000_000


@pytest.mark.gen_test
async def test_an_endpoint_that_marks_each_chunk_as_the_last_and_then_breaks(
    upstream: Upstream, open_model: Open
) -> None:
    steps = [http_chunk(event(delta(word, finish_reason="stop"))) for word in ("a", "b")]
    upstream.reply(head(), *steps, Do.RESET)
    text, _, error = await read(open_model().stream(TURNS))
    assert text == "ab"
    assert error is not None
    assert error.code is ErrorCode.UPSTREAM_TRUNCATED


@pytest.mark.gen_test
async def test_an_endpoint_that_marks_each_chunk_as_the_last_may_pause(upstream: Upstream, open_model: Open) -> None:
    go = asyncio.Event()
    upstream.reply(
        head(),
        http_chunk(event(delta("a", finish_reason="stop"))),
        go,
        http_chunk(event(delta("b")) + event(DONE)),
        END,
    )
    async with contextlib.aclosing(open_model().stream(TURNS)) as deltas:
        assert (await anext(deltas)).pieces == ["a"]
        reading = asyncio.ensure_future(anext(deltas))
        await asyncio.wait([reading], timeout=2.2)  # longer than the wait for token counts
        assert not reading.done()
        go.set()
        assert (await reading).pieces == ["b"]


@pytest.mark.gen_test
async def test_thinking_goes_back_to_models_that_want_it_alone(upstream: Upstream, open_model: Open) -> None:
    upstream.reply(stream(delta("a"), STOP, DONE))
    turns = [Turn("user", "One?"), Turn("assistant", "One.", "Hm."), Turn("user", "Two?")]
    for reasoning_back in (ReasoningBack.OFF, ReasoningBack.ALWAYS):
        await read(open_model(reasoning_back=reasoning_back).stream(turns))
    without, with_it = (
        [turn for turn in call.body["messages"] if turn["role"] == "assistant"] for call in upstream.calls
    )
    assert without == [{"role": "assistant", "content": "One."}]
    assert with_it == [{"role": "assistant", "content": "One.", "reasoning_content": "Hm."}]


@pytest.mark.gen_test
async def test_a_prompt_may_have_opened_the_thinking(upstream: Upstream, open_model: Open) -> None:
    upstream.reply(stream(delta("Hm.</th"), delta("ink>\n\nYes."), STOP, DONE))
    text, _, _ = await read(open_model(tags=Tags.OPENED).stream([Turn("user", "One?")]))
    assert text == "Yes."


@pytest.mark.gen_test
async def test_the_operator_learns_of_thinking_that_is_not_opened_once_for_each_model(
    upstream: Upstream, open_model: Open, caplog: pytest.LogCaptureFixture
) -> None:
    lone = answer("Hm.", "</think>\n\n", "Hi")
    upstream.scripts = [(lone,), (answer("</think>", "Hi"),)]
    model = open_model()
    assert (await read(model.stream(TURNS)))[0] == "Hm.</think>\n\nHi"
    assert caplog.text.count("think_tags") == 1
    for name in (None, "other"):
        assert (await read(model.stream(TURNS, model=name)))[0] == "Hi"
    assert caplog.text.count("think_tags") == 1


@pytest.mark.parametrize(
    "refusal",
    [
        {"error": {"message": "Unrecognized request argument supplied: prompt_cache_key", "param": None}},
        {
            "detail": [
                {
                    "type": "extra_forbidden",
                    "loc": ["body", "prompt_cache_key"],
                    "msg": "Extra inputs are not permitted",
                }
            ]
        },
        {"error": {"message": "Unsupported parameter: 'prompt_cache_key'", "code": "unsupported_parameter"}},
    ],
)
@pytest.mark.gen_test
async def test_the_key_of_the_prompts_cache_is_sent_where_it_is_taken(
    upstream: Upstream, open_model: Open, refusal: dict[str, Any]
) -> None:
    upstream.reply(whole("400 Bad Request", refusal))
    upstream.reply(answer("a"))
    model = open_model()
    for _ in range(2):
        text, _, error = await read(model.stream(TURNS, cache_key="conversation"))
        assert (text, error) == ("a", None)
    assert [call.body.get("prompt_cache_key") for call in upstream.calls] == ["conversation", None, None]
    assert all(call.body["stream_options"] for call in upstream.calls)


@pytest.mark.gen_test
async def test_a_model_that_refuses_more_than_one_thing_is_asked_without_them(
    upstream: Upstream, open_model: Open
) -> None:
    upstream.reply(whole("400 Bad Request", {"error": {"message": "unknown field prompt_cache_key"}}))
    upstream.reply(whole("400 Bad Request", {"error": {"message": "unknown field stream_options"}}))
    upstream.reply(answer("a"))
    assert (await read(open_model().stream(TURNS, cache_key="c")))[0] == "a"
    assert {"prompt_cache_key", "stream_options"}.isdisjoint(upstream.calls[2].body)


# A request that may not be sent yet -----------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_what_may_not_be_sent_yet_waits_with_an_open_connection(upstream: Upstream, open_model: Open) -> None:
    upstream.reply(answer("Yes."))
    may_ask: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    reading = asyncio.create_task(read(open_model().stream(TURNS, may_ask=may_ask)))
    await opened(upstream, 1)
    assert not upstream.calls
    may_ask.set_result(None)
    text, finish, error = await reading
    assert (text, error) == ("Yes.", None)
    assert finish is not None
    assert len(upstream.calls) == 1


@pytest.mark.gen_test
async def test_what_is_not_to_be_sent_after_all_leaves_its_connection_to_the_next(
    upstream: Upstream, open_model: Open
) -> None:
    upstream.reply(answer("Yes."))
    model = open_model()
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    reading = asyncio.create_task(read(model.stream(TURNS, may_ask=never)))
    await opened(upstream, 1)
    await turns()
    reading.cancel()
    await asyncio.wait([reading])
    assert not upstream.calls
    assert (await read(model.stream(TURNS)))[0] == "Yes."
    assert [call.connection for call in upstream.calls] == [1]


@pytest.mark.gen_test
async def test_a_connection_that_is_closed_while_its_request_waits_is_not_used(
    upstream: Upstream, open_model: Open
) -> None:
    upstream.reply(answer("Yes."))
    may_ask: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    reading = asyncio.create_task(read(open_model(retries=0).stream(TURNS, may_ask=may_ask)))
    await opened(upstream, 1)
    await turns()
    for connection in upstream._connections:
        connection.transport.abort()
    async with asyncio.timeout(PATIENCE):
        while upstream.open:
            await asyncio.sleep(0)
    await turns()
    may_ask.set_result(None)
    assert (await reading)[0] == "Yes."
    assert [call.connection for call in upstream.calls] == [2]


@pytest.mark.gen_test
async def test_the_time_that_a_request_may_not_be_sent_is_not_the_models(upstream: Upstream, open_model: Open) -> None:
    upstream.reply(answer("Yes."))
    model = open_model(deadlines=Deadlines(connect=PATIENCE, first_token=NOW, idle=PATIENCE, total=PATIENCE))
    may_ask: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    reading = asyncio.create_task(read(model.stream(TURNS, may_ask=may_ask)))
    await opened(upstream, 1)
    await asyncio.wait([reading], timeout=4 * NOW)  # longer than the deadline of the first token
    assert not reading.done()
    reading.cancel()
    await asyncio.wait([reading])


@pytest.mark.gen_test
async def test_a_model_that_is_closed_while_its_request_waits_sends_nothing(
    upstream: Upstream, open_model: Open
) -> None:
    upstream.reply(answer("Yes."))
    model = open_model()
    may_ask: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    reading = asyncio.create_task(read(model.stream(TURNS, may_ask=may_ask)))
    await opened(upstream, 1)
    await turns()
    await model.close()
    may_ask.set_result(None)
    _, finish, error = await reading
    assert finish is None
    assert error is not None
    assert not upstream.calls


async def opened(upstream: Upstream, number: int) -> None:
    """Wait until this many connections are open."""
    async with asyncio.timeout(PATIENCE):
        while upstream.open < number:
            await asyncio.sleep(0)


# Text that is told at once --------------------------------------------------------------------------------------------


def taking(told: list[Piece], came: asyncio.Event) -> Tell:
    def tell(pieces: Sequence[Piece]) -> bool:
        told.extend(pieces)
        came.set()
        return True

    return tell


@pytest.mark.gen_test
async def test_text_behind_the_first_is_told_at_once(upstream: Upstream, open_model: Open) -> None:
    begun, came = asyncio.Event(), asyncio.Event()
    told: list[Piece] = []
    tell = taking(told, came)
    first, second = http_chunk(event(delta("a"))), http_chunk(event(delta("b")) + event(delta("c")))
    upstream.reply(head(), first, begun, second, came, http_chunk(event(delta("d")) + event(STOP) + event(DONE)), END)
    async with contextlib.aclosing(open_model().stream(TURNS, tell=tell)) as deltas:
        assert (await anext(deltas)).pieces == ["a"]
        begun.set()
        assert (await anext(deltas)).pieces == ["d"]  # it arrived together with the end
        assert told == ["b", "c"]
        assert (await anext(deltas)).finish == Finish(reason="stop")


@pytest.mark.gen_test
async def test_what_is_not_taken_at_once_comes_as_a_delta(upstream: Upstream, open_model: Open) -> None:
    texts = [*"abcdef"]
    told: list[Piece] = []

    def tell(pieces: Sequence[Piece]) -> bool:
        if pieces[0] in ("b", "e"):
            return False
        told.extend(pieces)
        return True

    chunks = [http_chunk(event(delta(text))) for text in texts]
    upstream.reply(head(), *chunks, http_chunk(event(STOP)), http_chunk(event(USAGE)), http_chunk(event(DONE)), END)
    order: list[Piece] = []
    async with contextlib.aclosing(open_model().stream(TURNS, tell=tell)) as deltas:
        async for delta_ in deltas:
            order += [*told, *delta_.pieces]
            told.clear()
            finish = delta_.finish
    assert order == texts
    assert finish is not None
    assert finish.usage is not None


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        pytest.param([Do.HANG], ErrorCode.UPSTREAM_TIMEOUT, id="late"),
        pytest.param([Do.RESET], ErrorCode.UPSTREAM_TRUNCATED, id="broken"),
        pytest.param([http_chunk(event({"error": {"message": "x", "code": 500}})), END], None, id="failed"),
    ],
)
@pytest.mark.gen_test
async def test_told_text_counts_as_begun(
    upstream: Upstream, open_model: Open, rest: list[Step], code: ErrorCode | None
) -> None:
    begun, came = asyncio.Event(), asyncio.Event()
    told: list[Piece] = []
    tell = taking(told, came)
    upstream.reply(CUT, begun, http_chunk(event(delta("b"))), came, *rest)
    model = open_model(deadlines=replace(HOURS, idle=10 * NOW if code is ErrorCode.UPSTREAM_TIMEOUT else 3600))
    async with contextlib.aclosing(model.stream(TURNS, tell=tell)) as deltas:
        assert (await anext(deltas)).pieces == ["a"]
        begun.set()
        with pytest.raises(ModelError) as caught:
            await anext(deltas)
    assert told == ["b"]
    assert code is None or caught.value.code is code
    assert len(upstream.calls) == 1


@pytest.mark.gen_test
async def test_an_error_of_whoever_is_told_ends_the_stream(upstream: Upstream, open_model: Open) -> None:
    begun = asyncio.Event()

    def tell(pieces: Sequence[Piece]) -> bool:
        raise LookupError(pieces[0])

    upstream.reply(CUT, begun, http_chunk(event(delta("b"))), Do.HANG)
    async with contextlib.aclosing(open_model().stream(TURNS, tell=tell)) as deltas:
        assert (await anext(deltas)).pieces == ["a"]
        begun.set()
        with pytest.raises(LookupError, match="b"):
            await anext(deltas)
    await upstream.calls[0].aborted.wait()


@pytest.mark.gen_test
async def test_who_cancels_the_reader_when_told_is_told_no_more(upstream: Upstream, open_model: Open) -> None:
    told: list[Sequence[Piece]] = []

    def tell(pieces: Sequence[Piece]) -> bool:
        told.append(pieces)
        reading.cancel()
        return True

    upstream.reply(CUT, *(http_chunk(event(delta(text))) for text in "bcdefg"), Do.HANG)
    reading = asyncio.create_task(read(open_model().stream(TURNS, tell=tell)))
    with pytest.raises(asyncio.CancelledError):
        await reading
    await upstream.calls[0].aborted.wait()
    assert len(told) == 1


@pytest.mark.gen_test
async def test_a_call_that_comes_with_the_end_is_made_once(upstream: Upstream, open_model: Open) -> None:
    begun = asyncio.Event()
    call = {"index": 0, "id": "x", "function": {"name": "odds", "arguments": '{"match":'}}
    cut_off = event(delta(tool_calls=[call])) + event(delta(finish_reason="length")) + event(DONE)
    upstream.reply(CUT, begun, http_chunk(cut_off), END)
    told: list[Piece] = []
    async with contextlib.aclosing(open_model().stream(TURNS, tell=lambda pieces: False)) as deltas:
        async for delta_ in deltas:
            begun.set()
            told += delta_.pieces
    assert told == ["a", OpenToolCall(id="1", name="odds"), '{"match":']
