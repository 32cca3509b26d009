"""Measures database commands with the driver's monitoring hooks. The driver's threads call them: 7 µs per command."""

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

# Not measured: a change stream's `getMore` waits on the server for changes, so its time says nothing.
_WAITS = "getMore"


class Commands(CommandListener):
    """Measures the duration of each command. Never reads its contents."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def started(self, event: CommandStartedEvent) -> None:
        """Ignore the start of a command."""

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Record the duration of a command that succeeded."""
        if event.command_name != _WAITS:
            self._metrics.database_answered(event.command_name, event.duration_micros / 1_000_000)

    def failed(self, event: CommandFailedEvent) -> None:
        """Count a command that failed or got no answer."""
        self._metrics.database_failed(event.command_name)


class Heartbeats(ServerHeartbeatListener):
    """Reports failed heartbeats: the driver's checks of each server, every 10 s, also when no commands are sent."""

    def __init__(self, lost: Callable[[], None], metrics: Metrics | None) -> None:
        """`lost` is called for each failed heartbeat."""
        self._lost = lost
        self._metrics = metrics

    def started(self, event: ServerHeartbeatStartedEvent) -> None:
        """Ignore the start of a heartbeat."""

    def succeeded(self, event: ServerHeartbeatSucceededEvent) -> None:
        """Ignore a heartbeat that succeeded."""

    def failed(self, event: ServerHeartbeatFailedEvent) -> None:
        """Report a heartbeat that failed."""
        self._lost()
        if self._metrics is not None:
            self._metrics.database_missed_heartbeat()
