"""Builds the models from the settings."""

import asyncio
import importlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from types import MappingProxyType

from chatstream.errors import ConfigurationError, InvalidSettings
from chatstream.llm.catalogue import Catalogue, Entry, usual_deadlines
from chatstream.llm.demo_answers import Subject
from chatstream.llm.fallback import Endpoints, FallbackModel
from chatstream.llm.model import Model
from chatstream.metrics import Metrics
from chatstream.settings import Settings


def catalogue(settings: Settings, demos: Mapping[str, str] = MappingProxyType({})) -> Catalogue:
    """The models of the file, or the one of the ``OPENAI_`` settings. Raises `InvalidSettings`.

    If neither is configured: the demo models `demos`, each with its description. They have no address until they are
    served.
    """
    models = _catalogue(settings, demos)
    if settings.user_cost_per_month is not None and not any(each.price for each in models.entries.values()):
        raise InvalidSettings(
            ["CHATSTREAM_USER_COST_PER_MONTH: no model has a price: give them one in CHATSTREAM_MODELS_FILE"]
        )
    return models


def _catalogue(settings: Settings, demos: Mapping[str, str]) -> Catalogue:
    if settings.models_file is not None:
        from chatstream.llm import models_file

        return models_file.read(settings.models_file, settings)
    if settings.uses_demo_model:
        described = {"demo": "prepared answers, for development", **demos}
        return Catalogue((_usual(settings, name, text) for name, text in described.items()), "demo")
    return Catalogue([_usual(settings, settings.openai_model)], settings.openai_model)


@contextmanager
def served_catalogue(settings: Settings, subject: Subject) -> Iterator[tuple[Catalogue, str | None]]:
    """Yield the catalogue and, with the demo models, their address: their server runs until the context ends.

    Needs a running event loop. `subject`: the topic of the demo models.
    """
    with ExitStack() as stack:
        address = None
        if settings.uses_demo_model:
            from chatstream.llm import demo

            address = stack.enter_context(demo.serve(subject))
        yield catalogue(settings, demo_models(settings, subject)), address


def demo_models(settings: Settings, subject: Subject) -> Mapping[str, str]:
    """A line about each demo model except `demo`; empty if another model is configured."""
    if not settings.uses_demo_model:
        return {}
    from chatstream.llm import demo

    return {**demo.FAULTS, **{name: model.description for name, model in subject.models.items()}}


@asynccontextmanager
async def configured_model(
    models: Catalogue, metrics: Metrics, demo_address: str | None = None
) -> AsyncIterator[tuple[FallbackModel, asyncio.Task[None]]]:
    """The model for all of `models`, and the task that loads its library. The context closes the model.

    Do not use the model before the task has ended: it imports the openai package, a fifth of a server's imports, while
    the database is waited for. The task raises `ConfigurationError`.
    """
    endpoints = Endpoints(models, lambda entry: endpoint(entry, metrics, demo_address))

    async def load() -> None:
        try:
            await asyncio.to_thread(importlib.import_module, "chatstream.llm.openai_model")
        except (OSError, ImportError) as exc:  # a half-loaded package: a retry in this process cannot succeed
            raise ConfigurationError(f"The model's library cannot be loaded: {exc}") from exc
        endpoints.endpoint(models.default)  # so that the first answer need not wait for it

    loading = asyncio.create_task(load())
    model = FallbackModel(endpoints, models)
    try:
        yield model, loading
    finally:
        loading.cancel()
        await asyncio.wait([loading])
        await model.close()


def endpoint(entry: Entry, metrics: Metrics, demo_address: str | None = None) -> Model:
    """The model of one entry. Raises `ConfigurationError` if its proxy is unusable."""
    from chatstream.llm.arranging import Tags
    from chatstream.llm.dialects import ReasoningBack
    from chatstream.llm.faults import Part
    from chatstream.llm.openai_model import OpenAIModel

    refused = [
        (Part.SYSTEM, entry.system_role),
        (Part.STREAM, entry.streaming),
        (Part.USAGE, entry.stream_options),
        (Part.CACHE_KEY, entry.prompt_cache_key),
    ]
    return OpenAIModel(
        api_key=entry.key or "none",  # the SDK requires a key, even for servers without one
        base_url=entry.base_url or demo_address,
        model=entry.model,
        metrics=metrics,
        deadlines=entry.deadlines,
        api=entry.api,
        retries=entry.retries,
        without=frozenset(part for part, takes in refused if not takes),
        parameters=entry.parameters,
        reasoning_back=ReasoningBack(entry.reasoning_back),
        tags=Tags(entry.think_tags),
        settings=dict(zip(("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"), entry.settings, strict=True)),
    )


def _usual(settings: Settings, name: str, description: str = "") -> Entry:
    key = settings.openai_api_key
    return Entry(
        name=name,
        model=name,
        description=description,
        tools=True,  # if the model refuses tools, the request is sent again without them
        base_url=settings.openai_base_url,
        api="chat" if settings.uses_demo_model else settings.openai_api,
        key=key.get_secret_value() if key else None,
        deadlines=usual_deadlines(settings),
        retries=settings.model_retries,
    )
