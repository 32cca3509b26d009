"""The APIs that a model's endpoint may have: where it is asked, how a request looks, and how its answer is read."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

from chatstream.llm.arranging import Tags
from chatstream.llm.decoding import AnswerDecoder
from chatstream.llm.dialects import request_body
from chatstream.llm.responses_decoding import ResponsesDecoder
from chatstream.llm.responses_request import responses_body


class Api(Struct, frozen=True, kw_only=True):
    """One of them.

    `body` takes turns, a model and what is left out, and by name `tools`, `cache_key`, `reasoning` (`ReasoningBack`)
    and `origin`, which is the same for all requests of one model of one endpoint, and of no other. `decoder` takes a
    content type, `Tags` and an `origin`.
    """

    path: str
    body: Callable[..., dict[str, Any]]
    decoder: Callable[[str, Tags, str], AnswerDecoder]
    absent: str = ""  # for the operator, where nothing is found at `path`


APIS: Final[Mapping[str, Api]] = {
    "chat": Api(
        path="/chat/completions",
        body=lambda *args, origin, **named: request_body(*args, **named),
        decoder=lambda content_type, tags, origin: AnswerDecoder(content_type, tags),
    ),
    "responses": Api(
        path="/responses",
        body=lambda *args, reasoning, **named: responses_body(*args, **named),
        decoder=ResponsesDecoder,
        absent='If that server has no Responses API, write api = "chat".',
    ),
}
