"""``/``: the chat page. Its files are served by `chatstream.handlers.assets`."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from chatstream.handlers.door import Door
from chatstream.handlers.static import Content, StaticHandler
from chatstream.settings import Settings

if TYPE_CHECKING:
    from chatstream.config.page_file import PageFile

# Content-Security-Policy: only this server's own files run and load; the icon is inside the page. Trusted Types allow
# only DOMPurify to make markup: a second defence against markup that a model writes.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)
# The languages of the page's texts.
LANGUAGES = ("en", "de")
# The `<meta>` element of index.html that holds the page's `Facts` as JSON.
_FACTS = '<meta name="chatstream" content="{}">'


class Facts(Struct, frozen=True, kw_only=True, rename="camel"):
    """Facts about the server that the page needs before sign-in. None is secret."""

    content_characters: int  # length of the longest message
    titles: bool  # the model writes titles
    user_prompts: bool  # a conversation may have its own system prompt
    login_url: str | None  # the sign-in page
    demo: bool  # the demo model answers
    name: str  # the page's name
    language: str | None  # the page's language; None: the reader's
    words: dict[str, dict[str, Any]]  # by language: texts of the operator and the plug-ins that replace the page's
    colours: dict[str, tuple[str, str]]  # by name: for light and dark mode
    logo: str | None  # a data: URL
    cards: Mapping[str, Sequence[str]]  # by kind of data: the plug-in's files that show it
    demo_models: Mapping[str, str]  # by name: what the demo model does

    @classmethod
    def of(
        cls,
        settings: Settings,
        own: "PageFile",
        plugin_words: Mapping[str, Mapping[str, Any]],
        plugin_cards: Mapping[str, Iterable[str]],
        demo_models: Mapping[str, str],
    ) -> "Facts":
        """The facts from the settings, the plug-ins and the page file. The file's texts replace those of plug-ins."""
        return cls(
            content_characters=settings.content_characters,
            titles=settings.titles,
            user_prompts=settings.user_prompts,
            login_url=settings.login_url,
            demo=settings.uses_demo_model,
            name=own.name or "chatstream",
            language=own.language,
            words={language: {**plugin_words.get(language, {}), **own.words} for language in LANGUAGES},
            colours=own.pairs,
            logo=own.logo,
            cards={kind: tuple(names) for kind, names in plugin_cards.items()},
            demo_models=demo_models,
        )


def page(facts: Facts) -> bytes:
    """The page, with its facts as JSON in a ``meta`` element: this needs no extra request and no inline script."""
    written = escape(msgspec.json.encode(facts, enc_hook=dict).decode())
    text = files("chatstream.web").joinpath("index.html").read_text(encoding="utf-8")
    return text.replace(_FACTS, _FACTS.replace("{}", written)).encode()


class PageHandler(StaticHandler):
    """Serves the page. It has no secrets: the token is in the URL's fragment, which is never sent to a server."""

    def initialize(self, door: Door, html: Content) -> None:  # type: ignore[override]  # its own collaborator
        """`html`: the page, the same for everybody."""
        super().initialize(door)
        self.html = html

    async def get(self) -> None:
        """Send the page."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("Cross-Origin-Opener-Policy", "same-origin")  # cuts it off from the page that opened it
        await self.send(self.html)

    head = get
