"""What a worker sends to the log of its parent: lines, and the records of connections, from which the parent makes lines."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Final

from tunnel.errors import PeerDenied, TargetError, TlsError
from tunnel.listener.connection_log import ConnectionLog, describe_retry
from tunnel.listener.connection_record import ConnectionRecord
from tunnel.log import Category, Log
from tunnel.relay.loop import Loop
from tunnel.workers.channel import Channel
from tunnel.workers.messages import Batch, ConnectionEvent, LogLine, Setup

_OF_CONNECTIONS: Final = (Category.CONNS, Category.CONN_ERRORS, Category.HANDSHAKE_ERRORS)
_DELAY: Final = 0.05  # seconds, like that of the log: under load, one message carries what happens to several connections
_MOST_ENTRIES: Final = 256  # then they are sent at once


class Outbox:
    """Collects lines and events, and drops and counts them while the parent does not read."""

    def __init__(self, loop: Loop, channel: Channel) -> None:
        self._loop = loop
        self._channel = channel
        self._entries: list[LogLine | ConnectionEvent] = []
        self.dropped = 0

    def add(self, entry: LogLine | ConnectionEvent) -> None:
        """Send this soon."""
        if self._channel.is_full:
            self.dropped += 1
            return
        if not self._entries:
            self._loop.call_later(_DELAY, self.flush)
        self._entries.append(entry)
        if len(self._entries) >= _MOST_ENTRIES:
            self.flush()

    def flush(self) -> None:
        """Send what was collected."""
        if self._entries:
            entries, self._entries = self._entries, []
            self._channel.send(Batch(entries))


class WorkerLog(Log):
    """A log whose lines the parent writes; `wants_ends` is whether it wants the end of each connection."""

    def __init__(self, outbox: Outbox, omitted: Collection[Category], *, is_observed: bool) -> None:
        self._outbox = outbox
        self.change(omitted, is_observed=is_observed)

    def change(self, omitted: Collection[Category], *, is_observed: bool) -> None:
        """Omit these lines from now on."""
        self.change_quiet(omitted)
        self.wants_ends = is_observed or any(map(self.is_enabled, _OF_CONNECTIONS))

    def write(self, message: str, category: Category = Category.OTHER, *, fields: str = "", at: float | None = None) -> None:
        if self.is_enabled(category):
            self._outbox.add(LogLine(time.time() if at is None else at, message, category, fields))

    def flush(self) -> None:
        self._outbox.flush()


class RecordLog(ConnectionLog):
    """A connection log that sends records, unless nobody wants them."""

    _log: WorkerLog

    def __init__(self, number: int, outbox: Outbox, log: WorkerLog, setup: Setup) -> None:
        self._number = number
        self._outbox = outbox
        self._log = log
        self._has_events = setup.has_events
        self._has_start_events = setup.has_start_events
        self.shows_tls_names = setup.has_events

    @property
    def shows_openings(self) -> bool:
        """Whether anybody wants the start of a relay."""
        return self._has_start_events if self._has_events else self._log.is_enabled(Category.CONNS)

    def flush(self) -> None:
        """Send what was collected."""
        self._outbox.flush()

    def write_opening(self, record: ConnectionRecord) -> None:
        """Send the start of a relay."""
        self._outbox.add(ConnectionEvent(self._number, record, is_end=False))

    def write_retry(self, source: str, target: str, error: TlsError | PeerDenied | TargetError) -> None:
        """Send that another target is tried."""
        if self._log.is_enabled(Category.CONN_ERRORS):
            self._outbox.add(ConnectionEvent(self._number, describe_retry(source, target, error), is_end=False))

    def write_end(self, record: ConnectionRecord) -> None:
        """Send the end of a connection."""
        if self._has_events or self._log.wants_ends:
            self._outbox.add(ConnectionEvent(self._number, record, is_end=True))
