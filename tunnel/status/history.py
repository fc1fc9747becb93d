"""The last 15 minutes of a process as points at equal intervals, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

INTERVAL = 5.0  # seconds between two points
MAX_POINTS = 180


class Totals(NamedTuple):
    """What is read at one moment; the numbers except `opened` are totals since the start."""

    opened: int  # connections that are open
    handshakes: int
    refused: int
    failed: int
    forwarded: int  # bytes
    returned: int


class HistoryPoint(NamedTuple):
    """One interval: connections at its end, rates per second, and the longest lag of the event loop in seconds."""

    time: float  # Unix time of its end
    opened: int
    handshakes: float
    refused: float
    failed: float
    forwarded: float  # bytes
    returned: float
    lag: float


def point_between(before: Totals, after: Totals, *, seconds: float, now: float, lag: float) -> HistoryPoint:
    """Return the point of an interval that ends at the Unix time `now`.

    A total can decrease, because a reload has removed a listener: its rate is 0 then.
    """

    rates = (round(max(last - first, 0) / seconds, 3) for first, last in zip(before[1:], after[1:], strict=True))
    handshakes, refused, failed, forwarded, returned = rates
    return HistoryPoint(round(now, 3), after.opened, handshakes, refused, failed, forwarded, returned, round(lag, 6))


class History:
    """Keeps the newest points; `count` is how many there have been."""

    def __init__(self) -> None:
        self._points: deque[HistoryPoint] = deque(maxlen=MAX_POINTS)
        self.count = 0

    def add(self, point: HistoryPoint) -> None:
        """Add the newest point."""
        self._points.append(point)
        self.count += 1

    def after(self, count: int) -> Sequence[HistoryPoint]:
        """The points that are kept, except the first `count` that there have been."""
        first = self.count - len(self._points)
        return tuple(islice(self._points, max(count - first, 0), None))

    def document(self) -> dict[str, Any]:
        """All points that are kept, for JSON."""
        return {"interval": INTERVAL, "length": MAX_POINTS, "fields": HistoryPoint._fields, "points": list(self._points)}
