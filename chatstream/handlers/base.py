"""What every door does: a request id, CORS, who is calling, and every error as a problem document (RFC 9457).

The token is taken out of the request before anything else can see it, the log included.
"""

import asyncio
import logging
import math
import re
import time
import uuid
from http import HTTPStatus
from typing import Any, ClassVar

import msgspec
from tornado.concurrent import Future
from tornado.iostream import IOStream
from tornado.web import HTTPError, RequestHandler, stream_request_body

from chatstream.errors import (
    InvalidRequest,
    NotFound,
    Quota,
    RequestError,
    RequestTimeout,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
)
from chatstream.handlers import credentials, problems
from chatstream.handlers.addresses import origin
from chatstream.handlers.credentials import Credential, Kind
from chatstream.handlers.door import Door
from chatstream.handlers.views import ID_PATTERN, MAX_PAGE, PAGE
from chatstream.logs import describe
from chatstream.models import User
from chatstream.store.gate import answer_within

log = logging.getLogger("chatstream.http")

# The longest message (50,000 characters) with the longest system prompt and title (8,200), in JSON's longest spelling:
# 12 bytes for a character, as Python's `json` writes an emoji. And some KB for what is around them.
MAX_BODY_BYTES = 768 * 1024
# A refused body of this size, a photo's, is still read, so that its sender sees why; a larger one is cut off.
_MAX_DISCARDED_BYTES = 16 * 1024 * 1024
# A body has 20 s, one more for each 500 bytes that have come, and no more than ten minutes: Apache's limits by default
# (mod_reqtimeout), and an end for whoever keeps to them for ever. Lines as slow as that went out with GSM.
BODY_SECONDS = 20.0
BODY_BYTES_PER_SECOND = 500
LONGEST_BODY_SECONDS = 600.0
# A request is answered within 5 s, whatever the database does. All it asks the database may take this long, in seconds.
_DATABASE_SECONDS = 4.0
# How long a browser may remember a preflight: as long as Chromium does at most.
_PREFLIGHT_SECONDS = 7200
_ALLOWED_HEADERS = "Authorization, Cache-Control, Content-Type, Idempotency-Key, Last-Event-ID, X-Requested-With"
# What else a page may send if it asks: SDKs and tracing add headers of their own. Names as HTTP has them (RFC 9110,
# section 5.6.2), as many as a page may have.
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", re.ASCII)
_MOST_ASKED_HEADERS = 50
_EXPOSED_HEADERS = "Content-Type, Cache-Control, Location, Retry-After, RateLimit, RateLimit-Policy, X-Request-Id"
# For the log, of a request whose client left before all of it had come: no response was sent. nginx's number.
_CLIENT_LEFT = 499
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


