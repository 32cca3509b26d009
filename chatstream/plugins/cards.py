"""What a plug-in brings for the chat page: how it draws what the plug-in tells with an answer, or finds in it."""

from collections.abc import Mapping
from importlib.resources.abc import Traversable

from msgspec import Struct

# Of one file. The page's own ones are smaller; what is larger is a library, and belongs elsewhere.
_MOST_BYTES = 256 * 1024


class Card(Struct, frozen=True, kw_only=True):
    """How the page draws one kind of `Annotation` or `Data`.

    `script` is a JavaScript module, whose default export is a function ``({kind, id, message, data}, {element,
    language})`` that returns an element. `style` is a style sheet that comes with it. Both are files: a `pathlib.Path`,
    or what `importlib.resources.files` gives.
    """

    script: Traversable
    style: Traversable | None = None

    def read(self, kind: str) -> Mapping[str, bytes]:
        """The contents of its files, by the names they are served under. Raises `ValueError`, which says why not."""
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
