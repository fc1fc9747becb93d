"""The facts behind our metrics are those of the listeners of a status port, and peers cost bounded memory."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.tls_ends import TLS12, identity
from tests.support.tunnel_harness import ROOT, Harnesses, TunnelHarness, carried, hang_up
from tunnel.config.model import Plaintext
from tunnel.lazy_dataclass import replace
from tunnel.listener.observation import ConnectionObservation
from tunnel.net.connection_limiter import ConnectionLimiter
from tunnel.net.notify import Notifier
from tunnel.proxy.monitor_scope import MonitorScope
from tunnel.proxy.process_facts import FactsReader
from tunnel.proxy.state_reporter import StateReporter
from tunnel.status import peer_table
from tunnel.status.busy_peers import OTHERS
from tunnel.status.counters import Counters, WorkloadApiState
from tunnel.status.histogram import LAG_BOUNDS, ConnectionDurations, Histogram
from tunnel.status.identity_report import NO_CREDENTIALS, TrustDomainReport
from tunnel.status.metric_facts import LimitUse
from tunnel.status.openmetrics import MetricsFormat, encode_metrics
from tunnel.status.peer_table import PeerKey, PeerTraffic

BUNDLE = TrustDomainReport("a.test", 1, 5.0)


class FakeFeed:
    """An identity source with a Workload API."""

    def __init__(self) -> None:
        self.counters = Counters(workload_api=WorkloadApiState("", updates=3))
        self.problem = ""

    def report(self) -> Any:
        return replace(NO_CREDENTIALS, not_after=7.0, replaced=2, trust_domains=(BUNDLE,))


class FakeProcess:
    """A process with the tunnels of these harnesses as listeners, and one identity source for all."""

    def __init__(self, **harnesses: TunnelHarness) -> None:
        self.counters = Counters()
        self.retired: list[Any] = []
        self.listeners = {
            name: SimpleNamespace(name=name, config=harness.tunnel.config, tunnel=harness.tunnel)
            for name, harness in harnesses.items()
        }
        configs = [one.config for one in self.listeners.values()]
        self.feeds = dict.fromkeys((config.identity for config in configs), FakeFeed())
        self.state_reporter = StateReporter(configs, Notifier({}, 1))
        self.state_reporter.show_listening()
        self.shared = SimpleNamespace()
        self.observation: Any = None
        self.data_plane = SimpleNamespace(count=0, restarts=0)

    def dropped_lines(self) -> dict[str, int]:
        return {"log": 8}

    def loop_lags(self) -> list[Histogram]:
        return [self.observation.lag] if self.observation is not None else []

    def observe(self) -> None:
        lag = Histogram(LAG_BOUNDS)
        lag.add(0.1)
        self.observation = SimpleNamespace(connections=ConnectionObservation(), lag=lag)

    def scope(self, *names: str) -> MonitorScope:
        return MonitorScope(self, names)  # type: ignore[arg-type]


def test_each_listener_is_described(harnesses: Harnesses) -> None:
    redis = harnesses(name="redis", max_concurrent_conns=9, max_handshakes=4, plaintext=Plaintext())
    client = harnesses(name="client", is_server=False)
    redis.tunnel.counters.durations = ConnectionDurations()
    redis.tunnel.counters.accepted = 3
    facts = FactsReader(FakeProcess(redis=redis, client=client).scope(), 20).read()
    first, second = facts.listeners
    assert (first.name, first.direction, second.name, second.direction) == ("redis", "inbound", "client", "outbound")
    assert first.limits == (LimitUse("connections", 0, 9), LimitUse("handshakes", 0, 4))
    assert second.limits == (LimitUse("connections", 0, 0),)
    assert (first.durations is None, second.durations) == (False, None)
    assert (first.permits_plaintext, second.permits_plaintext) == (True, False)
    assert (first.identity.replaced, first.workload_api) == (2, WorkloadApiState("", updates=3))
    redis.tunnel.counters.accepted = 4
    assert first.counters.accepted == 3, "a copy"


def test_a_listener_without_an_identity_is_not_ready(harnesses: Harnesses) -> None:
    ready, late = harnesses(name="ready").serve(), harnesses(name="late")
    process = FakeProcess(ready=ready, late=late)
    process.state_reporter.show_identity_error("ready", "")
    process.state_reporter.show_identity_error("late", "no identity yet")
    facts = FactsReader(process.scope(), 20).read()
    assert (facts.is_ready, [one.is_ready for one in facts.listeners]) == (False, [True, False])
    assert FactsReader(process.scope("ready"), 20).read().is_ready


def test_an_identity_source_that_listeners_share_counts_once(harnesses: Harnesses) -> None:
    facts = FactsReader(FakeProcess(a=harnesses(name="a"), b=harnesses(name="b")).scope(), 20).read()
    assert facts.counters.workload_api is not None
    assert facts.counters.workload_api.updates == 3
    assert facts.trust_domains == [BUNDLE]


def test_what_is_not_there_yet_is_zero(harnesses: Harnesses) -> None:
    process = FakeProcess(a=harnesses(name="a"))
    scope = process.scope()
    facts = FactsReader(scope, 20).read()
    assert (facts.lag.count, facts.status_port, facts.dropped_lines) == (0, LimitUse("", 0, 0), {"log": 8})
    assert [(one.key.peer, one.traffic) for one in facts.peers] == [(OTHERS, PeerTraffic())]
    process.observe()
    scope.status_port = ConnectionLimiter(256)
    scope.status_port.acquire()
    facts = FactsReader(scope, 20).read()
    assert (facts.lag.count, facts.status_port) == (1, LimitUse("", 1, 256))


def test_a_handshake_in_progress_uses_a_slot(harnesses: Harnesses) -> None:
    harness = harnesses(name="a", max_handshakes=8).serve()
    harness.connect().sendall(b"\x16")
    harness.turn()
    facts = FactsReader(FakeProcess(a=harness).scope(), 20).read()
    assert facts.listeners[0].limits == (LimitUse("connections", 1, 0), LimitUse("handshakes", 1, 8))


def test_a_thousand_peers_have_bounded_series_and_bounded_memory(harnesses: Harnesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_table, "MAX_PEERS", 100)
    harness = harnesses(name="a").serve()
    process = FakeProcess(a=harness)
    process.observe()
    harness.shared.observers.append(process.observation.connections.add)
    reader, connections, still_open = FactsReader(process.scope(), 20), 0, []
    own: dict[str, int] = {}  # connections of all that had a series of their own
    for number in range(1000):
        who = identity(f"spiffe://a.test/{number}", root=ROOT)
        peer, backend = carried(harness, who=who, version=TLS12)
        if number % 100:
            hang_up(harness, peer, backend)
        else:
            still_open.append((peer, backend))
        if number % 50 == 49:  # a scrape
            facts = reader.read()
            assert len(facts.peers) == 20 + 1
            assert sum(one.traffic.opened for one in facts.peers) == len(still_open)
            own.update({one.key.peer: one.traffic.connections for one in facts.peers})
            assert own[OTHERS] >= connections
            connections = own[OTHERS]
    text = encode_metrics(facts, MetricsFormat(is_openmetrics=True)).decode()
    families = {one.name: one for one in text_string_to_metric_families(text)}
    assert {len(one.samples) for name, one in families.items() if name.startswith("tunnel_peer_")} == {21}
    assert sum(own.values()) == 1000, "each connection is counted once"
    gc.collect()
    kept = sum(isinstance(one, PeerKey | PeerTraffic) for one in gc.get_objects())
    assert kept <= 4 * (100 + len(still_open) + 21), "the table, the last totals, and the series"


def test_the_configuration_sets_how_many_peers_have_series(harnesses: Harnesses) -> None:
    assert FactsReader(FakeProcess(a=harnesses(name="a")).scope(), 0).read().peers == []


def test_a_removed_listener_has_no_series_and_the_others_keep_theirs(harnesses: Harnesses) -> None:
    process = FakeProcess(a=harnesses(name="a"), b=harnesses(name="b"))
    process.observe()
    for name in ("a", "b"):
        process.observation.connections.peers.add(PeerKey(name, "web"), 1, 2, 1000.0)
    reader = FactsReader(process.scope(), 20)
    assert 'listener="a"' in encode_metrics(reader.read(), MetricsFormat()).decode()
    del process.listeners["a"]
    process.state_reporter.show_removed("a")
    text = encode_metrics(reader.read(), MetricsFormat()).decode()
    assert 'listener="a"' not in text
    assert 'tunnel_peer_returned_bytes_total{listener="b",direction="inbound",peer="web"} 2\n' in text


def test_connections_of_a_listener_that_was_replaced_are_counted_once(harnesses: Harnesses) -> None:
    before, now = harnesses(name="a").serve(), harnesses(name="a")
    process = FakeProcess(a=before)
    process.observe()
    before.shared.observers.append(process.observation.connections.add)
    peer, backend = carried(before, who=identity("spiffe://a.test/web", root=ROOT), version=TLS12)
    reader = FactsReader(process.scope(), 20)
    seen = [reader.read().peers[0].traffic]
    process.retired.append(process.listeners["a"])
    process.listeners["a"] = SimpleNamespace(name="a", config=now.tunnel.config, tunnel=now.tunnel)
    seen.append(reader.read().peers[0].traffic)
    hang_up(before, peer, backend)
    process.retired.clear()
    seen.append(reader.read().peers[0].traffic)
    assert [(one.connections, one.opened) for one in seen] == [(1, 1), (1, 1), (1, 0)]
