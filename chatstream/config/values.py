"""Checks the values of settings.

Each check raises `ValueError`. Its message follows the setting's name, and never quotes the value, which may be a
secret that was pasted into the wrong line.
"""

import base64
import re
import unicodedata
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

Network = IPv4Network | IPv6Network

# Shortest secret: at least the size of the hash (RFC 7518, section 3.2), which is 32 bytes for HS256.
MIN_SECRET_BYTES = 32

# Text for a header's value (RFC 9110, section 5.5), without spaces: no key has any.
_HEADER_TEXT = re.compile(r"[!-~]+")
# The characters of a URL, and percent escapes (RFC 3986).
_URL = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
# One label of a host name (RFC 1123). Underscores are not allowed there, but Docker's names have them.
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")

# Placeholders from examples: the whole value, or its beginning.
_PLACEHOLDER = re.compile(
    r"<.*>|(?:sk-)?x{3,}|.*(?:…|\.\.\.).*|(?:sk-|\W)*(?:your|change|replace|insert|enter|paste|todo|placeholder|fixme)"
    r"(?:[-_ ]?(?:me|this|it|own|here|the|with|api|openai|jwt|secret|key|token)(?![a-z0-9]).*|[-_ ].*)?",
    re.IGNORECASE,
)
# Placeholders anywhere in a secret.
_TO_BE_REPLACED = re.compile(
    r"(?:change|replace)[-_ ]?(?:me|it|this)|your[-_ ]?(?:own[-_ ]?)?(?:jwt[-_ ]?)?(?:secret|key)|placeholder",
    re.IGNORECASE,
)
# One to eight characters repeated: long enough for a secret, but easy to guess.
_REPEATED = re.compile(r"(.{1,8}?)\1{3,}.{0,8}", re.DOTALL)

# Longest path: Linux's PATH_MAX, without its final NUL.
_LONGEST_PATH = 4095

# MongoDB's own databases. `admin` in a URI's path usually names where the user is stored, not the database to use.
_MONGODB_OWN = ("admin", "local", "config", "$external")


def bare(text: str) -> str:
    """`text` without the white space and invisible characters at its ends, which copying often adds."""
    begin, end = 0, len(text)
    while begin < end and _is_blank(text[begin]):
        begin += 1
    while end > begin and _is_blank(text[end - 1]):
        end -= 1
    return text[begin:end]


def check_text(text: str, *, lines: bool = False) -> None:
    """Raise `ValueError` if the text has invisible characters. `lines`: allow line feeds and tabs."""
    for character in text:
        category = unicodedata.category(character)
        if category == "Cs":
            raise ValueError("holds bytes that are not UTF-8")
        if character in "\n\t\r" and lines:
            continue
        if category == "Cc" or (category in ("Cf", "Zl", "Zp") and not lines):
            raise ValueError(f"holds a character that cannot be seen (U+{ord(character):04X}): type it anew")
    if not lines and len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        raise ValueError("stands in quotation marks, which would be part of it: leave them out")


def header_text(text: str) -> str:
    """Check a text for a header: visible ASCII."""
    if not _HEADER_TEXT.fullmatch(text):
        raise ValueError("holds white space or characters that are not ASCII, which no HTTP header can carry")
    return text


def host(text: str) -> str:
    """Check an address or host name to listen on."""
    if "/" in text or _port_follows(text):
        raise ValueError("must be an address or a name alone, without http:// and without a port")
    text = text.removeprefix("[").removesuffix("]")
    if not _is_host(text):
        raise ValueError("must be an address, such as 127.0.0.1, 0.0.0.0 or ::1, or the name of this machine")
    return text


def network(text: object) -> Network:
    """Parse an address or a network of addresses. Not pydantic's type, whose module takes longer to load than ours."""
    try:
        return ip_network(str(text))
    except ValueError:
        raise ValueError(
            "must be addresses and networks such as 127.0.0.1, 10.0.0.0/8, separated by commas, without ports"
        ) from None


def url(text: str, *, query: bool = False) -> str:
    """Check an http(s) URL: nothing in it that the HTTP client would refuse or drop."""
    parts, port = _parts(text)
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or a password")
    if parts.fragment or "#" in text:
        raise ValueError("must not have a fragment (#)")
    if parts.query and not query:
        raise ValueError("must not have a query (?): paths are added to its end")
    if not parts.hostname or not _is_host(parts.hostname):
        raise ValueError("must name a host: http://host:port/path")
    if port == 0:
        raise ValueError("has a port that does not exist")
    return text


def base_url(text: str) -> str:
    """Check the base URL of an OpenAI-compatible API; paths such as /chat/completions are appended to it."""
    text = url(text)
    for path in ("/chat/completions", "/completions", "/models", "/responses"):
        if urlsplit(text).path.rstrip("/").endswith(path):
            raise ValueError(f"must be the API's base, which usually ends in /v1: leave out {path}")
    return text


def jwks_url(text: str) -> str:
    """Check a JWK Set's URL: https, except on this machine, since an attacker who can change the keys can sign in as
    any user.
    """
    local = ("localhost", "127.0.0.1", "::1")
    if urlsplit(text).scheme != "https" and not (urlsplit(text).scheme == "http" and urlsplit(text).hostname in local):
        raise ValueError("must begin with https://, or with http:// and the name of this machine")
    return url(text, query=True)


