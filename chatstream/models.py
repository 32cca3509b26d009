"""The nouns: conversations, messages and what an answer carries. Immutable.

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
    """What a user may spend; None is no limit. Costs are in millionths of the operator's currency."""

    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    cost_per_month: int | None = None


NO_BUDGET = Budget()


class BudgetChange(Struct, frozen=True, kw_only=True, rename="camel"):
    """What is to be otherwise than in the usual budget."""

    tokens_per_day: int | UnsetType | None = UNSET
    tokens_per_month: int | UnsetType | None = UNSET
    cost_per_month: int | UnsetType | None = UNSET

    def applied(self, budget: Budget) -> Budget:
        """The usual budget, changed."""
        return replace(budget, **{name: value for name, value in asdict(self).items() if value is not UNSET})


class User(Struct, frozen=True):
    """Who is calling: the token's `sub`, and its `exp`, `jti` and `iat`. Times are in seconds since the epoch."""

    id: str
    token_expires_at: float
    token_id: str | None = None
    token_issued_at: float | None = None
    budget: BudgetChange | None = None  # of the token, if it says anything about it


class Ticket(Struct, frozen=True):
    """What lets its holder open one stream."""

    text: str
    expires_at: datetime


class Erased(Struct, frozen=True, kw_only=True):
    """How much was erased."""

    conversations: int
    messages: int


class Erasure(Struct, frozen=True, kw_only=True):
    """The erasure of everything that was kept of a user. It does not say whose it is."""

    id: str
    requested_at: datetime
    completed_at: datetime | None  # None: it runs
    erased: Erased


class ClientTool(Struct, frozen=True, kw_only=True):
    """A tool that an app has declared in its conversation, and carries out itself, within `timeout` seconds."""

    name: str
    description: str
    parameters: dict[str, Any]  # a JSON Schema of an object
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
    background: bool = False  # its answers finish though nobody watches
    head: str | None = None  # where its branch ends, once it has several: see `store.tree`
    context_from: int | None = None  # the model is told it from the message of this `seq` on; None: from the first
    client_tools: tuple[ClientTool, ...] = ()
    auto_title: bool = False  # a title by the model is to take the place of this one, after the first answer


class ConversationState(StrEnum):
    """What goes on in a conversation."""

    IDLE = "idle"
    RUNNING = "running"  # an answer is being written
    WAITING = "waiting"  # an answer waits for somebody's decision


class Status(StrEnum):
    """Where an answer stands."""

    STREAMING = "streaming"
    WAITING = "waiting"  # for a person's decision, or for the app: nobody generates it meanwhile
    COMPLETE = "complete"  # the model said why it finished
    STOPPED = "stopped"  # a user stopped it
    FAILED = "failed"  # the model's or a proxy's fault
    INTERRUPTED = "interrupted"  # we cut it: nobody watched, the process died, shutdown

    @property
    def is_final(self) -> bool:
        """It has ended, and stays so."""
        return self not in (Status.STREAMING, Status.WAITING)


class Rating(StrEnum):
    """A thumb."""

    UP = "up"
    DOWN = "down"


class UsageSource(StrEnum):
    """Where the token counts come from."""

    EXACT = "exact"  # the model's last word
    PARTIAL = "partial"  # the model's count so far; the answer broke off
    ESTIMATED = "estimated"  # from the length of the texts: the model gave none, or the answer broke off before


