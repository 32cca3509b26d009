"""Reads the file that `CHATSTREAM_MODELS_FILE` names: TOML, with a table `[[models]]` for each model."""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from chatstream.config import toml_file, values
from chatstream.errors import InvalidSettings
from chatstream.llm.catalogue import Catalogue, Deadlines, Entry, Price, usual_deadlines
from chatstream.settings import Seconds, Settings

_SETTING: Final = "CHATSTREAM_MODELS_FILE"
_MOST_MODELS: Final = 500
# Request fields that `parameters` may not have: chatstream sets them, or they would change the response's form.
_OURS: Final = ("messages", "model", "stream", "stream_options", "prompt_cache_key", "n", "tools", "tool_choice")
_OURS_IN_RESPONSES: Final = (
    *("input", "instructions", "store", "include", "background", "conversation", "previous_response_id"),
)
# Request fields that have a setting of another name in this file.
_MOVED: Final = {
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": 'reasoning = { effort = "…" }',
    "verbosity": 'text = { verbosity = "…" }',
    "response_format": "text = { format = … }",
}


def _text(text: str) -> str:
    if values.bare(text) != text or not text:
        raise ValueError("must not be empty, nor begin or end with a space")
    values.check_text(text)
    return text


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,99}", name):
        raise ValueError("must be the name of an environment variable, such as OPENAI_API_KEY, and not the key itself")
    return name


