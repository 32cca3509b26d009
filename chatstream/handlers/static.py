"""Serves public content, compressed if the client accepts it. Each form has its own ETag."""

import asyncio
import gzip
import re
from collections.abc import Callable
from hashlib import sha256

from chatstream.handlers.base import BaseHandler

# gzip's compression level, its default. Level 9 takes three times as long for the largest file and saves 1 %.
_LEVEL = 6
# Seconds that a request waits for the compression; then the content is sent uncompressed. Only the first requests wait,
# and the largest file takes 0.1 s.
_PATIENCE = 2.0
# An entry of Accept-Encoding for gzip, its old name, or `*`; the weight 0 means "not acceptable" (RFC 9110, sections
# 12.4.2 and 12.5.3).
_CODING = re.compile(r"\s*(gzip|x-gzip|\*)\s*(?:;\s*q\s*=\s*([0-9.]+)\s*)?", re.ASCII | re.IGNORECASE)


class Content:
    """A content that is read and compressed (in a thread) at its first request; both forms are kept."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._plain: tuple[bytes, str] | None = None
        self._zipping: asyncio.Task[tuple[bytes, str]] | None = None

    @classmethod
    def of(cls, content: bytes) -> "Content":
        """A content that is already in memory."""
        return cls(lambda: content)

    def plain(self) -> tuple[bytes, str]:
        """The uncompressed content and its ETag."""
        if self._plain is None:
            self._plain = _with_etag(self._read())
        return self._plain

    async def zipped(self) -> tuple[bytes, str] | None:
        """The compressed content and its ETag; None if the compression takes too long now."""
        if self._zipping is None:
            self._zipping = asyncio.create_task(asyncio.to_thread(_zipped, self.plain()[0]))
        done, _ = await asyncio.wait({self._zipping}, timeout=_PATIENCE)
        return self._zipping.result() if done else None


class StaticHandler(BaseHandler):
    """A handler for public content."""

    public = True
    _etag: str | None = None

    async def send(self, content: Content) -> None:
        """Finish the response with the content, or with 304 if the client already has it."""
        self.set_header("Vary", "Origin, Accept-Encoding")
        wanted = accepts_gzip(self.request.headers.get("Accept-Encoding", ""))
        zipped = await content.zipped() if wanted else None
        if zipped is not None:
            self.set_header("Content-Encoding", "gzip")
        body, self._etag = zipped or content.plain()
        self.finish(body)

    def compute_etag(self) -> str | None:
        """The stored ETag; Tornado would hash the content for each request."""
        return self._etag


def accepts_gzip(header: str) -> bool:
    """Whether this ``Accept-Encoding`` accepts gzip. An entry for gzip takes precedence over ``*``."""
    weights: dict[str, bool] = {}
    for listed in header.split(","):
        if found := _CODING.fullmatch(listed):
            name, weight = found.groups()
            weights["*" if name == "*" else "gzip"] = weight is None or bool(weight.strip("0."))
    return weights.get("gzip", weights.get("*", False))


def _zipped(plain: bytes) -> tuple[bytes, str]:
    return _with_etag(gzip.compress(plain, _LEVEL, mtime=0))  # no timestamp: all processes must get the same ETag


def _with_etag(content: bytes) -> tuple[bytes, str]:
    return content, f'"{sha256(content).hexdigest()[:32]}"'
