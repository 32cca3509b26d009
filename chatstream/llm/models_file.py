"""The file that `CHATSTREAM_MODELS_FILE` names: TOML, a table `[[models]]` for each model."""

import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from chatstream.config import values, words
from chatstream.errors import InvalidSettings
from chatstream.llm.catalogue import Catalogue, Deadlines, Entry, Price, usual_deadlines
from chatstream.settings import Seconds, Settings

_SETTING: Final = "CHATSTREAM_MODELS_FILE"
# Hundreds of models with all their settings; a larger file is something else.
_MOST_BYTES: Final = 1024 * 1024
_MOST_MODELS: Final = 500
# What chatstream sets itself, and what would change what it reads.
_OURS: Final = ("messages", "model", "stream", "stream_options", "prompt_cache_key", "n", "tools", "tool_choice")


def _text(text: str) -> str:
    if values.bare(text) != text or not text:
        raise ValueError("must not be empty, nor begin or end with a space")
    values.check_text(text)
    return text


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,99}", name):
        raise ValueError("must be the name of an environment variable, such as OPENAI_API_KEY, and not the key itself")
    return name


def _api(name: str) -> str:
    if name == "responses":
        raise ValueError('"responses" cannot be used yet: leave it out, or write "chat"')
    if name != "chat":
        raise ValueError('must be "chat"')
    return name


