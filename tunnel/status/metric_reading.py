"""One reading of a metric: a number or a distribution, of the process, of a listener or of a target."""

from __future__ import annotations

from collections.abc import Mapping

from tunnel.lazy_dataclass import dataclass
from tunnel.status.durations import Distribution
from tunnel.status.metric_definitions import Metric

Value = int | float | Distribution


@dataclass(frozen=True, slots=True)
class ReadingScope:
    """The listener, or the target of a listener, that a reading is about."""

    path: str  # the beginning of the dotted name
    labels: Mapping[str, str]  # for Prometheus; names of the configuration


@dataclass(frozen=True, slots=True)
class MetricReading:
    """One number, or one distribution; `label` is the value of the metric's label."""

    metric: Metric
    value: Value
    label: str = ""
    scope: ReadingScope | None = None  # None for the whole process

    @property
    def name(self) -> str:
        """The dotted name, without a prefix."""
        name = f"{self.scope.path}.{self.metric.last_word}" if self.scope else self.metric.name
        return f"{name}.{self.label}" if self.label else name

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels for Prometheus."""
        own = {self.metric.label: self.label} if self.metric.label else {}
        return {**self.scope.labels, **own} if self.scope else own
