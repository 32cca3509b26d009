"""The capacity of one process: how many connections, streams and answers its file descriptors allow."""

import resource
from typing import NamedTuple

# File descriptors for everything except clients and requests to the model: the database, the event loop, the log.
_RESERVED = 64
# Connections that streams may not take: they are kept for posts, for monitoring, and for refusals ("come back later").
_NOT_FOR_STREAMS = 64
# If the hard limit is "unlimited", which the kernel does not mean: macOS allows a process this many (OPEN_MAX).
_UNLIMITED = 10_240


class Capacity(NamedTuple):
    """The most connections, streams and answers at a time."""

    connections: int
    streams: int
    answers: int

    @classmethod
    def of(cls, descriptors: int) -> "Capacity":
        """Return what this many file descriptors allow: a stream uses one, and its answer's request to the model
        another."""
        half = max(2, (descriptors - _RESERVED) // 2)
        return cls(connections=half, streams=half - min(_NOT_FOR_STREAMS, half // 4), answers=half)


def raise_descriptor_limit() -> int:
    """Raise the soft limit of file descriptors to the hard one, which systems keep far above it; returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _UNLIMITED if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return wanted if soft == resource.RLIM_INFINITY else soft
