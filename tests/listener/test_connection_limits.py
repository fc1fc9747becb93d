"""A listener limits new connections per second in total, and connections and their rate per peer."""

from __future__ import annotations

import socket

import pytest

from tests.support.socket_pairs import is_over
from tests.support.tls_ends import identity
from tests.support.tunnel_harness import KNOWN, ROOT, Harnesses, Peer, TunnelHarness, carried, hang_up
from tunnel.authz.rules import AnyRule
from tunnel.config.model import Plaintext
from tunnel.lazy_dataclass import replace

OTHER = identity("spiffe://a.test/other", root=ROOT)


def is_served(harness: TunnelHarness, **fields: object) -> bool:
    """Whether a new peer reaches the backend."""
    Peer(harness, harness.connect(), **fields).shake()  # type: ignore[arg-type]
    return harness.accepted_by_backend() is not None


# -- in total


def test_connections_above_the_rate_wait_in_the_kernels_queue(harnesses: Harnesses) -> None:
    harness = harnesses(max_rate=2.0).serve()
    for _ in range(4):
        harness.connect()
    assert harness.tunnel.counters.accepted == 2
    harness.later(0.4)
    assert harness.tunnel.counters.accepted == 2
    harness.later(0.11)
    assert harness.tunnel.counters.accepted == 3
    harness.later(0.5)
    assert harness.tunnel.counters.accepted == 4
    assert harness.tunnel.counters.over_limit == 0


def test_the_end_of_a_session_does_not_end_the_pause(harnesses: Harnesses) -> None:
    harness = harnesses(max_rate=1.0).serve()
    peer, backend = carried(harness)
    waiting = harness.connect()
    hang_up(harness, peer, backend)
    assert harness.tunnel.counters.accepted == 1
    waiting.close()


def test_rate_and_number_of_connections_are_limited_together(harnesses: Harnesses) -> None:
    harness = harnesses(max_rate=1.0, max_concurrent_conns=1).serve()
    peer, backend = carried(harness)
    harness.connect()
    harness.later(5)
    assert harness.tunnel.counters.accepted == 1
    hang_up(harness, peer, backend)
    assert harness.tunnel.counters.accepted == 2


def test_a_client_listener_has_a_rate_and_no_limits_per_peer(harnesses: Harnesses) -> None:
    harness = harnesses(is_server=False, max_rate=1.0, max_conns_per_peer=1).serve()
    for _ in range(2):
        harness.connect()
    assert harness.tunnel.counters.accepted == 1
    assert harness.tunnel.peer_limits is None


# -- per peer


def test_a_peer_above_its_limit_is_refused_before_the_dial_with_its_reason(harnesses: Harnesses) -> None:
    harness = harnesses(max_conns_per_peer=1).serve()
    first, backend = carried(harness)
    harness.log.take()
    second = Peer(harness, harness.connect()).shake()
    assert harness.accepted_by_backend() is None
    assert harness.log.take() == [
        "refused connection: peer has reached the limit of this listener: 1 open connections"
        f" reason=too-many-connections-of-peer{KNOWN}"
    ]
    second.hear()
    assert second.side.end.has_ended, "it has received close_notify"
    assert is_over(second.socket)
    assert harness.tunnel.counters.summary() == "accepted=2 relayed=1 over_limit=1"
    assert harness.tunnel.counters.reasons == {"too-many-connections-of-peer": 1}
    assert is_served(harness, who=OTHER)
    hang_up(harness, first, backend)
    assert is_served(harness)


def test_a_peer_that_connects_too_often_is_refused_with_its_reason(harnesses: Harnesses) -> None:
    harness = harnesses(max_rate_per_peer=1.0).serve()
    assert is_served(harness)
    assert not is_served(harness)
    assert is_served(harness, who=OTHER)
    harness.later(1)
    assert is_served(harness)
    assert harness.tunnel.counters.reasons == {"too-many-new-connections-of-peer": 1}


def test_no_connection_stays_counted_whatever_ends_it(harnesses: Harnesses) -> None:
    harness = harnesses(max_conns_per_peer=3).serve()
    backend_path = harness.place / "backend"
    hang_up(harness, *carried(harness))
    carried(harness)
    backend_path.rename(backend_path.with_name("moved"))
    assert not is_served(harness)
    assert harness.tunnel.counters.dial_failed == 1
    limits = harness.tunnel.peer_limits
    assert limits is not None
    assert len(limits) == 1
    harness.tunnel.abort()
    assert len(limits) == 0


def test_a_peer_that_no_rule_admits_is_not_counted(harnesses: Harnesses) -> None:
    harness = harnesses(max_conns_per_peer=1).serve(rules=())
    assert not is_served(harness)
    assert harness.tunnel.peer_limits is not None
    assert len(harness.tunnel.peer_limits) == 0


def test_plain_clients_are_counted_by_their_address(harnesses: Harnesses) -> None:
    harness = harnesses(max_conns_per_peer=1, plaintext=Plaintext()).serve()
    for _ in range(2):
        harness.connect().sendall(b"PING\r\n")
        harness.turn()
    assert harness.tunnel.counters.summary() == "accepted=2 relayed=1 over_limit=1 plaintext=2"
    assert harness.log.lines[-1].endswith("from=unix:@ peer=plaintext rule=plaintext")
    assert is_served(harness), "a peer with an identity has its own limit"


# -- a change


def test_changed_limits_apply_to_new_connections_and_count_the_open_ones(harnesses: Harnesses) -> None:
    harness = harnesses(max_conns_per_peer=1).serve()
    peer, backend = carried(harness)
    harness.tunnel.reconfigure(replace(harness.tunnel.config, max_conns_per_peer=2))
    assert is_served(harness)
    assert not is_served(harness)
    harness.tunnel.reconfigure(replace(harness.tunnel.config, max_conns_per_peer=0))
    assert is_served(harness)
    hang_up(harness, peer, backend)
    assert harness.tunnel.counters.crashed == 0


@pytest.mark.parametrize("limit", [{"max_concurrent_conns": 1}, {"max_rate": 0.001}])
def test_a_limit_that_is_raised_lets_those_in_that_wait(harnesses: Harnesses, limit: dict[str, float]) -> None:
    harness = harnesses(**limit).serve(rules=(AnyRule(),))
    for _ in range(2):
        harness.connect()
    assert harness.tunnel.counters.accepted == 1
    harness.tunnel.reconfigure(replace(harness.tunnel.config, max_concurrent_conns=0, max_rate=0.0))
    harness.turn()
    assert harness.tunnel.counters.accepted == 2


def test_the_kernels_queue_keeps_the_order(harnesses: Harnesses) -> None:
    harness = harnesses(max_rate=1.0).serve()
    socks: list[socket.socket] = [harness.connect() for _ in range(3)]
    for sock in socks:
        peer = Peer(harness, sock).shake()
        assert harness.accepted_by_backend() is not None
        peer.end()
        harness.later(1)
