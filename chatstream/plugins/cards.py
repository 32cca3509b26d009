"""Cards: how the chat page draws a plug-in's data and annotations."""

from collections.abc import Mapping
from importlib.resources.abc import Traversable

from msgspec import Struct

# Largest size of one file, in bytes. The page's own files are smaller; a larger file is a library, not a card.
_MOST_BYTES = 256 * 1024


class Card(Struct, frozen=True, kw_only=True):
    """How the page draws one kind of `Annotation` or `Data`.

    `script` is a JavaScript module, whose default export is a function ``({kind, id, message, data}, {element,
    language})`` that returns an element. `style` is a style sheet that comes with it. Both are files: a `pathlib.Path`,
    or a resource from `importlib.resources.files`.
    """

    script: Traversable
    style: Traversable | None = None

    def read(self, kind: str) -> Mapping[str, bytes]:
        """The contents of the files, by the names under which they are served. Raises `ValueError` with the reason."""
        named = {f"{kind}.js": self.script, f"{kind}.css": self.style}
        return {name: _contents(file) for name, file in named.items() if file is not None}


def _contents(file: Traversable) -> bytes:
    try:
        contents = file.read_bytes()
        contents.decode()
    except OSError as exc:
        raise ValueError(f"{file} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ValueError(f"{file} is not UTF-8") from exc
    except AttributeError as exc:
        raise ValueError(f"{file!r} is no file: it must be a pathlib.Path") from exc
    if len(contents) > _MOST_BYTES:
        raise ValueError(f"{file} is larger than {_MOST_BYTES // 1024} KiB")
    return contents
