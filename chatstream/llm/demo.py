"""The demo models: an OpenAI-compatible endpoint that needs no key, costs nothing and can play faults.

``POST /v1/chat/completions`` (streamed or not) and ``GET /v1/models``. The same conversation always gets the same
answer. The model's name chooses a fault, so that a front end can be built against every one of them; see `FAULTS`.
"""

import asyncio
import contextlib
import json
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final, NamedTuple, NoReturn

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from chatstream.blank import is_blank
from chatstream.llm import demo_answers, demo_tools, titling
from chatstream.llm.demo_answers import GENERAL, THOUGHT, Step, Subject, Wanted, long_answer
from chatstream.llm.model import GO_ON

# Largest request, in bytes: enough for any context the server sends. The endpoint listens on loopback only.
_MAX_BODY: Final = 16 * 1024 * 1024
# Conversations that `demo-429` remembers to have refused.
_MAX_REFUSED: Final = 1000
# Bytes of `demo-huge`'s chunk: over one 64 KiB write, and within the server's default limit for an answer.
_HUGE: Final = 128 * 1024
# The word that `demo-strict`'s content filter blocks, anywhere in the conversation.
FILTERED: Final = "abracadabra"
# Words, each with the white space before it; the last one also with what comes after it.
_TOKENS: Final = re.compile(r"\s*\S+\s*\Z|\s*\S+")
# Seconds between the words of a slow answer: people read some four words a second, so each can be seen.
_SLOW: Final = 0.5


class _Gone(Exception):
    """The client went away."""


