"""Reads the env file, by default ``.env``. The whole file is checked before anything is used.

Its variables count as environment variables; if a name is in both, the environment wins.
"""

import codecs
import os
from io import StringIO
from pathlib import Path

from chatstream.errors import ConfigurationError

# Byte order marks of UTF-16, in which some Windows editors save files.
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_ENCODING = "utf-8-sig"
# Largest env file; a larger file must be something else.
_MOST_BYTES = 1024 * 1024


def names_in(path: Path) -> set[str]:
    """The names that the file sets. Raises `ConfigurationError`, which says what is wrong with the file."""
    return _names(path, _text(path))


def values_in(path: Path) -> dict[str, str | None]:
    """The variables of the file. Raises `ConfigurationError` like `names_in`."""
    from dotenv import dotenv_values

    text = _text(path)
    _names(path, text)  # checked first, for our error messages instead of python-dotenv's
    return dotenv_values(stream=StringIO(text))


def value_of(name: str, path: Path) -> str | None:
    """The value of a name in the file, or None. Raises `ConfigurationError` like `names_in`."""
    return values_in(path).get(name)


def into_environment(path: Path) -> None:
    """Copy the file's variables to `os.environ`, where plug-ins and libraries read them, unless they are set there.

    Raises `ConfigurationError` like `names_in`.
    """
    for name, value in values_in(path).items():
        try:
            if value is not None and name not in os.environ:
                os.environ[name] = value
        except ValueError:  # a name with "=", or a value that this machine's encoding cannot hold
            raise ConfigurationError(f"{path}: {name} cannot be put into this machine's environment") from None


def _names(path: Path, text: str) -> set[str]:
    from dotenv.parser import parse_stream  # import on use: a server in a container has no such file

    names = set()
    for binding in parse_stream(StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            line = binding.original.line + len(binding.original.string) - len(binding.original.string.lstrip("\n"))
            raise ConfigurationError(f"{path}, line {line}: must be NAME=value; a comment begins with #")
        if binding.key is not None:
            names.add(binding.key)
    return names


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise ConfigurationError(f"{path} is {'a directory, not' if path.is_dir() else 'not'} a file to read")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc.strerror}") from exc
    if len(content) > _MOST_BYTES:
        raise ConfigurationError(f"{path} is larger than a megabyte: it is no env file")
    if content.startswith(_UTF_16) or b"\0" in content:
        raise ConfigurationError(f"{path} is not UTF-8 (it looks like UTF-16): save it as UTF-8")
    try:
        return content.decode(_ENCODING)
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise ConfigurationError(f"{path}, line {line}: is not UTF-8: save it as UTF-8") from None
