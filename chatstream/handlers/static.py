"""What is the same for everybody: sent compressed to those who take that, with an ETag of its own for each form."""

import asyncio
import gzip
import re
from collections.abc import Callable
from hashlib import sha256

from chatstream.handlers.base import BaseHandler

# gzip's own default: 9 takes three times as long for the largest file, and saves one byte in a hundred.
_LEVEL = 6
# So long a request waits until its content is compressed, in seconds; then it is sent as it is. Only the first requests
# wait at all, and the largest file takes a tenth of a second.
_PATIENCE = 2.0
# `gzip`, its old name, or whatever there is; with a weight of zero it is refused (RFC 9110, sections 12.4.2, 12.5.3).
_CODING = re.compile(r"\s*(gzip|x-gzip|\*)\s*(?:;\s*q\s*=\s*([0-9.]+)\s*)?", re.ASCII | re.IGNORECASE)


class Content:
    """Read when somebody asks for it for the first time, and compressed then, in a thread; both are kept."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._plain: tuple[bytes, str] | None = None
        self._zipping: asyncio.Task[tuple[bytes, str]] | None = None

    @classmethod
    def of(cls, content: bytes) -> "Content":
        """What is there already."""
        return cls(lambda: content)

    def plain(self) -> tuple[bytes, str]:
        """As it is, and its ETag."""
        if self._plain is None:
            self._plain = _with_etag(self._read())
        return self._plain

    async def zipped(self) -> tuple[bytes, str] | None:
        """Compressed, and the ETag of that; None if it takes too long now."""
        if self._zipping is None:
            self._zipping = asyncio.create_task(asyncio.to_thread(_zipped, self.plain()[0]))
        done, _ = await asyncio.wait({self._zipping}, timeout=_PATIENCE)
        return self._zipping.result() if done else None


class StaticHandler(BaseHandler):
    """A door to contents that are no secret."""

    public = True
    _etag: str | None = None

    async def send(self, content: Content) -> None:
        """Finish the response with it; 304 to whoever has it already."""
        self.set_header("Vary", "Origin, Accept-Encoding")
        wanted = accepts_gzip(self.request.headers.get("Accept-Encoding", ""))
        zipped = await content.zipped() if wanted else None
        if zipped is not None:
            self.set_header("Content-Encoding", "gzip")
        body, self._etag = zipped or content.plain()
        self.finish(body)

    def compute_etag(self) -> str | None:
        """See Tornado, which would hash the content for each request."""
        return self._etag


def accepts_gzip(header: str) -> bool:
    """Whether whoever sends this ``Accept-Encoding`` takes gzip. Its own name says more than ``*``."""
    weights: dict[str, bool] = {}
    for listed in header.split(","):
        if found := _CODING.fullmatch(listed):
            name, weight = found.groups()
            weights["*" if name == "*" else "gzip"] = weight is None or bool(weight.strip("0."))
    return weights.get("gzip", weights.get("*", False))


def _zipped(plain: bytes) -> tuple[bytes, str]:
    return _with_etag(gzip.compress(plain, _LEVEL, mtime=0))  # no time: processes must agree on the ETag


def _with_etag(content: bytes) -> tuple[bytes, str]:
    return content, f'"{sha256(content).hexdigest()[:32]}"'
