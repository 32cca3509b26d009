"""Describes the server's configuration in a few words, without secrets: for its greeting, its log and
`check-config`."""

from urllib.parse import urlsplit

from chatstream.config.values import hosts_in
from chatstream.settings import Settings

OPENAI = "https://api.openai.com/v1"


def summary(settings: Settings, port: int | None = None) -> dict[str, str]:
    """Return the parts that the server uses; `port` is the real one if any port was asked for."""
    return {
        "listens": address(settings.host, port if port is not None else settings.port),
        "model": _model(settings),
        "database": database(settings),
        "tokens": _tokens(settings),
        "page": "on" if settings.shows_page else "off",
        "metrics": "on the same port"
        if settings.metrics_port is None
        else address(settings.metrics_host, settings.metrics_port),
        "proxies": ", ".join(map(str, settings.trusted_proxies)) or "none trusted",
    }


def address(host: str, port: int) -> str:
    """Return ``host:port``, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def database(settings: Settings) -> str:
    """Return the database's kind and host, without user or password."""
    if settings.mongodb_uri is None:
        return f"embedded, in {settings.data_dir}/"
    return f"{settings.mongodb_database} at {', '.join(hosts_in(settings.mongodb_uri.get_secret_value()))}"


def processes(settings: Settings) -> str:
    """Return how many processes serve, and at which ports of their own."""
    if settings.processes == 1:
        return "1"
    ports = f"{settings.port + 1} to {settings.port + settings.processes}" if settings.port else "any free ones"
    return f"{settings.processes}, each with a port of its own, too: {ports}"


def _model(settings: Settings) -> str:
    if settings.models_file is not None:
        return f"those of {settings.models_file}"
    if settings.uses_demo_model:
        return "demo"
    # A base URL has no secrets: one with a user or a query is refused.
    return f"{settings.openai_model} at {settings.openai_base_url or OPENAI}"


def _tokens(settings: Settings) -> str:
    algorithms = ", ".join(settings.accepted_algorithms)
    if settings.jwks_url is not None:
        parts = urlsplit(settings.jwks_url)  # the query is left out, as it may hold a key
        return f"{algorithms}, from the issuer with the keys at {parts.scheme}://{parts.netloc}{parts.path}"
    if settings.jwt_public_key_file is not None:
        return f"{algorithms}, from whoever has the private key of {settings.jwt_public_key_file}"
    made = "JWT_SECRET" if settings.jwt_secret is not None else f"the secret in {settings.data_dir}/"
    return f"{algorithms}, signed with {made}; `chatstream token` makes one"
