"""``/``: the chat page. What it is made of stands in `chatstream.handlers.assets`."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

import msgspec
from msgspec import Struct

from chatstream.config.page_file import PageFile
from chatstream.handlers.door import Door
from chatstream.handlers.static import Content, StaticHandler
from chatstream.settings import Settings

# Nothing runs and nothing is loaded but this server's own files; the icon is in the page itself. Markup from text is
# made by DOMPurify alone ("trusted types"): what a model writes meets this wall, should it get past that one.
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
# Those that the page has words in.
LANGUAGES = ("en", "de")
# Where the page's facts stand in index.html.
_FACTS = '<meta name="chatstream" content="{}">'


class Facts(Struct, frozen=True, kw_only=True, rename="camel"):
    """What the page must know of the server before anybody has signed in: nothing here is a secret."""

    content_characters: int  # of the longest message
    titles: bool  # the model writes them
    user_prompts: bool  # a conversation may have instructions of its own
    login_url: str | None  # where people sign in
    demo: bool  # the demo model answers
    name: str  # of the page
    language: str | None  # of the page; None: the reader's
    words: dict[str, dict[str, Any]]  # by language: what the operator and the plug-ins say otherwise than the page
    colours: dict[str, tuple[str, str]]  # for light and dark
    logo: str | None  # a data: URL
    cards: Mapping[str, Sequence[str]]  # by kind of data, the files of a plug-in's own that draw it
    demo_models: Mapping[str, str]  # what each of its names does

    @classmethod
    def of(
        cls,
        settings: Settings,
        own: PageFile,
        plugin_words: Mapping[str, Mapping[str, Any]],
        plugin_cards: Mapping[str, Iterable[str]],
        demo_models: Mapping[str, str],
    ) -> "Facts":
        """As the settings and the page's own file have it; what a plug-in says is less than what the file says."""
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
    """The page, with its facts as JSON in a ``meta`` element: no request of their own, and no script in the page."""
    written = escape(msgspec.json.encode(facts, enc_hook=dict).decode())
    text = files("chatstream.web").joinpath("index.html").read_text(encoding="utf-8")
    return text.replace(_FACTS, _FACTS.replace("{}", written)).encode()


class PageHandler(StaticHandler):
    """It holds no secret: the token is in the address's fragment, which no server sees."""

    def initialize(self, door: Door, html: Content) -> None:  # type: ignore[override]  # its own collaborator
        """`html` is the same for everybody."""
        super().initialize(door)
        self.html = html

    async def get(self) -> None:
        """The page."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("Cross-Origin-Opener-Policy", "same-origin")  # no page that opened it holds on to it
        await self.send(self.html)

    head = get
