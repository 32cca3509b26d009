"""What a plug-in is, and what it sees of the server.

A plug-in is any object that has one or more of the methods below. A method that is no coroutine function runs in a
thread of the plug-in's own and may block; a coroutine function runs on the event loop and must not. Each call has a
deadline, which covers the wait for a thread, and a rule for when it raises, is late or returns nonsense: *open*, the
server goes on without it, or *closed*, it does not. A plug-in may set both for each of its methods::

    deadlines = {"context": 10}  # seconds
    failures = {"admit": "open"}
"""

import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, Protocol

from msgspec import Struct

from chatstream.errors import ErrorCode, ModelError, RequestError
from chatstream.llm.model import Finish
from chatstream.llm.model import Turn as ModelTurn
from chatstream.models import Annotation, Budget, Usage
from chatstream.pieces import Data, Part

# All that a plug-in needs, in one place; what a tool needs stands in `tool`, and a `Card` in `cards`.
__all__ = [
    *(
        "Admits",
        "Annotates",
        "Annotation",
        "AnswerFailed",
        "Answered",
        "Answers",
        "Blocked",
        "Budget",
        "Budgets",
        "Data",
    ),
    *("ErrorCode", "Finish", "GivesContext", "KIND", "RULES", "Hook", "ModelTurn", "Part", "Plugin", "Reasoning"),
    *("Refused", "Releases", "Rule", "Said", "Spender", "Turn", "Usage"),
]


class Turn(Struct, frozen=True, kw_only=True):
    """A user message that wants an answer."""

    user: str
    conversation: str  # its id, unique for the user
    history: tuple[ModelTurn, ...]  # oldest first, trimmed as for the model; without the message
    message: str
    attempt: int  # 1 for the first
    key: str  # the same for all attempts at answering the message
    model: str | None  # that the conversation asks for, if it does


class Answered(Struct, frozen=True, kw_only=True):
    """An answer that came to its plain end, before it is stored."""

    id: str
    text: str
    parts: tuple[Part, ...] = ()  # what it is made of: text, thinking, calls of tools, data
    user: str
    conversation: str
    attempt: int
    key: str


class Reasoning(Struct, frozen=True):
    """Something that an answerer of one's own thought. It is no text; `CHATSTREAM_REASONING` shows or hides it."""

    text: str


class Spender(Struct, frozen=True, kw_only=True):
    """A user for whom an answer is about to begin, and what they may spend by the settings and their token."""

    user: str
    budget: Budget


class Refused(RequestError):
    """Raised by `admit`: the message is not accepted. `detail` is for the user, `code` for the client."""

    status, title, code = 403, "Forbidden", "refused"


class Blocked(Exception):
    """Raised by `release`: the answer ends here, with the finish reason ``content_filter``."""


class AnswerFailed(ModelError):
    """Raised by `answer`: it cannot go on. `str()` is for the log; what the user reads goes with `code`."""

    def __init__(self, detail: str, code: ErrorCode = ErrorCode.UPSTREAM_UNAVAILABLE) -> None:
        super().__init__(code, detail)


class GivesContext(Protocol):
    """Knows something that the model should know. Deadline 5 s, open."""

    def context(self, turn: Turn) -> str | Sequence[ModelTurn] | None:
        """Instructions, which are added to the system prompt, or turns, which come before the user's message."""
        ...


class Admits(Protocol):
    """Decides what is answered at all. Deadline 2 s, closed."""

    def admit(self, turn: Turn) -> None:
        """Raise `Refused` if nothing is to be stored, asked or paid for `turn.message`."""
        ...


class Budgets(Protocol):
    """Knows what a user may spend. Deadline 2 s, closed: nothing is answered."""

    def budget(self, spender: Spender) -> Budget | None:
        """What `spender.user` may spend; None is as `spender.budget` has it."""
        ...


class Releases(Protocol):
    """Stands between the model and everybody else: what it holds back is in no event, log, history or process.

    Deadline 2 s for each call, closed: the answer is blocked.
    """

    def release(self, text: str, told: int, ended: bool) -> int:
        """How much of `text`, the answer so far, may be told: a number of code points from its beginning.

        At least `told`, which is out already. With `ended` there is nothing to wait for any more: what is held back
        then is lost. Raise `Blocked` to end the answer.
        """
        ...


class Annotates(Protocol):
    """Finds something in a finished answer. Deadline 3 s, open. Never asked about an answer that was cut."""

    def annotate(self, answer: Answered) -> Iterable[Annotation]:
        """What is stored with the answer, and told after it as `system` events."""
        ...


Said = str | Reasoning | Data | Usage | Finish
"""What an answerer of one's own yields: pieces of text, mostly; and at last, if it likes, how it ended."""


class Answers(Protocol):
    """Answers in place of the model. The first word has the model's deadlines; closed: the answer fails."""

    def answer(self, turn: Turn) -> AsyncIterator[Said]:
        """The answer, as it comes. The generator is closed when nobody wants it any more."""
        ...


Hook = Literal["context", "admit", "release", "annotate", "answer", "budget"]


class Rule(NamedTuple):
    """How long a call may take, in seconds, and what becomes of it when it fails."""

    deadline: float
    open: bool


RULES: Final[Mapping[Hook, Rule]] = MappingProxyType(
    {
        # Before the first token: a person waits. A search takes a second or two.
        "context": Rule(5, open=True),
        # A request is answered within 5 s, and the database wants its part of them.
        "admit": Rule(2, open=False),
        # Readers wait for the text; and text that was not checked must not be sent.
        "release": Rule(2, open=False),
        # The text is there already; its end waits for this, and whoever stops it waits 4 s.
        "annotate": Rule(3, open=True),
        # Between two things that it says, as the model's `CHATSTREAM_FIRST_TOKEN_TIMEOUT`.
        "answer": Rule(60, open=False),
        # As for `admit`, in the same request; and it is about money.
        "budget": Rule(2, open=False),
    }
)

KIND: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
"""What a kind of data or annotations may be."""

Plugin = Any
"""An object with any of these methods; what it has is looked at when it is loaded."""
