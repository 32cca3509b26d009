"""``/openapi.json`` and ``/docs``: this API, for programs and for people."""

from functools import cached_property

import msgspec

from chatstream.errors import InvalidRequest
from chatstream.handlers import openapi, reference_page
from chatstream.handlers.base import BaseHandler
from chatstream.handlers.door import Door
from chatstream.handlers.reference import Version


class Reference:
    """Both of them, made when somebody asks for the first time; see `openapi.document`."""

    def __init__(self, content_characters: int) -> None:
        self._content_characters = content_characters
        self._documents: dict[Version, bytes] = {}

    def document(self, version: Version) -> bytes:
        """JSON."""
        if version not in self._documents:
            self._documents[version] = msgspec.json.encode(openapi.document(self._content_characters, version))
        return self._documents[version]

    @cached_property
    def page(self) -> str:
        """HTML."""
        return reference_page.page(msgspec.json.decode(self.document(Version.V32)))


class _ReferenceHandler(BaseHandler):
    public = True

    def initialize(self, door: Door, reference: Reference) -> None:  # type: ignore[override]  # its own collaborator
        super().initialize(door)
        self.reference = reference

    def set_default_headers(self) -> None:
        """It changes with the version only; but then at once. Tornado adds an ETag."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-cache")


class DocumentHandler(_ReferenceHandler):
    """``/openapi.json``."""

    def get(self) -> None:
        """The OpenAPI document, of the version that is asked for."""
        version = self.parameter("version")
        if version not in (None, *Version):
            raise InvalidRequest(f"`version` must be one of: {', '.join(Version)}.")
        self.set_header("Content-Type", "application/json")
        self.finish(self.reference.document(Version(version or Version.V31)))

    head = get


class DocsHandler(_ReferenceHandler):
    """``/docs``."""

    def get(self) -> None:
        """The page."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", reference_page.policy())
        self.finish(self.reference.page)

    head = get
