"""``/``: a page to try the server with."""

from importlib.resources import files

from chatstream.handlers.base import BaseHandler

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


class PageHandler(BaseHandler):
    """One self-contained file. It holds no secret: the token is in the address's fragment, which no server sees."""

    public = True

    def get(self) -> None:
        """The page."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", _POLICY)
        self.finish(files("chatstream.web").joinpath("index.html").read_bytes())

    head = get
