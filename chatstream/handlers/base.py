"""The base of all handlers: request ids, CORS, authentication, and errors as problem documents (RFC 9457).

The token is removed from the request before any other code, the log included, can see it.
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
from tornado.web import HTTPError, OutputTransform, RequestHandler, stream_request_body

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

# Size limit of a request body, in bytes. Enough for the longest message (50,000 characters), system prompt and title
# (8,200) at 12 bytes per character, the length of an emoji as Python's `json` escapes it. The rest is margin.
MAX_BODY_BYTES = 768 * 1024
# Largest refused body that is still read, so that its sender sees the error: the size of a photo. For a larger one the
# connection is closed at once.
_MAX_DISCARDED_BYTES = 16 * 1024 * 1024
# Time limit for a request body: 20 s, plus 1 s per 500 bytes received (Apache's defaults, mod_reqtimeout), at most ten
# minutes in all, so that a client that sends at just that rate is also cut off. No network today is so slow.
BODY_SECONDS = 20.0
BODY_BYTES_PER_SECOND = 500
LONGEST_BODY_SECONDS = 600.0
# Seconds for all database calls of one request together: each request must be answered within 5 s.
_DATABASE_SECONDS = 4.0
# Seconds for which a browser may cache a preflight (`Access-Control-Max-Age`): Chromium's maximum.
_PREFLIGHT_SECONDS = 7200
_ALLOWED_HEADERS = "Authorization, Cache-Control, Content-Type, Idempotency-Key, Last-Event-ID, X-Requested-With"
# A preflight may ask for further headers, since SDKs and tracing add their own: valid field names (RFC 9110, section
# 5.6.2), at most 50.
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", re.ASCII)
_MOST_ASKED_HEADERS = 50
_EXPOSED_HEADERS = "Content-Type, Cache-Control, Location, Retry-After, RateLimit, RateLimit-Policy, X-Request-Id"
# Status in the log, as in nginx, for a client that left before its whole request had arrived. No response is sent.
_CLIENT_LEFT = 499
_ID = re.compile(ID_PATTERN)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


@stream_request_body  # or Tornado would buffer bodies of up to 100 MB, for any path and any client
class BaseHandler(RequestHandler):
    """The base of all handlers. Authenticates the caller unless `public`. A method that raises a `RequestError` answers
    with it."""

    public: ClassVar[bool] = False
    accepts_query_token: ClassVar[bool] = False

    request_id: str
    user: User
    error_code: str | None = None  # the code of the error that was sent
    answered_at: float | None = None  # when the stream began (monotonic clock); None if the response is no stream
    stream_end: str | None = None  # one word: why the stream ended
    _conversation_id: str | None = None
    encoding_refused = False  # the body has a Content-Encoding that is not supported
    _body_read = False  # True once the body is read or will be read before the response
    _answered = False
    _body_bytes = 0  # received so far
    _body_deadline: asyncio.TimerHandle | None = None
    _refusal: RequestError | None = None

    def initialize(self, door: Door) -> None:
        """`door`: the collaborators and rules that all handlers share."""
        self.door = door
        self.began_at = time.monotonic()

    def set_default_headers(self) -> None:
        """Set the headers of every response. Tornado resets the headers to these before it sends an error."""
        if not hasattr(self, "request_id"):
            given = self.request.headers.get("X-Request-Id", "")
            self.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        self.clear_header("Server")
        self.set_header("X-Request-Id", self.request_id)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Vary", "Origin")
        if hasattr(self, "door"):  # Tornado also calls this before `initialize`
            self._open_to_origin()

    def _open_to_origin(self) -> None:
        """Let the page of an allowed origin read the response (CORS)."""
        origin = self.request.headers.get("Origin")
        if origin and self.door.opens_to(origin, self.request.host):
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Access-Control-Allow-Credentials", "true")
            self.set_header("Access-Control-Expose-Headers", _EXPOSED_HEADERS)

    async def _execute(self, transforms: list[OutputTransform], *args: bytes, **kwargs: bytes) -> None:
        """Tornado's way through a request, from `prepare` to the end of the handler's method."""
        with self.door.request():
            await super()._execute(transforms, *args, **kwargs)

    async def prepare(self) -> None:
        """Authenticate by the headers. A refusal is sent only after the body has been read.

        If it were sent earlier, Tornado would close the connection with bytes unread: a client that is still sending
        would get a reset and never see the response (RFC 9112, section 9.6).
        """
        self._open_to_origin()
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
        """Send `error`, once the body is read, instead of calling the handler's method."""
        if self._refusal is None:
            self._refusal = error
            setattr(self, (self.request.method or "").lower(), self._refuse)

    def _refuse(self, *_path: str) -> None:
        assert self._refusal is not None  # noqa: S101 - for the type checker
        raise self._refusal

    def _declared_length(self) -> int:
        return whole_number(self.request.headers.get("Content-Length", "")) or 0  # Tornado refuses invalid values

    def data_received(self, chunk: bytes) -> None:
        """Count a chunk of the body, and drop it: this handler reads no body."""
        self._body_bytes += len(chunk)

    def _wait_for_body(self) -> None:
        """Answer 408 if the body is late; else set a timer for its deadline, which each received byte extends."""
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
        return self.request._body_future  # done when the whole body has arrived; Tornado has no public name for it

    def _forget_deadline(self) -> None:
        if self._body_deadline is not None:  # the timer would keep this handler and its body in memory until it fires
            self._body_deadline.cancel()

    def on_connection_close(self) -> None:
        """Clean up when the client has left or the connection was closed.

        Tornado's method ends the wait for the body. Nothing else does: without it the handler and the received part of
        the body would stay in memory for ever.
        """
        unfinished = not self._body_future.done()
        super().on_connection_close()
        if not unfinished:
            return
        if not self._answered:  # a response that has been started is already logged
            self.set_status(_CLIENT_LEFT, "Client Closed Request")
            self.error_code = "client_left"
            self.application.log_request(self)
            self.ui.clear()  # it refers to this handler; after a response Tornado clears it
        self.abandon()

    def abandon(self) -> None:
        """Free an unanswered request's memory: drop its body, and break the handler's references to itself.

        The garbage collector would free it too, but late, and bodies are large.
        """
        self._forget_deadline()
        self.__dict__.pop((self.request.method or "").lower(), None)  # see `refuse_after_body`

    async def enter(self) -> None:
        """Remove the token from the request and authenticate the caller. Raises `Unauthenticated`, `InvalidRequest`."""
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
        """Whether a credential in the query counts. URLs end up in logs and histories, so it does only on routes whose
        clients cannot set headers (EventSource)."""
        if from_query.kind is Kind.TICKET:
            return self.accepts_query_token and self.request.method == "GET"
        return self.accepts_query_token and self.door.query_tokens

    async def _authenticate(self, credential: Credential) -> User:
        limits = self.door.limits
        failures = limits.bad_tickets if credential.kind is Kind.TICKET else limits.failures
        # Tickets alone are limited before the check, which is a database call. To verify a token is cheaper than a
        # refusal.
        if credential.kind is Kind.TICKET and (address := self._origin()) is not None:
            failures.check(address)
        try:
            return await self.door.identify(credential, self.path_args[0] if self.path_args else "")
        except Unauthenticated:
            # Count and refuse bad credentials only: many users may share an address (an office, a proxy).
            if (address := self._origin()) is not None:
                failures.take(address)
            raise

    def _origin(self) -> str | None:
        """The client's address; None for this machine itself."""
        return origin(self.request.remote_ip, self.request.headers, self.door.trusted_proxies)

    def admit(self) -> None:
        """Refuse an authenticated caller for the moment: raises `Unavailable` while the server starts or stops."""
        self.door.check()

    # Reading ----------------------------------------------------------------------------------------------------------

    def parameter(self, name: str) -> str | None:
        """A query parameter's value, or None; the last one if it is repeated. Raises `InvalidRequest` if not UTF-8."""
        values = self.request.query_arguments.get(name)
        try:
            return values[-1].decode() if values else None
        except UnicodeDecodeError:
            raise InvalidRequest(f"`{name}` is not UTF-8.") from None

    def limit(self) -> int:
        """The query parameter `limit`: the page size. Raises `InvalidRequest`."""
        text = self.parameter("limit")
        if text is None:
            return PAGE
        limit = whole_number(text)
        if limit is None or not 1 <= limit <= MAX_PAGE:
            raise InvalidRequest(f"`limit` must be a number from 1 to {MAX_PAGE}.")
        return limit

    def flag(self, name: str) -> bool:
        """A boolean query parameter, ``true`` or ``false``; False by default. Raises `InvalidRequest`."""
        text = self.parameter(name)
        if text not in (None, "true", "false"):
            raise InvalidRequest(f"`{name}` must be true or false.")
        return text == "true"

    def conversation_id(self, text: str) -> str:
        """Check a conversation's id from the path, and return it. Raises `InvalidRequest` if it is malformed."""
        if not _ID.fullmatch(text):
            raise InvalidRequest("A conversation's id has 1 to 64 letters, digits, `-` and `_`.")
        self._conversation_id = text
        return text

    # Answering --------------------------------------------------------------------------------------------------------

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> "Future[None]":
        """As Tornado's `finish`, but closes the connection if the client does not read the response in time.

        Tornado alone would keep the response and the connection for ever."""
        self._answered = True
        self._forget_deadline()
        stream = self.connection_stream()
        finished = super().finish(chunk)
        if not finished.done():
            timer = asyncio.get_running_loop().call_later(self.door.slow_reader_timeout, stream.close)
            finished.add_done_callback(lambda _: timer.cancel())
        return finished

    def connection_stream(self) -> IOStream:
        """The connection's byte stream."""
        stream = self.request.connection.stream  # type: ignore[union-attr]  # an HTTP1Connection while we serve
        assert isinstance(stream, IOStream)  # noqa: S101 - for the type checker
        return stream

    def send_json(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        """Finish the response with a JSON object."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(msgspec.json.encode(value))

    def tell(self, quota: Quota) -> None:
        """Set the `RateLimit` headers, with the rest of a quota (draft-ietf-httpapi-ratelimit-headers-11)."""
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
        """`Access-Control-Allow-Headers`: the headers we read and, for an allowed origin, those it asks for."""
        if "Access-Control-Allow-Origin" not in self._headers:
            return _ALLOWED_HEADERS
        asked = self.request.headers.get("Access-Control-Request-Headers", "").split(",", _MOST_ASKED_HEADERS)
        known = {*_ALLOWED_HEADERS.lower().split(", ")}
        more = [name for name in map(str.strip, asked[:_MOST_ASKED_HEADERS]) if _FIELD_NAME.fullmatch(name)]
        return ", ".join([_ALLOWED_HEADERS, *dict.fromkeys(name for name in more if name.lower() not in known)])

    def allowed_methods(self) -> str:
        """The value of the ``Allow`` header."""
        own = (name for name in self.SUPPORTED_METHODS if self._implements(name.lower()))
        return ", ".join(sorted(own))

    def _implements(self, method: str) -> bool:
        return getattr(type(self), method) is not getattr(RequestHandler, method)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Send an error that Tornado or a handler raised as a problem document."""
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
        if not self._body_read:  # Tornado will close the connection, so say so to the client
            self.set_header("Connection", "close")
        self.set_header("Content-Type", problems.MEDIA_TYPE)
        self.finish(problems.document(error, self.request_id))

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Log the traceback of our own errors. A client's error is only noted in its request's log line.

        The traceback is logged without the exception's message, which may quote user input.
        """
        if value is not None and not isinstance(value, RequestError | HTTPError):
            log.error("%s", describe(value), extra={"facts": {"request": self.request_id}})

    def facts(self) -> dict[str, object]:
        """The fields of this request's log line besides the method, the path and the status."""
        return {
            "request": self.request_id,
            "user": self.user.id if hasattr(self, "user") else None,
            "conversation": self._conversation_id,
            "code": self.error_code,
            "end": self.stream_end,
        }


def whole_number(text: str) -> int | None:
    """Parse a number of up to 15 digits, else None. Python's `int` also takes signs, spaces and underscores."""
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None


def _http_error(status: int, error: BaseException | None) -> RequestError:
    if status == HTTPStatus.BAD_REQUEST:
        about_path = isinstance(error, HTTPError) and (error.get_message() or "").startswith("Invalid unicode")
        return InvalidRequest("The request's path is not UTF-8." if about_path else "The request is not valid.")
    phrase = HTTPStatus(status).phrase
    detail = {405: "Method not allowed here.", 500: "Something went wrong on the server."}
    error = RequestError(detail.get(status, phrase), code=phrase.lower().replace(" ", "_"))
    error.status, error.title = status, phrase
    return error


class NotFoundHandler(BaseHandler):
    """Answers 404 for every unknown path."""

    public = True

    async def enter(self) -> None:
        """Refuse every method, except OPTIONS, which may ask about the whole server (RFC 9110, section 9.3.7)."""
        await super().enter()
        if not self._is_about_the_server:
            raise NotFound("There is no such resource.")

    def allowed_methods(self) -> str:
        """See `BaseHandler`."""
        return "DELETE, GET, HEAD, OPTIONS, PATCH, POST" if self._is_about_the_server else super().allowed_methods()

    @property
    def _is_about_the_server(self) -> bool:
        return self.request.path == "*" and self.request.method == "OPTIONS"
