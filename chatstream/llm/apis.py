"""The supported APIs of model endpoints: path, request body and decoder of each."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

from chatstream.llm.arranging import Tags
from chatstream.llm.decoding import AnswerDecoder
from chatstream.llm.dialects import request_body
from chatstream.llm.responses_decoding import ResponsesDecoder
from chatstream.llm.responses_request import responses_body


class Api(Struct, frozen=True, kw_only=True):
    """An API.

    `body` takes turns, a model and the parts to omit, and by name `tools`, `cache_key`, `reasoning` (`ReasoningBack`)
    and `origin`, a unique id of the model and endpoint. `decoder` takes a content type, `Tags` and an `origin`.
    """

    path: str
    body: Callable[..., dict[str, Any]]
    decoder: Callable[[str, Tags, str], AnswerDecoder]
    absent: str = ""  # advice to the operator if `path` does not exist


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
