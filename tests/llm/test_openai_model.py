import asyncio
import contextlib
import gzip
import logging
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from tornado.ioloop import IOLoop

from chatstream.errors import ConfigurationError, ErrorCode, ModelError
from chatstream.llm.model import Delta, Finish, Turn
from chatstream.llm.openai_model import Deadlines, OpenAIModel
from chatstream.metrics import Metrics
from chatstream.models import Usage
from tests.conftest import NameProxies
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
HOURS = Deadlines(connect=3600, first_token=3600, idle=3600, total=3600)  # nothing is late
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
    text, finish, error = "", None, None
    try:
        async with contextlib.aclosing(deltas):
            async for delta_ in deltas:
                assert finish is None, "nothing comes after the finish"
                assert all(delta_.texts)
                text += "".join(delta_.texts)
                finish = delta_.finish
    except ModelError as exc:
        error = exc
    assert finish is None or error is None
    assert not any(secret in str(error) for secret in (KEY, "PROMPT", "SECRET"))
    return text, finish, error


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
        assert (await anext(deltas)).texts == ["a", "b"]
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
    """Many HTTP clients open 100 connections at most, by default: the 101st answer must not wait for one of them."""
    go = asyncio.Event()
    upstream.reply(head(), go, http_chunk(event(delta("a")) + event(STOP)), END)
    model = open_model()
    answers = [asyncio.create_task(read(model.stream(TURNS))) for _ in range(130)]
    while len(upstream.calls) < 130:
        upstream.called.clear()
        await upstream.called.wait()
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
        pytest.param([whole("200 OK", {"hello": "SECRET"})], "upstream_protocol", 1, id="other JSON"),
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
        limits[name] = 1.0  # not before the request was there, and the token read, on a busy machine, too
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
            text += "".join(delta_.texts)
            # Longer than `idle`: here time itself is what is tested.
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
    await upstream.called.wait()
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
    """Both at once: the reader's own cancellation must not turn into a `ModelError`."""
    upstream.reply(CUT, Do.HANG)
    model = open_model(deadlines=Deadlines(connect=3600, first_token=3600, idle=NOW, total=3600))
    task = asyncio.create_task(read(model.stream(TURNS)))
    await upstream.called.wait()
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
        assert (await anext(deltas)).texts == ["a"]
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
    await upstream.called.wait()
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
    assert error.code is ErrorCode.UPSTREAM_UNAVAILABLE  # nobody has this name


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
