"""The exceptions of chatstream, as one tree.

::

    ChatstreamError
    ├── RequestError               a request that cannot be fulfilled
    │   ├── InvalidRequest         400  the request is malformed
    │   ├── Unauthenticated        401  no token, or a rejected one
    │   ├── LimitReached           403  the most that is allowed is stored (TooManyConversations, ConversationFull)
    │   ├── NotFound               404  does not exist, or belongs to another user: clients cannot tell which
    │   ├── Conflict               409  not in this state (AnswerInProgress, AlreadyExists, AlreadyDecided …)
    │   ├── RequestTimeout         408  its body came too slowly
    │   ├── CallExpired            410  the time for a decision is over
    │   ├── TooLarge               413
    │   ├── UnsupportedMediaType   415
    │   ├── InvalidContent         422  well-formed, but a field is not acceptable
    │   ├── TooManyRequests        429  come back later (OverBudget: BudgetExhausted, BudgetReserved)
    │   └── Unavailable            503  not now (StorageUnavailable: the database does not answer; StopPending)
    ├── ModelError                 an answer ended badly: the model's or a proxy's fault
    └── ConfigurationError         the server cannot start like this

The HTTP status of a `RequestError` is a suggestion; the handlers decide. Its ``str()`` is safe to show to a client. The
``str()`` of a `ModelError` is only for the log.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Self


class ChatstreamError(Exception):
    """Base of all errors raised on purpose by chatstream."""


class ErrorCode(StrEnum):
    """Stable codes of the `error` event, and of the answers that ended badly."""

    UPSTREAM_RATE_LIMITED = "upstream_rate_limited"
    UPSTREAM_UNAVAILABLE = "upstream_unavailable"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_REJECTED = "upstream_rejected"
    UPSTREAM_TRUNCATED = "upstream_truncated"
    UPSTREAM_PROTOCOL = "upstream_protocol"
    UPSTREAM_MISCONFIGURED = "upstream_misconfigured"
    ANSWER_TOO_LONG = "answer_too_long"
    CONTEXT_TOO_LONG = "context_too_long"
    ANSWER_INTERRUPTED = "answer_interrupted"
    TOOL_OUTCOME_UNKNOWN = "tool_outcome_unknown"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    RATE_LIMITED = "rate_limited"
    TOO_MANY_STREAMS = "too_many_streams"
    BUDGET_EXHAUSTED = "budget_exhausted"
    BUDGET_UNAVAILABLE = "budget_unavailable"
    AUTH_UNAVAILABLE = "auth_unavailable"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a code, not a password
    SERVER_SHUTDOWN = "server_shutdown"
    CONVERSATION_DELETED = "conversation_deleted"
    INTERNAL = "internal"


class Explanation(NamedTuple):
    """The text of an error code for people, and whether a retry can help."""

    message: str
    retryable: bool


EXPLANATIONS: Mapping[ErrorCode, Explanation] = {
    ErrorCode.UPSTREAM_RATE_LIMITED: Explanation("The model is receiving too many requests. Try again shortly.", True),
    ErrorCode.UPSTREAM_UNAVAILABLE: Explanation("The model is not available at the moment. Try again shortly.", True),
    ErrorCode.UPSTREAM_TIMEOUT: Explanation("The model took too long to answer. Try again.", True),
    ErrorCode.UPSTREAM_REJECTED: Explanation("The model refused this request.", False),
    ErrorCode.UPSTREAM_TRUNCATED: Explanation("The answer broke off before it was finished. Try again.", True),
    ErrorCode.UPSTREAM_PROTOCOL: Explanation("The model sent an unreadable response. Try again.", True),
    ErrorCode.UPSTREAM_MISCONFIGURED: Explanation(
        "The assistant is not set up correctly. Please tell the operator.", False
    ),
    ErrorCode.ANSWER_TOO_LONG: Explanation("The answer became too long and was cut off.", False),
    ErrorCode.CONTEXT_TOO_LONG: Explanation("This conversation is too long for the model.", False),
    ErrorCode.ANSWER_INTERRUPTED: Explanation("The answer was interrupted. Try again.", True),
    ErrorCode.TOOL_OUTCOME_UNKNOWN: Explanation(
        "It is not known whether an action was carried out. Check that before you ask again.", False
    ),
    ErrorCode.STORAGE_UNAVAILABLE: Explanation("Nothing can be read or stored at the moment. Try again shortly.", True),
    ErrorCode.RATE_LIMITED: Explanation("Too many requests. Try again shortly.", True),
    ErrorCode.TOO_MANY_STREAMS: Explanation("Too many open streams. Close one and try again.", True),
    ErrorCode.BUDGET_EXHAUSTED: Explanation("Your budget has no room for more at the moment.", True),
    ErrorCode.BUDGET_UNAVAILABLE: Explanation("Your budget cannot be checked at the moment. Try again shortly.", True),
    ErrorCode.AUTH_UNAVAILABLE: Explanation("Access cannot be checked at the moment. Connect again.", True),
    ErrorCode.TOKEN_EXPIRED: Explanation("The access token has expired. Connect again with a new one.", True),
    ErrorCode.SERVER_SHUTDOWN: Explanation("The server is restarting. Connect again.", True),
    ErrorCode.CONVERSATION_DELETED: Explanation("This conversation has been deleted.", False),
    ErrorCode.INTERNAL: Explanation("Something went wrong on the server. Try again.", True),
}


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, for an error's text: ``1 token``, ``2,000 tokens``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class RequestError(ChatstreamError):
    """A request that cannot be fulfilled; ``detail`` is written for the client."""

    status = 400
    title = "Bad Request"
    code = "invalid_request"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        retry_after: float | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> None:
        """`retry_after` is in seconds; `fields` maps a field's path to what is wrong with it."""
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.retry_after = retry_after
        self.fields = fields


