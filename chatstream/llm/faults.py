"""What goes wrong upstream, told apart: the stable code, and whether asking again can help.

A fault's text names statuses, error codes and exception classes alone: bodies, prompts, addresses and keys never
enter it.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2

from chatstream.errors import ErrorCode, ModelError
from chatstream.llm.transport import MalformedResponse


class Fault(ModelError):
    """A `ModelError` that knows whether it is `transient`: the same request may succeed a moment later."""

    def __init__(
        self, code: ErrorCode, detail: str, *, retry_after: float | None = None, transient: bool = False
    ) -> None:
        """`retry_after` is in seconds."""
        super().__init__(code, detail, retry_after=retry_after)
        self.transient = transient


class UsageRefused(Fault):
    """The server does not know ``stream_options``: ask again without."""


# Codes and types that endpoints put into their error objects (OpenAI, Azure, OpenRouter, vLLM, Groq, llama.cpp).
_CONTEXT_CODES = {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
_RATE_CODES = {"rate_limit_exceeded", "rate_limit_error", "too_many_requests", "insufficient_quota", "RateLimitError"}
_REJECTED_CODES = {
    "invalid_request_error",
    "invalid_prompt",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "invalid_api_key",
    "model_not_found",
    "content_filter",
    "content_policy_violation",
    "BadRequestError",
    "NotFoundError",
}
# ... and the words of those that have no code for it.
_CONTEXT_WORDS = re.compile(
    r"context[_ ](?:length|window|size)|prompt is too long|input is too long|too many (?:input )?tokens"
    r"|reduce the length",
    re.IGNORECASE,
)
# What may stand in a log: an identifier, not a sentence.
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def from_error(error: object, *, status: int | None = None, retry_after: float | None = None) -> Fault:
    """The fault that an endpoint's error object describes.

    `status` is the HTTP status; without one the object came in a stream that had begun well, and its `code`, if it is a
    number, stands for the status (OpenRouter, vLLM).
    """
    fields: Mapping[str, object] = error if isinstance(error, dict) else {"message": error}
    names = {str(fields[key]) for key in ("code", "type") if isinstance(fields.get(key), str | int)}
    where = "in the stream" if status is None else f"HTTP {status}"
    detail = ", ".join(["error " + where, *sorted(name for name in names if _IDENTIFIER.fullmatch(name))])
    if status is None:
        status = next((int(name) for name in names if re.fullmatch(r"[45][0-9]{2}", name, re.ASCII)), None)

    if names & _CONTEXT_CODES or (status != 429 and _CONTEXT_WORDS.search(str(fields.get("message")))):
        return Fault(ErrorCode.CONTEXT_TOO_LONG, detail)
    if status == 429 or names & _RATE_CODES:
        # An exhausted quota does not come back in seconds.
        transient = "insufficient_quota" not in names
        return Fault(ErrorCode.UPSTREAM_RATE_LIMITED, detail, retry_after=retry_after, transient=transient)
    # 408: the server waited for too long; 409: it is busy with something else. Both pass.
    rejected = names & _REJECTED_CODES if status is None else 400 <= status < 500 and status not in (408, 409)
    if rejected:
        return Fault(ErrorCode.UPSTREAM_REJECTED, detail)
    return Fault(ErrorCode.UPSTREAM_UNAVAILABLE, detail, retry_after=retry_after, transient=True)


def from_response(status: int, headers: Mapping[str, str], body: bytes) -> Fault:
    """The fault of a response that is not a success. `body` may be cut; `headers` compares names without case."""
    text = body.decode("utf-8", "replace")
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, list) and document:  # Gemini wraps it in an array
        document = document[0]
    error = document.get("error", document) if isinstance(document, dict) else None
    if not isinstance(error, dict):
        error = {"message": text}
    elif not isinstance(error.get("message"), str):  # FastAPI: `detail`, a string or a list
        error = {**error, "message": text}
    fault = from_error(error, status=status, retry_after=seconds_to_wait(headers))
    if status in (400, 422) and re.search(r"stream_options|include_usage", text):
        return UsageRefused(fault.code, str(fault))
    if headers.get("x-should-retry") == "false":  # the server knows better
        fault.transient = False
    return fault


def from_exception(exc: BaseException, *, begun: bool) -> Fault:
    """The fault of a transport's exception; `begun` once the response's headers have been read."""
    causes = [exc]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    detail = " from ".join(dict.fromkeys(type(cause).__name__ for cause in causes))
    if any(isinstance(cause, httpx2.DecodingError | MalformedResponse) for cause in causes):
        return Fault(ErrorCode.UPSTREAM_PROTOCOL, "not HTTP as it should be: " + detail)
    if begun:
        return Fault(ErrorCode.UPSTREAM_TRUNCATED, "the connection broke: " + detail, transient=True)
    late = any(isinstance(cause, TimeoutError | httpx2.TimeoutException) for cause in causes)
    code = ErrorCode.UPSTREAM_TIMEOUT if late else ErrorCode.UPSTREAM_UNAVAILABLE
    return Fault(code, "no connection: " + detail, transient=True)


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """What a response asks for in `Retry-After` (RFC 9110, section 10.2.3), or OpenAI's ``retry-after-ms``."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            seconds = float(milliseconds) / 1000
        elif (value := headers.get("retry-after", "")).strip().isdigit():
            seconds = float(value)
        else:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):  # neither a number nor a date; a date without a zone
        return None
    # Not a day, not in the past: such an answer helps nobody. The comparison also refuses NaN.
    return seconds if 0 <= seconds <= 86_400 else None
