"""The models of a catalogue as one: who is asked, and who is asked next when a model fails."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from chatstream.errors import ErrorCode, ModelError
from chatstream.llm.catalogue import Catalogue, Entry
from chatstream.llm.model import Delta, Model, OfferedTool, Turn, without_calls

log = logging.getLogger("chatstream.llm")

# What another model may do better. What one refuses, or finds too long, is not shopped around.
_ANOTHER_MAY_ANSWER = frozenset(
    {
        ErrorCode.UPSTREAM_RATE_LIMITED,
        ErrorCode.UPSTREAM_UNAVAILABLE,
        ErrorCode.UPSTREAM_TIMEOUT,
        ErrorCode.UPSTREAM_TRUNCATED,
        ErrorCode.UPSTREAM_PROTOCOL,
        ErrorCode.UPSTREAM_MISCONFIGURED,
    }
)


class Endpoints:
    """A `Model` whose `model` is the name of an entry. Each entry has an endpoint of its own, made when it is asked."""

    def __init__(self, catalogue: Catalogue, make: Callable[[Entry], Model]) -> None:
        self._catalogue = catalogue
        self._make = make
        self._made: dict[str, Model] = {}

    def stream(
        self,
        turns: Sequence[Turn],
        *,
        model: str | None = None,
        tools: Sequence[OfferedTool] = (),
        cache_key: str | None = None,
        may_ask: "asyncio.Future[None] | None" = None,
    ) -> AsyncGenerator[Delta, None]:
        """See `Model.stream`. Raises `ConfigurationError` if the way to the endpoint cannot be used.

        A model that is not said to know tools is offered none, and told of earlier calls only what was said.
        """
        entry = self._catalogue.entry(model)
        if not entry.tools:
            turns, tools = without_calls(turns), ()
        fitting = entry.in_turn(turns)
        return self.endpoint(entry).stream(
            fitting, model=entry.model, tools=tools, cache_key=cache_key, may_ask=may_ask
        )

    def endpoint(self, entry: Entry) -> Model:
        """The endpoint of an entry, made if need be. Raises `ConfigurationError` if the way there cannot be used."""
        # A name that is in no entry is one more model of the default's endpoint, and of those there may be any number.
        name = entry.name if entry.name in self._catalogue.entries else self._catalogue.default.name
        if name not in self._made:
            self._made[name] = self._make(self._catalogue.entry(name))
        return self._made[name]

    async def close(self) -> None:
        """See `Model.close`."""
        for model in self._made.values():
            await model.close()


class FallbackModel:
    """A `Model` that asks the model that was chosen and, as long as nothing has come, its fallbacks.

    When one fails after its first token, reasoning included, the `ModelError` names who may answer in its place
    (`next_model`): with another attempt, as what has come is not to be gone on with.
    """

    def __init__(self, endpoints: Model, catalogue: Catalogue, *, begin_at: str | None = None) -> None:
        """`begin_at` is the `next_model` of the attempt before."""
        self._endpoints = endpoints
        self._catalogue = catalogue
        self._begin_at = begin_at

    def stream(
        self,
        turns: Sequence[Turn],
        *,
        model: str | None = None,
        tools: Sequence[OfferedTool] = (),
        cache_key: str | None = None,
        may_ask: "asyncio.Future[None] | None" = None,
    ) -> AsyncGenerator[Delta, None]:
        """See `Model.stream`."""
        return self._stream(turns, tools, self._catalogue.chain(model, self._begin_at), cache_key, may_ask)

    def beginning_at(self, name: str | None) -> Model:
        """This model for an attempt that goes on with the fallback `name`."""
        return self if name is None else FallbackModel(self._endpoints, self._catalogue, begin_at=name)

    async def _stream(
        self,
        turns: Sequence[Turn],
        tools: Sequence[OfferedTool],
        chain: Sequence[Entry],
        cache_key: str | None,
        may_ask: "asyncio.Future[None] | None",
    ) -> AsyncGenerator[Delta, None]:
        for entry, after in zip(chain, [*chain[1:], None], strict=True):
            named = said = False
            try:
                source = self._endpoints.stream(
                    turns, model=entry.name, tools=tools, cache_key=cache_key, may_ask=may_ask
                )
                async with aclosing(source) as deltas:
                    async for delta in deltas:
                        said = said or bool(delta.pieces)
                        yield delta if named else delta._replace(model=entry.name)
                        named = True
            except ModelError as exc:
                if after is None or exc.code not in _ANOTHER_MAY_ANSWER:
                    raise
                facts = {"facts": {"model": entry.name, "next": after.name, "code": exc.code}}
                if said:
                    exc.next_model = after.name
                    log.warning("a model broke off, and another one answers instead: %s", exc, extra=facts)
                    raise
                log.warning("a model fails, and another one is asked: %s", exc, extra=facts)
            else:
                return

    async def close(self) -> None:
        """See `Model.close`."""
        await self._endpoints.close()