@stream_request_body  # or Tornado would keep up to 100 MB for whoever sends them to wherever
class BaseHandler(RequestHandler):
    """Authenticated unless `public`; raises any `RequestError` to answer with it."""

    public: ClassVar[bool] = False
    accepts_query_token: ClassVar[bool] = False

    request_id: str
    user: User
    error_code: str | None = None  # of what the request was refused with
    answered_at: float | None = None  # on the monotonic clock: when its stream began, if it is one ...
    stream_end: str | None = None  # ... and why that has ended, in a word
    _conversation_id: str | None = None
    encoding_refused = False  # of the body
    _body_read = False  # or will be, before anything is answered
    _answered = False
    _body_bytes = 0  # so many have come
    _body_deadline: asyncio.TimerHandle | None = None
    _refusal: RequestError | None = None

    def initialize(self, door: Door) -> None:
        """`door` has what every handler needs."""
        self.door = door
        self.began_at = time.monotonic()

    def set_default_headers(self) -> None:
        """Also for errors: Tornado begins anew with these."""
        if not hasattr(self, "request_id"):
            given = self.request.headers.get("X-Request-Id", "")
            self.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        self.clear_header("Server")
        self.set_header("X-Request-Id", self.request_id)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Vary", "Origin")
        origin = self.request.headers.get("Origin")
        if hasattr(self, "door") and origin and self.door.opens_to(origin, self.request.host):
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Access-Control-Allow-Credentials", "true")
            self.set_header("Access-Control-Expose-Headers", _EXPOSED_HEADERS)

    async def prepare(self) -> None:
        """Decide by the headers who may come in; a refusal is said when the body has been read.

        Before, Tornado would close the connection on the unread bytes: a client that is still sending would get a reset
        and never see the answer (RFC 9112, section 9.6).
        """
        self.set_default_headers()  # Tornado called it before `initialize`
        answer_within(_DATABASE_SECONDS)
        try:
            await self.enter()
        except RequestError as exc:
            self.refuse_after_body(exc)
        if self._declared_length() > _MAX_DISCARDED_BYTES:
            raise TooLarge(f"The body may have at most {MAX_BODY_BYTES} bytes.")
        self._body_read = True
        if self._declared_length() or "Transfer-Encoding" in self.request.headers:
            self._body_began_at = time.monotonic()
            self._wait_for_body()

    def refuse_after_body(self, error: RequestError) -> None:
        """Answer with `error` in place of the request's method."""
        if self._refusal is None:
            self._refusal = error
            setattr(self, (self.request.method or "").lower(), self._refuse)

    def _refuse(self, *_path: str) -> None:
        assert self._refusal is not None  # noqa: S101 - for the type checker
        raise self._refusal

    def _declared_length(self) -> int:
        return whole_number(self.request.headers.get("Content-Length", "")) or 0  # Tornado refuses all else

    def data_received(self, chunk: bytes) -> None:
        """A part of the body, which this door does not keep."""
        self._body_bytes += len(chunk)

    def _wait_for_body(self) -> None:
        """Come back when the body must be there, or more of it than now."""
        if self._answered or self._body_future.done():
            return
        allowed = min(BODY_SECONDS + self._body_bytes / BODY_BYTES_PER_SECOND, LONGEST_BODY_SECONDS)
        left = self._body_began_at + allowed - time.monotonic()
        if left > 0:
            self._body_deadline = asyncio.get_running_loop().call_later(left, self._wait_for_body)
        else:
            self._body_read = False
            self.send_problem(RequestTimeout("The body of the request came too slowly."))

    @property
    def _body_future(self) -> "Future[None]":
        return self.request._body_future  # done when all of the body has come; Tornado has no public name for it

    def _forget_deadline(self) -> None:
        if self._body_deadline is not None:  # it would keep this handler, and its body, until it comes
            self._body_deadline.cancel()

    def on_connection_close(self) -> None:
        """The client has left, or was cut off.

        Tornado ends the wait for the body here, which nobody else does: without it the handler would stay for ever, and
        what had come of the body with it.
        """
        unfinished = not self._body_future.done()
        super().on_connection_close()
        if not unfinished:
            return
        if not self._answered:  # a response that is on its way has its line in the log
            self.set_status(_CLIENT_LEFT, "Client Closed Request")
            self.error_code = "client_left"
            self.application.log_request(self)
            self.ui.clear()  # refers to this handler; where there was a response, Tornado has done that
        self.abandon()

    def abandon(self) -> None:
        """Let go of what came of a request that will not be answered, and of the ways in which this refers to itself.

        The garbage collector would find it, too; but it has no hurry, and bodies are large.
        """
        self._forget_deadline()
        self.__dict__.pop((self.request.method or "").lower(), None)  # see `refuse_after_body`

    async def enter(self) -> None:
        """Erase the token from the request, and let nobody in without a good one."""
        shown = credentials.take(self.request)
        if self.public or self.request.method == "OPTIONS":
            return
        given = {*shown.header, *filter(self._accepts, shown.query)}
        if len(given) > 1:
            raise InvalidRequest("The request has two different tokens.")
        if not given:
            raise Unauthenticated("A bearer token is required: send `Authorization: Bearer TOKEN`.", token_given=False)
        self.user = await self._authenticate(given.pop())
        self.door.budgets.seen(self.user)
        self.admit()

    def _accepts(self, from_query: Credential) -> bool:
        """Addresses end in logs and histories: only where clients cannot set headers may they have a credential."""
        if from_query.kind is Kind.TICKET:
            return self.accepts_query_token and self.request.method == "GET"
        return self.accepts_query_token and self.door.query_tokens

    async def _authenticate(self, credential: Credential) -> User:
        limits = self.door.limits
        failures = limits.bad_tickets if credential.kind is Kind.TICKET else limits.failures
        address = origin(self.request.remote_ip, self.request.headers, self.door.trusted_proxies)
        # For a ticket the database is asked; to verify a token costs less than to refuse it.
        if address is not None and credential.kind is Kind.TICKET:
            failures.check(address)
        try:
            return await self.door.identify(credential, self.path_args[0] if self.path_args else "")
        except Unauthenticated:
            # Only who shows a bad one is refused: an office, or a proxy that is not trusted, is one address for all.
            if address is not None:
                failures.take(address)
            raise

    def admit(self) -> None:
        """Refuse who may come in, but not now."""
        self.door.check()

    # Reading ----------------------------------------------------------------------------------------------------------

    def parameter(self, name: str) -> str | None:
        """A query parameter; of several the last. Raises `InvalidRequest` if it is not UTF-8."""
        values = self.request.query_arguments.get(name)
        try:
            return values[-1].decode() if values else None
        except UnicodeDecodeError:
            raise InvalidRequest(f"`{name}` is not UTF-8.") from None

    def limit(self) -> int:
        """The query parameter `limit`: how many of a list. Raises `InvalidRequest`."""
        text = self.parameter("limit")
        if text is None:
            return PAGE
        limit = whole_number(text)
        if limit is None or not 1 <= limit <= MAX_PAGE:
            raise InvalidRequest(f"`limit` must be a number from 1 to {MAX_PAGE}.")
        return limit

    def flag(self, name: str) -> bool:
        """A query parameter that is ``true`` or ``false``."""
        text = self.parameter(name)
        if text not in (None, "true", "false"):
            raise InvalidRequest(f"`{name}` must be true or false.")
        return text == "true"

    def conversation_id(self, text: str) -> str:
        """An id from the path. Raises `InvalidRequest` for what cannot be one."""
        if not re.fullmatch(ID_PATTERN, text):
            raise InvalidRequest("A conversation's id has 1 to 64 letters, digits, `-` and `_`.")
        self._conversation_id = text
        return text

    # Answering --------------------------------------------------------------------------------------------------------

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> "Future[None]":
        """See Tornado, which would keep the response, and the connection, for ever for whoever does not take it in."""
        self._answered = True
        self._forget_deadline()
        stream = self.connection_stream()
        finished = super().finish(chunk)
        if not finished.done():
            timer = asyncio.get_running_loop().call_later(self.door.slow_reader_timeout, stream.close)
            finished.add_done_callback(lambda _: timer.cancel())
        return finished

    def connection_stream(self) -> IOStream:
        """The bytes of the connection."""
        stream = self.request.connection.stream  # type: ignore[union-attr]  # an HTTP1Connection while we serve
        assert isinstance(stream, IOStream)  # noqa: S101 - for the type checker
        return stream

    def send_json(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        """Finish the response with a JSON object."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(msgspec.json.encode(value))

    def tell(self, quota: Quota) -> None:
        """Say what is left, in the header fields of draft-ietf-httpapi-ratelimit-headers-11."""
        unit = f"w={quota.window}" if quota.window is not None else 'qu="concurrent-requests"'
        until = f";t={math.ceil(quota.reset)}" if quota.reset is not None else ""
        self.set_header("RateLimit-Policy", f'"{quota.policy}";q={quota.quota};{unit}')
        self.set_header("RateLimit", f'"{quota.policy}";r={quota.remaining}{until}')

    def options(self, *_path: str) -> None:
        """Answer a CORS preflight."""
        self.set_header("Allow", self.allowed_methods())
        self.set_header("Access-Control-Allow-Methods", self.allowed_methods())
        self.set_header("Access-Control-Allow-Headers", self._allowed_headers())
        self.set_header("Access-Control-Max-Age", str(_PREFLIGHT_SECONDS))
        self.set_status(HTTPStatus.NO_CONTENT)
        self.finish()

    def _allowed_headers(self) -> str:
        """What we read, and to an origin that may call what it asks for."""
        if "Access-Control-Allow-Origin" not in self._headers:
            return _ALLOWED_HEADERS
        asked = self.request.headers.get("Access-Control-Request-Headers", "").split(",", _MOST_ASKED_HEADERS)
        known = {*_ALLOWED_HEADERS.lower().split(", ")}
        more = [name for name in map(str.strip, asked[:_MOST_ASKED_HEADERS]) if _FIELD_NAME.fullmatch(name)]
        return ", ".join([_ALLOWED_HEADERS, *dict.fromkeys(name for name in more if name.lower() not in known)])

    def allowed_methods(self) -> str:
        """For ``Allow``."""
        own = (name for name in self.SUPPORTED_METHODS if self._implements(name.lower()))
        return ", ".join(sorted(own))

    def _implements(self, method: str) -> bool:
        return getattr(type(self), method) is not getattr(RequestHandler, method)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Every error as a problem document."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        self.send_problem(error if isinstance(error, RequestError) else _http_error(status_code, error))

    def send_problem(self, error: RequestError) -> None:
        """Finish the response with a problem document."""
        self.error_code = error.code
        self.set_status(error.status, error.title)
        if error.retry_after is not None:
            self.set_header("Retry-After", str(max(1, math.ceil(error.retry_after))))
        if isinstance(error, TooManyRequests) and error.quota is not None:
            self.tell(error.quota)
        if isinstance(error, Unauthenticated):
            challenge = 'Bearer realm="chatstream"'
            if error.token_given:  # RFC 6750, section 3.1
                challenge += f', error="invalid_token", error_description="{error.detail}"'
            self.set_header("WWW-Authenticate", challenge)
        if error.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", self.allowed_methods())
        if self.encoding_refused:  # RFC 9110, section 12.5.3
            self.set_header("Accept-Encoding", "identity")
        if not self._body_read:  # then Tornado will close the connection, and the client should know
            self.set_header("Connection", "close")
        self.set_header("Content-Type", problems.MEDIA_TYPE)
        self.finish(problems.document(error, self.request_id))

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """What a client did wrong stands in the line of its request; what we did wrong comes with its traceback.

        Only where it happened: the text of an exception may repeat what it was given.
        """
        if value is not None and not isinstance(value, RequestError | HTTPError):
            log.error("%s", describe(value), extra={"facts": {"request": self.request_id}})

    def facts(self) -> dict[str, object]:
        """What the log's line of this request says beside the method, the path and the status."""
        return {
            "request": self.request_id,
            "user": self.user.id if hasattr(self, "user") else None,
            "conversation": self._conversation_id,
            "code": self.error_code,
            "end": self.stream_end,
        }


def whole_number(text: str) -> int | None:
    """A number of up to 15 digits, else None. Python's `int` would also take signs, spaces and underscores."""
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None


def _http_error(status: int, error: BaseException | None) -> RequestError:
    if status == HTTPStatus.BAD_REQUEST:
        about_path = isinstance(error, HTTPError) and (error.get_message() or "").startswith("Invalid unicode")
        return InvalidRequest("The request's path is not UTF-8." if about_path else "The request is not valid.")
    phrase = HTTPStatus(status).phrase
    detail = {405: "This resource does not have that method.", 500: "Something went wrong on the server."}
    error = RequestError(detail.get(status, phrase), code=phrase.lower().replace(" ", "_"))
    error.status, error.title = status, phrase
    return error


class NotFoundHandler(BaseHandler):
    """Any path that is no route."""

    public = True

    async def enter(self) -> None:
        """Refuse, whatever the method; but OPTIONS may ask about the whole server (RFC 9110, section 9.3.7)."""
        await super().enter()
        if not self._is_about_the_server:
            raise NotFound("There is no such resource.")

    def allowed_methods(self) -> str:
        """See `BaseHandler`."""
        return "DELETE, GET, HEAD, OPTIONS, PATCH, POST" if self._is_about_the_server else super().allowed_methods()

    @property
    def _is_about_the_server(self) -> bool:
        return self.request.path == "*" and self.request.method == "OPTIONS"
