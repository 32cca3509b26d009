"""Which model answers, as the settings have it."""

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from chatstream.errors import ConfigurationError
from chatstream.llm.late import LateModel
from chatstream.llm.model import Model
from chatstream.metrics import Metrics
from chatstream.settings import Settings


@asynccontextmanager
async def configured_model(settings: Settings, metrics: Metrics) -> AsyncIterator[LateModel]:
    """The model that the settings name, or the demo model; it is yet to be loaded, and closed with the context."""
    with ExitStack() as stack:
        base_url, name = settings.openai_base_url, settings.openai_model
        if settings.uses_demo_model:
            from chatstream.llm import demo

            base_url, name = stack.enter_context(demo.serve()), "demo"

        async def make() -> Model:
            try:
                await asyncio.to_thread(importlib.import_module, "chatstream.llm.openai_model")
            except (OSError, ImportError) as exc:  # half of it is loaded, so that it cannot be tried again here
                raise ConfigurationError(f"The model's library cannot be loaded: {exc}") from exc
            from chatstream.llm.openai_model import Deadlines, OpenAIModel

            key = settings.openai_api_key
            return OpenAIModel(
                api_key=key.get_secret_value() if key else "none",  # servers that need no key still want a header
                base_url=base_url,
                model=name,
                metrics=metrics,
                deadlines=Deadlines(
                    connect=settings.connect_timeout,
                    first_byte=settings.first_byte_timeout,
                    first_token=settings.first_token_timeout,
                    idle=settings.idle_timeout,
                    total=settings.answer_timeout,
                ),
                retries=settings.model_retries,
            )

        model = LateModel(make)
        try:
            yield model
        finally:
            await model.close()
