"""The configuration: each variable, its limits, all errors at once, and no secret in any of them."""

import math
import re
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict, replace
from pydantic import SecretStr

from chatstream import settings as module
from chatstream.errors import ConfigurationError
from chatstream.settings import DEFAULT_PLUGINS, Environment, LogFormat, Page, Settings
from tests.support.processes import REPOSITORY

SECRET = "0123456789abcdef0123456789abcdef"
URI = "mongodb://user:the-password@127.0.0.1:27017/?replicaSet=rs0"
EXAMPLE = REPOSITORY / "conf" / "chatstream.env.example"

PRODUCTION = {
    "CHATSTREAM_ENV": "production",
    "JWT_SECRET": SECRET,
    "MONGODB_URI": URI,
    "OPENAI_API_KEY": "sk-the-key",
}


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables of the environment in which the tests run."""
    for name in variables().values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)


def variables() -> dict[str, str]:
    """The fields and their variables."""
    return {field: module.variables(field)[0] for field in module.fields()}


def load(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], env_file: Path | None = None) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings.load(variables, env_file)


def problems(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], env_file: Path | None = None) -> list[str]:
    """The error messages, line by line, without the heading."""
    with pytest.raises(ConfigurationError) as refused:
        load(monkeypatch, variables, env_file)
    heading, *lines = str(refused.value).splitlines()
    assert heading == "The configuration is not valid:"
    return [line.strip() for line in lines]


def plain(value: object) -> object:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("OPENAI_API_KEY", "sk-1", "openai_api_key", "sk-1"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1", "openai_base_url", "http://127.0.0.1:8080/v1"),
        ("OPENAI_MODEL", "org/model", "openai_model", "org/model"),
        ("CHATSTREAM_OPENAI_API", "responses", "openai_api", "responses"),
        ("CHATSTREAM_MODELS_FILE", "/srv/models.toml", "models_file", Path("/srv/models.toml")),
        ("CHATSTREAM_TOOLS_FILE", "/srv/tools.toml", "tools_file", Path("/srv/tools.toml")),
        ("CHATSTREAM_USER_MODELS", "any", "user_models", "any"),
        ("CHATSTREAM_USER_PROMPTS", "off", "user_prompts", False),
        ("CHATSTREAM_SYSTEM_PROMPT", "Be brief.", "system_prompt", "Be brief."),
        ("CHATSTREAM_PLUGINS", "a.b:c, d:e", "plugins", ("a.b:c", "d:e")),
        ("CHATSTREAM_PLUGINS", "none", "plugins", ()),
        ("CHATSTREAM_USER_TOKENS_PER_DAY", "20000", "user_tokens_per_day", 20_000),
        ("CHATSTREAM_USER_TOKENS_PER_MONTH", "1", "user_tokens_per_month", 1),
        ("CHATSTREAM_USER_COST_PER_MONTH", "12.50", "user_cost_per_month", Decimal("12.5")),
        ("CHATSTREAM_USER_COST_PER_MONTH", "0.000001", "user_cost_per_month", Decimal("0.000001")),
        ("CHATSTREAM_BUDGET_CLAIM", "https://app.example/budget", "budget_claim", "https://app.example/budget"),
        ("CHATSTREAM_CONTEXT_CHARACTERS", "1000", "context_characters", 1000),
        ("CHATSTREAM_CONNECT_TIMEOUT", "0.5", "connect_timeout", 0.5),
        ("CHATSTREAM_FIRST_BYTE_TIMEOUT", "75", "first_byte_timeout", 75),
        ("CHATSTREAM_FIRST_TOKEN_TIMEOUT", "1", "first_token_timeout", 1),
        ("CHATSTREAM_IDLE_TIMEOUT", "1", "idle_timeout", 1),
        ("CHATSTREAM_ANSWER_TIMEOUT", "86400", "answer_timeout", 86_400),
        ("CHATSTREAM_MODEL_RETRIES", "0", "model_retries", 0),
        ("CHATSTREAM_ANSWER_CHARACTERS", "100", "answer_characters", 100),
        ("CHATSTREAM_REASONING", "hide", "reasoning", "hide"),
        ("CHATSTREAM_REASONING_CHARACTERS", "100", "reasoning_characters", 100),
        ("CHATSTREAM_TOOL_ROUNDS", "3", "tool_rounds", 3),
        ("CHATSTREAM_TOOL_CALLS", "4", "tool_calls", 4),
        ("CHATSTREAM_TOOL_ARGUMENT_CHARACTERS", "100", "tool_argument_characters", 100),
        ("CHATSTREAM_TOOL_OUTPUT_CHARACTERS", "200", "tool_output_characters", 200),
        ("JWT_SECRET", SECRET, "jwt_secret", SECRET),
        ("JWT_SECRET", "ä" * 16, "jwt_secret", "ä" * 16),  # bytes count
        ("CHATSTREAM_JWT_ISSUER", "https://issuer.example", "jwt_issuer", "https://issuer.example"),
        ("CHATSTREAM_JWT_AUDIENCE", "chat", "jwt_audience", "chat"),
        ("CHATSTREAM_JWT_TYPE", "at+jwt", "jwt_type", "at+jwt"),
        ("CHATSTREAM_JWT_USER_CLAIM", "user_id", "jwt_user_claim", "user_id"),
        ("CHATSTREAM_JWT_ALGORITHMS", "HS256, HS512,", "jwt_algorithms", ("HS256", "HS512")),
        ("CHATSTREAM_QUERY_TOKENS", "off", "query_tokens", False),
        ("CHATSTREAM_REVOCATION", "our.sessions:revocations", "revocation", "our.sessions:revocations"),
        ("CHATSTREAM_REVOCATION_INTERVAL", "30", "revocation_interval", 30),
        ("CHATSTREAM_CORS_ORIGINS", "https://a.example", "cors_origins", ("https://a.example",)),
        ("CHATSTREAM_CORS_ORIGINS", "https://A.example/", "cors_origins", ("https://a.example",)),
        ("CHATSTREAM_CORS_ORIGINS", "HTTPS://a.example:443", "cors_origins", ("https://a.example",)),
        ("CHATSTREAM_CORS_ORIGINS", "http://a.example:80/", "cors_origins", ("http://a.example",)),
        ("CHATSTREAM_CORS_ORIGINS", "http://[::1]:443", "cors_origins", ("http://[::1]:443",)),
        (
            "CHATSTREAM_CORS_ORIGINS",
            " https://a.example , http://localhost:8081,exp://127.0.0.1:19000,",
            "cors_origins",
            ("https://a.example", "http://localhost:8081", "exp://127.0.0.1:19000"),
        ),
        (
            "CHATSTREAM_TRUSTED_PROXIES",
            "127.0.0.1, 10.0.0.0/8,::1",
            "trusted_proxies",
            (ip_network("127.0.0.1"), ip_network("10.0.0.0/8"), ip_network("::1")),
        ),
        ("CHATSTREAM_FAILURES_PER_MINUTE", "1", "failures_per_minute", 1),
        ("CHATSTREAM_STREAMS_PER_USER", "1", "streams_per_user", 1),
        ("CHATSTREAM_STREAMS_PER_PROCESS", "1000", "streams_per_process", 1000),
        ("CHATSTREAM_ANSWERS_PER_USER", "1", "answers_per_user", 1),
        ("CHATSTREAM_ANSWERS_PER_PROCESS", "1", "answers_per_process", 1),
        ("CHATSTREAM_OVERLOAD_LAG", "0.1", "overload_lag", 0.1),
        ("CHATSTREAM_OPENINGS_PER_MINUTE", "1", "openings_per_minute", 1),
        ("CHATSTREAM_MESSAGES_PER_MINUTE", "1000000", "messages_per_minute", 1_000_000),
        ("CHATSTREAM_READS_PER_MINUTE", "2", "reads_per_minute", 2),
        ("CHATSTREAM_SEARCHES_PER_MINUTE", "2", "searches_per_minute", 2),
        ("CHATSTREAM_TITLES", "off", "titles", False),
        ("CHATSTREAM_TITLE_MODEL", "small", "title_model", "small"),
        ("CHATSTREAM_CHANGES_PER_MINUTE", "3", "changes_per_minute", 3),
        ("CHATSTREAM_CONVERSATIONS_PER_USER", "4", "conversations_per_user", 4),
        ("CHATSTREAM_MESSAGES_PER_CONVERSATION", "100", "messages_per_conversation", 100),
        ("CHATSTREAM_WEBHOOK_DELAY", "0", "webhook_delay", 0),
        ("CHATSTREAM_WEBHOOK_TEXT", "on", "webhook_text", True),
        ("MONGODB_URI", URI, "mongodb_uri", URI),
        ("MONGODB_URI", "mongodb+srv://db.example", "mongodb_uri", "mongodb+srv://db.example"),
        ("DATABASE_URL", URI, "mongodb_uri", URI),
        ("MONGODB_DATABASE", "chat-1", "mongodb_database", "chat-1"),
        ("CHATSTREAM_DATA_DIR", "/srv/data", "data_dir", Path("/srv/data")),
        ("CHATSTREAM_ENV", "development", "env", Environment.DEVELOPMENT),
        ("CHATSTREAM_HOST", "0.0.0.0", "host", "0.0.0.0"),  # noqa: S104 - only read
        ("CHATSTREAM_PORT", "0", "port", 0),
        ("CHATSTREAM_PROCESSES", "4", "processes", 4),
        ("CHATSTREAM_PAGE", "on", "page", Page.ON),
        ("CHATSTREAM_PAGE_FILE", "/etc/page.toml", "page_file", Path("/etc/page.toml")),
        ("CHATSTREAM_LOGIN_URL", "/login?app=chat", "login_url", "/login?app=chat"),
        ("CHATSTREAM_LOGIN_URL", "https://id.example/in?app=a", "login_url", "https://id.example/in?app=a"),
        ("CHATSTREAM_METRICS_HOST", "::1", "metrics_host", "::1"),
        ("CHATSTREAM_METRICS_PORT", "9100", "metrics_port", 9100),
        ("CHATSTREAM_LOG_FORMAT", "json", "log_format", LogFormat.JSON),
        ("CHATSTREAM_LOG_LEVEL", "DEBUG", "log_level", "DEBUG"),
        ("CHATSTREAM_LOG_KEY", "k" * 32, "log_key", "k" * 32),
        ("CHATSTREAM_RETENTION_DAYS", "30", "retention_days", 30),
        ("CHATSTREAM_HEARTBEAT_INTERVAL", "14.5", "heartbeat_interval", 14.5),
        ("CHATSTREAM_DISCONNECT_GRACE", "0", "disconnect_grace", 0),
        ("CHATSTREAM_DISCONNECT_GRACE", "never", "disconnect_grace", math.inf),
        ("CHATSTREAM_CONNECTION_TIMEOUT", "60", "connection_timeout", 60),
        ("CHATSTREAM_CONNECTION_BYTES", "65536", "connection_bytes", 65_536),
        ("CHATSTREAM_SLOW_READER_TIMEOUT", "5", "slow_reader_timeout", 5),
        ("CHATSTREAM_SAVE_DEADLINE", "5", "save_deadline", 5),
        ("CHATSTREAM_DRAIN_TIMEOUT", "5", "drain_timeout", 5),
        ("CHATSTREAM_CONTENT_CHARACTERS", "50000", "content_characters", 50_000),
    ],
)
def test_a_variable_sets_its_field(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, text: str, field: str, value: Any
) -> None:
    (tmp_path / ".env").write_text(f'{name}="{text}"\n', encoding="utf-8")
    assert plain(getattr(load(monkeypatch, {}, tmp_path / ".env"), field)) == value
    assert plain(getattr(load(monkeypatch, {name: text}), field)) == value


def test_every_setting_is_in_the_table_above() -> None:
    [table] = [mark for mark in test_a_variable_sets_its_field.pytestmark if mark.name == "parametrize"]
    alone_not_enough = {"jwt_public_key_file", "jwks_url", "webhook_url", "webhook_secret"}
    assert {row[2] for row in table.args[1]} | alone_not_enough == {*module.fields()}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("OPENAI_BASE_URL", "127.0.0.1:8080"),
        ("OPENAI_BASE_URL", "https://"),
        ("OPENAI_MODEL", "m" * 201),
        ("CHATSTREAM_CONTEXT_CHARACTERS", "999"),
        ("CHATSTREAM_CONNECT_TIMEOUT", "0"),
        ("CHATSTREAM_FIRST_TOKEN_TIMEOUT", "-1"),
        ("CHATSTREAM_IDLE_TIMEOUT", "nan"),
        ("CHATSTREAM_ANSWER_TIMEOUT", "inf"),
        ("CHATSTREAM_ANSWER_TIMEOUT", "10m"),
        ("CHATSTREAM_MODEL_RETRIES", "-1"),
        ("CHATSTREAM_MODEL_RETRIES", "1.5"),
        ("CHATSTREAM_ANSWER_CHARACTERS", "99"),
        ("CHATSTREAM_REASONING", "maybe"),
        ("CHATSTREAM_REASONING_CHARACTERS", "500001"),
        ("CHATSTREAM_TOOL_ROUNDS", "0"),
        ("CHATSTREAM_TOOL_CALLS", "129"),
        ("CHATSTREAM_TOOL_ARGUMENT_CHARACTERS", "99"),
        ("CHATSTREAM_TOOL_OUTPUT_CHARACTERS", "200001"),
        ("JWT_SECRET", "0123456789abcdef0123456789abcde"),
        ("CHATSTREAM_QUERY_TOKENS", "perhaps"),
        ("CHATSTREAM_REVOCATION", "sessions"),
        ("CHATSTREAM_REVOCATION", "../sessions.py:make"),
        ("CHATSTREAM_REVOCATION_INTERVAL", "0"),
        ("CHATSTREAM_CORS_ORIGINS", "*"),
        ("CHATSTREAM_CORS_ORIGINS", "null"),
        ("CHATSTREAM_CORS_ORIGINS", "a.example"),
        ("CHATSTREAM_CORS_ORIGINS", "https://*.example"),
        ("CHATSTREAM_CORS_ORIGINS", "https://a.example/chat"),
        ("CHATSTREAM_CORS_ORIGINS", "https://a.example https://b.example"),
        ("CHATSTREAM_CORS_ORIGINS", "https://a.example,b.example"),
        ("CHATSTREAM_TRUSTED_PROXIES", "proxy.example"),
        ("CHATSTREAM_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("CHATSTREAM_TRUSTED_PROXIES", "127.0.0.1 10.0.0.1"),
        ("CHATSTREAM_FAILURES_PER_MINUTE", "0"),
        ("CHATSTREAM_STREAMS_PER_USER", "0"),
        ("CHATSTREAM_STREAMS_PER_PROCESS", "0"),
        ("CHATSTREAM_ANSWERS_PER_USER", "0"),
        ("CHATSTREAM_ANSWERS_PER_PROCESS", "0"),
        ("CHATSTREAM_OVERLOAD_LAG", "0"),
        ("CHATSTREAM_USER_TOKENS_PER_DAY", "-1"),
        ("CHATSTREAM_USER_TOKENS_PER_DAY", "0"),
        ("CHATSTREAM_USER_TOKENS_PER_DAY", "1e9"),
        ("CHATSTREAM_USER_TOKENS_PER_MONTH", "1.5"),
        ("CHATSTREAM_USER_TOKENS_PER_MONTH", "1000000000001"),
        ("CHATSTREAM_USER_COST_PER_MONTH", "1e9"),
        ("CHATSTREAM_USER_COST_PER_MONTH", "-1"),
        ("CHATSTREAM_USER_COST_PER_MONTH", "0.00"),
        ("CHATSTREAM_USER_COST_PER_MONTH", "12,50"),
        ("CHATSTREAM_USER_COST_PER_MONTH", "12.5 EUR"),
        ("CHATSTREAM_USER_COST_PER_MONTH", "0.0000001"),
        ("CHATSTREAM_USER_COST_PER_MONTH", "nan"),
        ("CHATSTREAM_BUDGET_CLAIM", "sub"),
        ("CHATSTREAM_BUDGET_CLAIM", "my claim"),
        ("CHATSTREAM_OPENINGS_PER_MINUTE", "0"),
        ("CHATSTREAM_MESSAGES_PER_MINUTE", "1000001"),
        ("CHATSTREAM_WEBHOOK_URL", "ftp://app.example/hook"),
        ("CHATSTREAM_WEBHOOK_URL", "http://app.example/hook"),
        ("CHATSTREAM_WEBHOOK_URL", "https://u:p@app.example/hook"),
        ("CHATSTREAM_WEBHOOK_URL", "app.example"),
        ("CHATSTREAM_WEBHOOK_SECRET", "whsec_c2hvcnQ="),
        ("CHATSTREAM_WEBHOOK_SECRET", "0123456789abcdef0123456789abcdef"),
        ("CHATSTREAM_WEBHOOK_SECRET", "whsec_not base64 at all, and long enough"),
        ("CHATSTREAM_WEBHOOK_DELAY", "-1"),
        ("CHATSTREAM_WEBHOOK_DELAY", "10s"),
        ("MONGODB_DATABASE", "a.b"),
        ("MONGODB_DATABASE", "a/b"),
        ("CHATSTREAM_ENV", "prod"),
        ("CHATSTREAM_PORT", "65536"),
        ("CHATSTREAM_PROCESSES", "0"),
        ("CHATSTREAM_PROCESSES", "257"),
        ("CHATSTREAM_PROCESSES", "auto"),
        ("CHATSTREAM_PORT", "http"),
        ("CHATSTREAM_LOG_FORMAT", "xml"),
        ("CHATSTREAM_LOG_LEVEL", "LOUD"),
        ("CHATSTREAM_HEARTBEAT_INTERVAL", "0"),
        ("CHATSTREAM_DISCONNECT_GRACE", "-1"),
        ("CHATSTREAM_DISCONNECT_GRACE", "nan"),
        ("CHATSTREAM_DISCONNECT_GRACE", "sometimes"),
        ("CHATSTREAM_CONNECTION_TIMEOUT", "0"),
        ("CHATSTREAM_CONNECTION_BYTES", "1024"),
        ("CHATSTREAM_SLOW_READER_TIMEOUT", "0"),
        ("CHATSTREAM_SAVE_DEADLINE", "0"),
        ("CHATSTREAM_DRAIN_TIMEOUT", "0"),
        ("CHATSTREAM_CONTENT_CHARACTERS", "50001"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    [problem] = problems(monkeypatch, {name: text})
    assert problem.startswith(f"{name}: ")


RS256 = {"CHATSTREAM_JWT_ALGORITHMS": "RS256"}
FILE = {"CHATSTREAM_JWT_PUBLIC_KEY_FILE": "/etc/key.pem"}


def jwks(url: str) -> dict[str, str]:
    return {"CHATSTREAM_JWKS_URL": url}


def test_public_keys_take_the_place_of_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in (FILE, jwks("https://issuer.example/keys")):
        with monkeypatch.context() as patch:
            settings = load(
                patch, {name: text for name, text in PRODUCTION.items() if name != "JWT_SECRET"} | key | RS256
            )
        assert settings.accepted_algorithms == ("RS256",)
        assert not settings.verifies_with_secret


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]:8080"])
def test_keys_may_come_over_http_from_this_machine(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    assert load(monkeypatch, jwks(f"http://{host}/keys") | RS256).jwks_url == f"http://{host}/keys"


@pytest.mark.parametrize(
    "url",
    ["http://issuer.example/keys", "file:///etc/keys", "ftp://localhost/keys", "keys", "http://localhost.evil.example"],
)
def test_keys_come_from_nowhere_else(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    [problem] = problems(monkeypatch, jwks(url) | RS256)
    assert problem.startswith("CHATSTREAM_JWKS_URL: must begin with http")


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        (FILE, "with CHATSTREAM_JWT_PUBLIC_KEY_FILE, CHATSTREAM_JWT_ALGORITHMS must be set, to RS256 for example"),
        (FILE | {"CHATSTREAM_JWT_ALGORITHMS": "RS256,HS256"}, "HS256 cannot be used with public keys"),
        (RS256 | {"JWT_SECRET": SECRET}, "CHATSTREAM_JWT_ALGORITHMS: RS256 cannot be used with a secret"),
        (RS256, "CHATSTREAM_JWT_ALGORITHMS: RS256 cannot be used with a secret"),
        (RS256 | FILE | {"JWT_SECRET": SECRET}, "only one of JWT_SECRET and CHATSTREAM_JWT_PUBLIC_KEY_FILE"),
        (RS256 | FILE | jwks("https://issuer.example"), "CHATSTREAM_JWT_PUBLIC_KEY_FILE and CHATSTREAM_JWKS_URL"),
        ({"CHATSTREAM_JWT_ALGORITHMS": "HS384", "JWT_SECRET": SECRET}, "must be at least 48 bytes long for HS384"),
        ({"CHATSTREAM_JWT_ALGORITHMS": "HS256,HS512", "JWT_SECRET": SECRET}, "at least 64 bytes long for HS256, HS512"),
    ],
)  # fmt: skip
def test_tokens_that_cannot_be_verified(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], problem: str
) -> None:
    [said] = problems(monkeypatch, variables)
    assert problem in said


@pytest.mark.parametrize("name", ["none", "hs256", "ES256K", "RS1"])
def test_algorithms_are_those_that_are_safe(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    [problem] = problems(monkeypatch, {"CHATSTREAM_JWT_ALGORITHMS": name})
    assert problem.startswith("CHATSTREAM_JWT_ALGORITHMS: ")


def test_the_database_is_named_with_its_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    [problem] = problems(monkeypatch, {"DATABASE_URL": "postgres://user:the-password@db/x"})
    assert problem.startswith("MONGODB_URI (or its alias DATABASE_URL): must begin with mongodb://")
    assert "the-password" not in problem


def test_the_main_name_wins_over_the_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, {"MONGODB_URI": URI, "DATABASE_URL": "postgres://elsewhere"})
    assert plain(settings.mongodb_uri) == URI


def test_the_environment_wins_over_the_file_also_with_the_alias(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("MONGODB_URI=mongodb://file/file\n")
    settings = load(monkeypatch, {"DATABASE_URL": "mongodb://environment/live"}, tmp_path / ".env")
    assert plain(settings.mongodb_uri) == "mongodb://environment/live"
    assert settings.mongodb_database == "live"


def test_white_space_alone_is_no_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CHATSTREAM_PORT=6000\n")
    blank = {"MONGODB_URI": "  ", "MONGODB_DATABASE": " ", "CHATSTREAM_PORT": "\t"}
    settings = load(monkeypatch, blank | {"DATABASE_URL": "mongodb://h/shop"}, tmp_path / ".env")
    assert plain(settings.mongodb_uri) == "mongodb://h/shop"
    assert (settings.mongodb_database, settings.port) == ("shop", 6000)


def test_everything_wrong_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CHATSTREAM_HOTS=x\nCHATSTREAM_PORT=http\n")
    lines = problems(
        monkeypatch,
        {"JWT_SECRET": "short", "CHATSTREAM_LOG_LEVEL": "LOUD", "CHATSTREAM_PROT": "1"},
        tmp_path / ".env",
    )
    assert {line.split(":")[0] for line in lines} == {
        *("CHATSTREAM_HOTS", "CHATSTREAM_PROT", "CHATSTREAM_PORT", "JWT_SECRET", "CHATSTREAM_LOG_LEVEL")
    }
    assert len(lines) == 5


def test_a_name_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(monkeypatch, {"CHATSTREAM_PROT": "1"}) == [
        "CHATSTREAM_PROT: there is no such setting; did you mean CHATSTREAM_PORT?"
    ]
    assert problems(monkeypatch, {"CHATSTREAM_XYZZY": "1"}) == ["CHATSTREAM_XYZZY: there is no such setting"]
    assert load(monkeypatch, {"SOMEBODY_ELSES": "1"}) is not None


SECRETS = {
    "JWT_SECRET": "short-secret",
    "MONGODB_URI": "http://user:the-password@db",
    "DATABASE_URL": "http://user:the-password@db",
    "OPENAI_API_KEY": "sk-the-key",
    "CHATSTREAM_OPENAI_API_KEY": "sk-the-key",  # a name that does not exist
}


def test_no_error_repeats_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(problems(monkeypatch, SECRETS | {"CHATSTREAM_ENV": "production", "CHATSTREAM_PORT": "sk-the-key"}))
    for secret in ("short-secret", "the-password", "sk-the-key"):
        assert secret not in text


def test_the_settings_do_not_show_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, PRODUCTION)
    for secret in (SECRET, "the-password", "sk-the-key"):
        assert secret not in f"{settings!r} {settings} {asdict(settings)}"


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CHATSTREAM_PORT=1\nCHATSTREAM_HOST=file\nOTHER=1\n")
    settings = load(monkeypatch, {"CHATSTREAM_PORT": "2"}, tmp_path / ".env")
    assert (settings.port, settings.host) == (2, "file")


def test_an_empty_value_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, dict.fromkeys(variables().values(), ""))
    assert settings.plugins == ()  # the only setting whose empty value has a meaning
    assert replace(settings, plugins=DEFAULT_PLUGINS) == Settings()
    assert settings.uses_demo_model
    assert settings.uses_embedded_database


@pytest.mark.parametrize(
    ("environment", "file", "expected"),
    [
        ("", "CHATSTREAM_PLUGINS=\n", ()),
        ("", "CHATSTREAM_PLUGINS='  '\n", ()),
        ("a.b:c", "CHATSTREAM_PLUGINS=\n", ("a.b:c",)),
        (None, "CHATSTREAM_PLUGINS=\n", ()),
        (None, "CHATSTREAM_PLUGINS=a.b:c\n", ("a.b:c",)),
        (None, "#CHATSTREAM_PLUGINS=\n", DEFAULT_PLUGINS),
    ],
)
def test_of_plug_ins_an_empty_value_is_none_and_no_value_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: str | None, file: str, expected: tuple[str, ...]
) -> None:
    (tmp_path / ".env").write_text(file)
    given = {} if environment is None else {"CHATSTREAM_PLUGINS": environment}
    assert load(monkeypatch, given, tmp_path / ".env").plugins == expected


# Production -----------------------------------------------------------------------------------------------------------


def test_production_starts_with_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, PRODUCTION).env is Environment.PRODUCTION


def test_production_needs_no_key_for_a_model_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"OPENAI_API_KEY": "", "OPENAI_BASE_URL": "http://127.0.0.1:8000/v1"}
    assert not load(monkeypatch, PRODUCTION | own).uses_demo_model


@pytest.mark.parametrize("name", ["JWT_SECRET", "MONGODB_URI", "OPENAI_API_KEY"])
@pytest.mark.parametrize("missing", [None, ""])
def test_production_makes_nothing_up(monkeypatch: pytest.MonkeyPatch, name: str, missing: str | None) -> None:
    rest = {key: value for key, value in PRODUCTION.items() if key != name}
    [problem] = problems(monkeypatch, rest if missing is None else rest | {name: missing})
    assert "in production" in problem
    assert f"{name} " in problem
    assert [other for other in ("JWT_SECRET", "MONGODB_URI", "OPENAI_API_KEY") if other in problem] == [name]


def test_production_says_all_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = problems(monkeypatch, {"CHATSTREAM_ENV": "production"})
    assert [line.split()[0] for line in lines] == ["JWT_SECRET", "MONGODB_URI", "OPENAI_API_KEY"]


# The example ----------------------------------------------------------------------------------------------------------


def example() -> dict[str, str]:
    """The assignments of the example, all of them commented out."""
    text = EXAMPLE.read_text(encoding="utf-8")
    assert not re.findall(r"^[^#\n]", text, re.MULTILINE)
    found = re.findall(r"^#([A-Z_]+)=(.*)$", text, re.MULTILINE)
    assert len({name for name, _ in found}) == len(found)
    return dict(found)


def test_the_example_names_every_setting_and_no_other() -> None:
    assert {*example()} == {*variables().values()}


def test_the_examples_values_are_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load(monkeypatch, {}, uncommented(tmp_path)) == Settings()
    for field, name in variables().items():
        default = getattr(Settings(), field)
        # The example shows each default that is a number or a text.
        assert (example()[name] == "") == (default in (None, ())), name


def uncommented(directory: Path) -> Path:
    """The example file with all of its lines uncommented."""
    text = "\n".join(f"{name}={value}" for name, value in example().items())
    (directory / "all.env").write_text(text, encoding="utf-8")
    return directory / "all.env"


def test_every_line_of_the_example_has_its_reason() -> None:
    blocks = EXAMPLE.read_text(encoding="utf-8").split("\n\n")
    for block in blocks:
        lines = block.strip().split("\n")
        if re.match(r"#[A-Z_]+=", lines[-1]):
            assert len(lines) >= 2, lines
            assert all(line.startswith("# ") for line in lines[:-1]), lines
    assert module.__doc__
    assert "conf/chatstream.env.example" in module.__doc__


def test_a_webhook_has_an_address_and_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    url = {"CHATSTREAM_WEBHOOK_URL": "http://127.0.0.1:8787/hook?of=chat"}
    secret = {"CHATSTREAM_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
    assert load(monkeypatch, url | secret).webhook_url == url["CHATSTREAM_WEBHOOK_URL"]
    monkeypatch.delenv("CHATSTREAM_WEBHOOK_SECRET")
    assert problems(monkeypatch, url) == ["CHATSTREAM_WEBHOOK_SECRET: must be set where CHATSTREAM_WEBHOOK_URL is"]
    monkeypatch.delenv("CHATSTREAM_WEBHOOK_URL")
    assert problems(monkeypatch, secret) == ["CHATSTREAM_WEBHOOK_URL: must be set where CHATSTREAM_WEBHOOK_SECRET is"]
