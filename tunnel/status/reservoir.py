"""A bounded random sample of durations, weighted towards recent ones (forward decay: Cormode and others, 2009)."""

from __future__ import annotations

import heapq
import math
import random
import time
from collections.abc import Callable, Iterable

from tunnel.lazy_dataclass import dataclass

SIZE = 1028
Entry = tuple[float, int]  # priority, value
ALPHA = 0.015  # the weight of a value halves in 46 seconds


def greatest_entries(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The entries of several reservoirs that one would have kept."""
    return tuple(heapq.nlargest(SIZE, entries))


@dataclass(frozen=True, slots=True)
class Sample:
    """Values in ascending order and their statistics, which are 0 for an empty sample."""

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
        """The variance of the sample as a population."""
        mean = self.mean
        return sum((value - mean) ** 2 for value in self.values) / len(self.values) if self.values else 0.0

    @property
    def deviation(self) -> float:
        return math.sqrt(self.variance)

    def percentile(self, fraction: float) -> float:
        """The value below which this fraction of the sample lies, interpolated between its two neighbours."""
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
    """Keeps the values with the greatest priorities; a priority is drawn once and never changes."""

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
        self._kept: list[Entry] = []

    def update(self, value: int) -> None:
        """Add a value."""
        # The logarithm of exp(alpha * t) / u: it grows linearly with time, so the kept priorities never need rescaling.
        entry = (self._alpha * self._clock() - math.log(1.0 - self._chance()), value)
        if len(self._kept) < self._size:
            heapq.heappush(self._kept, entry)
        else:
            heapq.heappushpop(self._kept, entry)

    def entries(self) -> tuple[Entry, ...]:
        """The values that are kept now, with their priorities, which other processes of this machine can compare."""
        return tuple(self._kept)

    def replace(self, entries: Iterable[Entry]) -> None:
        """Keep these entries, at most `SIZE`, and nothing else."""
        self._kept = list(entries)
        heapq.heapify(self._kept)

    def sample(self) -> Sample:
        """The values that are kept now."""
        return Sample(tuple(sorted(value for _priority, value in self._kept.copy())))
