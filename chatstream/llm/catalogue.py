"""The models that there are, and which of them users may choose. Pure: `fallback` sends the requests."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from chatstream.errors import InvalidContent
from chatstream.llm.model import Turn
from chatstream.models import Conversation, Usage
from chatstream.settings import Settings, UserModels
from chatstream.summary import OPENAI

_log = logging.getLogger("chatstream.llm")

# How many characters of a conversation fit into a token of context: English has four to a token, other languages fewer,
# and the answer needs room, too. What is too long all the same is shortened, and sent again.
_CHARACTERS_PER_TOKEN: Final = 3


# Stands for a user who has said nothing, where a model wants one to have spoken before it.
_NOTHING_SAID: Final = "\N{HORIZONTAL ELLIPSIS}"


class Deadlines(Struct, frozen=True):
    """How long an answer may take, in seconds.

    `connect`: to open one connection. `total`: the whole answer, from the call on, retries included. `first_byte`: from
    the call to the beginning of the response. `first_token`: from there to the first token; from the call, if there is
    no `first_byte`. `idle`: between two tokens. Reasoning and tool calls count as tokens; comments and empty chunks do
    not.
    """

    connect: float
    first_token: float
    idle: float
    total: float
    first_byte: float | None = None


def usual_deadlines(settings: Settings) -> Deadlines:
    """Those of a model that has none of its own."""
    return Deadlines(
        connect=settings.connect_timeout,
        first_byte=settings.first_byte_timeout,
        first_token=settings.first_token_timeout,
        idle=settings.idle_timeout,
        total=settings.answer_timeout,
    )


class Price(Struct, frozen=True, kw_only=True):
    """For a million tokens, in whatever currency the operator counts."""

    input: Decimal
    output: Decimal
    cached: Decimal | None = None  # input tokens that the endpoint had already; None: as much as the others

    def cost(self, usage: Usage) -> int:
        """The price of this usage in millionths of the currency. Rounded here, so that sums of costs are exact.

        Reasoning is among the completion's tokens, and costs as much.
        """
        cached = usage.cached_tokens if isinstance(usage.cached_tokens, int) else 0
        of_cached = self.input if self.cached is None else self.cached
        # A price for a million tokens is the price of one in millionths.
        cost = (usage.prompt_tokens - cached) * self.input + cached * of_cached + usage.completion_tokens * self.output
        return int(cost.to_integral_value(ROUND_HALF_UP))


class Entry(Struct, frozen=True, kw_only=True):
    """One model, and all that is known of it."""

    name: str  # what users see and choose
    model: str  # what its endpoint calls it
    description: str = ""
    base_url: str | None = None  # None: OpenAI's own
    key: str | None = None  # a secret; None: the endpoint needs none
    key_variable: str | None = None
    api: str = "chat"  # see `apis`
    from_file: bool = False  # else it is that of the `OPENAI_` settings
    context: int | None = None  # tokens
    vision: bool = False
    tools: bool = False
    reasoning: bool = False
    system_role: bool = True
    streaming: bool = True
    stream_options: bool = True
    prompt_cache_key: bool = True
    alternating_roles: bool = False
    reasoning_back: str = "off"  # whether it is given its own reasoning again: off, tool_turns, always
    think_tags: str = "recognised"  # what <think> in its text means; see `arranging.Tags`
    price: Price | None = None
    parameters: Mapping[str, Any] = {}  # more fields of the request's body
    deadlines: Deadlines
    retries: int
    fallbacks: Sequence[str] = ()

    @property
    def settings(self) -> tuple[str, str, str]:
        """What the operator calls its key, its address and its model."""
        if self.from_file:
            return self.key_variable or "its key", "its base_url", "its model"
        return "OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"

    def in_turn(self, turns: Sequence[Turn]) -> Sequence[Turn]:
        """`turns`, of which no user's turn follows on another one, as it takes them.

        A conversation has user and assistant in turn, the user first; with what plug-ins put into it, it need not.
        """
        if not self.alternating_roles:
            return turns
        fitted: list[Turn] = []
        for turn in turns:
            if turn.role == "assistant" and not (fitted and fitted[-1].role == "user"):
                fitted.append(Turn("user", _NOTHING_SAID))
            fitted.append(turn)
        return fitted

    def context_characters(self, usual: int) -> int:
        """How much of a conversation it is sent: what fits, and `usual` where nobody said how much does."""
        return usual if self.context is None else self.context * _CHARACTERS_PER_TOKEN


class Catalogue:
    """All entries, by name, in the operator's order."""

    def __init__(self, entries: Iterable[Entry], default: str) -> None:
        """`default` is the name of the entry that answers if the user has chosen none."""
        self.entries: Mapping[str, Entry] = {entry.name: entry for entry in entries}
        self.default = self.entries[default]

    def described(self) -> Iterator[str]:
        """A line about each, for the operator."""
        for entry in self.entries.values():
            facts = [f"{entry.name}: {entry.model} at {entry.base_url or OPENAI}"]
            facts += [f"key in {entry.key_variable}"] if entry.key_variable else []
            facts += [f"then {', then '.join(entry.fallbacks)}"] if entry.fallbacks else []
            facts += ["the default"] if entry is self.default else []
            yield ", ".join(facts)

    def entry(self, name: str | None) -> Entry:
        """The entry of this name. For a name that is in no entry, the default's with this model of its endpoint."""
        if name is None:
            return self.default
        return self.entries.get(name) or replace(self.default, name=name, model=name, fallbacks=())

    def priced(self, usage: Usage | None, model: str | None) -> Usage | None:
        """The same with what it cost, if `model`, by its name here (None is the default), has a price."""
        entry = self.default if model is None else self.entries.get(model)
        if usage is None or entry is None or entry.price is None:
            return usage
        return replace(usage, cost_micros=entry.price.cost(usage))

    def chain(self, name: str | None, begin_at: str | None = None) -> list[Entry]:
        """Who is asked, one after the other: the model that was chosen, and its fallbacks; from `begin_at` on."""
        chosen = self.entry(name)
        chain = [chosen, *(self.entries[each] for each in chosen.fallbacks)]
        index = next((index for index, entry in enumerate(chain) if entry.name == begin_at), 0)
        return chain[index:]


