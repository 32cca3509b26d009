"""How long the database takes, as the driver sees it. Its threads call; 7 µs of a command's 200."""

from collections.abc import Callable

from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
    ServerHeartbeatFailedEvent,
    ServerHeartbeatListener,
    ServerHeartbeatStartedEvent,
    ServerHeartbeatSucceededEvent,
)

from chatstream.metrics import Metrics

# The change stream waits on the server for what is to come: its time says nothing about the database.
_WAITS = "getMore"


class Commands(CommandListener):
    """Measures each command. What it says and what it brings is never looked at."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def started(self, event: CommandStartedEvent) -> None:
        """Nothing to measure yet."""

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """The answer came."""
        if event.command_name != _WAITS:
            self._metrics.database_answered(event.command_name, event.duration_micros / 1_000_000)

    def failed(self, event: CommandFailedEvent) -> None:
        """No answer came, or an error."""
        self._metrics.database_failed(event.command_name)


class Heartbeats(ServerHeartbeatListener):
    """Notices the driver's own questions, every 10 s, that no server answered: also while nobody sends a command."""

    def __init__(self, lost: Callable[[], None], metrics: Metrics | None) -> None:
        """`lost` is called for each."""
        self._lost = lost
        self._metrics = metrics

    def started(self, event: ServerHeartbeatStartedEvent) -> None:
        """Nothing to count yet."""

    def succeeded(self, event: ServerHeartbeatSucceededEvent) -> None:
        """It is there."""

    def failed(self, event: ServerHeartbeatFailedEvent) -> None:
        """It is not there."""
        self._lost()
        if self._metrics is not None:
            self._metrics.database_missed_heartbeat()
