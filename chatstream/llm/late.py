"""A model whose library is loaded while the server serves already."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

from chatstream.llm.model import Delta, Model, Turn


class LateModel:
    """A `Model` that is there when `load` has been called; answers that begin before wait for it.

    The openai package is half of all that a server imports. To connect, to list and to read nobody needs it, and who
    needs it comes rarely in the first third of a second.
    """

    def __init__(self, make: Callable[[], Awaitable[Model]]) -> None:
        self._make = make
        self._model: Model | None = None
        self._loaded = asyncio.Event()

    async def load(self) -> None:
        """Make the model; raises what `make` raises."""
        self._model = await self._make()
        self._loaded.set()

    def stream(self, turns: Sequence[Turn], *, model: str | None = None) -> AsyncGenerator[Delta, None]:
        """See `Model.stream`."""
        # Once it is there, nothing of this stands between the model and its reader.
        return self._model.stream(turns, model=model) if self._model else self._stream_later(turns, model)

    async def _stream_later(self, turns: Sequence[Turn], model: str | None) -> AsyncGenerator[Delta, None]:
        await self._loaded.wait()
        async with aclosing(self.stream(turns, model=model)) as deltas:
            async for delta in deltas:
                yield delta

    async def close(self) -> None:
        """See `Model.close`."""
        if self._model is not None:
            await self._model.close()