def _parameters(given: dict[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        if name in _OURS:
            raise ValueError(f"must not set {name}: chatstream does")
        toml_file.check_json(name, value)
    return given


Name = Annotated[str, Field(max_length=200), AfterValidator(_text)]
Money = Annotated[float, Field(ge=0, le=1_000_000)]


class _Price(toml_file.Table):
    input: Money
    output: Money
    cached: Money | None = None


class _Deadlines(toml_file.Table):
    connect: Seconds | None = None
    first_byte: Seconds | None = None
    first_token: Seconds | None = None
    idle: Seconds | None = None
    total: Seconds | None = None


class _Model(toml_file.Table):
    name: Name
    description: Annotated[str, Field(max_length=500)] = ""
    model: Name | None = None
    base_url: Annotated[str, AfterValidator(values.base_url)] | None = None
    key: Annotated[str, AfterValidator(_variable)] | None = None
    api: Literal["chat", "responses"] = "chat"
    context: int | None = Field(None, ge=500, le=100_000_000)
    vision: bool = False
    tools: bool = False
    reasoning: bool = False
    system_role: bool = True
    alternating_roles: bool = False
    streaming: bool = True
    stream_options: bool = True
    prompt_cache_key: bool = True
    reasoning_back: Literal["off", "tool_turns", "always"] = "off"
    think_tags: Literal["recognised", "opened", "kept"] = "recognised"
    price: _Price | None = None
    parameters: Annotated[dict[str, Any], AfterValidator(_parameters)] = Field(default_factory=dict)
    deadlines: _Deadlines = _Deadlines()
    retries: Annotated[int, Field(ge=0, le=10)] | None = None
    fallbacks: Annotated[list[str], Field(max_length=10)] = Field(default_factory=list)


def read(path: Path, settings: Settings) -> Catalogue:
    """Read the catalogue from this file. `settings` has the defaults of its entries, and the keys.

    Raises `InvalidSettings` with a line per error, without the values: they may be secrets.
    """
    document = toml_file.document(path, _SETTING)
    problems = [*toml_file.strangers(document, ("default", "models"))]
    tables = document.get("models")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise InvalidSettings([*problems, f"{_SETTING}: {path} must have a table [[models]] for each model"])
    if len(tables) > _MOST_MODELS:
        raise InvalidSettings([*problems, f"{_SETTING}: {path} has more than {_MOST_MODELS} models"])
    models: list[_Model] = []
    for number, table in enumerate(tables, start=1):
        model, errors = toml_file.read_table(_Model, table, {"name": f"model {number}"})
        problems += [f"{toml_file.named('model', table, number)}: {_explain(error)}" for error in errors]
        models += [model] if model else []
    names = [name for table in tables if isinstance(name := table.get("name"), str)]
    problems += _contradictions(models, names, document.get("default"), settings)
    if problems:
        raise InvalidSettings([each if each.startswith(_SETTING) else f"{_SETTING}: {each}" for each in problems])
    return Catalogue((_entry(model, settings) for model in models), document.get("default", models[0].name))


def _explain(error: Any) -> str:
    tables: dict[int | str, type[toml_file.Table]] = {"price": _Price, "deadlines": _Deadlines}
    path = error["loc"]
    table = tables.get(path[0], _Model) if len(path) > 1 else _Model
    if table is _Deadlines and error["type"] != "extra_forbidden":
        return f"{'.'.join(map(str, path))}: must be seconds (0.01 to 86,400): a number without a unit"
    return toml_file.explain(error, table)


def _contradictions(models: list[_Model], names: list[str], default: object, settings: Settings) -> Iterator[str]:
    """Errors between valid entries, one line each. `names`: the names of all entries."""
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield f"model {toml_file.quoted(name)}: is there more than once"
    if default is not None and default not in names:
        yield "default: must be the name of one of the models"
    for model in models:
        checks = (_fallbacks(model, names), _key(model, settings), _late(model, settings), _responses(model))
        for check in checks:
            yield from (f"model {toml_file.quoted(model.name)}: {problem}" for problem in check)


def _fallbacks(model: _Model, names: list[str]) -> Iterator[str]:
    for name in model.fallbacks:
        if name == model.name:
            yield "fallbacks: names the model itself"
        elif name not in names:
            yield f"fallbacks: there is no model {toml_file.quoted(name)}{toml_file.did_you_mean(name, names)}"
    if len({*model.fallbacks}) < len(model.fallbacks):
        yield "fallbacks: names a model twice"


def _responses(model: _Model) -> Iterator[str]:
    """Errors for settings that do not exist in the Responses API."""
    if model.api != "responses":
        return
    if model.reasoning_back != "off":
        yield 'reasoning_back: means nothing with api = "responses", where reasoning goes back as long as it counts'
    for name in model.parameters:
        if name in _OURS_IN_RESPONSES:
            yield f"parameters: must not set {name}: chatstream does"
        elif name in _MOVED:
            yield f'parameters: {name} is called otherwise with api = "responses": {_MOVED[name]}'


def _key(model: _Model, settings: Settings) -> Iterator[str]:
    if model.key is None:
        return
    key = settings.variable(model.key)
    if key is None:
        # A name without an underscore may be the key itself, so it is not shown.
        shown = model.key if "_" in model.key else "that it names"
        yield f"key: the environment variable {shown} is not set"
        return
    try:
        values.header_text(key)
    except ValueError as exc:
        yield f"key: the environment variable {model.key} {exc}"
    if settings.is_production and values.is_placeholder(key):
        yield f"key: the environment variable {model.key} is an example's, and no key"


def _late(model: _Model, settings: Settings) -> Iterator[str]:
    deadlines = _deadlines(model, settings)
    for name in ("first_byte", "first_token", "idle"):
        if getattr(model.deadlines, name) is not None and getattr(deadlines, name) > deadlines.total:
            yield f"deadlines.{name}: must not be more than deadlines.total, which is {deadlines.total:g}"


def _deadlines(model: _Model, settings: Settings) -> Deadlines:
    given = {name: value for name, value in model.deadlines.model_dump().items() if value is not None}
    defaults = usual_deadlines(settings)
    usual = {name: getattr(defaults, name) for name in _Deadlines.model_fields}
    if "total" not in given and given.get("first_byte", 0) > usual["first_byte"]:
        given["total"] = given["first_byte"] + usual["total"]  # loading time is extra
    return Deadlines(**(usual | given))


def _price(price: _Price) -> Price:
    """A price in exact decimals: 0.1 is exactly a tenth."""
    return Price(
        input=Decimal(str(price.input)),
        output=Decimal(str(price.output)),
        cached=None if price.cached is None else Decimal(str(price.cached)),
    )


def _entry(model: _Model, settings: Settings) -> Entry:
    retries = model.retries
    if retries is None:  # a fallback needs no pause, so it replaces retries
        retries = 0 if model.fallbacks else settings.model_retries
    own = {
        "model": model.model or model.name,
        "key": settings.variable(model.key) if model.key else None,
        "price": None if model.price is None else _price(model.price),
        "deadlines": _deadlines(model, settings),
        "retries": retries,
        "fallbacks": tuple(model.fallbacks),
    }
    # All other fields that both classes have mean the same in both.
    same = {name: getattr(model, name) for name in Entry.__struct_fields__ if name in _Model.model_fields}
    return Entry(**(same | own), key_variable=model.key, from_file=True)