class _Call(RequestHandler):
    """One completion request, with the means to answer it or to play a fault."""

    def initialize(self, subject: Subject, pace: float, refused: OrderedDict[bytes, None]) -> None:
        """`pace`: seconds between tokens. `refused`: the conversations that `demo-429` has refused."""
        self.subject = subject
        self.pace = pace
        self.refused = refused
        self.gone = asyncio.get_running_loop().create_future()
        self.line_end = b"\n"
        self.tokens = 0
        self.message: dict[str, Any] = {"role": "assistant"}

    def on_connection_close(self) -> None:
        """Wake the handler: the client went away."""
        if not self.gone.done():
            self.gone.set_result(None)

    async def post(self) -> None:
        """Answer or fail, as the model's name requires."""
        try:
            self.body = json.loads(self.request.body)
            self.messages: list[dict[str, Any]] = [dict(message) for message in self.body["messages"]]
            self.model = str(self.body["model"])
        except (ValueError, TypeError, KeyError, RecursionError):
            self.fail(400, "invalid_request_error", "The body must be a JSON object with a model and messages.")
            return
        questions = [_plain(message.get("content")) for message in self.messages if message.get("role") == "user"]
        self.said = ""  # the interrupted text to continue, if any
        if questions[-1:] == [GO_ON] and len(questions) > 1:
            questions.pop()
            said = [_plain(one.get("content")) for one in self.messages if one.get("role") == "assistant"]
            self.said = said[-1] if said else ""
        self.question = questions[-1] if questions else ""
        self.streams = self.body.get("stream") is True
        with contextlib.suppress(_Gone, StreamClosedError):
            await _DEMOS.get(self.model, _DEMOS["demo"]).play(self)

    @property
    def answer(self) -> str:
        """The answer to the question."""
        if (question := titling.question_of(self.question)) is not None:
            return demo_answers.title(question)
        own = self.subject.models.get(self.model)
        return own.answer if own else self.subject.answer(self.question)

    @property
    def offered(self) -> list[dict[str, Any]]:
        """The tools that the request offers."""
        tools = self.body.get("tools")
        return tools if isinstance(tools, list) else []

    @property
    def step(self) -> Step:
        """The next step: an answer, or calls of offered tools."""
        if titling.question_of(self.question) is not None:
            return None
        step = self.subject.step(self.question, demo_tools.called_since(self.messages))
        names = [tool["function"]["name"] for tool in self.offered]
        return step if step is None or isinstance(step, str) or all(one.name in names for one in step) else None

    def fail(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        """Answer with an error object."""
        if retry_after is not None:
            self.set_header("Retry-After", str(retry_after))
        self.set_status(status)
        self.finish({"error": {"message": message, "type": code, "param": None, "code": code}})

    async def pause(self, seconds: float) -> None:
        """Wait, unless the client goes away."""
        await asyncio.wait([self.gone], timeout=seconds)
        if self.gone.done():
            raise _Gone

    async def stall(self) -> NoReturn:
        """Send nothing more until the client goes away."""
        await self.gone
        raise _Gone

    async def begin(self) -> None:
        """Send the headers and the first chunk, which names the role."""
        await self.delta(role="assistant", content="")

    async def say(
        self, text: str, *, field: str = "content", pace: float | None = None, reason: str | None = None
    ) -> None:
        """Send `text` word by word, each with the finish reason if one is given."""
        for token in _TOKENS.findall(text):
            await self.delta(reason, **{field: token})
            self.tokens += 1
            await self.pause(self.pace if pace is None else pace)

    async def call_tools(self, wanted: Sequence[Wanted], form: demo_tools.Form = demo_tools.whole) -> None:
        """Send these calls, in an endpoint's form."""
        seed = _digest(self.messages).hex()
        if not self.streams:
            functions = [{"name": one.name, "arguments": json.dumps(one.arguments)} for one in wanted]
            calls = [{"id": f"call_{n}", "type": "function", "function": one} for n, one in enumerate(functions)]
            self.message["tool_calls"] = calls
        for delta in form(wanted, seed):
            self.tokens += 1
            await self.chunk([{"index": 0, "delta": {"tool_calls": delta}, "logprobs": None, "finish_reason": None}])
            await self.pause(self.pace)

    async def delta(self, reason: str | None = None, **fields: str | list[dict[str, str]]) -> None:
        """Send one delta."""
        for name, said in fields.items():
            if isinstance(said, list):
                self.message[name] = [*(self.message.get(name) or []), *said]
            elif name != "role":
                self.message[name] = self.message.get(name, "") + said
        await self.chunk([{"index": 0, "delta": fields, "logprobs": None, "finish_reason": reason}])

    async def end(self, reason: str = "stop") -> None:
        """Send the finish reason, the token counts if they were asked for, and the end mark."""
        prompt = sum(1 + len(_plain(message.get("content"))) // 4 for message in self.messages)
        usage = {"prompt_tokens": prompt, "completion_tokens": self.tokens, "total_tokens": prompt + self.tokens}
        if not self.streams:
            choice = {"index": 0, "message": {"content": None, **self.message}, "finish_reason": reason}
            self.finish(self.envelope("chat.completion") | {"choices": [choice], "usage": usage})
            return
        await self.chunk([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": reason}])
        options = self.body.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage"):
            await self.chunk([], usage=usage)
        await self.event(b"[DONE]")

    async def chunk(self, choices: list[dict[str, Any]], **fields: object) -> None:
        """Send one chunk."""
        await self.event(self.envelope("chat.completion.chunk") | {"choices": choices} | fields)

    async def event(self, data: dict[str, Any] | bytes) -> None:
        """Send one event."""
        if not self.streams:
            return
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        # Escaped to ASCII: the only way to send half a surrogate pair.
        encoded = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.write(b"data: " + encoded + self.line_end * 2)
        await self.flush()

    def envelope(self, kind: str) -> dict[str, Any]:
        """The fields of every chunk. Id and time depend only on the conversation."""
        digest = _digest(self.messages).hex()[:24]
        return {"id": "chatcmpl-" + digest, "object": kind, "created": 1_700_000_000, "model": self.model}


class _Models(RequestHandler):
    """The demo models and what they do."""

    def initialize(self, subject: Subject) -> None:
        """`subject`: its demo models are listed after those that simulate faults."""
        self.described = {name: demo.description for name, demo in _DEMOS.items()} | {
            name: model.description for name, model in subject.models.items()
        }

    def get(self) -> None:
        """The list, in OpenAI's form with a `description`."""
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": "chatstream", "description": text}
            for name, text in self.described.items()
        ]
        self.finish({"object": "list", "data": models})


def _plain(content: object) -> str:
    """The text of a message's content."""
    return content if isinstance(content, str) else json.dumps(content)


def _digest(messages: list[dict[str, Any]]) -> bytes:
    return sha256(json.dumps(messages).encode()).digest()


def _halves(text: str) -> tuple[str, str]:
    """Split `text` into two halves, between words."""
    middle = text.index(" ", len(text) // 2)
    return text[:middle], text[middle:]


async def _answer(call: _Call) -> None:
    step = call.step
    await call.begin()
    if step is None or isinstance(step, str):
        await call.say((step or call.answer).removeprefix(call.said))
        await call.end()
    else:
        await call.call_tools(step)
        await call.end("tool_calls")


async def _half(call: _Call) -> str:
    """Begin, say half of the answer, and return the other half."""
    first, second = _halves(call.answer)
    await call.begin()
    await call.say(first)
    return second


async def _429(call: _Call) -> None:
    key = _digest(call.messages)
    if key in call.refused:
        await _answer(call)
        return
    call.refused[key] = None
    if len(call.refused) > _MAX_REFUSED:
        call.refused.popitem(last=False)
    await _429_always(call)


async def _429_always(call: _Call) -> None:
    call.fail(429, "rate_limit_exceeded", "Rate limit reached. Try again in 1 s.", retry_after=1)


async def _500(call: _Call) -> None:
    call.fail(500, "server_error", "The server had an error while processing your request.")


async def _context(call: _Call) -> None:
    call.fail(400, "context_length_exceeded", "This model's maximum context length is 8192 tokens.")


async def _no_usage(call: _Call) -> None:
    if "stream_options" in call.body:
        call.fail(400, "invalid_request_error", "Unrecognized request argument supplied: stream_options")
        return
    await _answer(call)


async def _strict(call: _Call) -> None:
    turns = [(message.get("role"), _plain(message.get("content"))) for message in call.messages]
    if any(FILTERED in text.lower() for _, text in turns):
        call.fail(400, "content_filter", "The prompt triggered our content management policy. Please modify it.")
        return
    roles = [role for role, _ in turns]
    if roles[:1] == ["system"]:
        roles = roles[1:]
    alternating = [("user", "assistant")[place % 2] for place in range(len(roles))]
    if roles != alternating or roles[-1:] != ["user"]:
        message = "After the optional system message, conversation roles must alternate user/assistant/user/…"
        call.fail(400, "invalid_request_error", message)
        return
    if any(is_blank(text) for _, text in turns):
        call.fail(400, "invalid_request_error", "Messages must have content.")
        return
    await _answer(call)


async def _no_system(call: _Call) -> None:
    if any(message.get("role") == "system" for message in call.messages):
        call.fail(400, "invalid_request_error", "System role not supported")
        return
    await _strict(call)


async def _whole_only(call: _Call) -> None:
    if call.streams:
        call.fail(400, "invalid_request_error", "This model does not support streaming: set stream to false.")
        return
    await _answer(call)


async def _bad_key(call: _Call) -> None:
    call.fail(401, "invalid_api_key", "Incorrect API key provided.")


async def _each_ends(call: _Call) -> None:
    await call.begin()
    await call.say(call.answer, reason="stop")
    await call.end()


async def _stall_start(call: _Call) -> None:
    call.set_header("Content-Type", "text/event-stream; charset=utf-8")
    await call.flush()
    await call.stall()


async def _stall(call: _Call) -> None:
    await _half(call)
    await call.stall()


async def _drop(call: _Call) -> None:
    await _half(call)
    call.detach().close()


async def _truncate(call: _Call) -> None:
    await _half(call)


async def _bad_json(call: _Call) -> None:
    await _half(call)
    await call.event(b'{"choices": [{"index": 0, "delta": {"content": " oo')


async def _error(call: _Call) -> None:
    await _half(call)
    error = {"message": "The server is overloaded.", "type": "server_error", "param": None, "code": "overloaded"}
    await call.event({"error": error})


async def _azure(call: _Call) -> None:
    await call.event(
        {
            "id": "",
            "object": "",
            "created": 0,
            "model": "",
            "choices": [],
            "prompt_filter_results": [{"prompt_index": 0}],
        }
    )
    await _answer(call)


async def _reasoning(call: _Call) -> None:
    await _reasoning_in(call, "reasoning")


async def _reasoning_content(call: _Call) -> None:
    await _reasoning_in(call, "reasoning_content")


async def _reasoning_in(call: _Call, field: str) -> None:
    await call.begin()
    await call.say(THOUGHT, field=field)
    await call.say(call.answer)
    await call.end()


async def _reasoning_tags(call: _Call) -> None:
    await call.begin()
    await call.say(f"<think>\n{THOUGHT}\n</think>\n\n{call.answer}")
    await call.end()


async def _reasoning_parts(call: _Call) -> None:
    for kind, text in (("thinking", THOUGHT), ("text", call.answer)):
        for token in _TOKENS.findall(text):
            await call.delta(content=[{"type": kind, kind: token}])
            call.tokens += 1
            await call.pause(call.pace)
    await call.end()


async def _refusal(call: _Call) -> None:
    await call.begin()
    await call.say("I'm sorry, but I can't help with that.", field="refusal")
    await call.end()


async def _length(call: _Call) -> None:
    if call.said:  # continue: send the other half
        await _answer(call)
        return
    await _half(call)
    await call.end("length")


async def _filter(call: _Call) -> None:
    await _half(call)
    await call.end("content_filter")


async def _huge(call: _Call) -> None:
    text = call.answer + "\n\n"
    await call.begin()
    await call.delta(content=(text * (_HUGE // len(text) + 1))[:_HUGE])
    await call.end()


async def _crlf(call: _Call) -> None:
    call.line_end = b"\r\n"
    await _answer(call)


async def _surrogates(call: _Call) -> None:
    await call.begin()
    for half in ("Good luck \ud83c", "\udf40 "):  # U+1F340, the four-leaf clover
        await call.delta(content=half)
        await call.pause(call.pace)
    await call.say(call.answer)
    await call.end()


async def _slow(call: _Call) -> None:
    await call.begin()
    await call.say(call.answer, pace=_SLOW)
    await call.end()


async def _long(call: _Call) -> None:
    await call.begin()
    await call.say(long_answer(call.subject, call.question))
    await call.end()


async def _empty(call: _Call) -> None:
    await call.begin()
    await call.end()


def _calls(
    form: demo_tools.Form = demo_tools.whole,
    which: Callable[[Sequence[Wanted]], Sequence[Wanted]] = lambda wanted: wanted[:1],
    *,
    reason: str = "tool_calls",
    mistake: Callable[[Sequence[demo_tools.Message]], str | None] = demo_tools.mistake,
    endless: bool = False,
    silent: bool = False,
    stalls: bool = False,
) -> Callable[[_Call], Awaitable[None]]:
    """A demo that makes calls of the offered tools in the given form, and then answers from their results."""

    async def play(call: _Call) -> None:
        if (wrong := mistake(call.messages)) is not None:
            call.fail(400, "invalid_request_error", wrong)
            return
        called = demo_tools.called_since(call.messages)
        wanted = call.subject.calls or demo_tools.sample(call.offered)
        if not wanted or not call.offered:
            await _answer(call)
            return
        await call.begin()
        if called and not endless:
            await call.say("" if silent else demo_tools.told(called))
            await call.end()
            return
        await call.call_tools(which(wanted), form)
        if stalls:
            await call.stall()
        await call.end(reason)

    return play


async def _no_tools(call: _Call) -> None:
    if call.offered or any(message.get("role") == "tool" for message in call.messages):
        call.fail(400, "invalid_request_error", f"{call.model} does not support tools")
        return
    await _answer(call)


def _all(wanted: Sequence[Wanted]) -> Sequence[Wanted]:
    return wanted


class _Demo(NamedTuple):
    description: str
    play: Callable[[_Call], Awaitable[None]]


_DEMOS: Final[Mapping[str, _Demo]] = MappingProxyType(
    {
        "demo": _Demo("a good answer; so does any name that is not in this list", _answer),
        "demo-429": _Demo("429 with Retry-After, once for each conversation content; then an answer", _429),
        "demo-429-always": _Demo("429 with Retry-After, always", _429_always),
        "demo-500": _Demo("500, always", _500),
        "demo-stall-start": _Demo("the headers, then silence", _stall_start),
        "demo-stall": _Demo("half an answer, then silence", _stall),
        "demo-drop": _Demo("half an answer, then the connection is closed", _drop),
        "demo-truncate": _Demo("half an answer, then a clean end without a finish reason", _truncate),
        "demo-bad-json": _Demo("half an answer, then a chunk that is not JSON", _bad_json),
        "demo-error": _Demo("half an answer, then an error object in the stream", _error),
        "demo-azure": _Demo("an answer after an empty first chunk, as Azure sends it", _azure),
        "demo-reasoning": _Demo("reasoning first, then an answer", _reasoning),
        "demo-reasoning-content": _Demo("the same, in the field reasoning_content", _reasoning_content),
        "demo-reasoning-tags": _Demo("the same, in the text between <think> tags", _reasoning_tags),
        "demo-reasoning-parts": _Demo("the same, as parts of the content", _reasoning_parts),
        "demo-refusal": _Demo("a refusal instead of content", _refusal),
        "demo-length": _Demo("half an answer with the finish reason length", _length),
        "demo-filter": _Demo("half an answer with the finish reason content_filter", _filter),
        "demo-huge": _Demo("an answer of 131,072 characters in one chunk", _huge),
        "demo-crlf": _Demo("an answer whose lines end in CRLF", _crlf),
        "demo-surrogates": _Demo("an answer with an emoji cut in two between two chunks", _surrogates),
        "demo-no-usage": _Demo("400 if stream_options is set; else an answer", _no_usage),
        "demo-no-system": _Demo("400 if there is a system turn; else as demo-strict", _no_system),
        "demo-no-stream": _Demo("400 if stream is set; else an answer in one piece", _whole_only),
        "demo-strict": _Demo(
            f"400 unless roles alternate and no turn is blank, or if any turn says {FILTERED}; else an answer", _strict
        ),
        "demo-each-ends": _Demo("an answer whose every chunk has the finish reason stop", _each_ends),
        "demo-bad-key": _Demo("401 invalid_api_key, always", _bad_key),
        "demo-context": _Demo("400 context_length_exceeded, always", _context),
        "demo-slow": _Demo("an answer at two words a second", _slow),
        "demo-long": _Demo("an answer of about 1,500 words", _long),
        "demo-tools": _Demo(
            "calls a tool, then says what came of it; so do the next ones, but for what they say", _calls()
        ),
        "demo-tools-parallel": _Demo("two calls, a piece of each in turn", _calls(demo_tools.interleaved, _all)),
        "demo-tools-ollama": _Demo(
            "two calls whole, without an index, and the finish reason stop",
            _calls(demo_tools.ollama, _all, reason="stop"),
        ),
        "demo-tools-gemini": _Demo(
            "two calls with the index 0, and 400 unless their signature comes back",
            _calls(demo_tools.gemini, _all, mistake=demo_tools.mistake_of_gemini),
        ),
        "demo-tools-mistral": _Demo(
            "a call with the id null, and 400 unless its id comes back with nine letters and digits",
            _calls(demo_tools.mistral, mistake=demo_tools.mistake_of_mistral),
        ),
        "demo-tools-bad": _Demo("a call whose arguments are no JSON", _calls(demo_tools.broken)),
        "demo-tools-unknown": _Demo("a call of a tool that there is not", _calls(which=demo_tools.unknown)),
        "demo-tools-many": _Demo("forty calls at once", _calls(which=demo_tools.many)),
        "demo-tools-length": _Demo(
            "half a call with the finish reason length", _calls(demo_tools.half, reason="length")
        ),
        "demo-tools-stall": _Demo("half a call, then silence", _calls(demo_tools.half, stalls=True)),
        "demo-tools-endless": _Demo("call after call, and never an answer", _calls(endless=True)),
        "demo-tools-silent": _Demo("a call, and then no answer", _calls(silent=True)),
        "demo-tools-none": _Demo("400 if a tool is offered; else an answer", _no_tools),
        "demo-empty": _Demo("the finish reason stop and no text", _empty),
    }
)

FAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {name: demo.description for name, demo in _DEMOS.items() if name != "demo"}
)
"""What each model's name does, in one line."""


def make_app(subject: Subject = GENERAL, *, pace: float = 0.03) -> Application:
    """The endpoint's application. `pace`: seconds between words; the default is a fast model's thirty a second."""
    completions = {"subject": subject, "pace": pace, "refused": OrderedDict()}
    return Application(
        [("/v1/chat/completions", _Call, completions), ("/v1/models", _Models, {"subject": subject})],
        log_function=lambda handler: None,  # the model's client logs its requests
    )


@contextlib.contextmanager
def serve(subject: Subject = GENERAL, *, host: str = "127.0.0.1", port: int = 0, pace: float = 0.03) -> Iterator[str]:
    """Serve the demo models while the context is open, on a free port if `port` is 0. Yields the ``base_url``.

    Needs a running event loop. Connections stay open until their clients close them.
    """
    server = HTTPServer(make_app(subject, pace=pace), max_body_size=_MAX_BODY)
    sockets = bind_sockets(port, host)
    server.add_sockets(sockets)
    try:
        yield f"http://{host}:{sockets[0].getsockname()[1]}/v1"
    finally:
        server.stop()