class InvalidRequest(RequestError):
    """The request is malformed; nothing was changed."""


class Unauthenticated(RequestError):
    """The request has no token, or one that is not accepted."""

    status, title, code = 401, "Unauthorized", "unauthenticated"

    def __init__(self, detail: str, *, token_given: bool, reason: str = "") -> None:
        """`token_given` decides whether RFC 6750's ``error="invalid_token"`` is sent; `reason` is for the metrics."""
        super().__init__(detail, code="invalid_token" if token_given else "unauthenticated")
        self.token_given = token_given
        self.reason = reason


class LimitReached(RequestError):
    """The user has stored the most that is allowed; waiting does not help.

    Not a 409: clients take that for "it was stored before".
    """

    status, title = 403, "Forbidden"


class TooManyConversations(LimitReached):
    """The user has the most conversations that are allowed."""

    code = "too_many_conversations"


class ConversationFull(LimitReached):
    """The conversation has the most messages that are allowed."""

    code = "conversation_full"


class NotFound(RequestError):
    """The resource does not exist or belongs to another user; clients cannot tell which."""

    status, title, code = 404, "Not Found", "not_found"


class Conflict(RequestError):
    """The request is not possible in the present state."""

    status, title, code = 409, "Conflict", "conflict"


class AnswerInProgress(Conflict):
    """The conversation's answer is still running."""

    code = "answer_in_progress"


class AlreadyExists(Conflict):
    """The id is already used."""

    code = "already_exists"


class NothingRunning(Conflict):
    """There is no running answer to stop."""

    code = "no_answer_running"


class NothingToAnswer(Conflict):
    """There is no user message to answer again."""

    code = "nothing_to_answer"


class NothingToContinue(Conflict):
    """The answer was not cut, or has no text."""

    code = "nothing_to_continue"


class NotQueued(Conflict):
    """The message is not queued, or not any more."""

    code = "not_queued"


class Withdrawn(Conflict):
    """The message was taken back."""

    code = "withdrawn"


class AlreadyDecided(Conflict):
    """The call was already decided or answered: the first decision counts."""

    code = "already_decided"


class NotWaiting(Conflict):
    """The call does not wait for a decision, or waits for another kind."""

    code = "not_waiting"


class CallExpired(RequestError):
    """The time for a decision about this call is over."""

    status, title, code = 410, "Gone", "call_expired"


class RequestTimeout(RequestError):
    """The request's body came too slowly, or not at all."""

    status, title, code = 408, "Request Timeout", "request_timeout"


class TooLarge(RequestError):
    """The request's body is over the size limit."""

    status, title, code = 413, "Content Too Large", "too_large"


class UnsupportedMediaType(RequestError):
    """The request's body is not JSON."""

    status, title, code = 415, "Unsupported Media Type", "unsupported_media_type"


class InvalidContent(RequestError):
    """The request's body is well-formed, but a field's value is not acceptable."""

    status, title, code = 422, "Unprocessable Content", "invalid_content"

    @classmethod
    def of(cls, field: str, problem: str) -> Self:
        """Return the error for one field; `problem` says what the field must be."""
        return cls(f"`{field}` {problem}.", fields={field: problem})


class Quota(NamedTuple):
    """A limit, and the rest of it."""

    policy: str  # the limit's name
    quota: int
    remaining: int
    window: int | None  # seconds; None: a limit on simultaneous uses
    reset: float | None  # seconds until `remaining` grows by one; None if unknown


class TooManyRequests(RequestError):
    """The caller has reached a limit."""

    status, title, code = 429, "Too Many Requests", "rate_limited"

    def __init__(
        self, detail: str, *, code: str | None = None, retry_after: float | None = None, quota: Quota | None = None
    ) -> None:
        """`retry_after` is in seconds; `quota` is the limit that was reached."""
        super().__init__(detail, code=code, retry_after=retry_after)
        self.quota = quota


