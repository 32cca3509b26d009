"""Tests that hold for each API of a model's endpoint: one suite for all APIs, with a real HTTP endpoint."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from chatstream.errors import ErrorCode, ModelError
from chatstream.generations.rounds import steps
from chatstream.llm import titling
from chatstream.llm.catalogue import Catalogue, Deadlines, Entry
from chatstream.llm.fallback import Endpoints, FallbackModel
from chatstream.llm.model import Delta, Finish, Model, OfferedTool, Step, ToolCall, Turn
from chatstream.llm.openai_model import OpenAIModel
from chatstream.metrics import Metrics
from chatstream.models import Usage
from chatstream.pieces import (
    CallState,
    OpenToolCall,
    Piece,
    ReasoningPart,
    ToolCallPart,
    ToolResult,
    ToolState,
    fold,
)
from chatstream.pieces import text as text_of
from tests.support import apis
from tests.support.apis import Api, answers, begins, events
from tests.support.upstream import END, Do, Upstream, head, http_chunk, whole

TURNS = [Turn("system", "Be brief."), Turn("user", "Which?")]
ODDS = OfferedTool("odds", "The odds.", {"type": "object", "properties": {"match": {"type": "integer"}}})
HOURS = Deadlines(connect=3600, first_token=3600, idle=3600, total=3600)  # no deadline passes
COUNTS = Usage(prompt_tokens=5, completion_tokens=2, total_tokens=7, cached_tokens=3, reasoning_tokens=1)
HI = ("text", "Hel", "lo 😀")

Open = Callable[..., OpenAIModel]


@pytest.fixture(params=apis.APIS, ids=lambda api: api.name)
def api(request: pytest.FixtureRequest) -> Api:
    found: Api = request.param
    return found


@pytest.fixture
def open_model(io_loop: IOLoop, upstream: Upstream, api: Api) -> Iterator[Open]:
    models = []

    def open_model(**options: Any) -> OpenAIModel:
        defaults = {"api_key": "sk-1", "base_url": upstream.url, "model": "m", "api": api.name, "metrics": Metrics()}
        models.append(OpenAIModel(**{**defaults, "deadlines": HOURS, "backoff": 0.0, **options}))
        return models[-1]

    yield open_model
    for model in models:
        io_loop.run_sync(model.close)


async def read(
    source: Model, turns: list[Turn] = TURNS, **options: Any
) -> tuple[list[Piece], Finish | None, ModelError | None]:
    """The pieces, the end and the error of an answer."""
    pieces: list[Piece] = []
    finish, error = None, None
    try:
        async with contextlib.aclosing(source.stream(turns, **options)) as deltas:
            async for delta in deltas:
                pieces += delta.pieces
                finish = delta.finish
    except ModelError as exc:
        error = exc
    assert "SECRET" not in str(error)
    return pieces, finish, error


def calls_in(pieces: list[Piece]) -> list[tuple[str, str]]:
    return [(part.name, part.arguments) for part in fold(pieces) if isinstance(part, ToolCallPart)]


def thoughts_in(pieces: list[Piece]) -> str:
    return "|".join(part.text for part in fold(pieces) if isinstance(part, ReasoningPart))


@pytest.mark.gen_test
async def test_an_answer_and_how_it_is_asked_for(upstream: Upstream, open_model: Open, api: Api) -> None:
    upstream.reply(answers(api, HI))
    pieces, finish, error = await read(open_model(), model="other", cache_key="c")
    assert (text_of(pieces), error) == ("Hello 😀", None)
    assert finish == Finish(reason="stop", usage=COUNTS)
    [call] = upstream.calls
    assert call.request_line == f"POST {api.path} HTTP/1.1"
    assert call.headers["authorization"] == "Bearer sk-1"
    assert api.sent(call.body) == [("system", "Be brief."), ("user", "Which?")]
    assert (call.body["model"], call.body["stream"], call.body["prompt_cache_key"]) == ("other", True, "c")
    assert "tools" not in call.body


@pytest.mark.parametrize(
    ("parts", "reason", "text", "thought", "calls", "ends"),
    [
        ([("thought", "H", "m."), HI], "stop", "Hello 😀", "Hm.", [], "stop"),
        ([HI], "length", "Hello 😀", "", [], "length"),
        ([HI], "content_filter", "Hello 😀", "", [], "content_filter"),
        ([("refusal", "N", "o.")], "stop", "No.", "", [], "refusal"),
        ([], "stop", "", "", [], "stop"),
        ([("thought", "Hm.")], "length", "", "Hm.", [], "length"),
        ([("text", "<think>Hm.</think>Hi")], "stop", "Hi", "Hm.", [], "stop"),
        ([("call", "odds", '{"ma', 'tch":7}')], "stop", "", "", [("odds", '{"match":7}')], "tool_calls"),
        ([("call", "odds")], "stop", "", "", [("odds", "")], "tool_calls"),
        ([("call", "odds", '{"ma')], "length", "", "", [("odds", '{"ma')], "length"),
        (
            [("thought", "Hm."), HI, ("call", "odds", '{"match":7}'), ("call", "odds", '{"match":8}')],
            "stop",
            "Hello 😀",
            "Hm.",
            [("odds", '{"match":7}'), ("odds", '{"match":8}')],
            "tool_calls",
        ),
    ],
    ids=["thought", "length", "filter", "refusal", "empty", "only thought", "tags", "call", "bare", "half", "all"],
)
@pytest.mark.gen_test
async def test_what_a_model_says(
    upstream: Upstream,
    open_model: Open,
    api: Api,
    parts: list[apis.Said],
    reason: str,
    text: str,
    thought: str,
    calls: list[tuple[str, str]],
    ends: str,
) -> None:
    upstream.reply(answers(api, *parts, reason=reason))
    pieces, finish, error = await read(open_model(), tools=[ODDS])
    assert error is None
    assert (text_of(pieces), thoughts_in(pieces), calls_in(pieces)) == (text, thought, calls)
    assert finish == Finish(reason=ends, usage=COUNTS)


@pytest.mark.gen_test
async def test_an_answer_in_one_piece(upstream: Upstream, open_model: Open, api: Api) -> None:
    upstream.reply(apis.document(api, HI, ("call", "odds", "{}")))
    pieces, finish, error = await read(open_model())
    assert error is None
    assert finish is not None
    assert (text_of(pieces), calls_in(pieces), finish.usage) == ("Hello 😀", [("odds", "{}")], COUNTS)


@pytest.mark.gen_test
async def test_what_was_said_and_called_is_told_again(upstream: Upstream, open_model: Open, api: Api) -> None:
    upstream.reply(answers(api, HI))
    call = ToolCall(id="a.1", name="odds", arguments='{"match":7}', result="2.1")
    told = (
        Step(content="Let me look.", reasoning="Hm.", calls=(call, ToolCall(id="a.2", **_of(call, result="1.1")))),
        Step(content="Take it."),
    )
    turns = [*TURNS, Turn("assistant", "Take it.", steps=told), Turn("user", "Sure?")]
    again = Turn("assistant", "", steps=(Step(calls=(ToolCall(id="b.1", **_of(call, result="2.2")),)),))
    await read(open_model(), [*turns, again], tools=[ODDS])
    assert api.sent(upstream.calls[0].body) == [
        ("system", "Be brief."),
        ("user", "Which?"),
        ("assistant", "Let me look."),
        ("call", "odds", '{"match":7}'),
        ("call", "odds", '{"match":7}'),
        ("result", "odds", "2.1"),
        ("result", "odds", "1.1"),
        ("assistant", "Take it."),
        ("user", "Sure?"),
        ("call", "odds", '{"match":7}'),
        ("result", "odds", "2.2"),
    ]


def _of(call: ToolCall, **other: str) -> dict[str, str]:
    return {"name": call.name, "arguments": call.arguments, **other}


def problem(status: str, code: str | None = None, message: str = "SECRET", param: str | None = None) -> bytes:
    return whole(status, {"error": {"message": message, "type": "some_type", "code": code, "param": param}})


@pytest.mark.parametrize(
    ("response", "code", "calls"),
    [
        (problem("401 Unauthorized", "invalid_api_key"), ErrorCode.UPSTREAM_MISCONFIGURED, 1),
        (problem("404 Not Found"), ErrorCode.UPSTREAM_MISCONFIGURED, 1),
        (problem("400 Bad Request"), ErrorCode.UPSTREAM_REJECTED, 1),
        (problem("400 Bad Request", "context_length_exceeded"), ErrorCode.CONTEXT_TOO_LONG, 1),
        (problem("429 Too Many Requests"), ErrorCode.UPSTREAM_RATE_LIMITED, 3),
        (problem("500 Internal Server Error"), ErrorCode.UPSTREAM_UNAVAILABLE, 3),
        (head() + END, ErrorCode.UPSTREAM_TRUNCATED, 3),
        (head("302 Found", Location="http://SECRET/") + END, ErrorCode.UPSTREAM_MISCONFIGURED, 1),
        (head(content_type="text/html") + http_chunk(b"<h1>SECRET</h1>") + END, ErrorCode.UPSTREAM_MISCONFIGURED, 1),
        (whole("200 OK", {"hello": "SECRET"}), ErrorCode.UPSTREAM_MISCONFIGURED, 1),
    ],
    ids=["key", "absent", "rejected", "long", "rate", "broken", "nothing", "redirect", "page", "other"],
)
@pytest.mark.gen_test
async def test_an_answer_that_does_not_begin(
    upstream: Upstream, open_model: Open, response: bytes, code: ErrorCode, calls: int
) -> None:
    upstream.reply(response)
    pieces, _, error = await read(open_model())
    assert error is not None
    assert (error.code, pieces, len(upstream.calls)) == (code, [], calls)


@pytest.mark.gen_test
async def test_an_error_in_the_stream_is_asked_again_if_nothing_came(
    upstream: Upstream, open_model: Open, api: Api
) -> None:
    error = {"type": "error", "error": {"code": "server_error", "message": "SECRET"}}
    upstream.reply(begins(api), http_chunk(events(error, api=api)), END)
    upstream.reply(answers(api, HI))
    pieces, _, _ = await read(open_model())
    assert text_of(pieces) == "Hello 😀"
    for begun in (HI, ("thought", "Hm."), ("call", "odds", "{")):
        upstream.scripts = [(begins(api, begun), http_chunk(events(error, api=api)), END)]
        before = len(upstream.calls)
        _, _, failure = await read(open_model(), tools=[ODDS])
        assert failure is not None
        assert (failure.code, len(upstream.calls) - before) == (ErrorCode.UPSTREAM_UNAVAILABLE, 1)


@pytest.mark.parametrize("rest", [[END], [Do.CLOSE], [Do.RESET]], ids=["ended", "closed", "reset"])
@pytest.mark.gen_test
async def test_an_answer_that_breaks_off(upstream: Upstream, open_model: Open, api: Api, rest: list[Any]) -> None:
    cut = api.said(HI)[: -2 if api.name == "responses" else None]  # cut in the middle of the message
    upstream.reply(head() + http_chunk(events(*cut, api=api)), *rest)
    pieces, _, error = await read(open_model())
    assert error is not None
    assert (error.code, text_of(pieces), len(upstream.calls)) == (ErrorCode.UPSTREAM_TRUNCATED, "Hello 😀", 1)


@pytest.mark.parametrize("late", ["first_token", "idle", "total"])
@pytest.mark.gen_test
async def test_an_answer_that_is_late(upstream: Upstream, open_model: Open, api: Api, late: str) -> None:
    upstream.reply(begins(api) if late == "first_token" else begins(api, HI), Do.HANG)
    limits = {"connect": 3600.0, "first_token": 3600.0, "idle": 3600.0, "total": 3600.0, late: 1.0}
    pieces, _, error = await read(open_model(deadlines=Deadlines(**limits)))
    assert error is not None
    assert (error.code, text_of(pieces)) == (ErrorCode.UPSTREAM_TIMEOUT, "" if late == "first_token" else "Hello 😀")
    await upstream.calls[0].aborted.wait()


@pytest.mark.gen_test
async def test_stopping_ends_the_request(upstream: Upstream, open_model: Open, api: Api) -> None:
    upstream.reply(begins(api, HI), Do.HANG)
    deltas = open_model().stream(TURNS)
    await anext(deltas)
    await deltas.aclose()
    await upstream.calls[0].aborted.wait()
    task = asyncio.create_task(read(open_model()))
    await upstream.until_called(2)
    await upstream.calls[1].hanging.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await upstream.calls[1].aborted.wait()


@pytest.mark.gen_test
async def test_a_connection_is_used_again(upstream: Upstream, open_model: Open, api: Api) -> None:
    upstream.reply(answers(api, HI))
    model = open_model()
    for _ in range(3):
        await read(model)
    assert [call.connection for call in upstream.calls] == [1, 1, 1]


@pytest.mark.parametrize(
    ("param", "words", "has"),
    [
        ("stream_options", "Unknown parameter.", lambda body: "stream_options" in body),
        ("prompt_cache_key", "Unknown parameter.", lambda body: "prompt_cache_key" in body),
        ("stream", "Your organization must be verified to stream this model.", lambda body: body["stream"]),
        ("tools", "This model does not support tools.", lambda body: "tools" in body),
        (None, "System role not supported", lambda body: "system" in str(body) or "instructions" in body),
    ],
    ids=["options", "cache key", "stream", "tools", "system"],
)
@pytest.mark.gen_test
async def test_what_a_model_refuses_is_left_out_and_learnt(
    upstream: Upstream, open_model: Open, api: Api, param: str | None, words: str, has: Callable[[Any], bool]
) -> None:
    upstream.reply(problem("400 Bad Request", "unsupported_value", words, param))
    upstream.reply(apis.document(api, HI) if param == "stream" else answers(api, HI))
    model = open_model(retries=0)
    for _ in range(2):
        pieces, _, error = await read(model, tools=[ODDS], cache_key="c")
        assert error is None
        assert text_of(pieces) == "Hello 😀"
    assert [has(call.body) for call in upstream.calls] == [True, False, False]


@pytest.mark.gen_test
async def test_a_fallback_answers_by_whichever_api_it_has(upstream: Upstream, open_model: Open, api: Api) -> None:
    other = next(one for one in apis.APIS if one.name != api.name)
    upstream.reply(problem("503 No"))
    upstream.reply(answers(other, HI))
    entries = [
        Entry(name="a", model="first", deadlines=HOURS, retries=0, fallbacks=["b"], api=api.name),
        Entry(name="b", model="second", deadlines=HOURS, retries=0, api=other.name),
    ]
    catalogue = Catalogue(entries, "a")
    endpoints = Endpoints(catalogue, lambda entry: open_model(model=entry.model, api=entry.api, retries=0))
    deltas: list[Delta] = [delta async for delta in FallbackModel(endpoints, catalogue).stream(TURNS)]
    assert text_of([piece for delta in deltas for piece in delta.pieces]) == "Hello 😀"
    assert {delta.model for delta in deltas if delta.model} == {"b"}
    assert [call.request_line.split()[1] for call in upstream.calls] == [api.path, other.path]


@pytest.mark.gen_test
async def test_a_title(upstream: Upstream, open_model: Open, api: Api) -> None:
    upstream.reply(answers(api, ("text", "Odds of ", "tonight")))
    pieces, finish, _ = await read(open_model(), titling.request("Which?", "Take it."))
    assert finish is not None
    assert titling.title(text_of(pieces), finish.reason) == "Odds of tonight"


# What only one of them has -------------------------------------------------------------------------------------------


def told_on(pieces: list[Piece], result: str) -> Turn:
    """The turn of an answer with calls, in the form of the model's next request."""
    states = [
        ToolState(id=one.id, name=one.name, state=CallState.READY) for one in pieces if isinstance(one, OpenToolCall)
    ]
    return Turn(
        "assistant", "", steps=steps([*pieces, *states, *(ToolResult(id=one.id, output=result) for one in states)])
    )