class Usage(Struct, frozen=True, kw_only=True, rename="camel"):
    """The tokens of one attempt. What the model does not say of them is unset."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    source: UsageSource = UsageSource.EXACT
    cached_tokens: int | UnsetType = UNSET  # of the prompt, that the endpoint had already
    reasoning_tokens: int | UnsetType = UNSET  # of the completion, that are thinking and no text
    cost_micros: int | UnsetType = UNSET  # in millionths of the operator's currency; unset where no price is known


class Round(Struct, frozen=True, kw_only=True, rename="camel"):
    """One request to a model, of the several that an answer with calls of tools takes; null: it is not known."""

    model: str | None
    finish_reason: str | None
    usage: Usage | None


class Annotation(Struct, frozen=True, kw_only=True):
    """Something that a plug-in found in an answer: `data` is a JSON object, `message` says in words what it is."""

    kind: str
    id: str
    message: str
    data: dict[str, Any]


RECOMMENDATION = "recommendation"
"""The one kind of annotation that version 1 of the protocol has. It is kept and sent as `Recommended` alone."""

Recommended = dict[str, str | float | None]

# The text that the protocol gives every recommendation, and the name of its id there. Neither is stored. All else that
# a recommendation has is its plug-in's business.
_RECOMMENDED, _RECOMMENDATION_ID = "New bet recommendation available", "betId"


def recommendation(data: Recommended) -> Annotation:
    """The annotation of which `data` is kept. Raises `ValueError` if that has no id, or names that are none."""
    id_ = data.get(_RECOMMENDATION_ID)
    if not isinstance(id_, str) or not all(name.isidentifier() for name in data):
        raise ValueError(f"a recommendation must have a {_RECOMMENDATION_ID}, and names that are names")
    return Annotation(kind=RECOMMENDATION, id=id_, message=_RECOMMENDED, data=dict(data))


class Failure(Struct, frozen=True, kw_only=True):
    """Why an answer ended badly. `request_id` finds the details in the log."""

    code: ErrorCode
    request_id: str | None
    retry_after_ms: int | None = None
    unwatched: bool = False  # it was cut because nobody watched, and not by our fault


class UserMessage(Struct, frozen=True, kw_only=True):
    """What a user wrote. `seq` orders the messages of a conversation, answers included."""

    id: str
    seq: int
    content: str
    created_at: datetime
    client_message_id: str | None = None
    background: bool = False  # its answer finishes though nobody watches
    parent: str | UnsetType | None = UNSET  # the message it goes on from, None if from none; unset: the one before it


class Answer(Struct, frozen=True, kw_only=True):
    """One attempt at answering a user message; of several, the newest counts.

    `content` is its visible text. While it is `STREAMING`, it is as the last checkpoint stored it. While it is
    `WAITING`, the conversation goes on with nothing else: to all but the one who generates, it counts as running.
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
    annotations: tuple[Annotation, ...] = ()  # the recommendations first, as they are kept apart
    unseen: bool = False  # it ended while nobody watched, and has not been read since
    queued: bool = False  # a user message was posted meanwhile, and waits for its end
    owner: str = ""  # the process that generates it
    background: bool = False  # it finishes though nobody watches
    model: str | None = None  # which one answered, as users call it; while it runs, known only of a `next_model`
    next_model: str | None = None  # the model broke off: another attempt, by this one, takes its place
    mixed: tuple[Piece, ...] = ()  # its pieces, if there is more than text in it
    continues: str | None = None  # the attempt that was cut, whose text it begins with
    rating: Rating | None = None  # what its user thinks of it
    rounds: tuple[Round, ...] = ()  # where a model was asked several times; `usage` is their sum
    waits_until: datetime | None = None  # while it is `WAITING`: when the first of its calls is given up

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """What it is made of."""
        return self.mixed or ((self.content,) if self.content else ())

    @property
    def recommendations(self) -> tuple[Recommended, ...]:
        """Of the annotations, those that version 1 of the protocol knows, as it has them."""
        return tuple(one.data for one in self.annotations if one.kind == RECOMMENDATION)

    @property
    def other_annotations(self) -> tuple[Annotation, ...]:
        """The annotations besides."""
        return tuple(one for one in self.annotations if one.kind != RECOMMENDATION)

    @property
    def context_trimmed(self) -> int | None:
        """So many messages of the conversation the model was not told any more, if that was new with this answer."""
        return next((piece.dropped for piece in self.mixed if isinstance(piece, ContextTrimmed)), None)

    @property
    def length(self) -> int:
        """The position of its end."""
        return size(self.mixed) if self.mixed else len(self.content)

    def made_of(self, pieces: Sequence[Piece]) -> Self:
        """The same answer with other pieces."""
        return replace(self, content=text(pieces), mixed=() if is_text(pieces) else tuple(join(pieces)))

    def seen_to(self, length: int | None) -> Self:
        """The same answer as somebody has it who has seen so much of its visible text; None is all of it."""
        return self if length is None else self.made_of(up_to_text(self.pieces, length))

    @property
    def begins_again(self) -> bool:
        """We cut it short by our own fault (a crash, a shutdown): whoever watches next is given another attempt.

        One whose model broke off is replaced by another model in the same way.

        One that was cut because nobody watched waits for the user's word: a second one would have to be paid for.
        """
        return self.status is Status.INTERRUPTED and not (self.failure is not None and self.failure.unwatched)


Message = UserMessage | Answer
