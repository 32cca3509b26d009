"""Everything that can be configured, validated at once; ``conf/chatstream.env.example`` has the reason of each default.

Durations are in seconds, sizes in bytes or, where named so, in characters (Unicode code points).
"""

import math
import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from chatstream.errors import ConfigurationError

# RFC 7518, section 3.2: a key of the same size as the hash output or larger.
_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
MIN_SECRET_BYTES = min(_SECRET_BYTES.values())

# Where the generated development secret is kept, in the data directory.
SECRET_FILE = "jwt_secret"  # noqa: S105 - a file's name

# As browsers send it (RFC 6454, section 6.2): anything else in the list would never match. No wildcard: with
# credentials none is allowed.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._:\[\]-]+")

DEFAULT_SYSTEM_PROMPT = "You are a helpful assistant."  # where no plug-in has another one
# What is there out of the box, and the word for none: an empty setting is one that is not set.
DEFAULT_PLUGINS = ("chatstream.plugins.bets:plugin",)
_NO_PLUGINS = "none"


class Environment(StrEnum):
    """How much the server makes up for itself."""

    DEVELOPMENT = "development"  # embedded database, demo model, generated secret where none is given
    PRODUCTION = "production"  # nothing is made up


class Page(StrEnum):
    """Whether the chat page is served; `AUTO` is in development only."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class LogFormat(StrEnum):
    """`AUTO` is text on a terminal and JSON otherwise."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


def _comma_separated(value: Any) -> Any:
    return [part for item in value.split(",") if (part := item.strip())] if isinstance(value, str) else value


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    if not all(map(_ORIGIN.fullmatch, origins)):
        raise ValueError("must be origins like https://app.example, in lower case, without a path, separated by commas")
    return origins


def _long_enough(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
        raise ValueError(f"must be at least {MIN_SECRET_BYTES} bytes long (make one with: openssl rand -hex 32)")
    return secret


def _mongodb_uri(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().startswith(("mongodb://", "mongodb+srv://")):
        raise ValueError("must begin with mongodb:// or mongodb+srv://")
    return secret


def _base_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    if not urlsplit(url).hostname:
        raise ValueError("must name a host")
    return url


def _jwks_url(url: str) -> str:
    # http for an issuer on this machine or in a test; whoever can change what it says can let anybody in.
    if urlsplit(url).scheme != "https" and urlsplit(url).hostname not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError("must begin with https://, or with http:// and the name of this machine")
    return _base_url(url)


def _user_claim(name: str) -> str:
    if name in ("aud", "exp", "iat", "iss", "nbf"):
        raise ValueError(f"`{name}` says something else of a token; name the claim that has the user's id")
    return name


def _plugins(value: Any) -> Any:
    return () if value == _NO_PLUGINS else _comma_separated(value)


def _grace(value: Any) -> Any:
    return math.inf if value == "never" else value


Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]  # fmt: skip
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Networks = Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(_comma_separated)]
PerMinute = Annotated[int, Field(ge=1, le=1_000_000)]  # the most is more than one process can do
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated), AfterValidator(_origins)]


