"""How long to wait before the next attempt.

Knows exponential growth with jitter; must not know what is attempted.
"""

from __future__ import annotations

from collections.abc import Callable
from random import random

_FIRST = 0.5  # seconds
_JITTER = 0.25  # of the delay, so that many proxies do not come back at the same moment


class Backoff:
    """Delays that double up to a cap; after a reset the first is none at all."""

    def __init__(self, chance: Callable[[], float] = random) -> None:
        self._chance = chance
        self._failures = 0

    def reset(self) -> None:
        """It worked: the next failure is met with an attempt at once."""
        self._failures = 0

    def next(self, *, floor: float, cap: float) -> float:
        """Seconds to wait after one more failure, between `floor` and `cap` but for the jitter."""
        delay = _FIRST * 2 ** min(self._failures - 1, 16) if self._failures else 0.0
        self._failures += 1
        delay = min(max(delay, floor), cap)
        return delay * (1 + _JITTER * self._chance())
