"""Durations and loop lag of workers, also of those that have ended."""

from __future__ import annotations

from tunnel.status.counters import timed_counters
from tunnel.status.histogram import LAG_BOUNDS, Histogram
from tunnel.workers.messages import Report
from tunnel.workers.worker_counts import WorkerCounts


def report_of(*milliseconds: int) -> Report:
    """A report of a worker with handshakes of these durations, and one value of lag for each."""
    timers, lag = timed_counters(), Histogram(LAG_BOUNDS)
    assert timers.handshake is not None
    assert timers.lifetime is not None
    for one in milliseconds:
        timers.handshake.update(one * 1_000_000)
        lag.add(one / 1000)
    return Report(1, {}, {0: (timers.handshake.totals(), timers.lifetime.totals())}, 0, 0, lag)


def test_the_counts_are_the_sum_of_the_last_reports_and_of_ended_workers() -> None:
    shown, counts = timed_counters(), WorkerCounts()
    assert counts.group_of(shown) == counts.group_of(shown) == 0
    assert counts.group_of(timed_counters()) == 1
    assert shown.handshake is not None
    counts.take(0, report_of(1))
    counts.take(1, report_of(2, 3))
    counts.take(0, report_of(1, 10))  # its later report has the former in it
    assert (shown.handshake.distribution().count, counts.lag().count) == (4, 4)
    for _ in range(2):  # two workers in a row with one index
        counts.forget(0)
        counts.take(0, report_of(5))
    assert shown.handshake.distribution().count == 2 + 2 + 1 + 1
    assert shown.handshake.distribution().sample.maximum == 10_000_000
    assert counts.lag().count == 6


def test_a_worker_that_ends_before_its_first_report_changes_nothing() -> None:
    counts = WorkerCounts()
    counts.forget(3)
    assert counts.lag().count == 0
