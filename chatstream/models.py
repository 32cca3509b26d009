"""The data types of the domain: conversations, messages and what an answer carries. Immutable.

Times are timezone-aware UTC. A `key` is the database's own id, never shown to a client as such; an `id` is what clients
use. Lengths are in Unicode code points.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import asdict, replace

from chatstream.errors import ErrorCode
from chatstream.pieces import ContextTrimmed, Piece, is_text, join, size, text, up_to_text


class Budget(Struct, frozen=True, kw_only=True):
    """A user's limits of use; None means no limit. Costs are in millionths of the operator's currency."""

    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    cost_per_month: int | None = None


NO_BUDGET = Budget()


class BudgetChange(Struct, frozen=True, kw_only=True, rename="camel"):
    """The differences to the usual budget."""

    tokens_per_day: int | UnsetType | None = UNSET
    tokens_per_month: int | UnsetType | None = UNSET
    cost_per_month: int | UnsetType | None = UNSET

    def applied(self, budget: Budget) -> Budget:
        """Return the usual budget with these changes."""
        return replace(budget, **{name: value for name, value in asdict(self).items() if value is not UNSET})


class User(Struct, frozen=True):
    """The authenticated user: the token's `sub`, `exp`, `jti` and `iat`. Times are in seconds since the epoch."""

    id: str
    token_expires_at: float
    token_id: str | None = None
    token_issued_at: float | None = None
    budget: BudgetChange | None = None  # from the token, if it names one


class Ticket(Struct, frozen=True):
    """A ticket: lets its holder open one stream."""

    text: str
    expires_at: datetime


class Erased(Struct, frozen=True, kw_only=True):
    """The number of erased conversations and messages."""

    conversations: int
    messages: int


class Erasure(Struct, frozen=True, kw_only=True):
    """The erasure of all data of a user. It does not name the user."""

    id: str
    requested_at: datetime
    completed_at: datetime | None  # None while it runs
    erased: Erased


class ClientTool(Struct, frozen=True, kw_only=True):
    """A tool that an app declares in its conversation, and carries out itself within `timeout` seconds."""

    name: str
    description: str
    parameters: dict[str, Any]  # a JSON Schema of type object
    timeout: float


class Conversation(Struct, frozen=True, kw_only=True):
    """A user's conversation. `id` is unique per user, `key` is unique."""

    key: str
    user_id: str
    id: str
    title: str | None
    system_prompt: str | None
    model: str | None
    created_at: datetime
    updated_at: datetime
    background: bool = False  # its answers finish even if nobody watches
    head: str | None = None  # the last message of the shown branch, if there are several branches: see `store.tree`
    context_from: int | None = None  # the `seq` of the first message that the model is given; None: from the first one
    client_tools: tuple[ClientTool, ...] = ()
    auto_title: bool = False  # a title by the model replaces this title after the first answer


class ConversationState(StrEnum):
    """Whether an answer runs in a conversation, or waits."""

    IDLE = "idle"
    RUNNING = "running"  # an answer is being generated
    WAITING = "waiting"  # an answer waits for a decision


class Status(StrEnum):
    """The status of an answer."""

    STREAMING = "streaming"
    WAITING = "waiting"  # for a person's decision, or for the app: nobody generates it meanwhile
    COMPLETE = "complete"  # the model gave a finish reason
    STOPPED = "stopped"  # a user stopped it
    FAILED = "failed"  # the model's or a proxy's fault
    INTERRUPTED = "interrupted"  # the server cut it: nobody watched, the process died, shutdown

    @property
    def is_final(self) -> bool:
        """Whether the answer has ended. A final status does not change."""
        return self not in (Status.STREAMING, Status.WAITING)


class Rating(StrEnum):
    """Thumb up or thumb down."""

    UP = "up"
    DOWN = "down"


class UsageSource(StrEnum):
    """Who counted the tokens."""

    EXACT = "exact"  # counted by the model
    PARTIAL = "partial"  # counted by the model so far; the answer broke off
    ESTIMATED = "estimated"  # from the length of the texts: the model counted nothing, or the answer broke off before


