"""The configured models, and which of them users may choose. Pure: `fallback` sends the requests."""

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

# Characters of a conversation per token of context. English has four per token, other languages fewer, and the answer
# needs room, too. A conversation that is still too long is shortened and sent again.
_CHARACTERS_PER_TOKEN: Final = 3


# The text of a user turn that is inserted where a model requires one.
_NOTHING_SAID: Final = "\N{HORIZONTAL ELLIPSIS}"


class Deadlines(Struct, frozen=True):
    """The time limits of an answer, in seconds.

    `connect`: opening one connection. `total`: the whole answer with its retries. `first_byte`: from the request to the
    start of the response. `first_token`: from there to the first token, or from the request if there is no
    `first_byte`. `idle`: between two tokens. Reasoning and tool calls count as tokens, comments and empty chunks do
    not.
    """

    connect: float
    first_token: float
    idle: float
    total: float
    first_byte: float | None = None


def usual_deadlines(settings: Settings) -> Deadlines:
    """The deadlines of a model without deadlines of its own."""
    return Deadlines(
        connect=settings.connect_timeout,
        first_byte=settings.first_byte_timeout,
        first_token=settings.first_token_timeout,
        idle=settings.idle_timeout,
        total=settings.answer_timeout,
    )


class Price(Struct, frozen=True, kw_only=True):
    """The price of a million tokens, in the operator's currency."""

    input: Decimal
    output: Decimal
    cached: Decimal | None = None  # for input tokens from the endpoint's cache; None: as `input`

    def cost(self, usage: Usage) -> int:
        """The cost of this usage in millionths of the currency, rounded to an integer so that sums are exact.

        Reasoning tokens are part of the completion tokens, at the same price.
        """
        cached = usage.cached_tokens if isinstance(usage.cached_tokens, int) else 0
        of_cached = self.input if self.cached is None else self.cached
        # The price of a million tokens is the price of one token in millionths.
        cost = (usage.prompt_tokens - cached) * self.input + cached * of_cached + usage.completion_tokens * self.output
        return int(cost.to_integral_value(ROUND_HALF_UP))


class Entry(Struct, frozen=True, kw_only=True):
    """One model and its configuration."""

    name: str  # the name that users see and choose
    model: str  # the endpoint's name for it
    description: str = ""
    base_url: str | None = None  # None: OpenAI's own
    key: str | None = None  # a secret; None: the endpoint needs none
    key_variable: str | None = None
    api: str = "chat"  # see `apis`
    from_file: bool = False  # False: it is from the `OPENAI_` settings
    context: int | None = None  # size of its context, in tokens
    vision: bool = False
    tools: bool = False
    reasoning: bool = False
    system_role: bool = True
    streaming: bool = True
    stream_options: bool = True
    prompt_cache_key: bool = True
    alternating_roles: bool = False
    reasoning_back: str = "off"  # sends its reasoning back to it: off, tool_turns, always
    think_tags: str = "recognised"  # meaning of <think> in its text; see `arranging.Tags`
    price: Price | None = None
    parameters: Mapping[str, Any] = {}  # further fields of the request's body
    deadlines: Deadlines
    retries: int
    fallbacks: Sequence[str] = ()

    @property
    def settings(self) -> tuple[str, str, str]:
        """The operator's names for this model's key, address and model."""
        if self.from_file:
            return self.key_variable or "its key", "its base_url", "its model"
        return "OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"

    def in_turn(self, turns: Sequence[Turn]) -> Sequence[Turn]:
        """`turns` as this model accepts them, with user and assistant turns strictly alternating if it requires that.

        Conversations alternate, beginning with the user, but turns that plug-ins insert may break this.
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
        """Maximum number of characters of a conversation to send: as many as fit the context; `usual` if its size is
        unknown.
        """
        return usual if self.context is None else self.context * _CHARACTERS_PER_TOKEN


class Catalogue:
    """All entries, by name, in the operator's order."""

    def __init__(self, entries: Iterable[Entry], default: str) -> None:
        """`default`: the name of the entry that answers if the user has chosen none."""
        self.entries: Mapping[str, Entry] = {entry.name: entry for entry in entries}
        self.default = self.entries[default]

    def described(self) -> Iterator[str]:
        """A line about each entry, for the operator."""
        for entry in self.entries.values():
            facts = [f"{entry.name}: {entry.model} at {entry.base_url or OPENAI}"]
            facts += [f"key in {entry.key_variable}"] if entry.key_variable else []
            facts += [f"then {', then '.join(entry.fallbacks)}"] if entry.fallbacks else []
            facts += ["the default"] if entry is self.default else []
            yield ", ".join(facts)

    def entry(self, name: str | None) -> Entry:
        """The entry of this name. For an unknown name: the default entry, with this model of its endpoint."""
        if name is None:
            return self.default
        return self.entries.get(name) or replace(self.default, name=name, model=name, fallbacks=())

    def priced(self, usage: Usage | None, model: str | None) -> Usage | None:
        """`usage` with its cost, if `model` has a price. `model` is an entry's name; None is the default."""
        entry = self.default if model is None else self.entries.get(model)
        if usage is None or entry is None or entry.price is None:
            return usage
        return replace(usage, cost_micros=entry.price.cost(usage))

    def chain(self, name: str | None, begin_at: str | None = None) -> list[Entry]:
        """The entries to ask, in order: the chosen model and its fallbacks, from `begin_at` on."""
        chosen = self.entry(name)
        chain = [chosen, *(self.entries[each] for each in chosen.fallbacks)]
        index = next((index for index, entry in enumerate(chain) if entry.name == begin_at), 0)
        return chain[index:]


class UserChoices:
    """The models and prompts that users may choose."""

    def __init__(self, catalogue: Catalogue, *, models: UserModels, prompts: bool) -> None:
        self.catalogue = catalogue
        self._models = models
        self._prompts = prompts

    @property
    def offered(self) -> list[Entry]:
        """The models that may be chosen, the default included."""
        return [self.catalogue.default] if self._models is UserModels.OFF else [*self.catalogue.entries.values()]

    def check(self, *, model: str | None, system_prompt: str | None) -> None:
        """Raise `InvalidContent` for a choice that is not allowed. None is the server's default and always allowed."""
        fields = {}
        if model is not None and self._models is UserModels.OFF:
            # The default's own name is refused, too: the operator may change the default, but not a stored name.
            fields["model"] = "the model cannot be chosen here"
        elif model is not None and not self._may_have(model):
            fields["model"] = "there is no such model: GET /api/v1/chat/models lists them"
        if system_prompt is not None and not self._prompts:
            fields["systemPrompt"] = "system prompts of one's own are not allowed here"
        if fields:
            words = " ".join(f"`{name}`: {wrong}." for name, wrong in fields.items())
            raise InvalidContent(words, fields=fields)

    def allowed(self, conversation: Conversation) -> Conversation:
        """`conversation` without stored choices that are no longer allowed, such as a removed model."""
        if conversation.model is not None and not self._may_have(conversation.model):
            facts = {"conversation": conversation.id, "model": conversation.model}
            _log.warning("the conversation's model is not offered; the default answers", extra={"facts": facts})
            conversation = replace(conversation, model=None)
        return conversation if self._prompts else replace(conversation, system_prompt=None)

    def _may_have(self, name: str) -> bool:
        if self._models is UserModels.ANY:
            return True
        return any(entry.name == name for entry in self.offered)
