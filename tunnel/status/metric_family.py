"""What a metric family under our own names is, and how its samples are read from the facts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum

from tunnel.lazy_dataclass import dataclass
from tunnel.status.histogram import HistogramReading
from tunnel.status.metric_facts import ProcessFacts

Value = int | float | HistogramReading
Sample = tuple[tuple[str, ...], Value]  # the values of the labels, and that of the sample
ReadSamples = Callable[[ProcessFacts], Iterable[Sample]]
_UNITS = ("bytes", "seconds")


class FamilyType(Enum):
    """The type of a family, with its word in the text formats."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """One family; the samples of a counter have the suffix `_total`, which `name` has not."""

    name: str
    type: FamilyType
    help: str
    read: ReadSamples
    labels: tuple[str, ...] = ()

    @property
    def series_name(self) -> str:
        """The name in a query; a histogram has `_bucket`, `_sum` and `_count` in addition."""
        return f"{self.name}_total" if self.type is FamilyType.COUNTER else self.name

    @property
    def unit(self) -> str:
        """The unit, which is the end of the name; "" without one."""
        last = self.name.rpartition("_")[2]
        return last if last in _UNITS else ""


COUNTER, GAUGE, HISTOGRAM = FamilyType.COUNTER, FamilyType.GAUGE, FamilyType.HISTOGRAM


def read_single(read: Callable[[ProcessFacts], Value | None]) -> ReadSamples:
    """One sample of the process, or none if the value is None."""

    def read_one(facts: ProcessFacts) -> Iterator[Sample]:
        value = read(facts)
        if value is not None:
            yield (), value

    return read_one


def read_by_word(counts: Mapping[str, int]) -> Iterator[Sample]:
    """One sample for each word."""
    for word, count in counts.items():
        yield (word,), count