class Settings(BaseSettings):
    """The configuration. Read with `Settings.read`."""

    model_config = SettingsConfigDict(
        env_prefix="CHATSTREAM_",
        env_ignore_empty=True,  # `NAME=` in an env file means "not set"
        extra="ignore",  # the environment is full of other people's variables
        frozen=True,
    )

    # The model.
    openai_api_key: SecretStr | None = Field(None, validation_alias="OPENAI_API_KEY")
    openai_base_url: Annotated[str, AfterValidator(_base_url)] | None = Field(None, validation_alias="OPENAI_BASE_URL")
    openai_model: str = Field("gpt-4", min_length=1, max_length=200, validation_alias="OPENAI_MODEL")
    system_prompt: str | None = None
    plugins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_plugins)] = DEFAULT_PLUGINS
    context_characters: int = Field(48_000, ge=1_000, le=10_000_000)
    connect_timeout: Seconds = 10
    first_byte_timeout: Seconds = 300
    first_token_timeout: Seconds = 60
    idle_timeout: Seconds = 30
    answer_timeout: Seconds = 600
    model_retries: int = Field(2, ge=0, le=10)
    answer_characters: int = Field(200_000, ge=100, le=3_000_000)

    # The door.
    jwt_secret: Annotated[SecretStr, AfterValidator(_long_enough)] | None = Field(None, validation_alias="JWT_SECRET")
    jwt_public_key_file: Path | None = None
    jwks_url: Annotated[str, AfterValidator(_jwks_url)] | None = None
    jwt_algorithms: Annotated[tuple[Algorithm, ...], NoDecode, BeforeValidator(_comma_separated)] = ()
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwt_type: str | None = None
    # What may stand in a header's quoted text, where a refusal names it.
    jwt_user_claim: Annotated[str, Field(pattern=r"^[!#-\[\]-_a-~]{1,100}$"), AfterValidator(_user_claim)] = "sub"
    query_tokens: bool = True
    revocation: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = None
    revocation_interval: Seconds = 5
    cors_origins: Origins = ()
    trusted_proxies: Networks = ()

    # Limits.
    streams_per_user: int = Field(10, ge=1)
    streams_per_process: int | None = Field(None, ge=1)
    answers_per_user: int = Field(10, ge=1)
    answers_per_process: int | None = Field(None, ge=1)
    overload_lag: Seconds = 2
    openings_per_minute: PerMinute = 120
    messages_per_minute: PerMinute = 120
    reads_per_minute: PerMinute = 1_200
    changes_per_minute: PerMinute = 600
    failures_per_minute: PerMinute = 100
    conversations_per_user: int = Field(5_000, ge=1)
    messages_per_conversation: int = Field(10_000, ge=10)

    # The database.
    mongodb_uri: Annotated[SecretStr, AfterValidator(_mongodb_uri)] | None = Field(
        None, validation_alias=AliasChoices("MONGODB_URI", "DATABASE_URL")
    )
    mongodb_database: str = Field("chatstream", pattern=r"^[A-Za-z0-9_-]{1,63}$", validation_alias="MONGODB_DATABASE")
    data_dir: Path = Path("var")

    # The server.
    env: Environment = Environment.DEVELOPMENT
    host: str = "127.0.0.1"
    port: int = Field(3000, ge=0, le=65_535)
    page: Page = Page.AUTO
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(None, ge=0, le=65_535)
    log_format: LogFormat = LogFormat.AUTO
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    # The stream.
    heartbeat_interval: Seconds = 15
    disconnect_grace: Annotated[float, BeforeValidator(_grace), Field(ge=0)] = 15
    connection_timeout: Seconds = 300
    connection_bytes: int = Field(4 * 1024 * 1024, ge=64 * 1024)
    slow_reader_timeout: Seconds = 20
    save_deadline: Seconds = 60
    drain_timeout: Seconds = 30
    content_characters: int = Field(32_000, ge=1, le=50_000)

    @model_validator(mode="after")
    def _tokens_can_be_verified(self) -> Self:
        names = ("JWT_SECRET", "CHATSTREAM_JWT_PUBLIC_KEY_FILE", "CHATSTREAM_JWKS_URL")
        keys = (self.jwt_secret, self.jwt_public_key_file, self.jwks_url)
        given = [name for name, key in zip(names, keys, strict=True) if key is not None]
        if len(given) > 1:
            raise ValueError(f"only one of {' and '.join(given)} may be set: either secrets or public keys")
        algorithms = self.accepted_algorithms
        if not algorithms:
            raise ValueError(f"with {given[0]}, CHATSTREAM_JWT_ALGORITHMS must be set, to RS256 for example")
        wrong = [name for name in algorithms if (name in _SECRET_BYTES) is not self.verifies_with_secret]
        if wrong:
            what = "a secret" if self.verifies_with_secret else "public keys"
            raise ValueError(f"CHATSTREAM_JWT_ALGORITHMS: {', '.join(wrong)} cannot be used with {what}")
        if self.jwt_secret is not None:
            needed = max(_SECRET_BYTES[name] for name in algorithms)
            if len(self.jwt_secret.get_secret_value().encode()) < needed:
                raise ValueError(f"JWT_SECRET must be at least {needed} bytes long for {', '.join(algorithms)}")
        return self

    @model_validator(mode="after")
    def _production_makes_nothing_up(self) -> Self:
        if self.env is not Environment.PRODUCTION:
            return self
        missing = []
        if self.verifies_with_secret and self.jwt_secret is None:
            missing.append(
                "JWT_SECRET (make one with: openssl rand -hex 32), CHATSTREAM_JWT_PUBLIC_KEY_FILE or "
                "CHATSTREAM_JWKS_URL must be set"
            )
        if self.uses_embedded_database:
            missing.append("MONGODB_URI must be set: the embedded database is for development")
        if self.uses_demo_model:
            missing.append("OPENAI_API_KEY or OPENAI_BASE_URL must be set: the demo model is for development")
        if missing:
            raise ValueError("with CHATSTREAM_ENV=production: " + "; ".join(missing))
        return self

    @property
    def verifies_with_secret(self) -> bool:
        """Tokens are signed with a secret, and not with a private key that the server never sees."""
        return self.jwt_public_key_file is None and self.jwks_url is None

    @property
    def accepted_algorithms(self) -> tuple[str, ...]:
        """What tokens may be signed with: all secrets, or all private keys."""
        return self.jwt_algorithms or (("HS256",) if self.verifies_with_secret else ())

    @property
    def uses_demo_model(self) -> bool:
        """No model was configured."""
        return self.openai_api_key is None and self.openai_base_url is None

    @property
    def uses_embedded_database(self) -> bool:
        """No database was configured."""
        return self.mongodb_uri is None

    @property
    def shows_page(self) -> bool:
        """The chat page is served."""
        return self.page is Page.ON or (self.page is Page.AUTO and self.env is Environment.DEVELOPMENT)

    @classmethod
    def load(cls, environment_names: Iterable[str], env_file: Path | None) -> Self:
        """The settings in the environment and, where it is silent, in `env_file`.

        Raises `ConfigurationError`, which names every value that is not acceptable and every ``CHATSTREAM_`` variable
        that does not exist, without repeating values: they may be secrets.
        """
        names = {*environment_names, *(dotenv_values(env_file) if env_file else ())}
        known = {_variable(name) for name in cls.model_fields}
        problems = [
            f"{name}: there is no such setting" for name in sorted(names - known) if name.startswith("CHATSTREAM_")
        ]
        try:
            settings = cls(_env_file=env_file)
        except ValidationError as exc:
            problems += [_explain(error) for error in exc.errors(include_url=False, include_input=False)]
        else:
            if not problems:
                return settings
        raise ConfigurationError("The configuration is not valid:\n  " + "\n  ".join(problems))


def _variable(field: str) -> str:
    """The environment variable of a field (of two names, the main one)."""
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return alias if isinstance(alias, str) else f"CHATSTREAM_{field.upper()}"


def _explain(error: ErrorDetails) -> str:
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    if name in ("MONGODB_URI", "DATABASE_URL"):
        name = "MONGODB_URI (or its alias DATABASE_URL)"
    return f"{_variable(name) if name in Settings.model_fields else name}: {message}"
