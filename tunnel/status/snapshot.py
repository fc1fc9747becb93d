"""Snapshot: the readings of all metrics at one moment, as a value."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator

import trio

from tunnel.errors import Denial, IdentityLoss, LimitFault, TargetFault, TlsFault, WebRefusal
from tunnel.lazy_dataclass import dataclass
from tunnel.status import metric_definitions as metrics
from tunnel.status.counters import EXPORTS, Counters, TunnelGauges, WorkloadApiState
from tunnel.status.listener_readings import ListenerMeasurement, read_listeners
from tunnel.status.metric_reading import MetricReading
from tunnel.status.runtime import Runtime

_ORDER = {metric.name: place for place, metric in enumerate(metrics.METRICS)}
_FAILURES = tuple(fault.value for fault in (*TlsFault, *TargetFault))


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is measured of all listeners together, and of each."""

    counters: Counters
    gauges: TunnelGauges
    listeners: tuple[ListenerMeasurement, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Readings, those of one metric next to each other, and how many seconds after the start they were taken."""

    uptime: float
    readings: tuple[MetricReading, ...]


class MetricsSource:
    """Takes snapshots."""

    def __init__(
        self,
        measure: Callable[[], Measurement],
        runtime: Runtime,
        *,
        refresh: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._measure = measure
        self._runtime = runtime
        self.refresh = refresh  # to be awaited before a snapshot
        self._clock = clock
        self._start = clock()

    def close(self) -> None:
        """Stop watching the runtime."""
        self._runtime.unwatch()

    def snapshot(self) -> Snapshot:
        """All readings, now, in the order of the definitions."""
        uptime = self._clock() - self._start
        measured = self._measure()
        counters, gauges = measured.counters, measured.gauges
        readings = (
            *_of_counters(counters),
            *_of_connections(counters, gauges),
            *_of_reasons(counters),
            *_of_identity(counters, gauges),
            *_of_workload_api(counters.workload_api),
            *_of_runtime(self._runtime, uptime),
            *read_listeners(measured.listeners),
        )
        return Snapshot(uptime, tuple(sorted(readings, key=lambda reading: _ORDER[reading.metric.name])))


def open_metrics(measure: Callable[[], Measurement], refresh: Callable[[], Awaitable[object]]) -> MetricsSource:
    """A source whose runtime is watched from now on; for a process whose metrics are served or sent."""
    runtime = Runtime()
    runtime.watch()
    return MetricsSource(measure, runtime, refresh=refresh)


def _of_counters(counters: Counters) -> Iterator[MetricReading]:
    """Every counter that is declared with a metric, except parts of a sum."""
    for name, export in EXPORTS.items():
        if export.metric is not metrics.ACCEPT_ERROR:
            yield MetricReading(export.metric, getattr(counters, name), name if export.metric.label else "")
    for outcome, count in counters.other_ends.items():
        yield MetricReading(metrics.OUTCOMES, count, outcome)


def _of_connections(counters: Counters, gauges: TunnelGauges) -> Iterator[MetricReading]:
    yield MetricReading(metrics.OPEN, gauges.opened)
    yield MetricReading(metrics.ACCEPT_ERROR, counters.failed)
    if counters.handshake is not None:
        yield MetricReading(metrics.HANDSHAKE, counters.handshake.distribution())
    if counters.lifetime is not None:
        yield MetricReading(metrics.LIFETIME, counters.lifetime.distribution())
    yield MetricReading(metrics.PLAINTEXT_OPEN, gauges.plain_opened)
    yield MetricReading(metrics.FORWARDED, gauges.forwarded)
    yield MetricReading(metrics.RETURNED, gauges.returned)


def _of_reasons(counters: Counters) -> Iterator[MetricReading]:
    """Reasons that have not occurred have the value 0: a rate needs an earlier value."""
    for denial in (*Denial, *LimitFault):
        yield MetricReading(metrics.REFUSALS, counters.reasons.get(denial.value, 0), denial.value)
    for cause in (*Denial, *IdentityLoss):
        yield MetricReading(metrics.WITHDRAWALS, counters.withdrawals.get(cause.value, 0), cause.value)
    for fault in _FAILURES:
        yield MetricReading(metrics.FAILURES, counters.reasons.get(fault, 0), fault)
    for refusal in WebRefusal:
        yield MetricReading(metrics.STATUS_REFUSED, counters.status_refusals.get(refusal.value, 0), refusal.value)


def _of_identity(counters: Counters, gauges: TunnelGauges) -> Iterator[MetricReading]:
    if gauges.expiry is not None:
        yield MetricReading(metrics.EXPIRY, gauges.expiry)
    if gauges.lists_expiry is not None:
        yield MetricReading(metrics.LISTS_EXPIRY, gauges.lists_expiry)
    yield MetricReading(metrics.GENERATION, gauges.generation)
    yield MetricReading(metrics.IDENTITY_USABLE, int(gauges.is_identity_usable))
    for what, reloads in (("certificates", counters.certificates), ("policy", counters.policy), ("config", counters.config)):
        yield MetricReading(metrics.RELOAD_SUCCESSES, reloads.succeeded, what)
        yield MetricReading(metrics.RELOAD_FAILURES, reloads.failed, what)
        yield MetricReading(metrics.RELOAD_LAST_SUCCESSFUL, int(reloads.is_last_successful), what)


def _of_workload_api(state: WorkloadApiState | None) -> Iterator[MetricReading]:
    if state is None:
        return
    yield MetricReading(metrics.WORKLOAD_API_OK, int(not state.error))
    if state.last_update is not None:
        yield MetricReading(metrics.WORKLOAD_API_LAST, state.last_update)
    yield MetricReading(metrics.WORKLOAD_API_UPDATES, state.updates)
    yield MetricReading(metrics.WORKLOAD_API_REJECTED, state.rejected)
    yield MetricReading(metrics.SKIPPED, state.skipped)
    yield MetricReading(metrics.SKIPPED_LISTS, state.skipped_lists)


def _of_runtime(runtime: Runtime, uptime: float) -> Iterator[MetricReading]:
    pauses = runtime.pauses.distribution()
    if (resident := runtime.resident_bytes()) is not None:
        yield MetricReading(metrics.MEMORY, resident)
    yield MetricReading(metrics.BLOCKS, runtime.blocks())
    yield MetricReading(metrics.TASKS, runtime.tasks())
    yield MetricReading(metrics.COLLECTIONS, runtime.collections())
    yield MetricReading(metrics.COLLECTING, pauses.total / 1e9 / uptime if uptime > 0 else 0.0)
    yield MetricReading(metrics.PAUSES, pauses)
