"""The data that a worker, one of several processes behind one port, gets from its supervisor; see
`commands.supervisor`.
"""

import json
from dataclasses import asdict, dataclass
from typing import Self

# The file descriptor of the socket that a worker shares with its supervisor: standard input, so that no number must be
# passed.
CHANNEL = 0
# The message of a worker to its supervisor once it serves.
READY = b"r"


@dataclass(frozen=True)
class Worker:
    """One of several server processes that share a port."""

    number: int  # counted from 1; it is in the log
    count: int  # of all workers
    port: int  # the shared one
    database: str | None  # the embedded database's URI; None if the settings name a database
    is_first: bool  # no other worker runs yet: this one may repair the database, and greets the person who started it

    @classmethod
    def parse(cls, argument: str) -> Self:
        """The worker that `argument` describes."""
        return cls(**json.loads(argument))

    @property
    def argument(self) -> str:
        """Describes the worker on its command line."""
        return json.dumps(asdict(self))
