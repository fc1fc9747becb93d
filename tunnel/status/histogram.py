"""Histograms of seconds with fixed buckets: what Prometheus needs, at the cost of one search per value."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

from tunnel.lazy_dataclass import dataclass

HANDSHAKE_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DIAL_BOUNDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
LIFETIME_BOUNDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
LAG_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class HistogramReading:
    """The values so far, in seconds."""

    bounds: tuple[float, ...]
    buckets: tuple[int, ...]  # the number of values up to each bound
    count: int
    total: float


class Histogram:
    """Counts values in seconds."""

    __slots__ = ("_bounds", "_buckets", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._buckets = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, seconds: float) -> None:
        """Count one value."""
        self._buckets[bisect_left(self._bounds, seconds)] += 1
        self._total += seconds

    def absorb(self, other: Histogram) -> None:
        """Add the values of another histogram with the same bounds."""
        self._buckets = [ours + theirs for ours, theirs in zip(self._buckets, other._buckets, strict=True)]
        self._total += other._total

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self._buckets)

    def read(self) -> HistogramReading:
        """The values so far, as a value."""
        return HistogramReading(self._bounds, tuple(accumulate(self._buckets[:-1])), self.count, self._total)


@dataclass(frozen=True, slots=True)
class DurationReadings:
    """The durations of one listener so far."""

    handshake: HistogramReading
    dial: HistogramReading
    connection: HistogramReading


class ConnectionDurations:
    """The durations of one listener; each is counted when it is known, so that no open connection has state for it."""

    __slots__ = ("connection", "dial", "handshake")

    def __init__(self) -> None:
        self.handshake = Histogram(HANDSHAKE_BOUNDS)  # of those that succeeded
        self.dial = Histogram(DIAL_BOUNDS)  # of those that succeeded
        self.connection = Histogram(LIFETIME_BOUNDS)  # relayed ones, from accept to close

    def absorb(self, other: ConnectionDurations) -> None:
        """Add the durations of another process."""
        self.handshake.absorb(other.handshake)
        self.dial.absorb(other.dial)
        self.connection.absorb(other.connection)

    def read(self) -> DurationReadings:
        """The durations so far, as a value."""
        return DurationReadings(self.handshake.read(), self.dial.read(), self.connection.read())
