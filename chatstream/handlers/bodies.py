"""Reads and validates JSON request bodies."""

from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from chatstream.errors import InvalidContent, InvalidRequest, RequestError, TooLarge, UnsupportedMediaType
from chatstream.handlers.base import MAX_BODY_BYTES, BaseHandler
from chatstream.handlers.door import Door

# Maximum number of listed errors (ten times the fields of the largest body), and maximum length of a field's name. A
# body full of errors would otherwise take 20 ms, and a response of four times its size.
_MAX_ERRORS = 50
_MAX_FIELD_NAME = 64

# Some editors and .NET write a byte order mark; it may be ignored (RFC 8259, section 8.1).
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# Our messages for pydantic's error types.
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not a field that this takes",
    "string_type": "must be a string",
    "string_too_long": "may have at most {max_length:,} characters",
    "string_too_short": "must have at least {min_length:,} characters",
    "string_pattern_mismatch": "is too long, empty, or has characters that are not allowed: it must match {pattern}",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "greater_than_equal": "must be at least {ge:,}",
    "less_than_equal": "must be at most {le:,}",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
}

Body = TypeVar("Body", bound=BaseModel)


class JSONHandler(BaseHandler):
    """A handler with a JSON body. Keeps it only up to the size limit, and parses it only for authenticated callers."""

    def initialize(self, door: Door) -> None:
        """`door`: the collaborators and rules that all handlers share."""
        super().initialize(door)
        self._received = bytearray()

    def data_received(self, chunk: bytes) -> None:
        """Keep a chunk of the body, up to the limit."""
        super().data_received(chunk)
        if len(self._received) + len(chunk) > MAX_BODY_BYTES:
            self.refuse_after_body(TooLarge(f"The body may have at most {MAX_BODY_BYTES} bytes."))
            self._let_go()
        elif self._refusal is None and hasattr(self, "user"):  # a preflight has no user, and its body is not read
            try:
                self.door.limits.uploads.take(self.user.id, len(chunk))
            except RequestError as exc:
                self.refuse_after_body(exc)
                self._let_go()
            else:
                self._received += chunk

    def abandon(self) -> None:
        """As `BaseHandler.abandon`; also drops the received part of the body."""
        super().abandon()
        self._let_go()

    def on_finish(self) -> None:
        """Free the body: the response is complete."""
        super().on_finish()
        self._let_go()

    def _let_go(self) -> None:
        if self._received:
            self.door.limits.uploads.give_back(self.user.id, len(self._received))
            self._received = bytearray()

    def has_body(self) -> bool:
        """Whether the request has a body."""
        return bool(self._received)

    def body(self, shape: type[Body]) -> Body:
        """Parse the body as `shape`. Raises `UnsupportedMediaType`, `InvalidRequest` or `InvalidContent`."""
        media_type = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise UnsupportedMediaType("The body must be JSON: Content-Type: application/json.")
        coding = self.request.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in ("", "identity"):
            self.encoding_refused = True
            raise UnsupportedMediaType("The body must not be compressed: leave out Content-Encoding.")
        received = bytes(self._received.removeprefix(_BYTE_ORDER_MARK))
        self._let_go()
        try:
            return shape.model_validate_json(received)
        except ValidationError as exc:
            if exc.error_count() > _MAX_ERRORS:
                raise InvalidContent(f"The body has {exc.error_count()} fields that are not acceptable.") from None
            errors = exc.errors(include_url=False, include_input=False)
            if any(error["type"] == "json_invalid" for error in errors):
                raise InvalidRequest("The body is not valid JSON.") from None
            fields = {_field(error["loc"]): _words(error) for error in errors}
            raise InvalidContent(_in_words(errors), fields=fields) from None


def _in_words(errors: Sequence[ErrorDetails]) -> str:
    """The first error as a sentence, with the number of further ones."""
    first, more = errors[0], len(errors) - 1
    name = f"`{_field(first['loc'])}`" if first["loc"] else "The body"
    sentence = f"{first['ctx']['error']}." if first["type"] == "value_error" else f"{name} {_words(first)}."
    return sentence + (f" And {more} more {'fields are' if more > 1 else 'field is'} not acceptable." if more else "")


def _words(error: ErrorDetails) -> str:
    """The error of a field as text, without the field's name."""
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    words = _WORDS.get(error["type"], "is not acceptable: {msg}")
    return words.format(msg=error["msg"], **error.get("ctx", {}))


def _field(path: tuple[int | str, ...]) -> str:
    name = ".".join(map(str, path)) or "body"
    return name if len(name) <= _MAX_FIELD_NAME else name[: _MAX_FIELD_NAME - 1] + "…"
