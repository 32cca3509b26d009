"""What a server uses, in a few words each and without secrets: for its greeting, its log and `check-config`."""

from urllib.parse import urlsplit

from chatstream.config.values import hosts_in
from chatstream.settings import Settings

OPENAI = "https://api.openai.com/v1"


def summary(settings: Settings, port: int | None = None) -> dict[str, str]:
    """What it is, and what is used for it; `port` is the one it got where it asked for any."""
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
    """``host:port``, and an IPv6 address in its brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def database(settings: Settings) -> str:
    """Which database, and where: never the user, let alone the password."""
    if settings.mongodb_uri is None:
        return f"embedded, in {settings.data_dir}/"
    return f"{settings.mongodb_database} at {', '.join(hosts_in(settings.mongodb_uri.get_secret_value()))}"


def _model(settings: Settings) -> str:
    if settings.models_file is not None:
        return f"those of {settings.models_file}"
    if settings.uses_demo_model:
        return "demo"
    # A base URL holds no secrets: it is refused with a user or a query.
    return f"{settings.openai_model} at {settings.openai_base_url or OPENAI}"


def _tokens(settings: Settings) -> str:
    algorithms = ", ".join(settings.accepted_algorithms)
    if settings.jwks_url is not None:
        parts = urlsplit(settings.jwks_url)  # a query may hold a key
        return f"{algorithms}, from the issuer with the keys at {parts.scheme}://{parts.netloc}{parts.path}"
    if settings.jwt_public_key_file is not None:
        return f"{algorithms}, from whoever has the private key of {settings.jwt_public_key_file}"
    made = "JWT_SECRET" if settings.jwt_secret is not None else f"the secret in {settings.data_dir}/"
    return f"{algorithms}, signed with {made}; `chatstream token` makes one"
