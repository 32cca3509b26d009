"""Sends requests to the models of a catalogue, and to a model's fallbacks when it fails."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from msgspec.structs import replace

from chatstream.errors import ErrorCode, ModelError
from chatstream.llm.catalogue import Catalogue, Entry
from chatstream.llm.model import Delta, Model, OfferedTool, Tell, Turn, without_calls

log = logging.getLogger("chatstream.llm")

# Errors after which a fallback is tried. A refusal or a context that is too long is not sent to another model.
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
    """A `Model` whose `model` names an entry of the catalogue. Each entry's endpoint is made at its first request."""

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
        tell: Tell | None = None,
    ) -> AsyncGenerator[Delta, None]:
        """See `Model.stream`. Raises `ConfigurationError` if the endpoint's proxy is unusable.

        A model without the `tools` setting is offered none, and gets only the text of earlier answers with calls.
        """
        entry = self._catalogue.entry(model)
        if not entry.tools:
            turns, tools = without_calls(turns), ()
        fitting = entry.in_turn(turns)
        return self.endpoint(entry).stream(
            fitting, model=entry.model, tools=tools, cache_key=cache_key, may_ask=may_ask, tell=tell
        )

    def endpoint(self, entry: Entry) -> Model:
        """The endpoint of an entry, made if need be. Raises `ConfigurationError` if its proxy is unusable."""
        # A name without an entry is a further model of the default entry's endpoint; there may be any number of them.
        name = entry.name if entry.name in self._catalogue.entries else self._catalogue.default.name
        if name not in self._made:
            self._made[name] = self._make(self._catalogue.entry(name))
        return self._made[name]

    async def close(self) -> None:
        """See `Model.close`."""
        for model in self._made.values():
            await model.close()


class FallbackModel:
    """A `Model` that asks the chosen model and, if it fails before its first token, its fallbacks.

    If a model fails after its first token (reasoning counts), the `ModelError` names the fallback in `next_model`. It
    answers in a new attempt, as another model must not continue the text.
    """

    def __init__(self, endpoints: Model, catalogue: Catalogue, *, begin_at: str | None = None) -> None:
        """`begin_at`: the `next_model` of the previous attempt."""
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
        tell: Tell | None = None,
    ) -> AsyncGenerator[Delta, None]:
        """See `Model.stream`."""
        return self._stream(turns, tools, self._catalogue.chain(model, self._begin_at), cache_key, may_ask, tell)

    def beginning_at(self, name: str | None) -> Model:
        """This model for an attempt that starts at the fallback `name`."""
        return self if name is None else FallbackModel(self._endpoints, self._catalogue, begin_at=name)

    async def _stream(
        self,
        turns: Sequence[Turn],
        tools: Sequence[OfferedTool],
        chain: Sequence[Entry],
        cache_key: str | None,
        may_ask: "asyncio.Future[None] | None",
        tell: Tell | None,
    ) -> AsyncGenerator[Delta, None]:
        for entry, after in zip(chain, [*chain[1:], None], strict=True):
            named = said = False
            try:
                source = self._endpoints.stream(
                    turns, model=entry.name, tools=tools, cache_key=cache_key, may_ask=may_ask, tell=tell
                )
                async with aclosing(source) as deltas:
                    async for delta in deltas:
                        said = said or bool(delta.pieces)
                        yield delta if named else replace(delta, model=entry.name)
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
