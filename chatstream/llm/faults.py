"""Classifies the errors of model endpoints: a stable code, whether a retry can help, and what the operator can mend.

A fault's text has only statuses, error codes and names of exception classes: never bodies, prompts, addresses or keys.
"""

import errno
import re
import socket
import ssl
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

import httpx2

from chatstream import unreached
from chatstream.errors import ErrorCode, ModelError
from chatstream.llm.refusals import Refusal, read_body
from chatstream.llm.transport import MalformedResponse
from chatstream.llm.waits import seconds_to_wait


class Part(StrEnum):
    """A part of a request that some models refuse and that can be omitted."""

    USAGE = "stream_options"
    CACHE_KEY = "prompt_cache_key"
    SYSTEM = "the system role"
    STREAM = "stream"
    TOOLS = "tools"
    REASONING = "encrypted reasoning"  # Responses API only


class Mend(StrEnum):
    """How the operator can fix a fault: a sentence for the log."""

    KEY = "Check OPENAI_API_KEY."
    ACCOUNT = "The account of OPENAI_API_KEY has no credit or no right to this."
    MODEL = "There is no such model there: check OPENAI_MODEL, or the model that the conversation names."
    PATH = "Check OPENAI_BASE_URL: it usually ends in /v1."
    API = "Another API answers there than the one that was asked: check OPENAI_BASE_URL (Ollama's ends in /v1)."
    REDIRECT = "Redirects are not followed: set OPENAI_BASE_URL to the address that it redirects to."
    NAME = "No host has this name: check OPENAI_BASE_URL, and the name server."
    NOBODY = "Nobody listens there: start the model's server, or check OPENAI_BASE_URL."
    PROXY = "The proxy refuses it: check HTTPS_PROXY or ALL_PROXY, and NO_PROXY."
    TLS = (
        "The secure connection fails: check that OPENAI_BASE_URL begins with https:// only if the server speaks TLS; "
        "SSL_CERT_FILE names further certificates to trust."
    )

    def in_words_of(self, settings: Iterable[str]) -> str:
        """This sentence with the operator's names for the settings: key, address and model, in this order."""
        text = str(self)
        for name, ours in zip(("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"), settings, strict=True):
            text = text.replace(name, ours)
        return text


class Fault(ModelError):
    """A `ModelError` with its classification. `transient`: the same request may succeed a moment later."""

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        *,
        retry_after: float | None = None,
        transient: bool = False,
        mend: Mend | None = None,
    ) -> None:
        """`retry_after`: in seconds. `mend`: what the operator can do, if anything."""
        super().__init__(code, detail, retry_after=retry_after)
        self.transient = transient
        self.mend = mend
        self.refused: tuple[Part, ...] = ()  # parts of the request that the model may have refused
        self.certain = True  # about `refused`; False if the error text only repeats the request
        self.unreached = False  # the request never reached the endpoint
        self.way: str | None = None  # why the endpoint could not be reached, in words
        self.loading = False  # the model is being loaded: waiting for it does not count as a retry