class UserChoices:
    """What users may choose of models and prompts."""

    def __init__(self, catalogue: Catalogue, *, models: UserModels, prompts: bool) -> None:
        self.catalogue = catalogue
        self._models = models
        self._prompts = prompts

    @property
    def offered(self) -> list[Entry]:
        """The models that may be chosen; the default is one of them."""
        return [self.catalogue.default] if self._models is UserModels.OFF else [*self.catalogue.entries.values()]

    def check(self, *, model: str | None, system_prompt: str | None) -> None:
        """Raises `InvalidContent` for what a user may not choose. None is the server's default, and always allowed."""
        fields = {}
        if model is not None and self._models is UserModels.OFF:
            # Also by the default's own name: whoever names it would have another one after the operator's next change.
            fields["model"] = "the model cannot be chosen here"
        elif model is not None and not self._may_have(model):
            fields["model"] = "there is no such model: GET /api/v1/chat/models lists them"
        if system_prompt is not None and not self._prompts:
            fields["systemPrompt"] = "system prompts of one's own are not allowed here"
        if fields:
            words = " ".join(f"`{name}`: {wrong}." for name, wrong in fields.items())
            raise InvalidContent(words, fields=fields)

    def allowed(self, conversation: Conversation) -> Conversation:
        """`conversation` with what it may still have: models come and go, and what is stored stays."""
        if conversation.model is not None and not self._may_have(conversation.model):
            facts = {"conversation": conversation.id, "model": conversation.model}
            _log.warning("the conversation's model is not offered; the default answers", extra={"facts": facts})
            conversation = replace(conversation, model=None)
        return conversation if self._prompts else replace(conversation, system_prompt=None)

    def _may_have(self, name: str) -> bool:
        if self._models is UserModels.ANY:
            return True
        return any(entry.name == name for entry in self.offered)
