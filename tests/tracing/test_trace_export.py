"""The queue between the event loop and the collector: a sample, a bound, and a report of each change of state."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from tests.support.connection_records import relayed
from tests.support.processes import LIMIT, eventually
from tunnel.config.model import Traces
from tunnel.errors import ConfigError
from tunnel.listener.connection_record import ConnectionRecord
from tunnel.tracing import trace_export
from tunnel.tracing.trace_export import MAX_BATCH, MAX_QUEUE, Delivery, TraceExport, load_exporter, open_traces


class Collector:
    """A collector that can be down, or busy until it is released."""

    def __init__(self) -> None:
        self.batches: list[list[ConnectionRecord]] = []
        self.delivery = Delivery()
        self.released = threading.Event()
        self.released.set()

    def __call__(self, batch: Sequence[ConnectionRecord]) -> Delivery:
        self.batches.append(list(batch))
        assert self.released.wait(LIMIT)
        return Delivery(len(batch), self.delivery.problem) if self.delivery.lost < 0 else self.delivery

    def fail(self) -> None:
        self.delivery = Delivery(-1, "http://c/: connection refused")

    def recover(self) -> None:
        self.delivery = Delivery()

    @property
    def received(self) -> list[ConnectionRecord]:
        return [one for batch in self.batches for one in batch]


@pytest.fixture(autouse=True)
def _no_gathering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_export, "_GATHER", 0.0)


@contextmanager
def exporting(
    collector: Collector, ratio: float = 1.0, draw: Callable[[], float] = lambda: 0.5
) -> Iterator[tuple[TraceExport, list[str]]]:
    lines: list[str] = []
    traces = TraceExport(collector, ratio, lines.append, draw=draw)
    traces.start()
    try:
        yield traces, lines
    finally:
        collector.released.set()
        traces.stop(LIMIT)


def test_a_connection_is_exported_unchanged_and_counted() -> None:
    collector, record = Collector(), relayed()
    with exporting(collector) as (traces, lines):
        traces.add(record)
        eventually(lambda: traces.exported == 1, "an export")
    assert collector.received == [record]
    assert lines == []
    assert traces.summary() == "exported_traces=1 dropped_traces=0"


def test_only_the_sample_is_exported() -> None:
    collector, drawn = Collector(), iter((0.0, 0.2499, 0.25, 0.999))
    with exporting(collector, 0.25, lambda: next(drawn)) as (traces, _):
        for _ in range(4):
            traces.add(relayed())
    assert len(collector.received) == 2


def test_the_queue_is_bounded_and_what_does_not_fit_is_counted_and_reported() -> None:
    collector = Collector()
    collector.released.clear()
    with exporting(collector) as (traces, lines):
        traces.add(relayed())
        eventually(lambda: bool(collector.batches), "a request")
        for _ in range(MAX_QUEUE + 5):
            traces.add(relayed())
        assert traces.dropped == 5
        collector.released.set()
        eventually(lambda: bool(lines), "a report")
    assert lines == ["error exporting traces: too many at once: dropped_traces=5"]
    assert max(map(len, collector.batches)) == MAX_BATCH
    assert traces.summary() == f"exported_traces={MAX_QUEUE + 1} dropped_traces=5"


def test_a_collector_that_is_down_is_reported_once_and_so_is_its_recovery() -> None:
    collector = Collector()
    with exporting(collector) as (traces, lines):
        collector.fail()
        for number in range(3):
            traces.add(relayed())
            eventually(lambda number=number: traces.dropped == number + 1, "a failure")  # type: ignore[misc]
        collector.recover()
        traces.add(relayed())
        eventually(lambda: traces.exported == 1, "an export")
        traces.add(relayed())
    assert lines == [
        "error exporting traces: http://c/: connection refused; dropping traces until they are accepted",
        "exporting traces recovered: dropped_traces=3",
    ]
    assert traces.summary() == "exported_traces=2 dropped_traces=3"


def test_traces_of_which_spans_were_rejected_count_as_dropped() -> None:
    collector = Collector()
    collector.delivery = Delivery(1, "the collector rejected 1 spans: why")
    with exporting(collector) as (traces, lines):
        traces.add(relayed())
    assert len(lines) == 1
    assert traces.summary() == "exported_traces=0 dropped_traces=1"


def test_the_stop_exports_what_is_queued() -> None:
    collector = Collector()
    with exporting(collector) as (traces, _):
        for _ in range(MAX_BATCH * 3):
            traces.add(relayed())
    assert traces.summary() == f"exported_traces={MAX_BATCH * 3} dropped_traces=0"


def test_the_stop_does_not_wait_for_a_busy_collector_and_counts_what_is_left() -> None:
    collector = Collector()
    collector.released.clear()
    with exporting(collector) as (traces, _):
        traces.add(relayed())
        eventually(lambda: bool(collector.batches), "a request")
        traces.add(relayed())
        traces.stop(0.0)
        assert traces.summary() == "exported_traces=0 dropped_traces=2"


def test_the_stop_tries_once_if_the_collector_is_down() -> None:
    collector = Collector()
    collector.released.clear()
    with exporting(collector) as (traces, _):
        traces.add(relayed())
        eventually(lambda: bool(collector.batches), "a request")
        for _ in range(MAX_BATCH * 3):
            traces.add(relayed())
        traces.stop(0.0)
        collector.fail()
    assert len(collector.batches) == 1
    assert traces.summary() == f"exported_traces=0 dropped_traces={MAX_BATCH * 3 + 1}"


def test_the_export_to_a_collector_is_announced_without_credentials() -> None:
    lines: list[str] = []
    problems: list[str] = []
    open_traces(Traces("http://user:geheim@collector.test/v1/traces", 0.25), lines.append, problems.append)
    assert not problems
    assert lines == ["traces enabled; exporting spans via OTLP to http://collector.test:80/v1/traces ratio=0.25"]


def test_without_the_libraries_one_line_says_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "tunnel.tracing.otlp", raising=False)
    with pytest.raises(
        ConfigError, match=r"^traces: OpenTelemetry is not installed \(.+\); install it with: pip install"
    ) as error:
        load_exporter()
    assert str(error.value).endswith("'spiffe-tunnel[otel]'")


def test_an_unexpected_exception_loses_one_batch_and_the_thread_goes_on() -> None:
    lines, batches = list[str](), list[int]()

    def export(batch: Sequence[ConnectionRecord]) -> Delivery:
        batches.append(len(batch))
        if len(batches) == 1:
            raise KeyError("odd\n")
        return Delivery()

    traces = TraceExport(export, 1.0, lines.append, draw=lambda: 0.5)
    traces.start()
    traces.add(relayed())
    eventually(lambda: traces.dropped == 1, "the loss")
    traces.add(relayed())
    eventually(lambda: traces.exported == 1, "an export")
    traces.stop(LIMIT)
    why = "internal error: KeyError: 'odd\\\\n'"
    assert lines == [
        f"error exporting traces: {why}; dropping traces until they are accepted",
        "exporting traces recovered: dropped_traces=1",
    ]
