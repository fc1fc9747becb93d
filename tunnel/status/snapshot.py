"""All metrics at one moment, as a value.

Knows how counts, timers and the process are put together under their names; must not know how a snapshot is shown, or to
whom.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tunnel.errors import Denial, TargetFault, TlsFault, WebRefusal
from tunnel.status import metric_definitions
from tunnel.status.counters import Counters, TunnelGauges, WorkloadApiState
from tunnel.status.durations import Distribution
from tunnel.status.metric_definitions import Metric
from tunnel.status.runtime import Runtime

_ELSEWHERE = {"accepted", "carried", "accept_errors"}  # have names of their own
_FAILURES = tuple(fault.value for fault in (*TlsFault, *TargetFault))

Value = int | float | Distribution


@dataclass(frozen=True, slots=True)
class MetricReading:
    """One number, or one distribution; `label` is the value of the metric's label."""

    metric: Metric
    value: Value
    label: str = ""

    @property
    def name(self) -> str:
        """The dotted name, without a prefix."""
        return f"{self.metric.name}.{self.label}" if self.label else self.metric.name


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Readings, those of one metric next to each other, and how many seconds after the start they were taken."""

    uptime: float
    readings: tuple[MetricReading, ...]


class MetricsSource:
    """Takes snapshots."""

    def __init__(
        self,
        counters: Counters,
        standing: Callable[[], TunnelGauges],
        runtime: Runtime,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counters = counters
        self._standing = standing
        self._runtime = runtime
        self._clock = clock
        self._start = clock()

    def snapshot(self) -> Snapshot:
        """Everything, now."""
        uptime = self._clock() - self._start
        counters, standing = self._counters, self._standing()
        return Snapshot(
            uptime,
            (
                *_of_connections(counters, standing),
                *_of_outcomes(counters),
                *_of_identity(counters, standing),
                *_of_workload_api(counters.workload_api),
                *_of_runtime(self._runtime, uptime),
            ),
        )


def open_metrics(counters: Counters, standing: Callable[[], TunnelGauges]) -> MetricsSource:
    """A source whose runtime is watched from now on; for a process that shows its metrics somewhere."""
    runtime = Runtime()
    runtime.watch()
    return MetricsSource(counters, standing, runtime)


def _of_connections(counters: Counters, standing: TunnelGauges) -> Iterator[MetricReading]:
    yield MetricReading(metric_definitions.OPEN, standing.opened)
    yield MetricReading(metric_definitions.ACCEPT_TOTAL, counters.accepted)
    yield MetricReading(metric_definitions.ACCEPT_SUCCESS, counters.carried)
    yield MetricReading(metric_definitions.ACCEPT_ERROR, counters.failed)
    yield MetricReading(metric_definitions.ACCEPT_TIMEOUT, counters.handshake_timeouts)
    yield MetricReading(metric_definitions.CONN_TIMEOUT, counters.reaped)
    yield MetricReading(metric_definitions.CONN_ERROR, counters.broken)
    if counters.handshake is not None:
        yield MetricReading(metric_definitions.HANDSHAKE, counters.handshake.distribution())
    if counters.lifetime is not None:
        yield MetricReading(metric_definitions.LIFETIME, counters.lifetime.distribution())
    yield MetricReading(metric_definitions.FORWARDED, standing.forwarded)
    yield MetricReading(metric_definitions.RETURNED, standing.returned)


def _of_outcomes(counters: Counters) -> Iterator[MetricReading]:
    """Reasons that have not occurred are there with 0: a rate needs something to have risen from."""
    for denial in Denial:
        yield MetricReading(metric_definitions.REFUSALS, counters.reasons.get(denial.value, 0), denial.value)
    for fault in _FAILURES:
        yield MetricReading(metric_definitions.FAILURES, counters.reasons.get(fault, 0), fault)
    for refusal in WebRefusal:
        yield MetricReading(metric_definitions.STATUS_REFUSED, counters.status_refusals.get(refusal.value, 0), refusal.value)
    for outcome, count in counters.outcomes().items():
        if outcome not in _ELSEWHERE:
            yield MetricReading(metric_definitions.OUTCOMES, count, outcome.replace("_", "-"))


def _of_identity(counters: Counters, standing: TunnelGauges) -> Iterator[MetricReading]:
    if standing.expiry is not None:
        yield MetricReading(metric_definitions.EXPIRY, standing.expiry)
    yield MetricReading(metric_definitions.GENERATION, standing.generation)
    yield MetricReading(metric_definitions.IDENTITY_USABLE, int(standing.is_identity_usable))
    reloads = {"certificates": counters.certificates, "policy": counters.policy}
    yield from (MetricReading(metric_definitions.RELOAD_SUCCESSES, one.succeeded, what) for what, one in reloads.items())
    yield from (MetricReading(metric_definitions.RELOAD_FAILURES, one.failed, what) for what, one in reloads.items())
    yield from (MetricReading(metric_definitions.RELOAD_WELL, int(one.is_well), what) for what, one in reloads.items())


def _of_workload_api(state: WorkloadApiState | None) -> Iterator[MetricReading]:
    if state is None:
        return
    yield MetricReading(metric_definitions.WORKLOAD_API_OK, int(not state.error))
    if state.last_update is not None:
        yield MetricReading(metric_definitions.WORKLOAD_API_LAST, state.last_update)
    yield MetricReading(metric_definitions.WORKLOAD_API_UPDATES, state.updates)
    yield MetricReading(metric_definitions.WORKLOAD_API_REJECTED, state.rejected)
    yield MetricReading(metric_definitions.LEFT_OUT, state.left_out)


def _of_runtime(runtime: Runtime, uptime: float) -> Iterator[MetricReading]:
    pauses = runtime.pauses.distribution()
    if (resident := runtime.resident_bytes()) is not None:
        yield MetricReading(metric_definitions.MEMORY, resident)
    yield MetricReading(metric_definitions.BLOCKS, runtime.blocks())
    yield MetricReading(metric_definitions.TASKS, runtime.tasks())
    yield MetricReading(metric_definitions.COLLECTIONS, runtime.collections())
    yield MetricReading(metric_definitions.COLLECTING, pauses.total / 1e9 / uptime if uptime > 0 else 0.0)
    yield MetricReading(metric_definitions.PAUSES, pauses)
