"""The interface between a plug-in and the server.

A plug-in is any object that has one or more of the methods below. A plain method runs in one of the plug-in's own
threads and may block; a coroutine function runs on the event loop and must not. Each call has a deadline, which
includes the wait for a thread. If a call raises, is late or returns an invalid value, its rule decides: *open*, the
server continues without it; *closed*, it refuses or fails. A plug-in may set both for each of its methods::

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

# All names that a plug-in needs, except those for tools (in `tool`) and `Card` (in `cards`).
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
    """A user message to be answered."""

    user: str
    conversation: str  # its id, unique for the user
    history: tuple[ModelTurn, ...]  # oldest first, trimmed as for the model; without the message
    message: str
    attempt: int  # 1 for the first
    key: str  # the same for all attempts at answering the message
    model: str | None  # the model chosen for the conversation, if any


class Answered(Struct, frozen=True, kw_only=True):
    """A complete answer, before it is stored."""

    id: str
    text: str
    parts: tuple[Part, ...] = ()  # its content: text, reasoning, tool calls, data
    user: str
    conversation: str
    attempt: int
    key: str


class Reasoning(Struct, frozen=True):
    """Reasoning from a plug-in's `answer`. It is not part of the text; `CHATSTREAM_REASONING` shows or hides it."""

    text: str


class Spender(Struct, frozen=True, kw_only=True):
    """A user for whom an answer is about to begin, with the budget from the settings and the user's token."""

    user: str
    budget: Budget


class Refused(RequestError):
    """Raised by `admit`: the message is not accepted. `detail` is for the user, `code` for the client."""

    status, title, code = 403, "Forbidden", "refused"


class Blocked(Exception):
    """Raised by `release`: the answer ends here, with the finish reason ``content_filter``."""


class AnswerFailed(ModelError):
    """Raised by `answer` when it cannot continue. `str()` is for the log; `code` chooses the text for the user."""

    def __init__(self, detail: str, code: ErrorCode = ErrorCode.UPSTREAM_UNAVAILABLE) -> None:
        super().__init__(code, detail)


class GivesContext(Protocol):
    """Adds context for the model. Deadline 5 s, open."""

    def context(self, turn: Turn) -> str | Sequence[ModelTurn] | None:
        """Return a text to add to the system prompt, or turns to put before the user's message."""
        ...


class Admits(Protocol):
    """Accepts or refuses a message. Deadline 2 s, closed."""

    def admit(self, turn: Turn) -> None:
        """Raise `Refused` to refuse `turn.message`: it is not stored, no model is asked, and nothing is charged."""
        ...


class Budgets(Protocol):
    """Sets a user's budget. Deadline 2 s, closed: nothing is answered."""

    def budget(self, spender: Spender) -> Budget | None:
        """The budget of `spender.user`; None keeps `spender.budget`."""
        ...


class Releases(Protocol):
    """Checks text before it leaves the process: text that it holds back is in no event, log or history.

    Deadline 2 s for each call, closed: the answer is blocked.
    """

    def release(self, text: str, told: int, ended: bool) -> int:
        """Return how many code points of `text`, the answer so far, may be sent, from its beginning.

        The result must be at least `told`, the number already sent. `ended`: the answer is complete, and the rest is
        lost if it is not released now. Raise `Blocked` to end the answer.
        """
        ...


class Annotates(Protocol):
    """Adds annotations to a complete answer; never called for one that was cut off. Deadline 3 s, open."""

    def annotate(self, answer: Answered) -> Iterable[Annotation]:
        """Return annotations to store with the answer and to send after it as `system` events."""
        ...


Said = str | Reasoning | Data | Usage | Finish
"""What an answerer of one's own yields: pieces of text, mostly; and at last, if it likes, how it ended."""


class Answers(Protocol):
    """Answers in place of the model. The first word has the model's deadline; closed: the answer fails."""

    def answer(self, turn: Turn) -> AsyncIterator[Said]:
        """Yield the answer piece by piece. The generator is closed when the answer is no longer wanted."""
        ...


Hook = Literal["context", "admit", "release", "annotate", "answer", "budget"]


class Rule(NamedTuple):
    """The deadline of a call, in seconds, and whether the server goes on without it when it fails (`open`)."""

    deadline: float
    open: bool


RULES: Final[Mapping[Hook, Rule]] = MappingProxyType(
    {
        # The user waits for the first token meanwhile. A search takes a second or two.
        "context": Rule(5, open=True),
        # A request must be answered within 5 s. The database needs a part of them.
        "admit": Rule(2, open=False),
        # Readers wait for the text. Unchecked text must not be sent.
        "release": Rule(2, open=False),
        # The end of the answer waits for this, and a request to stop waits at most 4 s for that end.
        "annotate": Rule(3, open=True),
        # The longest pause between two pieces, like `CHATSTREAM_FIRST_TOKEN_TIMEOUT` for the model.
        "answer": Rule(60, open=False),
        # The same time as for `admit`, which runs in the same request. Closed: a failure must not
        # let users exceed a budget.
        "budget": Rule(2, open=False),
    }
)

KIND: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
"""What a kind of data or annotations may be."""

Plugin = Any
"""An object with any of these methods; what it has is looked at when it is loaded."""
