"""All settings, validated together; ``conf/chatstream.env.example`` has the reason for each default.

Durations are in seconds, sizes in bytes or, where named so, in characters (Unicode code points).
"""

import math
import os
import re
import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from msgspec import Struct, field
from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, SecretStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from chatstream.config import env_file as env_files
from chatstream.config import values, words
from chatstream.config.values import MIN_SECRET_BYTES
from chatstream.config.words import SECONDS, SECONDS_OR_NEVER
from chatstream.errors import ConfigurationError, InvalidSettings

__all__ = ["MIN_SECRET_BYTES", "SECRET_FILE", "Environment", "LogFormat", "Page", "Settings", "fields", "variables"]

# Shortest secret of each algorithm, in bytes: the size of its hash (RFC 7518, section 3.2).
_SECRET_BYTES = {"HS256": MIN_SECRET_BYTES, "HS384": 48, "HS512": 64}

# The file of the generated development secret, in the data directory.
SECRET_FILE = "jwt_secret"  # noqa: S105 - a file's name

# An origin as browsers send it (RFC 6454, section 6.2): other forms would never match. No wildcard: CORS forbids it for
# requests with credentials.
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._:\[\]-]+?)(:[0-9]+)?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}

DEFAULT_SYSTEM_PROMPT = "You are a helpful assistant."  # unless a plug-in has another one
# The plug-ins that are loaded by default.
DEFAULT_PLUGINS = ("chatstream.plugins.bets:plugin",)
_NO_PLUGINS = "none"
_LAST_PORT = 65_535


class Environment(StrEnum):
    """Whether the server provides missing parts itself."""

    DEVELOPMENT = "development"  # embedded database, demo model, generated secret if not configured
    PRODUCTION = "production"  # everything must be configured


class Page(StrEnum):
    """Whether the chat page is served; `AUTO`: in development only."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Reasoning(StrEnum):
    """Whether clients get the models' reasoning; `AUTO`: in development only."""

    AUTO = "auto"
    SHOW = "show"
    HIDE = "hide"


class UserModels(StrEnum):
    """The models that users may choose."""

    ON = "on"  # the models of the catalogue
    OFF = "off"  # none: the default model answers everybody
    ANY = "any"  # any name, also one that only the endpoint knows: for development


class OpenAIApi(StrEnum):
    """The API of the model of the ``OPENAI_`` settings."""

    CHAT = "chat"  # Chat Completions
    RESPONSES = "responses"