CALLED = (("thought", "Hm."), HI, ("call", "odds", '{"match":7}'))


@pytest.mark.gen_test
async def test_encrypted_reasoning_goes_back_as_long_as_its_answer_is_written(
    upstream: Upstream, open_model: Open, api: Api
) -> None:
    upstream.reply(answers(api, *CALLED))
    model = open_model()
    pieces, _, _ = await read(model, tools=[ODDS])
    own = told_on(pieces, "2.1")
    await read(model, [*TURNS, own], tools=[ODDS])
    await read(model, [*TURNS, own, Turn("user", "Sure?")], tools=[ODDS])
    await read(model, [*TURNS, own], model="other", tools=[ODDS])
    await read(open_model(api="chat"), [*TURNS, own], tools=[ODDS])
    first, again, later, other, chat = [call.body for call in upstream.calls]
    assert "secret" not in str([first, later, other, chat])
    assert "extra_content" not in str(chat)
    if api.name == "chat":
        assert again["messages"][2]["tool_calls"][0]["function"]["name"] == "odds"
        return
    assert (first["store"], first["include"]) == (False, ["reasoning.encrypted_content"])
    thought, said, call, result = again["input"][1:]
    assert thought == {
        "type": "reasoning",
        "id": "item_0",
        "summary": [{"type": "summary_text", "text": "Hm."}],
        "encrypted_content": "secret Hm.",
    }
    assert (said["content"], call["name"], result["output"]) == ("Hello 😀", "odds", "2.1")