def webhook_url(text: str) -> str:
    """Check a webhook's URL: https, except on this machine, as events say who talks with whom."""
    return jwks_url(text)


def webhook_secret(text: str) -> str:
    """Check a Standard Webhooks secret: ``whsec_`` and 24 to 64 bytes in Base64."""
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not text.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError(
            "must be whsec_ and 24 to 64 bytes in Base64 (make one with: echo whsec_$(openssl rand -base64 32))"
        )
    return text


def claim(name: str) -> str:
    """Check the name of a token's claim that may have any name."""
    if name in ("aud", "exp", "iat", "iss", "jti", "nbf", "sub"):
        raise ValueError(f"`{name}` says something else of a token")
    return name


def money(text: object) -> object:
    """Parse an amount of the operator's currency, with up to six decimals: costs are stored in millionths."""
    if not isinstance(text, str):
        return text
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text) or not text.strip("0."):
        raise ValueError("must be an amount such as 12.50: more than 0, below 1,000,000,000, with at most six decimals")
    return Decimal(text)


def login_url(text: str) -> str:
    """Check the address of the sign-in page: an http(s) URL, or a path on the same host."""
    if text.startswith("/") and not text.startswith("//"):
        if "#" in text or not _URL.fullmatch(text):
            raise ValueError("must not have a fragment (#), or characters that no URL may have")
        return text
    return url(text, query=True)


def secret(text: str) -> str:
    """Check a signing secret. Its bytes are the key, so nothing is cut off."""
    if bare(text) != text:
        raise ValueError("begins or ends with white space, which would be part of the key: leave it out")
    check_text(text)
    if len(text.encode()) < MIN_SECRET_BYTES:
        raise ValueError(f"must be at least {MIN_SECRET_BYTES} bytes long (make one with: openssl rand -hex 32)")
    return text


def mongodb_uri(text: str) -> str:
    """Check the beginning of a MongoDB URI; the driver checks the rest (`store.uri`)."""
    if not text.startswith(("mongodb://", "mongodb+srv://")):
        raise ValueError("must begin with mongodb:// or mongodb+srv://")
    check_text(text)
    return text


def mongodb_database(text: str) -> str:
    """Check the name of a database."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,63}", text):
        raise ValueError(
            "must be 1 to 63 letters, digits, _ or - (the path of MONGODB_URI or DATABASE_URL sets it, too)"
        )
    if text in _MONGODB_OWN:
        raise ValueError("must not be admin, local or config: MongoDB keeps those for itself")
    return text


def path_of(uri: str) -> str | None:
    """The database in a MongoDB URI's path; None if the path only says where the user is stored."""
    after_hosts = uri.partition("://")[2].partition("?")[0].rpartition("@")[2]
    name = unquote(after_hosts.partition("/")[2]) if not after_hosts.startswith("%2F") else ""
    return name if name and name not in _MONGODB_OWN else None


def hosts_in(uri: str) -> list[str]:
    """The servers in a MongoDB URI, with their ports if given."""
    return uri.partition("://")[2].partition("?")[0].rpartition("@")[2].partition("/")[0].split(",")


def directory(text: str) -> str:
    """Check the path of a directory. Expands ``~`` to the home directory, as env files do not."""
    if "-----BEGIN" in text or "://" in text:
        raise ValueError("must be a path, and not an address or what stands in a file")
    if len(text.encode()) > _LONGEST_PATH:
        raise ValueError("is too long for a path")
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        raise ValueError("begins with ~, and this user has no home: write the whole path") from None


def python_name(text: str) -> str:
    """Check the name of a Python function: ``package.module:function``."""
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", text):
        raise ValueError("must be the name of a function, such as package.module:function")
    return text


def is_placeholder(text: str) -> bool:
    """Whether a value looks like a placeholder: ``your-key-here``, ``<key>``, ``sk-…``."""
    return _PLACEHOLDER.fullmatch(text) is not None


def is_guessable(text: str) -> bool:
    """Whether a secret is a placeholder, or a few repeated characters."""
    return is_placeholder(text) or bool(_TO_BE_REPLACED.search(text) or _REPEATED.fullmatch(text))


def _is_blank(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) in ("Cc", "Cf")


def _parts(text: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("must be a URL: http://host:port/path") from None
    if parts.scheme not in ("http", "https") or not text[len(parts.scheme) :].startswith("://"):
        raise ValueError("must begin with http:// or https://")
    if not _URL.fullmatch(text):
        raise ValueError("holds characters that no URL may have; write them as %20, and a host's name in ASCII")
    try:
        return parts, parts.port
    except ValueError:
        raise ValueError("has a port that is no number from 1 to 65,535") from None


def _port_follows(text: str) -> bool:
    return re.fullmatch(r"(\[.*\]|[^:]*):\d*", text) is not None and text != "::"


def _is_host(text: str) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        labels = text.removesuffix(".").split(".")
        # A name whose last label is a number would have to be an IPv4 address, and this one is not.
        return len(text) <= 253 and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()
    return not (isinstance(address, IPv6Address) and address.scope_id == "")
