"""``/``: the chat page. What it is made of stands in `chatstream.handlers.assets`."""

from importlib.resources import files

from chatstream.handlers.base import BaseHandler

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


class PageHandler(BaseHandler):
    """It holds no secret: the token is in the address's fragment, which no server sees."""

    public = True

    def get(self) -> None:
        """The page."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("Cross-Origin-Opener-Policy", "same-origin")  # no page that opened it holds on to it
        self.finish(files("chatstream.web").joinpath("index.html").read_bytes())

    head = get
