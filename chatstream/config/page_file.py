"""Reads the file that `CHATSTREAM_PAGE_FILE` names: the chat page's texts and looks. See `conf/page.toml.example`."""

import re
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from msgspec import Struct
from pydantic import BeforeValidator, Field

from chatstream.config import toml_file
from chatstream.errors import InvalidSettings

_SETTING = "CHATSTREAM_PAGE_FILE"
# Largest logo: it is sent inside the page, to everybody who opens it.
_MOST_LOGO_BYTES = 64 * 1024
# Largest page file; a larger file must be something else.
_MOST_BYTES = 64 * 1024
# The image types that every browser shows, with the first bytes of their files.
_KINDS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/webp": (b"RIFF",),
    "image/svg+xml": (b"<svg", b"<?xml", b"<!--"),
}
_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}")

Line = Annotated[str, Field(min_length=1, max_length=200)]


def _colour(given: Any) -> Any:
    pair = given if isinstance(given, list) else [given]
    if not (isinstance(given, str) or len(pair) == 2) or not all(
        isinstance(one, str) and _COLOUR.fullmatch(one) for one in pair
    ):
        raise ValueError('must be like "#0b6e4f", or two of them in a list: light and dark')
    return (pair[0], pair[-1])


AColour = Annotated[tuple[str, str], BeforeValidator(_colour), Field(strict=False)] | None


class _Colours(toml_file.Table):
    accent: AColour = None
    paper: AColour = None
    surface: AColour = None
    sunken: AColour = None
    ink: AColour = None


class _Page(toml_file.Table):
    name: Annotated[str, Field(min_length=1, max_length=60)] | None = None
    language: Literal["en", "de"] | None = None
    greeting: Line | None = None
    introduction: Annotated[str, Field(max_length=500)] | None = None
    examples: Annotated[list[Line], Field(max_length=8)] | None = None
    placeholder: Line | None = None
    note: Annotated[str, Field(max_length=500)] | None = None
    logo: str | None = None
    colours: _Colours = _Colours()


class PageFile(Struct, frozen=True):
    """The content of the file. Missing texts are the page's own, in the reader's language."""

    name: str | None = None
    language: Literal["en", "de"] | None = None
    greeting: str | None = None
    introduction: str | None = None
    examples: tuple[str, ...] | None = None
    placeholder: str | None = None
    note: str | None = None
    logo: str | None = None
    pairs: dict[str, tuple[str, str]] = {}  # colours as ``#rrggbb`` by name: for light and for dark mode

    @property
    def words(self) -> dict[str, str | tuple[str, ...]]:
        """The texts in the file; they are used for every language."""
        names = ("greeting", "introduction", "examples", "placeholder", "note")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def read(path: Path | None) -> PageFile:
    """Read the file at `path`, with its logo as a ``data:`` URL. Raises `InvalidSettings` with a line per error."""
    if path is None:
        return PageFile()
    document = toml_file.document(path, _SETTING, _MOST_BYTES)
    page, errors = toml_file.read_table(_Page, document, {})
    problems = [f"{path}: {_explain(error)}" for error in errors]
    logo: str | None = None
    if page is not None and page.logo is not None:
        try:
            logo = _logo(path.parent / page.logo)
        except ValueError as exc:
            problems.append(f"{path}: logo: {exc}")
    if problems or page is None:
        raise InvalidSettings([f"{_SETTING}: {each}" for each in problems])
    given = {name: getattr(page, name) for name in PageFile.__struct_fields__ if name in _Page.model_fields}
    examples = None if page.examples is None else tuple(page.examples)
    pairs = {name: pair for name, pair in page.colours if pair is not None}
    return PageFile(**(given | {"examples": examples, "logo": logo, "pairs": pairs}))


def _explain(error: Any) -> str:
    return toml_file.explain(error, _Colours if error["loc"][0] == "colours" and len(error["loc"]) > 1 else _Page)


def _logo(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(_MOST_LOGO_BYTES + 1)
    except OSError as exc:
        raise ValueError(f"{file} cannot be read: {exc.strerror}") from exc
    if len(data) > _MOST_LOGO_BYTES:
        raise ValueError(f"{file} is larger than {_MOST_LOGO_BYTES // 1024} KiB")
    begins = data.lstrip(b"\xef\xbb\xbf \r\n\t") if file.suffix == ".svg" else data
    kind = next((kind for kind, marks in _KINDS.items() if begins.startswith(marks)), None)
    if kind is None:
        raise ValueError(f"{file} is no PNG, JPEG, WebP or SVG")
    return f"data:{kind};base64,{b64encode(data).decode()}"