class Usage(Struct, frozen=True, kw_only=True, rename="camel"):
    """The tokens of one attempt. Counts that the model does not report are left out."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    source: UsageSource = UsageSource.EXACT
    cached_tokens: int | UnsetType = UNSET  # prompt tokens that the endpoint had cached
    reasoning_tokens: int | UnsetType = UNSET  # completion tokens that are reasoning
    cost_micros: int | UnsetType = UNSET  # in millionths of the operator's currency; unset if no price is known


class Round(Struct, frozen=True, kw_only=True, rename="camel"):
    """One of several model requests of an answer: each tool call needs another one. Null means unknown."""

    model: str | None
    finish_reason: str | None
    usage: Usage | None


class Annotation(Struct, frozen=True, kw_only=True):
    """Something that a plug-in found in an answer. `data` is a JSON object, `message` describes it to people."""

    kind: str
    id: str
    message: str
    data: dict[str, Any]


RECOMMENDATION = "recommendation"
"""The only kind of annotation in version 1 of the protocol. It is stored and sent as `Recommended` alone."""

Recommended = dict[str, str | float | None]

# The text of every recommendation in the protocol, and the name of its id. Neither is stored. Its other fields are
# defined by the plug-in.
_RECOMMENDED, _RECOMMENDATION_ID = "New bet recommendation available", "betId"


def recommendation(data: Recommended) -> Annotation:
    """Return the annotation with this `data`. Raises `ValueError` if the data has no id, or a name that is not an
    identifier."""
    id_ = data.get(_RECOMMENDATION_ID)
    if not isinstance(id_, str) or not all(name.isidentifier() for name in data):
        raise ValueError(f"a recommendation must have a {_RECOMMENDATION_ID}, and names that are names")
    return Annotation(kind=RECOMMENDATION, id=id_, message=_RECOMMENDED, data=dict(data))


class Failure(Struct, frozen=True, kw_only=True):
    """The reason why an answer failed. The log has the details under `request_id`."""

    code: ErrorCode
    request_id: str | None
    retry_after_ms: int | None = None
    unwatched: bool = False  # cut because nobody watched, not by a fault of the server


class UserMessage(Struct, frozen=True, kw_only=True):
    """A message of a user. `seq` orders the messages of a conversation, answers included."""

    id: str
    seq: int
    content: str
    created_at: datetime
    client_message_id: str | None = None
    background: bool = False  # its answer finishes even if nobody watches
    parent: str | UnsetType | None = UNSET  # the message it follows, None for a root; unset: the message before it


class Answer(Struct, frozen=True, kw_only=True):
    """One attempt at answering a user message; of several, the newest counts.

    `content` is the visible text. While the answer is `STREAMING`, it is the text of the last checkpoint. While it is
    `WAITING`, nothing else can begin in the conversation: the answer counts as running.
    """

    id: str
    seq: int
    reply_to: str
    attempt: int
    status: Status
    content: str
    created_at: datetime
    finish_reason: str | None = None
    usage: Usage | None = None
    failure: Failure | None = None
    annotations: tuple[Annotation, ...] = ()  # the recommendations first, as they are stored separately
    unseen: bool = False  # it ended while nobody watched, and was not read since
    queued: bool = False  # a user message is queued behind it
    owner: str = ""  # the id of the process that generates it
    background: bool = False  # it finishes even if nobody watches
    model: str | None = None  # the answering model's name for users; while it runs, set only for a `next_model`
    next_model: str | None = None  # the model broke off: the next attempt, by this model, replaces this one
    mixed: tuple[Piece, ...] = ()  # the pieces, if it is not text only
    continues: str | None = None  # the id of the cut attempt whose text it begins with
    rating: Rating | None = None  # the user's rating
    rounds: tuple[Round, ...] = ()  # the requests to models, if there were several; `usage` is their sum
    waits_until: datetime | None = None  # while it is `WAITING`: when the first of its calls expires

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The answer's pieces."""
        return self.mixed or ((self.content,) if self.content else ())

    @property
    def recommendations(self) -> tuple[Recommended, ...]:
        """The recommendations, in the form of version 1 of the protocol."""
        return tuple(one.data for one in self.annotations if one.kind == RECOMMENDATION)

    @property
    def other_annotations(self) -> tuple[Annotation, ...]:
        """The annotations that are not recommendations."""
        return tuple(one for one in self.annotations if one.kind != RECOMMENDATION)

    @property
    def context_trimmed(self) -> int | None:
        """The number of messages that are left out for the model from this answer on; None if that did not change."""
        return next((piece.dropped for piece in self.mixed if isinstance(piece, ContextTrimmed)), None)

    @property
    def length(self) -> int:
        """The position of the answer's end."""
        return size(self.mixed) if self.mixed else len(self.content)

    def made_of(self, pieces: Sequence[Piece]) -> Self:
        """Return the answer with other pieces."""
        return replace(self, content=text(pieces), mixed=() if is_text(pieces) else tuple(join(pieces)))

    def seen_to(self, length: int | None) -> Self:
        """Return the answer cut to `length` code points of visible text; None keeps all."""
        return self if length is None else self.made_of(up_to_text(self.pieces, length))

    @property
    def begins_again(self) -> bool:
        """Whether another attempt follows by itself: the server cut this one (a crash, a shutdown), and somebody
        watches again.

        This also applies if the model broke off and another model takes over.

        An attempt that was cut because nobody watched is not repeated without the user's request, as it costs money.
        """
        return self.status is Status.INTERRUPTED and not (self.failure is not None and self.failure.unwatched)


Message = UserMessage | Answer
