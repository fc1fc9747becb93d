"""A bounded sample of a stream of durations, in which what is recent weighs more.

Knows the arithmetic of forward decay (Cormode and others, 2009) and of percentiles; must not know what is measured. Chance
and time are given, so that tests can set both.
"""

from __future__ import annotations

import heapq
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

SIZE = 1028
ALPHA = 0.015  # a value loses half of its weight in 46 seconds


@dataclass(frozen=True, slots=True)
class Sample:
    """Values in ascending order, and what can be said of them; an empty one says 0 to everything."""

    values: tuple[int, ...] = ()

    @property
    def minimum(self) -> int:
        return self.values[0] if self.values else 0

    @property
    def maximum(self) -> int:
        return self.values[-1] if self.values else 0

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values) if self.values else 0.0

    @property
    def variance(self) -> float:
        """Of the sample as a whole population."""
        mean = self.mean
        return sum((value - mean) ** 2 for value in self.values) / len(self.values) if self.values else 0.0

    @property
    def deviation(self) -> float:
        return math.sqrt(self.variance)

    def percentile(self, fraction: float) -> float:
        """The value below which that fraction lies, interpolated between its two neighbours."""
        if not self.values:
            return 0.0
        position = fraction * (len(self.values) + 1)
        rank = int(position)
        if rank < 1:
            return float(self.values[0])
        if rank >= len(self.values):
            return float(self.values[-1])
        lower, upper = self.values[rank - 1 : rank + 1]
        return lower + (position - rank) * (upper - lower)


class Reservoir:
    """Keeps the values of the greatest priorities; a priority is drawn once and never changes."""

    __slots__ = ("_alpha", "_chance", "_clock", "_kept", "_size")

    def __init__(
        self,
        size: int = SIZE,
        alpha: float = ALPHA,
        *,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._size = size
        self._alpha = alpha
        self._chance = chance
        self._clock = clock
        self._kept: list[tuple[float, int]] = []

    def update(self, value: int) -> None:
        """Take a value into account."""
        # The logarithm of exp(alpha * t) / u: it grows by addition, so nothing has to be scaled back as time passes.
        entry = (self._alpha * self._clock() - math.log(1.0 - self._chance()), value)
        if len(self._kept) < self._size:
            heapq.heappush(self._kept, entry)
        else:
            heapq.heappushpop(self._kept, entry)

    def sample(self) -> Sample:
        """What is kept now."""
        return Sample(tuple(sorted(value for _priority, value in self._kept.copy())))