def _parameters(given: dict[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        if name in _OURS:
            raise ValueError(f"must not set {name}: chatstream does")
        _check_json(name, value)
    return given


def _check_json(name: str, value: Any) -> None:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            _check_json(name, each)
    elif not isinstance(value, str | bool | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"{name} holds what JSON has no form for: a date, or a number that is none")


Name = Annotated[str, Field(max_length=200), AfterValidator(_text)]
Money = Annotated[float, Field(ge=0, le=1_000_000)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Price(_Table):
    input: Money
    output: Money
    cached: Money | None = None


class _Deadlines(_Table):
    connect: Seconds | None = None
    first_byte: Seconds | None = None
    first_token: Seconds | None = None
    idle: Seconds | None = None
    total: Seconds | None = None


class _Model(_Table):
    name: Name
    description: Annotated[str, Field(max_length=500)] = ""
    model: Name | None = None
    base_url: Annotated[str, AfterValidator(values.base_url)] | None = None
    key: Annotated[str, AfterValidator(_variable)] | None = None
    api: Annotated[str, AfterValidator(_api)] = "chat"
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
    parameters: Annotated[dict[str, Any], AfterValidator(_parameters)] = {}
    deadlines: _Deadlines = _Deadlines()
    retries: Annotated[int, Field(ge=0, le=10)] | None = None
    fallbacks: Annotated[list[str], Field(max_length=10)] = []


def read(path: Path, settings: Settings) -> Catalogue:
    """The catalogue in this file. What an entry leaves out is as in `settings`, which also know the keys.

    Raises `InvalidSettings`, with a line for each thing that is wrong, and never with a value: it may be a secret.
    """
    document = _document(path)
    problems = [*_strangers(document)]
    tables = document.get("models")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise InvalidSettings([*problems, f"{_SETTING}: {path} must have a table [[models]] for each model"])
    if len(tables) > _MOST_MODELS:
        raise InvalidSettings([f"{_SETTING}: {path} has more than {_MOST_MODELS} models"])
    models: list[_Model] = []
    for number, table in enumerate(tables, start=1):
        try:
            models.append(_Model.model_validate(table))
        except ValidationError as exc:
            errors = exc.errors(include_url=False, include_input=False)
            problems += [f"{_where(table, number)}: {_explain(error)}" for error in errors]
    if not problems:
        problems += _contradictions(models, document.get("default"), settings)
    if problems:
        raise InvalidSettings([each if each.startswith(_SETTING) else f"{_SETTING}: {each}" for each in problems])
    return Catalogue((_entry(model, settings) for model in models), document.get("default", models[0].name))


def _document(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():
            there = "is not a file" if path.exists() else "does not exist"
            raise InvalidSettings([f"{_SETTING}: {path} {there}"])
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as exc:
        raise InvalidSettings([f"{_SETTING}: {path} cannot be read: {exc.strerror}"]) from exc
    if len(content) > _MOST_BYTES:
        raise InvalidSettings([f"{_SETTING}: {path} is larger than a megabyte"])
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InvalidSettings([f"{_SETTING}: {path} is not UTF-8: save it as UTF-8"]) from None
    except RecursionError:
        raise InvalidSettings([f"{_SETTING}: {path} is nested too deeply"]) from None
    except tomllib.TOMLDecodeError as exc:
        place = re.search(r"\(at (.+)\)$", str(exc))  # what stands before it may repeat a value
        where = place[1] if place else "somewhere"
        raise InvalidSettings([f"{_SETTING}: {path} is no TOML at {where} (texts stand in quotation marks)"]) from None


def _strangers(document: Mapping[str, Any]) -> Iterator[str]:
    known = ("default", "models")
    for name in document:
        if name not in known:
            yield f"{_quoted(name)}: there is no such setting{_did_you_mean(name, known)}"


def _where(table: Mapping[str, Any], number: int) -> str:
    name = table.get("name")
    return f"model {_quoted(name)}" if isinstance(name, str) and name else f"model {number}, which has no name"


def _quoted(text: str) -> str:
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text[:80])
    return f'"{shown}"'


def _explain(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = _did_you_mean(str(error["loc"][-1]), _table(error["loc"]).model_fields)
        return f"{_quoted(path)}: there is no such setting{near}"
    return f"{path}: {_what(error)}"


def _table(path: tuple[int | str, ...]) -> type[_Table]:
    tables: dict[int | str, type[_Table]] = {"price": _Price, "deadlines": _Deadlines}
    return tables.get(path[0], _Model) if len(path) > 1 else _Model


def _what(error: Any) -> str:
    table = _table(error["loc"])
    field = table.model_fields.get(str(error["loc"][-1]))
    if table is _Deadlines:
        return "must be seconds (0.01 to 86,400): a number without a unit"
    plain = {
        "missing": "is missing",
        "string_type": "must be a text, in quotation marks",
        "bool_type": "must be true or false",
        "list_type": 'must be a list, such as ["a", "b"]',
        "too_long": "is too long a list",
        "dict_type": "must be a table",
        "model_type": "must be a table",
    }
    return plain.get(error["type"]) or words.explain(error, field)


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


def _contradictions(models: list[_Model], default: object, settings: Settings) -> Iterator[str]:
    """What is wrong with entries that are good each by itself."""
    names = [model.name for model in models]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield f"model {_quoted(name)}: is there more than once"
    if default is not None and default not in names:
        yield "default: must be the name of one of the models"
    for model in models:
        for check in (_fallbacks(model, names), _key(model, settings), _late(model, settings)):
            yield from (f"model {_quoted(model.name)}: {problem}" for problem in check)


def _fallbacks(model: _Model, names: list[str]) -> Iterator[str]:
    for name in model.fallbacks:
        if name == model.name:
            yield "fallbacks: names the model itself"
        elif name not in names:
            yield f"fallbacks: there is no model {_quoted(name)}{_did_you_mean(name, names)}"
    if len({*model.fallbacks}) < len(model.fallbacks):
        yield "fallbacks: names a model twice"


def _key(model: _Model, settings: Settings) -> Iterator[str]:
    if model.key is None:
        return
    key = settings.variable(model.key)
    if key is None:
        # What has no underscore may be the key itself.
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
        given["total"] = given["first_byte"] + usual["total"]  # who may be loaded for so long has as long to answer
    return Deadlines(**(usual | given))


def _price(price: _Price) -> Price:
    """As it is written: 0.1 is a tenth, which no binary fraction is."""
    return Price(
        input=Decimal(str(price.input)),
        output=Decimal(str(price.output)),
        cached=None if price.cached is None else Decimal(str(price.cached)),
    )


def _entry(model: _Model, settings: Settings) -> Entry:
    retries = model.retries
    if retries is None:  # another model is as good as another try, and need not be waited for
        retries = 0 if model.fallbacks else settings.model_retries
    own = {
        "model": model.model or model.name,
        "key": settings.variable(model.key) if model.key else None,
        "price": None if model.price is None else _price(model.price),
        "deadlines": _deadlines(model, settings),
        "retries": retries,
        "fallbacks": tuple(model.fallbacks),
    }
    # Whatever else the two have in common means the same in both.
    same = {name: getattr(model, name) for name in Entry.__struct_fields__ if name in _Model.model_fields}
    return Entry(**(same | own), key_variable=model.key, from_file=True)
