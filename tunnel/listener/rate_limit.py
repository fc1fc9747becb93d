"""Limits of events per second, as values: no state but the moment at which the limit is unused again."""

from __future__ import annotations

from tunnel.lazy_dataclass import dataclass

_TOLERANCE = 1e-3  # of an interval, for rounding


@dataclass(frozen=True, slots=True)
class RateLimit:
    """So many events per second: one second's events at once, then one per interval (GCRA, ITU-T I.371).

    `due` is the state of one source of events: the time at which its rate is back at 0. It is 0 before the first event.
    """

    per_second: float  # more than 0

    def wait(self, due: float, now: float) -> float:
        """Seconds until the next event is permitted; 0 if it is now."""
        burst = max(self.per_second, 1) - 1 + _TOLERANCE  # further events that may be outstanding
        return max(due - burst / self.per_second - now, 0.0)

    def advance(self, due: float, now: float) -> float:
        """Return `due` after one more event."""
        return max(due, now) + 1 / self.per_second


class AcceptRate:
    """The rate at which a listener accepts connections; those above it wait in the kernel's queue."""

    __slots__ = ("_due", "_limit")

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._due = 0.0

    def spend(self, now: float) -> float:
        """Count an accepted connection; return the seconds until the next one may be accepted."""
        self._due = self._limit.advance(self._due, now)
        return self._limit.wait(self._due, now)
