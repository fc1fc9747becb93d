"""Durations and loop lag of workers, also of those that have ended."""

from __future__ import annotations

from typing import Any

import pytest

from tunnel.lazy_dataclass import replace
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


@pytest.mark.parametrize(
    "wrong", [{"lag": None}, {"lag": Histogram((1.0,))}, {"timers": {0: "x"}}, {"timers": None}, {"timers": {"0": ()}}]
)
def test_what_is_not_a_count_is_not_kept(wrong: dict[str, Any]) -> None:
    """The exception ends the worker that has sent it; later sums do not fail."""
    counts = WorkerCounts()
    counts.group_of(timed_counters())
    counts.take(0, report_of(1))
    with pytest.raises((TypeError, ValueError, AttributeError)):
        counts.take(0, replace(report_of(2), **wrong))
    counts.forget(0)
    assert counts.lag().count == 1


def test_a_worker_that_ends_before_its_first_report_changes_nothing() -> None:
    counts = WorkerCounts()
    counts.forget(3)
    assert counts.lag().count == 0