@pytest.mark.parametrize("api", [apis.Responses()], ids=["responses"])
@pytest.mark.parametrize(
    "refusal",
    [
        problem("400 Bad Request", None, "Encrypted content is not supported with this model.", "include"),
        problem("400 Bad Request", "invalid_encrypted_content", "The encrypted content could not be verified."),
        whole("422 No", {"detail": [{"loc": ["body", "include", 0], "msg": "Input should be 'file_search'"}]}),
    ],
    ids=["model", "organization", "server"],
)
@pytest.mark.gen_test
async def test_encrypted_reasoning_that_is_refused_is_left_out(
    upstream: Upstream, open_model: Open, api: Api, refusal: bytes
) -> None:
    upstream.reply(answers(api, *CALLED))
    upstream.reply(refusal)
    upstream.reply(answers(api, HI))
    model = open_model(retries=0)
    pieces, _, _ = await read(model, tools=[ODDS])
    again, _, error = await read(model, [*TURNS, told_on(pieces, "2.1")], tools=[ODDS])
    assert (text_of(again), error) == ("Hello 😀", None)
    assert "secret" not in str(upstream.calls[2].body)
    assert "include" not in upstream.calls[2].body


@pytest.mark.parametrize("api", [apis.Responses()], ids=["responses"])
@pytest.mark.gen_test
async def test_an_endpoint_without_the_responses_api_is_told_to_the_operator(
    upstream: Upstream, open_model: Open, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.reply(head("404 Not Found", content_type="text/plain") + http_chunk(b"404 page not found") + END)
    await read(open_model())
    assert f"POST {upstream.url}/responses" in caplog.text
    assert 'write api = "chat"' in caplog.text
