"""``/openapi.json`` and ``/docs``: the API's description for programs and for people."""

from enum import StrEnum
from functools import partial

import msgspec

from chatstream.errors import InvalidRequest
from chatstream.handlers.door import Door
from chatstream.handlers.static import Content, StaticHandler


class Version(StrEnum):
    """A version of OpenAPI: 3.1 for client generators, and 3.2, the first that can describe a stream's events."""

    V31 = "3.1"
    V32 = "3.2"


class Reference:
    """The OpenAPI documents and the page, made at the first request; see `openapi.document`."""

    def __init__(self, content_characters: int) -> None:
        self._content_characters = content_characters
        self.documents = {version: Content(partial(self._document, version)) for version in Version}  # JSON
        self.page = Content(self._page)  # HTML

    def _document(self, version: Version) -> bytes:
        from chatstream.handlers import openapi  # import on use: no other request needs it

        return msgspec.json.encode(openapi.document(self._content_characters, version))

    def _page(self) -> bytes:
        from chatstream.handlers import reference_page

        document, _etag = self.documents[Version.V32].plain()
        return reference_page.page(msgspec.json.decode(document)).encode()


class _ReferenceHandler(StaticHandler):
    def initialize(self, door: Door, reference: Reference) -> None:  # type: ignore[override]  # its own collaborator
        super().initialize(door)
        self.reference = reference

    def set_default_headers(self) -> None:
        """Let clients revalidate: the content changes only with the server's version."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-cache")


class DocumentHandler(_ReferenceHandler):
    """``/openapi.json``."""

    async def get(self) -> None:
        """Send the OpenAPI document in the requested version."""
        version = self.parameter("version")
        if version not in (None, *Version):
            raise InvalidRequest(f"`version` must be one of: {', '.join(Version)}.")
        self.set_header("Content-Type", "application/json")
        await self.send(self.reference.documents[Version(version or Version.V31)])

    head = get


class DocsHandler(_ReferenceHandler):
    """``/docs``."""

    async def get(self) -> None:
        """Send the page."""
        from chatstream.handlers import reference_page

        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", reference_page.policy())
        await self.send(self.reference.page)

    head = get