class LogFormat(StrEnum):
    """The format of log lines; `AUTO`: text on a terminal, JSON otherwise."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


def _comma_separated(value: Any) -> Any:
    return [part for item in value.split(",") if (part := item.strip())] if isinstance(value, str) else value


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_origin, origins))


def _origin(written: str) -> str:
    """Normalise an origin to the form that browsers send: lower case, no final slash, no default port."""
    found = _ORIGIN.fullmatch(written.lower().removesuffix("/"))
    if found is None:
        raise ValueError("must be origins like https://app.example, without a path or a *, separated by commas")
    scheme, host, port = found.groups("")
    return f"{scheme}://{host}" + ("" if port == _DEFAULT_PORTS.get(scheme) else port)


def _secret(check: Callable[[str], str]) -> AfterValidator:
    """Applies `check` to the text inside a secret."""
    return AfterValidator(lambda secret: SecretStr(check(secret.get_secret_value())))


def _home(value: Any) -> Any:
    return values.directory(value) if isinstance(value, str) else value


def _user_claim(name: str) -> str:
    if name in ("aud", "exp", "iat", "iss", "nbf"):
        raise ValueError(f"`{name}` says something else of a token; name the claim that has the user's id")
    return name


def _plugin_names(value: Any) -> Any:
    return () if value == _NO_PLUGINS else _comma_separated(value)


def _grace(value: Any) -> Any:
    return math.inf if value == "never" else value


Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]  # fmt: skip
# A duration from 0.01 s, the useful resolution of the event loop's timers, to a day.
Seconds = Annotated[float, Field(ge=0.01, le=86_400), SECONDS]
Grace = Annotated[float, BeforeValidator(_grace), Field(ge=0), SECONDS_OR_NEVER]
BaseURL = Annotated[str, AfterValidator(values.base_url)]
Host = Annotated[str, AfterValidator(values.host)]
Network = Annotated[values.Network, PlainValidator(values.network)]
Networks = Annotated[tuple[Network, ...], BeforeValidator(_comma_separated)]
PerMinute = Annotated[int, Field(ge=1, le=1_000_000)]  # the limit is more than one process can do
Count = Annotated[int, Field(ge=1, le=10_000_000)]  # the limit is more than a machine has file descriptors
# The limit is more than a model can write in a month, and small enough for sums not to overflow.
Tokens = Annotated[int, Field(ge=1, le=10**12)]
Origins = Annotated[tuple[str, ...], BeforeValidator(_comma_separated), AfterValidator(_origins)]

# The environment variables that other programs use, too; all others begin with CHATSTREAM_.
_SHARED_NAMES: Final = {
    "openai_api_key": ("OPENAI_API_KEY",),
    "openai_base_url": ("OPENAI_BASE_URL",),
    "openai_model": ("OPENAI_MODEL",),
    "jwt_secret": ("JWT_SECRET",),
    "mongodb_uri": ("MONGODB_URI", "DATABASE_URL"),
    "mongodb_database": ("MONGODB_DATABASE",),
}
# The settings that are taken as they are written: their bytes are the key.
_AS_WRITTEN: Final = ("jwt_secret", "log_key")


class _Source(Struct, frozen=True):
    """Where settings come from. All sources are equal, so that they do not affect the comparison of settings."""

    env_file: Path | None = None
    given: frozenset[str] = frozenset()  # the fields that were set

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Source)

    def __hash__(self) -> int:
        return 0


class Settings(Struct, frozen=True, kw_only=True):
    """The configuration. Read with `Settings.load`, which validates; `Settings(…)` takes what it is given.

    The types are pydantic's. They are checked one by one, and only those of the settings that are given: a model with
    all of them would be a twentieth of a server's start.
    """

    # The model.
    openai_api_key: Annotated[SecretStr, _secret(values.header_text)] | None = None
    openai_base_url: Annotated[str, AfterValidator(values.base_url)] | None = None
    openai_model: Annotated[str, Field(min_length=1, max_length=200)] = "gpt-4"
    openai_api: OpenAIApi = OpenAIApi.CHAT
    models_file: Annotated[Path, BeforeValidator(_home)] | None = None
    user_models: UserModels = UserModels.ON
    user_prompts: bool = True
    titles: bool = True
    title_model: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    system_prompt: str | None = None
    plugins: Annotated[
        tuple[Annotated[str, AfterValidator(values.python_name)], ...], BeforeValidator(_plugin_names)
    ] = DEFAULT_PLUGINS
    context_characters: Annotated[int, Field(ge=1_000, le=10_000_000)] = 48_000
    connect_timeout: Seconds = 10
    first_byte_timeout: Seconds = 300
    first_token_timeout: Seconds = 60
    idle_timeout: Seconds = 30
    answer_timeout: Seconds = 600
    model_retries: Annotated[int, Field(ge=0, le=10)] = 2
    answer_characters: Annotated[int, Field(ge=100, le=3_000_000)] = 200_000
    tools_file: Annotated[Path, BeforeValidator(_home)] | None = None
    tool_rounds: Annotated[int, Field(ge=1, le=100)] = 10
    tool_calls: Annotated[int, Field(ge=1, le=128)] = 16
    tool_argument_characters: Annotated[int, Field(ge=100, le=200_000)] = 50_000
    tool_output_characters: Annotated[int, Field(ge=100, le=200_000)] = 50_000
    reasoning: Reasoning = Reasoning.AUTO
    reasoning_characters: Annotated[int, Field(ge=100, le=500_000)] = 200_000

    # The door.
    jwt_secret: Annotated[SecretStr, _secret(values.secret)] | None = None
    jwt_public_key_file: Annotated[Path, BeforeValidator(_home)] | None = None
    jwks_url: Annotated[str, AfterValidator(values.jwks_url)] | None = None
    jwt_algorithms: Annotated[tuple[Algorithm, ...], BeforeValidator(_comma_separated)] = ()
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwt_type: str | None = None
    # The characters of a header's quoted string: refusals send the claim's name in a header.
    jwt_user_claim: Annotated[str, Field(pattern=r"^[!#-\[\]-_a-~]{1,100}$"), AfterValidator(_user_claim)] = "sub"
    query_tokens: bool = True
    revocation: Annotated[str, AfterValidator(values.python_name)] | None = None
    revocation_interval: Seconds = 5
    cors_origins: Origins = ()
    trusted_proxies: Networks = ()

    # Limits.
    streams_per_user: Count = 10
    streams_per_process: Annotated[int | None, Field(ge=1, le=10_000_000)] = None
    answers_per_user: Count = 10
    answers_per_process: Annotated[int | None, Field(ge=1, le=10_000_000)] = None
    overload_lag: Seconds = 2
    openings_per_minute: PerMinute = 120
    messages_per_minute: PerMinute = 120
    reads_per_minute: PerMinute = 1_200
    searches_per_minute: PerMinute = 120
    changes_per_minute: PerMinute = 600
    failures_per_minute: PerMinute = 100
    retention_days: Annotated[int | None, Field(ge=1, le=36_500)] = None
    conversations_per_user: Annotated[int, Field(ge=1)] = 5_000
    messages_per_conversation: Annotated[int, Field(ge=10)] = 10_000
    user_tokens_per_day: Tokens | None = None
    user_tokens_per_month: Tokens | None = None
    user_cost_per_month: Annotated[Decimal, BeforeValidator(values.money)] | None = None
    budget_claim: Annotated[str, Field(pattern=r"^[!#-\[\]-_a-~]{1,100}$"), AfterValidator(values.claim)] | None = None

    # Webhooks.
    webhook_url: Annotated[str, AfterValidator(values.webhook_url)] | None = None
    webhook_secret: Annotated[SecretStr, _secret(values.webhook_secret)] | None = None
    webhook_delay: Annotated[float, Field(ge=0, le=86_400), SECONDS] = 10
    webhook_text: bool = False

    # The database.
    mongodb_uri: Annotated[SecretStr, _secret(values.mongodb_uri)] | None = None
    mongodb_database: Annotated[str, AfterValidator(values.mongodb_database)] = "chatstream"
    data_dir: Annotated[Path, BeforeValidator(_home)] = Path("var")

    # The server.
    env: Environment = Environment.DEVELOPMENT
    host: Host = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=_LAST_PORT)] = 3000
    processes: Annotated[int, Field(ge=1, le=256)] = 1  # the limit is more than a machine has cores for one server
    page: Page = Page.AUTO
    page_file: Annotated[Path, BeforeValidator(_home)] | None = None
    login_url: Annotated[str, AfterValidator(values.login_url)] | None = None
    metrics_host: Host = "127.0.0.1"
    metrics_port: Annotated[int | None, Field(ge=0, le=_LAST_PORT)] = None
    log_format: LogFormat = LogFormat.AUTO
    log_key: Annotated[SecretStr, _secret(values.secret)] | None = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    # The stream.
    heartbeat_interval: Seconds = 15
    disconnect_grace: Grace = 15
    connection_timeout: Seconds = 300
    connection_bytes: Annotated[int, Field(ge=64 * 1024)] = 4 * 1024 * 1024
    slow_reader_timeout: Seconds = 20
    save_deadline: Seconds = 60
    drain_timeout: Seconds = 30
    content_characters: Annotated[int, Field(ge=1, le=50_000)] = 32_000

    _source: _Source = field(default_factory=_Source)

    def _problems(self) -> list[str]:
        """Errors between valid settings, one line each."""
        return [*self._keys_that_do_not_fit(), *self._contradictions(), *self._missing(), *self._examples()]

    def _keys_that_do_not_fit(self) -> Iterable[str]:
        names = ("JWT_SECRET", "CHATSTREAM_JWT_PUBLIC_KEY_FILE", "CHATSTREAM_JWKS_URL")
        keys = (self.jwt_secret, self.jwt_public_key_file, self.jwks_url)
        given = [name for name, key in zip(names, keys, strict=True) if key is not None]
        if len(given) > 1:
            yield f"only one of {' and '.join(given)} may be set: either secrets or public keys"
            return
        algorithms = self.accepted_algorithms
        if not algorithms:
            yield f"with {given[0]}, CHATSTREAM_JWT_ALGORITHMS must be set, to RS256 for example"
        wrong = [name for name in algorithms if (name in _SECRET_BYTES) is not self.verifies_with_secret]
        if wrong:
            what = "a secret" if self.verifies_with_secret else "public keys"
            yield f"CHATSTREAM_JWT_ALGORITHMS: {', '.join(wrong)} cannot be used with {what}"
        elif self.jwt_secret is not None:
            needed = max(_SECRET_BYTES[name] for name in algorithms)
            if len(self.jwt_secret.get_secret_value().encode()) < needed:
                yield f"JWT_SECRET: must be at least {needed} bytes long for {', '.join(algorithms)}"

    def _contradictions(self) -> Iterable[str]:
        """Explicitly set values that contradict each other. Defaults never count as a contradiction."""
        given = self._source.given
        for less, more in (
            ("first_token_timeout", "answer_timeout"),
            ("idle_timeout", "answer_timeout"),
            ("streams_per_user", "streams_per_process"),
            ("answers_per_user", "answers_per_process"),
            ("heartbeat_interval", "connection_timeout"),
            ("user_tokens_per_day", "user_tokens_per_month"),
        ):
            low, high = getattr(self, less), getattr(self, more)
            if less in given and low is not None and high is not None and low > high:
                yield f"{_variable(less)}: must not be more than {_variable(more)}, which is {high:g}"
        if self.budget_claim is not None and self.budget_claim == self.jwt_user_claim:
            yield "CHATSTREAM_BUDGET_CLAIM: must not be CHATSTREAM_JWT_USER_CLAIM, which has the user's id"
        for one, other in (("webhook_url", "webhook_secret"), ("webhook_secret", "webhook_url")):
            if getattr(self, one) is not None and getattr(self, other) is None:
                yield f"{_variable(other)}: must be set where {_variable(one)} is"
        everywhere = {"0.0.0.0", "::"}  # noqa: S104 - compared
        same_host = self.metrics_host == self.host or everywhere & {self.metrics_host, self.host}
        if self.metrics_port and self.metrics_port == self.port and same_host:
            yield "CHATSTREAM_METRICS_PORT: must not be CHATSTREAM_PORT; left out, /metrics is on that port"
        if self.processes > 1:
            yield from self._ports_that_do_not_fit()

    def _ports_that_do_not_fit(self) -> Iterable[str]:
        """Several processes share one port, and each has others of its own."""
        if not hasattr(socket, "SO_REUSEPORT"):
            yield "CHATSTREAM_PROCESSES: must be 1 on this system, where processes cannot share a port (SO_REUSEPORT)"
        for name, last in (("port", self.processes), ("metrics_port", self.processes - 1)):
            first = getattr(self, name)
            if first and first + last > _LAST_PORT:
                yield (
                    f"{_variable(name)}: must be at most {_LAST_PORT - last}: each of the {self.processes} processes "
                    "has a port of its own above it"
                )
        if self.port and self.metrics_port and self.metrics_port != self.port:
            theirs = range(self.metrics_port, self.metrics_port + self.processes)
            ours = range(self.port, self.port + self.processes + 1)
            if {*ours} & {*theirs}:
                yield (
                    f"CHATSTREAM_METRICS_PORT: the {self.processes} processes would have ports {theirs[0]} to "
                    f"{theirs[-1]} for metrics, but {ours[0]} to {ours[-1]} are taken by CHATSTREAM_PORT and the "
                    "processes' own ports above it"
                )

    def _missing(self) -> Iterable[str]:
        """The settings that production requires and that are missing."""
        if self.env is not Environment.PRODUCTION:
            return
        if self.verifies_with_secret and self.jwt_secret is None:
            yield (
                "JWT_SECRET (make one with: openssl rand -hex 32), CHATSTREAM_JWT_PUBLIC_KEY_FILE or "
                "CHATSTREAM_JWKS_URL must be set in production"
            )
        if self.uses_embedded_database:
            yield "MONGODB_URI must be set in production: the embedded database is for development"
        if self.uses_demo_model:
            yield (
                "OPENAI_API_KEY or OPENAI_BASE_URL, or CHATSTREAM_MODELS_FILE, must be set in production: the demo "
                "model is for development"
            )
        if self.user_models is UserModels.ANY:
            yield (
                "CHATSTREAM_USER_MODELS: must be on or off in production, where any would let users choose whatever "
                "your key pays for: list what they may have in CHATSTREAM_MODELS_FILE"
            )

    def _examples(self) -> Iterable[str]:
        return self._placeholders() if self.env is Environment.PRODUCTION else ()

    def _placeholders(self) -> Iterable[str]:
        if self.jwt_secret is not None and values.is_guessable(self.jwt_secret.get_secret_value()):
            yield "JWT_SECRET: can be guessed: make one with: openssl rand -hex 32"
        if self.openai_api_key is not None and values.is_placeholder(self.openai_api_key.get_secret_value()):
            yield "OPENAI_API_KEY: is an example's, and no key"

    @property
    def doubts(self) -> list[str]:
        """Warnings about settings that development allows but that are probably mistakes."""
        return [*self._placeholders(), *self._unused(), *self._crowded()]

    def _unused(self) -> Iterable[str]:
        if self.models_file is not None:
            for name in ("openai_base_url", "openai_model", "openai_api"):
                if name in self._source.given:
                    yield f"{_variable(name)}: is not used: CHATSTREAM_MODELS_FILE has the models"

    def _crowded(self) -> Iterable[str]:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if self.processes > max(cores, 1):
            yield f"CHATSTREAM_PROCESSES: {self.processes} are more than there are cores here ({cores})"

    @property
    def is_production(self) -> bool:
        """Whether everything must be configured."""
        return self.env is Environment.PRODUCTION

    def variable(self, name: str) -> str | None:
        """The value of an environment variable that a settings file names: from the environment, else the env file."""
        env_file = self._source.env_file
        found = os.environ.get(name) or (env_files.value_of(name, env_file) if env_file else None)
        return values.bare(found) or None if found else None

    @property
    def verifies_with_secret(self) -> bool:
        """Whether tokens are signed with a shared secret, and not with a private key."""
        return self.jwt_public_key_file is None and self.jwks_url is None

    @property
    def accepted_algorithms(self) -> tuple[str, ...]:
        """The accepted signature algorithms: all for secrets, or all for private keys."""
        return self.jwt_algorithms or (("HS256",) if self.verifies_with_secret else ())

    @property
    def uses_demo_model(self) -> bool:
        """Whether the demo model answers, as no model is configured."""
        return self.models_file is None and self.openai_api_key is None and self.openai_base_url is None

    @property
    def uses_embedded_database(self) -> bool:
        """Whether the embedded database is used, as none is configured."""
        return self.mongodb_uri is None

    @property
    def gives_budgets(self) -> bool:
        """Whether the settings give users a budget. A plug-in that has budgets reports that itself."""
        limits = (self.user_tokens_per_day, self.user_tokens_per_month, self.user_cost_per_month)
        return self.budget_claim is not None or any(limit is not None for limit in limits)

    @property
    def shows_reasoning(self) -> bool:
        """Whether clients get the models' reasoning."""
        is_auto = self.reasoning is Reasoning.AUTO
        return self.reasoning is Reasoning.SHOW or (is_auto and self.env is Environment.DEVELOPMENT)

    @property
    def shows_page(self) -> bool:
        """Whether the chat page is served."""
        return self.page is Page.ON or (self.page is Page.AUTO and self.env is Environment.DEVELOPMENT)

    @classmethod
    def load(cls, environment_names: Iterable[str], env_file: Path | None) -> Self:
        """The settings in the environment and, where it is silent, in `env_file`.

        Raises `InvalidSettings`, with one line for each value that is not acceptable and each ``CHATSTREAM_`` variable
        that does not exist, without repeating values: they may be secrets.
        """
        names = {*environment_names}
        try:
            names |= env_files.names_in(env_file) if env_file else set()
        except ConfigurationError as exc:
            raise InvalidSettings([str(exc)]) from exc
        known = _known()
        problems = [
            words.unknown(name, known)
            for name in sorted(names)
            if name.upper() not in known and name.upper().startswith("CHATSTREAM_")
        ]
        settings, wrong = cls._read(env_file)
        for each, reasons in wrong.items():
            name = "MONGODB_URI (or its alias DATABASE_URL)" if each == "mongodb_uri" else _variable(each)
            problems += [f"{name}: {reason}" for reason in reasons]
        if not wrong:
            problems += settings._problems()
        if not problems:
            return settings
        problems += mistaken(names)
        raise InvalidSettings(dict.fromkeys(problems))

    @classmethod
    def readable(cls, env_file: Path | None) -> tuple[Self, Collection[str]] | None:
        """The settings without the invalid values, so that the others can be checked, and the names of the invalid
        ones.

        None if no settings can be read.
        """
        try:
            settings, wrong = cls._read(env_file)
        except ConfigurationError:
            return None
        return settings, [name for each in wrong for name in variables(each)]

    @classmethod
    def _read(cls, env_file: Path | None) -> tuple[Self, Mapping[str, list[str]]]:
        """The settings, with the defaults in place of invalid values, and what is wrong with those, by field."""
        written = _written(env_file)
        given: dict[str, Any] = {}
        wrong: dict[str, list[str]] = {}
        for each in fields():
            text = next((written[name] for name in variables(each) if name in written), None)
            try:
                if text is not None and (bare := _without_what_came_with_copying(each, text)):
                    given[each] = TypeAdapter(cls.__annotations__[each]).validate_python(bare)
            except ValidationError as exc:
                marks = FieldInfo.from_annotation(cls.__annotations__[each]).metadata
                errors = exc.errors(include_url=False, include_input=False)
                wrong[each] = [words.explain(error, marks) for error in errors]
            except ValueError as exc:
                wrong[each] = [str(exc)]
        return cls(**given, _source=_Source(env_file, frozenset(given))), wrong

    def problems_but_of(self, names: Collection[str]) -> list[str]:
        """Errors between valid settings, except those that involve one of `names`."""
        return [each for each in self._problems() if not any(name in each for name in names)]