class OverBudget(TooManyRequests):
    """The user's budget has no room for another answer."""

    code = ErrorCode.BUDGET_EXHAUSTED

    def again(self, now: datetime) -> "OverBudget":
        """Return the same error with the waiting time from `now`."""
        raise NotImplementedError


class BudgetExhausted(OverBudget):
    """The user has used up the budget of a day or a month."""

    def __init__(self, name: str, limit: int, *, begins: datetime, resets_at: datetime, now: datetime) -> None:
        """`name` is the limit's: ``tokensPerDay``, ``tokensPerMonth``, ``costPerMonth``. The period begins at `begins`
        and ends at `resets_at`."""
        self.name, self.limit = name, limit
        self.begins, self.resets_at = begins, resets_at
        seconds = max(1.0, (resets_at - now).total_seconds())
        window = round((resets_at - begins).total_seconds())
        which, several = _budget_in_words(name, limit)
        super().__init__(
            f"{which} {'are' if several else 'is'} used up. "
            f"It begins again on {resets_at:%Y-%m-%d} at {resets_at:%H:%M} UTC.",
            retry_after=seconds,
            quota=Quota(name, limit, 0, window, seconds),
        )

    def again(self, now: datetime) -> "BudgetExhausted":
        """See `OverBudget`."""
        return BudgetExhausted(self.name, self.limit, begins=self.begins, resets_at=self.resets_at, now=now)


class BudgetReserved(OverBudget):
    """The rest of the user's budget is reserved for unfinished answers, which may use less.

    The budget is not used up, so this is not remembered and no webhook is sent. It has the same code as
    `BudgetExhausted`, since a client does the same: it waits for the time in `Retry-After`.
    """

    def __init__(self, name: str, limit: int, *, begins: datetime, resets_at: datetime) -> None:
        """See `BudgetExhausted`."""
        self.name, self.limit = name, limit
        self.begins, self.resets_at = begins, resets_at
        which, _ = _budget_in_words(name, limit)
        super().__init__(
            f"{which}: what is left is reserved for answers that have not ended yet. Try again when one of them has.",
            retry_after=_RESERVED_FOR,
            quota=Quota(name, limit, 0, round((resets_at - begins).total_seconds()), None),
        )

    def again(self, now: datetime) -> "BudgetReserved":
        """See `OverBudget`."""
        return BudgetReserved(self.name, self.limit, begins=self.begins, resets_at=self.resets_at)


# Seconds to wait before retrying while other answers hold the budget: most have ended by then.
_RESERVED_FOR = 10.0


def _budget_in_words(name: str, limit: int) -> tuple[str, bool]:
    """Return the limit in words, and whether the words are plural."""
    period = {"tokensPerDay": "day", "tokensPerMonth": "month"}.get(name)
    if period is None:
        return "Your budget for this month", False
    return f"The {counted(limit, 'token')} that you have a {period}", limit != 1


class Unavailable(RequestError):
    """The server cannot do this now; `retry_after` says when to retry."""

    status, title, code = 503, "Service Unavailable", "unavailable"


class StorageUnavailable(Unavailable):
    """The database did not respond in time. The outcome of a write is unknown unless the caller repeats it."""

    code = "storage_unavailable"

    def __init__(self) -> None:
        # A healthy replica set fails over within a few seconds.
        super().__init__("The database is not available at the moment.", retry_after=2)


class StopPending(Unavailable):
    """The request to stop the answer is stored, but the process that generates it does not respond: it hangs or is
    gone.

    Another process will notice that the answer does not continue, and end it as `stopped`.
    """

    code = "stop_pending"

    def __init__(self) -> None:
        # A process counts as gone after ten seconds.
        super().__init__(
            "The process that writes this answer does not respond. The answer will be stopped: ask again shortly.",
            retry_after=10,
        )


class ModelError(ChatstreamError):
    """The model's answer ended badly. ``str()`` is for the log, never for a client."""

    def __init__(self, code: ErrorCode, detail: str, *, retry_after: float | None = None) -> None:
        """`retry_after`, in seconds, is what the model's server asked for, or None."""
        super().__init__(detail)
        self.code = code
        self.retry_after = retry_after
        self.next_model: str | None = None  # the model that replaces this one in another attempt


class ConfigurationError(ChatstreamError):
    """The server cannot start with this configuration; the text says what to change."""


class InvalidSettings(ConfigurationError):
    """Wrong settings: trying again does not help."""

    def __init__(self, problems: Iterable[str]) -> None:
        """Each problem is one line that begins with the setting's name."""
        self.problems = [*problems]
        super().__init__("The configuration is not valid:\n  " + "\n  ".join(self.problems))
