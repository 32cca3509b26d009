"""Parses and checks a MongoDB URI. The messages never contain the password; the driver's own messages may."""

import re
import warnings
from collections.abc import Iterator
from difflib import get_close_matches
from urllib.parse import unquote_plus

from pymongo import MongoClient
from pymongo.errors import InvalidURI, PyMongoError
from pymongo.uri_parser import validate_options

_IN_TIME = "each operation has 2 s, so that a request is answered within 5"
_PRIMARY = "the primary is read, or an answer could be missing that was just stored"
_REPEATED = "it is on, or an answer would fail with every change of the primary"
_ON_DISK = "a write is with a majority and in the journal, or an answer could be lost with one node, or the power"
# URI options that chatstream sets itself, with the reason. They are removed from the URI before the driver gets it.
_DECIDED = {
    "readpreference": _PRIMARY,
    "readpreferencetags": _PRIMARY,
    "maxstalenessseconds": _PRIMARY,
    "readconcernlevel": "it is majority, or what was read could be undone",
    "w": _ON_DISK,
    "journal": _ON_DISK,
    "fsync": _ON_DISK,
    "wtimeoutms": _IN_TIME,
    "timeoutms": _IN_TIME,
    "sockettimeoutms": _IN_TIME,
    "waitqueuetimeoutms": _IN_TIME,
    "serverselectiontimeoutms": _IN_TIME,
    "connecttimeoutms": _IN_TIME,
    "retrywrites": _REPEATED,
    "retryreads": _REPEATED,
    "heartbeatfrequencyms": "it is 10 s, so that a server that is gone is noticed",
    "appname": "it is chatstream",
    "tz_aware": "times are UTC",
    "datetime_conversion": "times are UTC",
    "unicode_decode_error_handler": "text is UTF-8",
}
# Option values equal to those that chatstream sets: the user needs no message about them.
_OURS = ("majority", "primary", "true")
# Least size of the connection pool. The change stream keeps one connection; 500 answers saved at once share the others.
LEAST_POOL = 10
# The parts of the driver's messages that are safe to show; other parts may repeat the option's value.
_SAFE = re.compile(r"must be an? (?:positive |non-negative )?(?:integer|number|float)|must be 'true' or 'false'")


def problems(uri: str) -> list[str]:
    """The parts of the URI that the driver would refuse or ignore, as messages."""
    if found := [*_strange_options(uri)]:
        return found
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the driver's warnings are among the messages above
            MongoClient[dict[str, object]](uri, connect=False).close()
    except InvalidURI as exc:
        if "escaped" in str(exc) or "percent" in str(exc):
            return ["has credentials with characters like @ : / % in them: write these as %40 %3A %2F %25"]
        if "simultaneously" in str(exc) or "conflict" in str(exc):
            return ["has options that exclude each other"]
        return [
            "is not a valid MongoDB connection string, such as mongodb://user:secret@host/database?replicaSet=rs0 (in "
            "credentials, write @ : / % as %40 %3A %2F %25)"
        ]
    except OSError as exc:
        return [f"names a file in tlsCAFile or tlsCertificateKeyFile that holds no certificate ({type(exc).__name__})"]
    except (PyMongoError, ValueError) as exc:
        if "port" in str(exc).lower():
            return ["has a port that is no number from 1 to 65,535 (or credentials that hold : / @ unescaped)"]
        return ["cannot be used by the driver as it is: are host, credentials and options complete?"]
    except Exception as exc:  # noqa: BLE001 - for example a missing package of the driver's; its text may hold a secret
        return [f"cannot be used by the driver ({type(exc).__name__})"]
    return []


def overridden(uri: str) -> list[str]:
    """The URI's options that chatstream sets itself, each with the reason."""
    return [
        f"{_shown(name)} in it does not count: {_DECIDED[name.lower()]}"
        for name, value in options(uri)
        if name.lower() in _DECIDED and value.lower() not in _OURS
    ]


def undecided(uri: str) -> str:
    """The URI for the driver, without the options that chatstream sets itself."""
    servers, question, _ = uri.partition("?")
    kept = "&".join(f"{name}={value}" for name, value in options(uri) if name.lower() not in _DECIDED)
    return servers + question + kept


def doubts(uri: str) -> list[str]:
    """Warnings about options that work, but are probably mistakes."""
    direct = (option(uri, "directConnection") or "").lower() == "true"
    told = ["directConnection in it keeps to one server: when another one becomes the primary, nothing can be stored"]
    return [*overridden(uri), *(told if direct else [])]


def option(uri: str, wanted: str) -> str | None:
    """The value of an option in the URI, or None."""
    return next((value for name, value in options(uri) if name.lower() == wanted.lower()), None)


def _strange_options(uri: str) -> Iterator[str]:
    for name, value in options(uri):
        try:
            with warnings.catch_warnings(record=True) as said:  # such as: a compressor is not installed
                warnings.simplefilter("always")
                validate_options({name: unquote_plus(value)}, warn=False)
            if said:
                yield f"{_shown(name)} in it needs a Python package that is not installed here"
        except OSError as exc:
            yield f"names a file in {_shown(name)} that cannot be read: {exc.strerror}"
        except (PyMongoError, ValueError, TypeError) as exc:
            text = str(exc)
            if "Unknown option" in text:
                near = get_close_matches(name.lower(), re.findall(r"\w+", text.partition("one of")[2]), n=1)
                yield f"has an option that does not exist, {_shown(name)}" + (
                    f"; did you mean {near[0]}?" if near else ""
                )
            else:
                safe = _SAFE.search(text)
                yield f"{_shown(name)} in it {safe[0] if safe else 'has a value that does not exist'}"
        if name.lower() == "maxpoolsize" and value.isdigit() and 0 < int(value) < LEAST_POOL:
            yield f"maxPoolSize in it must be {LEAST_POOL} or more: the change stream takes a connection for itself"


def options(uri: str) -> Iterator[tuple[str, str]]:
    """The names and values of the URI's options, unchanged."""
    for pair in re.split("[&;]", uri.partition("?")[2]):
        name, equals, value = pair.partition("=")
        if name and equals:
            yield name, value


def _shown(name: str) -> str:
    """An option's name for an error message; a placeholder if it does not look like a name. In a malformed URI, the
    "name" may be a part of the password.
    """
    return name if re.fullmatch(r"[A-Za-z_]{1,50}", name) else "its name is not a word"
