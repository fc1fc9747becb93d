"""Exponential backoff: the delay after a number of failures, and a sequence of delays with jitter."""

from __future__ import annotations

from collections.abc import Callable
from random import random

_FIRST = 0.5  # seconds
_JITTER = 0.25  # of the delay, so that many proxies do not retry at the same time
_MOST_DOUBLINGS = 16  # a larger power would overflow


def doubled_delay(first: float, failures: int, cap: float) -> float:
    """Return the delay after `failures` (at least 1) in a row: `first`, doubled by each further failure, at most `cap`."""
    return min(first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), cap)


class Backoff:
    """Delays that double up to a cap; the first one after a reset is 0."""

    def __init__(self, chance: Callable[[], float] = random) -> None:
        self._chance = chance
        self._failures = 0

    def reset(self) -> None:
        """Start again after a success: the next delay is 0."""
        self._failures = 0

    def next(self, *, floor: float, cap: float) -> float:
        """Return the seconds to wait after a failure: between `floor` and `cap`, plus up to a quarter of jitter."""
        delay = doubled_delay(_FIRST, self._failures, cap) if self._failures else 0.0
        self._failures += 1
        delay = min(max(delay, floor), cap)
        return delay * (1 + _JITTER * self._chance())