# Codes and types in the error objects of OpenAI, Azure, OpenRouter, vLLM, Groq, llama.cpp and Google.
_CONTEXT_CODES: Final = {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
_RATE_CODES: Final = {
    "rate_limit_exceeded",
    "rate_limit_error",
    "too_many_requests",
    "toomanyrequests",
    "ratelimiterror",
    "resource_exhausted",
    "throttlingexception",
}
_ACCOUNT_CODES: Final = {
    "insufficient_quota",
    "billing_not_active",
    "billing_hard_limit_reached",
    "insufficient_balance",
    "payment_required",
    "account_deactivated",
    "unsupported_country_region_territory",
}
_KEY_CODES: Final = {
    "invalid_api_key",
    "api_key_invalid",
    "authentication_error",
    "authenticationerror",
    "unauthenticated",
    "unauthorized",
    "permission_error",
    "permission_denied",
    "permissiondeniederror",
    "access_denied",
}
_MODEL_CODES: Final = {"model_not_found", "deploymentnotfound", "model_not_available", "unknown_model"}
_PATH_CODES: Final = {"not_found_error", "notfounderror", "unknown_url"}
_FILTER_CODES: Final = {
    "content_filter",
    "content_policy_violation",
    "responsibleaipolicyviolation",
    "moderation_blocked",
    "data_inspection_failed",
    "bio_policy",
    "misalignment_policy_violation",
}
_REJECTED_CODES: Final = {"invalid_request_error", "invalid_prompt", "badrequesterror", "invalid_argument"}
# Words in the error texts of endpoints that send no code. `re` compiles each at its first use: to compile all of them
# would be 1 % of a start.
_CONTEXT_WORDS: Final = (
    r"(?i)context[_ ](?:length|window|size)|prompt is too long|input is too long|too many (?:input )?tokens"
    r"|reduce the length|maximum (?:number of )?(?:input )?tokens|exceeds? the (?:maximum|limit).{0,40}tokens"
)
_FILTER_WORDS: Final = (
    r"(?i)content (?:management )?polic|content filter|flagged|moderation|safety system|data_inspection"
)
_KEY_WORDS: Final = (
    r"(?i)(?:invalid|incorrect|missing|no|wrong) (?:api|auth)[ _-]?(?:key|token)|api[ _-]?key (?:is )?(?:not valid"
    r"|invalid|missing|not provided|required)|unauthori[sz]ed|authentication (?:failed|required)"
)
_MODEL_WORDS: Final = (
    r"(?is)(?:no such|unknown|invalid) model|model.{0,120}(?:does ?n[o']t exist|not found|is not available"
    r"|not supported|is not a valid|not exist)|is not a valid model|deployment.{0,80}does not exist"
)
_RATE_WORDS: Final = r"(?i)rate.?limit|too many requests"
_LOADING_WORDS: Final = (
    r"(?is)(?:loading|starting|warming up) (?:the )?model"
    r"|model.{0,200}(?:is|still|currently) (?:being )?(?:load|start|warm)"
)
_SYSTEM_WORDS: Final = (
    r"(?is)"
    r"\bsystem\b.{0,30}\b(?:role|message|prompt|instruction|turn)s?\b|\brole\b.{0,30}\bsystem\b|support.{0,10}\bsystem\b"
    r"|developer (?:role|message|instruction)|roles must alternate|only (?:the )?['\"]?user['\"]?.{0,20}assistant"
    r"|should be ['\"]?user['\"]?.{0,20}assistant"
)
_STREAM_WORDS: Final = (
    r"(?is)\bto stream\b|(?:\bstream(?:ing)?\b|['\"`]stream['\"`]).{0,60}(?:not (?:\w+ )?(?:support|allow|available"
    r"|enabled|permit)|unsupported|disabled|must be|should be|forbidden|refused|cannot)|(?:not support|unsupported"
    r"|disable|without|cannot|can't|does not allow)\w*.{0,40}(?:\bstreaming\b|['\"`]?\bstream\b['\"`]?)"
)
_TOOL_WORDS: Final = (
    r"(?i)(?:not support|unsupported|not available|not enabled|disabled|no endpoints found)[^.]{0,60}"
    r"\b(?:tools?|tool[ _](?:use|calls?|calling|choice)|functions?|function[ _]call(?:s|ing)?)\b"
    r"|\b(?:tools?|tool[ _](?:use|calls?|calling|choice)|function(?:s| tools)?|function[ _]call(?:s|ing)?)\b"
    r"[^.]{0,60}(?:not (?:\w+ )?(?:support|allow|available|enabled|permit)|unsupported|disabled)"
)
# Statuses with which endpoints refuse a part of a request; 500 if the model's chat template raises.
_REFUSING: Final = (None, 400, 405, 406, 415, 422, 500, 501)
# Statuses that say little, as from a gateway: a status in the body counts instead.
_VAGUE: Final = (None, 200, 400, 500, 502)
# Error codes that may be logged: identifiers, not sentences.
_IDENTIFIER: Final = r"[A-Za-z0-9_.:-]{1,64}"


def from_error(error: object, *, status: int | None = None, headers: Mapping[str, str] | None = None) -> Fault:
    """Classify an endpoint's error object, whatever its fields are called.

    `status`: the HTTP status, or None if the object came inside a response with status 200; then a numeric `code` in it
    counts as the status (OpenRouter, vLLM).
    """
    refusal = Refusal.of(error)
    where = "in the answer" if status is None else f"HTTP {status}"
    detail = ", ".join(["error " + where, *sorted(name for name in refusal.names if re.fullmatch(_IDENTIFIER, name))])
    fault = _classified(refusal, status, detail)
    if fault.transient or fault.code is ErrorCode.UPSTREAM_RATE_LIMITED:
        fault.retry_after = seconds_to_wait(headers or {}, refusal)
    if status in _REFUSING and fault.code not in (ErrorCode.CONTEXT_TOO_LONG, ErrorCode.UPSTREAM_RATE_LIMITED):
        fault.refused, fault.certain = _refused(refusal)
    fault.loading = fault.transient and bool(re.search(_LOADING_WORDS, refusal.words))
    return fault


def _classified(refusal: Refusal, http_status: int | None, detail: str) -> Fault:
    names = {name.lower() for name in refusal.names}
    words = refusal.words
    status = refusal.status or http_status if http_status in _VAGUE else http_status
    if names & _CONTEXT_CODES or (status != 429 and re.search(_CONTEXT_WORDS, words)):
        return Fault(ErrorCode.CONTEXT_TOO_LONG, detail)
    if names & _ACCOUNT_CODES or status == 402:
        return misconfigured(Mend.ACCOUNT, detail)
    if names & _RATE_CODES or status == 429 or (status is None and re.search(_RATE_WORDS, words)):
        return Fault(ErrorCode.UPSTREAM_RATE_LIMITED, detail, transient=True)
    refuses = status is None or 400 <= status < 500
    if refuses and (names & _FILTER_CODES or (status in (None, 400, 403, 422) and re.search(_FILTER_WORDS, words))):
        return Fault(ErrorCode.UPSTREAM_REJECTED, detail)
    if status in (401, 403) or (refuses and (names & _KEY_CODES or re.search(_KEY_WORDS, words))):
        return misconfigured(Mend.KEY, detail)
    if refuses and (names & _MODEL_CODES or (status in (None, 400, 404, 422) and re.search(_MODEL_WORDS, words))):
        return misconfigured(Mend.MODEL, detail)
    if status in (404, 405, 410) or (refuses and names & _PATH_CODES):
        return misconfigured(Mend.PATH, detail)
    # 408 (request timeout), 409 (conflict) and 425 (too early) are temporary.
    rejected = names & _REJECTED_CODES if status is None else refuses and status not in (408, 409, 425)
    if rejected:
        return Fault(ErrorCode.UPSTREAM_REJECTED, detail)
    return Fault(ErrorCode.UPSTREAM_UNAVAILABLE, detail, transient=True)


def _refused(refusal: Refusal) -> tuple[tuple[Part, ...], bool]:
    """The parts of the request that were probably refused, and whether that is certain."""
    if refusal.repeats_request:
        # The text quotes the whole request, so a name in it proves nothing. Omit only the optional parts, once.
        parts = [Part.CACHE_KEY] if "prompt_cache_key" in refusal.names else []
        parts += [Part.USAGE] if re.search(r"stream_options|include_usage", refusal.words) else []
        return tuple(parts), False
    named = " ".join([refusal.words, *refusal.names])
    parts = [Part.CACHE_KEY] if "prompt_cache_key" in named else []
    if re.search(r"stream_options|include_usage", named):
        parts.append(Part.USAGE)
    elif "stream" in refusal.names or re.search(_STREAM_WORDS, refusal.words):
        parts.append(Part.STREAM)
    if "tools" in refusal.names or re.search(_TOOL_WORDS, refusal.words):
        parts.append(Part.TOOLS)
    if re.search(_SYSTEM_WORDS, refusal.words) or "instructions" in refusal.names:
        parts.append(Part.SYSTEM)
    if "include" in refusal.names or re.search(r"encrypted[_ ]content", named, re.IGNORECASE):
        parts.append(Part.REASONING)
    return tuple(parts), True


def from_response(status: int, headers: Mapping[str, str], body: bytes) -> Fault:
    """Classify an unsuccessful response. `body` may be truncated; `headers` must ignore case."""
    if 300 <= status < 400 and "location" in headers:
        return misconfigured(Mend.REDIRECT, f"a redirect, HTTP {status}")
    fault = from_error(read_body(body), status=status, headers=headers)
    if headers.get("x-should-retry") == "false":  # the server forbids retries
        fault.transient = False
    return fault


def from_exception(exc: BaseException, *, begun: bool) -> Fault:
    """Classify a transport's exception. `begun`: the response's headers had been read."""
    fault = _from_exception(exc, begun=begun)
    fault.way = unreached.why(exc)
    return fault


def _from_exception(exc: BaseException, *, begun: bool) -> Fault:
    causes = [exc]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    detail = " from ".join(dict.fromkeys(type(cause).__name__ for cause in causes))
    if any(isinstance(cause, httpx2.DecodingError | MalformedResponse) for cause in causes):
        return Fault(ErrorCode.UPSTREAM_PROTOCOL, "not HTTP as it should be: " + detail)
    if begun:
        return Fault(ErrorCode.UPSTREAM_TRUNCATED, "the connection broke: " + detail, transient=True)
    detail = "no connection: " + detail
    if any(isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError) for cause in causes):
        return misconfigured(Mend.TLS, detail)
    late = any(isinstance(cause, TimeoutError | httpx2.TimeoutException) for cause in causes)
    code = ErrorCode.UPSTREAM_TIMEOUT if late else ErrorCode.UPSTREAM_UNAVAILABLE
    # These may pass by themselves, as servers start and stop, but the operator should still see them.
    mend = None
    if any(isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME for cause in causes):
        mend = Mend.NAME
    elif any(isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED for cause in causes):
        mend = Mend.NOBODY
    elif any(isinstance(cause, httpx2.ProxyError) for cause in causes):
        mend = Mend.PROXY
    fault = Fault(code, detail, transient=True, mend=mend)
    fault.unreached = any(isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout) for cause in causes)
    return fault


def misconfigured(mend: Mend, detail: str) -> Fault:
    """A fault that only the operator can mend."""
    return Fault(ErrorCode.UPSTREAM_MISCONFIGURED, detail, mend=mend)


def other_api(name: str) -> Fault:
    """The fault for an address with another API than ours."""
    return misconfigured(Mend.API, f"an answer of {name}")


def page() -> Fault:
    """The fault for an address with a web page and no API."""
    return misconfigured(Mend.PATH, "a web page instead of an answer")
