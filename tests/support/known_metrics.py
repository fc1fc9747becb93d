"""A metrics source with known values."""

from __future__ import annotations

from tests.support.socket_pairs import Clock
from tunnel.status.counters import Counters, TargetGauges, TunnelGauges, WorkloadApiState
from tunnel.status.durations import LONG, SHORT, DurationMetric
from tunnel.status.listener_readings import ListenerMeasurement
from tunnel.status.runtime import Runtime
from tunnel.status.snapshot import Measurement, MetricsSource, Snapshot

NOW = 1_800_000_000.9
EXPIRY = 1_800_003_600


class KnownRuntime(Runtime):
    """A process that never changes."""

    def resident_bytes(self) -> int | None:
        return 50_000_000

    def blocks(self) -> int:
        return 123_456

    def tasks(self) -> int:
        return 9

    def collections(self) -> int:
        return 70


def known_source() -> tuple[MetricsSource, Counters, Clock]:
    """Handshakes of 1, 2 and 3 ms, one lifetime of 2 s and some failures, all of one listener; ten seconds after the start."""
    clock = Clock()
    counters = Counters(
        accepted=7,
        plaintext=1,
        relayed=3,
        refused=2,
        dial_failed=1,
        closed_without_data=1,
        handshake_timeouts=1,
        reaped=1,
        broken=1,
        close_notify=1,
    )
    counters.other_ends = {"close_timeout": 1, "tls_failure": 1}
    counters.reasons = {"expired": 1, "handshake-timeout": 1, "connection-refused": 1}
    counters.handshake, counters.lifetime = DurationMetric(SHORT, clock=clock), DurationMetric(LONG, clock=clock)
    for milliseconds in (1, 2, 3):
        counters.handshake.update(milliseconds * 1_000_000)
    counters.lifetime.update(2_000_000_000)
    counters.withdrawals = {"no-matching-rule": 1}
    counters.workload_api = WorkloadApiState("down", updates=5, rejected=2, skipped=1, skipped_lists=3, last_update=EXPIRY - 60)
    counters.certificates.count(is_success=True)
    counters.certificates.count(is_success=False)
    gauges = TunnelGauges(2, 1000, 2000, 4, EXPIRY, lists_expiry=EXPIRY + 5)
    target = TargetGauges("localhost:6379", healthy=1, opened=2, failures=3)
    listener = ListenerMeasurement("redis", counters, gauges, (target,))
    source = MetricsSource(lambda: Measurement(counters, gauges, (listener,)), KnownRuntime(), clock=clock)
    clock.now += 10
    return source, counters, clock


def known_snapshot() -> Snapshot:
    """One snapshot of it."""
    return known_source()[0].snapshot()