def mistaken(names: Collection[str]) -> list[str]:
    """A line for each of `names` that looks like a misspelt setting, if that setting itself is not given."""
    given = {*names, *(["MONGODB_URI"] if "DATABASE_URL" in names else [])}
    found = words.mistaken(given, _known())
    return [f"{name}: means nothing here; did you mean {ours}?" for name, ours in sorted(found.items())]


def fields() -> Iterable[str]:
    """The names of all settings in `Settings`."""
    return Settings.__struct_fields__[:-1]  # the last one is `_source`


def variables(name: str) -> tuple[str, ...]:
    """The environment variables of a field; the first one that is set counts."""
    return _SHARED_NAMES.get(name) or (f"CHATSTREAM_{name.upper()}",)


def _variable(name: str) -> str:
    return variables(name)[0]


def _known() -> set[str]:
    return {_variable(each) for each in fields()}


def _written(env_file: Path | None) -> Mapping[str, str]:
    """The variables with a value, by their names in upper case: those of the environment, else of the file."""
    in_file = env_files.values_in(env_file) if env_file else {}
    as_written = {name for each in _AS_WRITTEN for name in variables(each)}
    written: dict[str, str] = {}
    for source in (in_file, os.environ):
        given = {
            name.upper(): text
            for name, text in source.items()
            if text and (name.upper() in as_written or values.bare(text))
        }
        for names in _SHARED_NAMES.values():
            if given.keys() & {*names}:  # under one name, a setting hides the file's under another one
                written = {name: text for name, text in written.items() if name not in names}
        written |= given
    # For this setting alone an empty value has a meaning: no plug-ins, not even the default ones.
    plugins = _variable("plugins")
    if (named := os.environ.get(plugins, in_file.get(plugins))) is not None and not named.strip():
        written[plugins] = _NO_PLUGINS
    # The path of the URI names the database (``mongodb://host/shop``), unless MONGODB_DATABASE does.
    uri = next((written[name] for name in variables("mongodb_uri") if name in written), None)
    if uri and "MONGODB_DATABASE" not in written and (database := values.path_of(values.bare(uri))):
        written["MONGODB_DATABASE"] = database
    return written


def _without_what_came_with_copying(name: str, text: str) -> str:
    """Strip white space around a value. Raises `ValueError` for invisible characters inside it."""
    if name in _AS_WRITTEN:
        return text
    if text := values.bare(text):
        values.check_text(text, lines=name == "system_prompt")
    return text
