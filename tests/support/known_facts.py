"""Facts about a process from which every family has a sample."""

from __future__ import annotations

from tunnel.status.busy_peers import OTHERS, PeerSeries
from tunnel.status.counters import Counters, Reloads, TargetGauges, TunnelGauges, WorkloadApiState
from tunnel.status.histogram import LAG_BOUNDS, ConnectionDurations, Histogram
from tunnel.status.identity_report import IdentityReport, TrustDomainReport
from tunnel.status.metric_facts import LimitUse, ListenerFacts, ProcessFacts
from tunnel.status.peer_table import PeerKey, PeerTraffic

BEGIN, EXPIRY = 1_800_000_000.0, 1_800_003_600.0
BUNDLE = TrustDomainReport("a.test", 2, EXPIRY + 1)
IDENTITY = IdentityReport(
    *("", "SPIFFE Workload API", ("redis",), "spiffe://a.test/redis", "1f", BEGIN, EXPIRY, 3, "", (), (BUNDLE,), 2)
)
WORKLOAD_API = WorkloadApiState(
    "", updates=5, rejected=2, skipped=1, skipped_lists=3, last_update=int(BEGIN) + 9, errors={"UNAVAILABLE": 4}
)


def known_listener(name: str = "redis", *, is_server: bool = True) -> ListenerFacts:
    """A listener with something of everything."""
    counters = Counters(accepted=9, relayed=5, refused=3, dial_failed=1, plaintext=2, close_notify=2, accept_errors=6)
    counters.reasons = {"expired": 1, "peer-connections": 1, "connection-refused": 1, "handshake-timeout": 2}
    counters.withdrawals = {"no-matching-rule": 1}
    counters.other_ends = {"close_timeout": 1}
    durations = ConnectionDurations()
    durations.handshake.add(0.002)
    durations.dial.add(0.0002)
    durations.connection.add(100_000.0)
    return ListenerFacts(
        name=name,
        is_server=is_server,
        is_ready=True,
        counters=counters,
        gauges=TunnelGauges(2, 1000, 2000, 3, int(EXPIRY), lists_expiry=int(EXPIRY) + 5, plain_opened=1),
        targets=(TargetGauges("localhost:6379", 1, 2, 3),),
        limits=(LimitUse("connections", 2, 0), LimitUse("handshakes", 7, 512)),
        durations=durations.read(),
        identity=IDENTITY,
        workload_api=WORKLOAD_API,
        permits_plaintext=True,
    )


def known_facts(peer: str = "spiffe://a.test/web") -> ProcessFacts:
    """One listener, whose only peer with series of its own has this name."""
    lag = Histogram(LAG_BOUNDS)
    lag.add(0.003)
    counters = Counters(certificates=Reloads(3, 1, is_last_successful=False), crashed=1, workload_api=WORKLOAD_API)
    counters.status_refusals = {"cross-site": 1}
    return ProcessFacts(
        is_ready=True,
        versions={"version": "1.0", "python": "3.11.2", "openssl": "3.5.1"},
        counters=counters,
        listeners=(known_listener(),),
        peers=(
            PeerSeries(PeerKey("redis", peer), PeerTraffic(4, 2, 900, 1900, 1.0)),
            PeerSeries(PeerKey("redis", OTHERS), PeerTraffic(1, 0, 100, 100, 1.0)),
        ),
        trust_domains=IDENTITY.trust_domains,
        lag=lag.read(),
        dropped_lines={"log": 8},
        status_port=LimitUse("", 1, 256),
        workers=2,
        worker_restarts=3,
    )
