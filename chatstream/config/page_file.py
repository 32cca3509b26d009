"""A chat page of one's own: the file that `CHATSTREAM_PAGE_FILE` names. `conf/page.toml.example` shows all of it."""

import re
import tomllib
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from chatstream.errors import ConfigurationError

_SETTING = "CHATSTREAM_PAGE_FILE"
# The logo goes with the page itself, to everybody who opens it.
_MOST_LOGO_BYTES = 64 * 1024
# A file of words and colours; larger ones are something else.
_MOST_BYTES = 64 * 1024
# The kinds of pictures that every browser draws, by how their files begin.
_KINDS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/webp": (b"RIFF",),
    "image/svg+xml": (b"<svg", b"<?xml", b"<!--"),
}
_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}")

Line = Annotated[str, Meta(min_length=1, max_length=200)]
Colour = str | tuple[str, str]


class Colours(Struct, frozen=True, forbid_unknown_fields=True):
    """Each ``#rrggbb``: one for both themes, or a list of two, light and dark."""

    accent: Colour | None = None
    paper: Colour | None = None
    surface: Colour | None = None
    sunken: Colour | None = None
    ink: Colour | None = None


class PageFile(Struct, frozen=True, forbid_unknown_fields=True):
    """What may stand in the file. What does not is the page's own, in the reader's language."""

    name: Annotated[str, Meta(min_length=1, max_length=60)] | None = None
    language: Literal["en", "de"] | None = None
    greeting: Line | None = None
    introduction: Annotated[str, Meta(max_length=500)] | None = None
    examples: Annotated[tuple[Line, ...], Meta(max_length=8)] | None = None
    placeholder: Line | None = None
    note: Annotated[str, Meta(max_length=500)] | None = None
    logo: str | None = None
    colours: Colours = Colours()

    @property
    def words(self) -> dict[str, str | tuple[str, ...]]:
        """The words that are given; they are said in any language."""
        names = ("greeting", "introduction", "examples", "placeholder", "note")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def pairs(self) -> dict[str, tuple[str, str]]:
        """The colours that are given, by name: light and dark."""
        given = {name: getattr(self.colours, name) for name in self.colours.__struct_fields__}
        return {
            name: (colour, colour) if isinstance(colour, str) else colour
            for name, colour in given.items()
            if colour is not None
        }


def read(path: Path | None) -> PageFile:
    """The file at `path`, with its logo as a ``data:`` URL. Raises `ConfigurationError`, which names what is wrong."""
    if path is None:
        return PageFile()
    try:
        text = _bytes(path, _MOST_BYTES).decode()
        found = msgspec.convert(tomllib.loads(text), PageFile)
    except UnicodeDecodeError as exc:
        raise _problem(path, "is not UTF-8") from exc
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise _problem(path, str(exc)) from exc
    for name, pair in found.pairs.items():
        if not all(_COLOUR.fullmatch(colour) for colour in pair):
            raise _problem(path, f'colours.{name} must be like "#0b6e4f", or two of them: light and dark')
    if found.logo is None:
        return found
    return msgspec.structs.replace(found, logo=_logo(path, path.parent / found.logo))


def _logo(path: Path, logo: Path) -> str:
    data = _bytes(logo, _MOST_LOGO_BYTES)
    begins = data.lstrip(b"\xef\xbb\xbf \r\n\t") if logo.suffix == ".svg" else data
    kind = next((kind for kind, marks in _KINDS.items() if begins.startswith(marks)), None)
    if kind is None:
        raise _problem(path, f"logo: {logo} is no PNG, JPEG, WebP or SVG")
    return f"data:{kind};base64,{b64encode(data).decode()}"


def _bytes(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as exc:
        raise _problem(path, f"cannot be read: {exc.strerror}") from exc
    if len(data) > most:
        raise _problem(path, f"is larger than {most // 1024} KiB")
    return data


def _problem(path: Path, what: str) -> ConfigurationError:
    return ConfigurationError(f"{_SETTING}: {path}: {what}")
