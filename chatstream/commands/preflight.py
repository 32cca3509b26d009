"""Checks settings with the code that uses them, before anything is opened or created. Reports all faults at once."""

import os
import ssl
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from chatstream.auth import OneKey
from chatstream.config import values
from chatstream.errors import ConfigurationError, InvalidSettings
from chatstream.llm.catalogue import Catalogue
from chatstream.llm.configuration import catalogue
from chatstream.proxies import proxy_for
from chatstream.settings import Settings
from chatstream.store import uri as mongodb
from chatstream.store.embedded import find_mongod
from chatstream.summary import OPENAI

# Environment variables that the openai package reads by itself and sends in headers.
_SENT = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID")


def require(settings: Settings) -> None:
    """Raises `InvalidSettings` with all faults; `ConfigurationError` if a needed program is not installed."""
    if found := problems(settings):
        raise InvalidSettings(found)
    if settings.uses_embedded_database:
        find_mongod()


def problems(settings: Settings) -> list[str]:
    """All faults of the settings, a line each."""
    return [*_problems(settings)]


def require_database(settings: Settings) -> None:
    """Like `require`, for commands that need only the database."""
    if found := [*_database(settings)]:
        raise InvalidSettings(found)


def notes(settings: Settings) -> list[str]:
    """Warnings about settings that work, but are probably mistakes."""
    uri = settings.mongodb_uri.get_secret_value() if settings.mongodb_uri else ""
    return [*settings.doubts, *(f"MONGODB_URI: {each}" for each in mongodb.doubts(uri))]


def _problems(settings: Settings) -> Iterator[str]:
    yield from _keys(settings)
    yield from _database(settings)
    if settings.uses_embedded_database or (settings.verifies_with_secret and settings.jwt_secret is None):
        yield from _data_dir(settings.data_dir)
    models: Catalogue | None = None
    try:
        models = catalogue(settings)
    except InvalidSettings as exc:
        yield from exc.problems
    if not settings.uses_demo_model:
        yield from _headers()
        yield from _certificates(settings, models)
    yield from _tools(settings)
    yield from _proxies(settings, models)
    yield from _page_file(settings)


def _page_file(settings: Settings) -> Iterator[str]:
    if settings.page_file is None:
        return
    from chatstream.config import page_file

    try:
        page_file.read(settings.page_file)
    except InvalidSettings as exc:
        yield from exc.problems


def _tools(settings: Settings) -> Iterator[str]:
    if settings.tools_file is None:
        return
    from chatstream.tools.configuration import read_file

    try:
        read_file(settings)
    except InvalidSettings as exc:
        yield from exc.problems


def _database(settings: Settings) -> Iterator[str]:
    if settings.mongodb_uri is not None:
        yield from (
            f"MONGODB_URI (or its alias DATABASE_URL): {each}"
            for each in mongodb.problems(settings.mongodb_uri.get_secret_value())
        )


def _keys(settings: Settings) -> Iterator[str]:
    algorithms = settings.accepted_algorithms
    try:
        if settings.jwt_public_key_file is not None:
            OneKey.public(settings.jwt_public_key_file, algorithms, name="CHATSTREAM_JWT_PUBLIC_KEY_FILE")
        elif settings.jwt_secret is not None:
            OneKey.secret(settings.jwt_secret.get_secret_value(), algorithms)
    except ConfigurationError as exc:
        yield str(exc)


def _data_dir(directory: Path) -> Iterator[str]:
    """The faults of the data directory. It is created when needed; here check that this is possible."""
    there = directory.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        yield f"CHATSTREAM_DATA_DIR: {there} is not a directory"
    elif not os.access(there, os.W_OK | os.X_OK):
        yield f"CHATSTREAM_DATA_DIR: this user may not write to {there}"
    else:
        try:  # permissions are not enough: /proc, for example, accepts no files
            Path(tempfile.mkdtemp(prefix=".chatstream-", dir=there)).rmdir()
        except OSError as exc:
            yield f"CHATSTREAM_DATA_DIR: nothing can be stored in {there}: {exc.strerror}"


def _headers() -> Iterator[str]:
    for name in _SENT:
        try:
            if text := os.environ.get(name):
                values.header_text(text)
        except ValueError as exc:
            yield f"{name}: {exc}"


def _certificates(settings: Settings, models: Catalogue | None) -> Iterator[str]:
    file = os.environ.get("SSL_CERT_FILE")
    # Loading the usual 150 authorities takes as long as a whole first answer: not where nobody is asked over TLS.
    over_tls = any(url.lower().startswith("https:") for url in _asked(settings, models))
    if file and (over_tls or settings.tools_file is not None):
        try:
            ssl.create_default_context(cafile=file)
        except OSError as exc:
            yield f"SSL_CERT_FILE: {file} cannot be used: {exc.strerror}"


def _asked(settings: Settings, models: Catalogue | None) -> Iterator[str]:
    """The URLs that the server sends requests to, each once, except those of tools."""
    entries = models.entries.values() if models is not None and not settings.uses_demo_model else ()
    urls = [*(entry.base_url or OPENAI for entry in entries), settings.jwks_url, settings.webhook_url]
    yield from dict.fromkeys(url for url in urls if url is not None)


def _proxies(settings: Settings, models: Catalogue | None) -> Iterator[str]:
    for url in _asked(settings, models):
        try:
            proxy = proxy_for(url)
        except ConfigurationError as exc:
            yield str(exc)
        else:
            if proxy is not None and proxy.startswith("socks") and find_spec("socksio") is None:
                yield "ALL_PROXY, HTTP_PROXY or HTTPS_PROXY names a SOCKS proxy: for that, pip install socksio"
