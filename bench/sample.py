"""One measurement of a workload."""

from __future__ import annotations

from dataclasses import dataclass

FIELDS = ("cost", "rate", "p50", "p99", "p999", "errors")


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement in the workload's unit; memory has no system part."""

    user: float
    system: float
    busy: float = 0.0  # the share of its core that the proxy used
    others: float = 0.0  # the share that other processes used: a large value makes the sample unreliable
    session: str = ""  # the negotiated parameters
    rate: float = 0.0  # units per second
    p50: float = 0.0  # milliseconds per unit; 0: not measured
    p99: float = 0.0
    p999: float = 0.0
    errors: int = 0

    @property
    def total(self) -> float:
        return self.user + self.system

    def value(self, field: str) -> float:
        """Return one of FIELDS; the cost is the total."""
        return self.total if field == "cost" else float(getattr(self, field))
