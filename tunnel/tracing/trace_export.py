"""Chooses connections to be traced, and hands them to a thread that exports them.

The event loop only appends to a queue. A thread that exists before the confinement is not confined: create it afterwards.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Sequence

from tunnel.config.model import Traces
from tunnel.errors import ConfigError
from tunnel.lazy_dataclass import dataclass
from tunnel.listener.connection_record import ConnectionRecord
from tunnel.log import escape

MAX_QUEUE = 2048  # connections that wait for their export: a second of many, or minutes of few
MAX_BATCH = 16  # connections in one request: while it is encoded, the event loop can wait for the interpreter
_GATHER = 1.0  # seconds in which a batch is gathered


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a batch: how many traces were lost, completely or in part, and why."""

    lost: int = 0
    problem: str = ""


Export = Callable[[Sequence[ConnectionRecord]], Delivery]  # blocks, for some seconds at most


def load_exporter() -> None:
    """Load the libraries; raises ConfigError if they are not installed."""
    try:
        import tunnel.tracing.otlp  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"traces: OpenTelemetry is not installed ({error}); install it with: pip install 'spiffe-tunnel[otel]'"
        ) from error


def open_traces(traces: Traces, announce: Callable[[str], object], report: Callable[[str], object]) -> TraceExport:
    """Return the export of these traces, to be started by the caller; raises ConfigError.

    `announce` gets one line now, and `report` the lines about problems later, on the thread.
    """
    load_exporter()
    from tunnel.tracing.otlp import open_collector

    collector = open_collector(traces)
    announce(f"traces enabled; exporting spans via OTLP to {collector.name} ratio={traces.ratio:g}")
    return TraceExport(collector, traces.ratio, report)


class TraceExport:
    """Samples, queues and exports; `add` is called on the event loop, the rest runs on a thread."""

    def __init__(
        self,
        export: Export,
        ratio: float,
        report: Callable[[str], object],
        *,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`report` gets a line for the log, on the thread; `draw` returns a number from 0 to less than 1."""
        self._export = export
        self._ratio = ratio
        self._report = report
        self._draw = draw
        self._queue: deque[ConnectionRecord] = deque()
        self._is_due = threading.Event()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self.exported = 0
        self._overflowed = 0  # written by the event loop only
        self._lost = 0  # this and the following are written by the thread only
        self._in_flight = 0
        self._reported = 0  # of the dropped ones
        self._has_failed = False

    @property
    def dropped(self) -> int:
        """How many traces were not delivered, or without some of their spans."""
        return self._overflowed + self._lost

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(self, record: ConnectionRecord) -> None:
        """Queue the trace of an ended connection, if it is one of the sample; never blocks."""
        if self._draw() >= self._ratio:
            return
        if len(self._queue) >= MAX_QUEUE:
            self._overflowed += 1
            return
        self._queue.append(record)
        if not self._is_due.is_set():
            self._is_due.set()

    def stop(self, limit: float) -> None:
        """Export what is queued, for at most `limit` seconds; what is left then counts as dropped. Blocks."""
        self._is_stopping.set()
        self._is_due.set()
        self._thread.join(limit)

    def summary(self) -> str:
        """Return the totals for the log, after `stop`."""
        return f"exported_traces={self.exported} dropped_traces={self.dropped + self._in_flight + len(self._queue)}"

    def _run(self) -> None:
        while not (self._is_stopping.is_set() and not self._queue):
            self._is_due.wait()
            self._is_stopping.wait(_GATHER)
            self._is_due.clear()
            while self._queue:
                self._export_batch()
            if not self._has_failed:
                self._report_dropped("error exporting traces: too many at once")

    def _export_batch(self) -> None:
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
        self._in_flight = len(batch)
        delivery = self._deliver(batch)
        self._in_flight = 0
        self.exported += len(batch) - delivery.lost
        self._lost += delivery.lost
        had_failed, self._has_failed = self._has_failed, bool(delivery.problem)
        if delivery.problem and not had_failed:
            self._report(f"error exporting traces: {delivery.problem}; dropping traces until they are accepted")
        elif had_failed and not self._has_failed:
            self._report_dropped("exporting traces recovered")
        if self._has_failed and self._is_stopping.is_set():  # there is no time for more attempts
            self._lost += len(self._queue)
            self._queue.clear()

    def _deliver(self, batch: Sequence[ConnectionRecord]) -> Delivery:
        """Export a batch; an unexpected exception, perhaps of a library, loses this batch only."""
        try:
            return self._export(batch)
        except Exception as crash:  # noqa: BLE001  # a bug must not end the thread
            return Delivery(len(batch), f"internal error: {type(crash).__name__}: {escape(str(crash))}")

    def _report_dropped(self, event: str) -> None:
        dropped = self.dropped
        if dropped > self._reported:
            self._report(f"{event}: dropped_traces={dropped - self._reported}")
            self._reported = dropped
