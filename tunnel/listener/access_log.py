"""The access log: one event per connection at its end, also for refused and failed ones, as logfmt or JSON."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from tunnel.listener.access_event import END, START, SUPPRESSED, AccessFormat, EventEncoder
from tunnel.listener.connection_attributes import Attributes
from tunnel.listener.connection_log import ConnectionLog
from tunnel.listener.connection_record import ConnectionOutcome, ConnectionRecord
from tunnel.log import Category, Log, escape
from tunnel.log_file import LogFile
from tunnel.log_limit import CallLater, RefusalLimit, RefusalLog
from tunnel.log_output import LineOutput, Sink
from tunnel.relay.loop import Loop
from tunnel.time_format import UtcFormatter

_NOT_WRITTEN: Final = {ConnectionOutcome.CLOSED_WITHOUT_DATA}  # health checks that only connect
_DELAY: Final = 0.1  # seconds for which records are collected: one after the other, they are encoded in a third of the time
_MOST_WAITING: Final = 200  # records, then they are encoded at once
_CLOSE_LIMIT: Final = 2.0  # seconds


_Event = tuple[str, ConnectionRecord, int]  # name, record, number of suppressed ones before it


class AccessLog:
    """Writes events of all listeners to one output; equal refusals of one source are limited, and their number is written."""

    def __init__(
        self,
        output: LineOutput,
        form: AccessFormat,
        *,
        has_start: bool = False,
        sink: Sink | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`sink` is that of `output` if nothing else writes there."""
        self.output = output
        self._sink = sink
        self.has_start = has_start
        self._encoder = EventEncoder(form)
        self._wall = wall
        self._format_time = UtcFormatter()
        self._limit: RefusalLimit | None = None
        self._call_later: CallLater | None = None  # None until the event loop runs
        self._waiting: deque[_Event] = deque()
        self._is_scheduled = False  # `_encode` will be called

    @property
    def has_own_output(self) -> bool:
        """Whether nothing else writes to the output."""
        return self._sink is not None

    def defer(self, loop: Loop) -> None:
        """Collect events between two turns of the loop, and limit equal refusals, from now on."""
        self._limit = RefusalLimit(loop.clock, loop.call_later, self._write_count)
        self._call_later = loop.call_later
        if self._sink is not None:
            self.output.defer(lambda delay: loop.call_later(delay, self.output.flush))

    def reopen(self) -> None:
        """Open the file again, if it is one: a log rotation has moved it."""
        if isinstance(self._sink, LogFile):
            self._sink.reopen()

    def take_warnings(self) -> Iterator[str]:
        """Remove and return what went wrong with the file."""
        while isinstance(self._sink, LogFile) and self._sink.warnings:
            yield self._sink.warnings.popleft()

    def close(self) -> None:
        """Write what waits, within a short time."""
        self.flush()
        self.output.flush()
        if isinstance(self._sink, LogFile):
            self._sink.close(_CLOSE_LIMIT)
        if self._sink is not None:
            self.output.report_dropped()

    def write(self, event: str, record: ConnectionRecord) -> None:
        """Write the event of one connection, or count it as suppressed."""
        is_refused = event == END and record.reason and record.close_reason is None
        suppressed: int | None = 0
        if is_refused and self._limit is not None:
            text = f"{record.outcome.value} {record.detail} {record.listener_name}"
            suppressed = self._limit.admit(record.source, record.reason, text, Category.CONNS)
        if suppressed is not None:
            self._waiting.append((event, record, suppressed))
            if self._call_later is None or len(self._waiting) >= _MOST_WAITING:
                self.encode_waiting()
            elif not self._is_scheduled:
                self._is_scheduled = True
                self._call_later(_DELAY, self.encode_waiting)

    def flush(self) -> None:
        """Write the records that wait, and the numbers of suppressed refusals."""
        self.encode_waiting()
        if self._limit is not None:
            self._limit.flush()

    def encode_waiting(self) -> None:
        """Encode the records that wait."""
        self._is_scheduled = False
        while self._waiting:
            event, record, suppressed = self._waiting.popleft()
            self.output.write(self._encoder.encode(self._format_time(record.time), event, record, suppressed))

    def _write_count(self, _category: Category, source: str, reason: str, suppressed: int) -> None:
        self.encode_waiting()
        fields: Attributes = {"time": self._format_time(self._wall()), "event.name": SUPPRESSED}
        fields["client.address"] = escape(source.removeprefix("unix:"))
        fields["tunnel.reason"], fields["tunnel.suppressed"] = reason, suppressed
        self.output.write(self._encoder.encode_fields(fields))


class AccessConnectionLog(ConnectionLog):
    """The connection log of a listener with an access log, whose events take the place of the lines about connections."""

    shows_tls_names = True

    def __init__(self, access_log: AccessLog, log: Log, refusals: RefusalLog, fields: str = "") -> None:
        super().__init__(log, refusals, fields)
        self._access_log = access_log

    @property
    def shows_openings(self) -> bool:
        """Whether the start of a relay has an event."""
        return self._access_log.has_start

    def write_opening(self, record: ConnectionRecord) -> None:
        """Write the event of the start of a relay."""
        self._access_log.write(START, record)

    def write_end(self, record: ConnectionRecord) -> None:
        """Write the event of the end of a connection."""
        if record.outcome not in _NOT_WRITTEN:
            self._access_log.write(END, record)
