"""Durations: exact count, sum and buckets, a sample, and rates.

`update` runs once or twice per connection: everything else is computed when the distribution is read.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

from tunnel.lazy_dataclass import dataclass
from tunnel.status.reservoir import Entry, Reservoir, Sample, greatest_entries


def spread(least: float, greatest: float, count: int) -> tuple[int, ...]:
    """Bounds in a geometric series, rounded to three digits, so that they are short and stable."""
    growth = (greatest / least) ** (1 / (count - 1))
    return tuple(int(float(f"{least * growth**step:.3g}")) for step in range(count))


SHORT = spread(10e3, 10e9, 24)  # 10 microseconds to 10 seconds
LONG = spread(1e6, 86400e9, 30)  # 1 millisecond to a day

WINDOWS = (60.0, 300.0, 900.0)  # seconds


@dataclass(frozen=True, slots=True)
class Rates:
    """Events per second: moving averages over one, five and fifteen minutes, and the mean since the start."""

    one_minute: float = 0.0
    five_minutes: float = 0.0
    fifteen_minutes: float = 0.0
    mean: float = 0.0


@dataclass(frozen=True, slots=True)
class Distribution:
    """The durations that a timer has counted so far, in nanoseconds; only the sample prefers recent ones."""

    count: int
    total: int
    bounds: tuple[int, ...]
    buckets: tuple[int, ...]  # the number of durations up to each bound
    sample: Sample
    rates: Rates


class DurationTotals(NamedTuple):
    """What a metric has counted, to be added to that of other processes."""

    number: int
    total: int  # nanoseconds
    buckets: tuple[int, ...]
    entries: tuple[Entry, ...]  # of the reservoir


def add_totals(parts: Sequence[DurationTotals]) -> DurationTotals:
    """The sum of at least one."""
    return DurationTotals(
        sum(part.number for part in parts),
        sum(part.total for part in parts),
        tuple(sum(column) for column in zip(*(part.buckets for part in parts), strict=True)),
        greatest_entries(entry for part in parts for entry in part.entries),
    )


class DurationMetric:
    """Counts durations."""

    __slots__ = ("_bounds", "_buckets", "_clock", "_count", "_meter", "_reservoir", "_total")

    def __init__(
        self,
        bounds: tuple[int, ...],
        *,
        clock: Callable[[], float] = time.monotonic,
        reservoir: Reservoir | None = None,
    ) -> None:
        self._bounds = bounds
        self._buckets = [0] * (len(bounds) + 1)
        self._count = 0
        self._total = 0
        self._clock = clock
        self._meter = _Meter(clock())
        self._reservoir = reservoir or Reservoir(clock=clock)

    def update(self, nanoseconds: int) -> None:
        """Add one duration."""
        self._count += 1
        self._total += nanoseconds
        self._buckets[bisect_left(self._bounds, nanoseconds)] += 1
        self._reservoir.update(nanoseconds)

    def totals(self) -> DurationTotals:
        """What was counted so far."""
        return DurationTotals(self._count, self._total, tuple(self._buckets), self._reservoir.entries())

    def show(self, totals: DurationTotals) -> None:
        """Have these counts, in place of our own."""
        self._count, self._total, self._buckets = totals.number, totals.total, list(totals.buckets)
        self._reservoir.replace(totals.entries)

    def distribution(self) -> Distribution:
        """The distribution so far, as a value."""
        return Distribution(
            self._count,
            self._total,
            self._bounds,
            tuple(accumulate(self._buckets[:-1])),
            self._reservoir.sample(),
            self._meter.read(self._count, self._clock()),
        )


class _Meter:
    """Moving averages that are updated when they are read, at any interval."""

    __slots__ = ("_averages", "_count", "_start", "_when")

    def __init__(self, now: float) -> None:
        self._start = self._when = now
        self._count = 0
        self._averages: list[float] = []

    def read(self, count: int, now: float) -> Rates:
        elapsed = now - self._when
        if elapsed > 0:
            latest = (count - self._count) / elapsed
            before = self._averages or [latest] * len(WINDOWS)
            # The result of many small steps at the same rate.
            self._averages = [
                latest + math.exp(-elapsed / window) * (old - latest) for window, old in zip(WINDOWS, before, strict=True)
            ]
            self._when, self._count = now, count
        if not self._averages:
            return Rates()
        one, five, fifteen = self._averages
        return Rates(one, five, fifteen, count / (now - self._start))
