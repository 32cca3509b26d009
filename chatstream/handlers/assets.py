"""Serves static files: ``/chatstream.js`` and its modules for pages of any origin, the chat page's, and plug-ins'."""

from collections.abc import Iterable, Mapping
from functools import partial
from importlib.resources import files

from chatstream.handlers.door import Door
from chatstream.handlers.static import Content, StaticHandler

# The public files of the directory, with their types. Only these are served.
_JAVASCRIPT, _TYPES = "text/javascript; charset=utf-8", "text/plain; charset=utf-8"
_CSS = "text/css; charset=utf-8"
CLIENT = {
    "chatstream.js": _JAVASCRIPT,
    "client/api.js": _JAVASCRIPT,
    "client/chat-error.js": _JAVASCRIPT,
    "client/conversations.js": _JAVASCRIPT,
    "client/lean-frames.js": _JAVASCRIPT,
    "client/sse-parser.js": _JAVASCRIPT,
    "client/transcript.js": _JAVASCRIPT,
    "client/transports.js": _JAVASCRIPT,
    "use-chat-sse.js": _JAVASCRIPT,
    "chatstream.d.ts": _TYPES,
    "use-chat-sse.d.ts": _TYPES,
}
PAGE = {
    "page/page.css": _CSS,
    "page/calls.js": _JAVASCRIPT,
    "page/questions.js": _JAVASCRIPT,
    "page/cards.js": _JAVASCRIPT,
    "page/colours.js": _JAVASCRIPT,
    "page/composer.js": _JAVASCRIPT,
    "page/conversations.js": _JAVASCRIPT,
    "page/developer.js": _JAVASCRIPT,
    "page/dom.js": _JAVASCRIPT,
    "page/drafts.js": _JAVASCRIPT,
    "page/export.js": _JAVASCRIPT,
    "page/facts.js": _JAVASCRIPT,
    "page/groups.js": _JAVASCRIPT,
    "page/growing.js": _JAVASCRIPT,
    "page/lenient.js": _JAVASCRIPT,
    "page/main.js": _JAVASCRIPT,
    "page/markdown.js": _JAVASCRIPT,
    "page/maths.js": _JAVASCRIPT,
    "page/menu.js": _JAVASCRIPT,
    "page/messages.js": _JAVASCRIPT,
    "page/models.js": _JAVASCRIPT,
    "page/marks.js": _JAVASCRIPT,
    "page/own.js": _JAVASCRIPT,
    "page/prose.js": _JAVASCRIPT,
    "page/search.js": _JAVASCRIPT,
    "page/tabs.js": _JAVASCRIPT,
    "page/tags.js": _JAVASCRIPT,
    "page/token.js": _JAVASCRIPT,
    "page/undo.js": _JAVASCRIPT,
    "page/thinking.js": _JAVASCRIPT,
    "page/versions.js": _JAVASCRIPT,
    "page/words.js": _JAVASCRIPT,
    "vendor/dompurify.js": _JAVASCRIPT,
    "vendor/highlight.js": _JAVASCRIPT,
    "vendor/marked.js": _JAVASCRIPT,
    "vendor/temml.js": _JAVASCRIPT,
}
CONTENT_TYPES = CLIENT | PAGE


def path(names: Iterable[str]) -> str:
    """The route's pattern for these files: their path in the package is their URL's."""
    return rf"/({'|'.join(names)})".replace(".", r"\.")


def contents(names: Iterable[str]) -> dict[str, Content]:
    """The contents of these files of the package, by name."""
    web = files("chatstream.web")
    return {name: Content(partial(web.joinpath(name).read_bytes)) for name in names}


class AssetHandler(StaticHandler):
    """Serves a public file."""

    def initialize(self, door: Door, files: Mapping[str, Content]) -> None:  # type: ignore[override]  # its own collaborator
        """`files`: the files of this route, by their names in its URLs."""
        super().initialize(door)
        self.files = files

    async def get(self, name: str) -> None:
        """Send the file."""
        kind = _CSS if name.endswith(".css") else _JAVASCRIPT
        self.set_header("Content-Type", CONTENT_TYPES.get(name, kind))
        self.set_header("Cache-Control", "no-cache")  # revalidate: it must match the server's version
        # Pages of other origins need CORS to import a module. The files are public, so every origin is allowed.
        self.set_header("Access-Control-Allow-Origin", "*")
        self.clear_header("Access-Control-Allow-Credentials")
        await self.send(self.files[name])

    head = get
