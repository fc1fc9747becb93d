"""Ended connections are counted by peer, and refused ones are kept with the rule that would admit the peer."""

from __future__ import annotations

from contextlib import suppress

from tests.support.tls_ends import TLS12
from tests.support.tunnel_harness import Harnesses, Peer, TunnelHarness, carried, hang_up
from tunnel.authz.rules import IdRule
from tunnel.errors import TlsError
from tunnel.listener.observation import ConnectionObservation
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.status.peer_table import PeerKey, PeerTraffic

OTHERS = (IdRule(parse_spiffe_id("spiffe://a.test/other")),)


def observed(harness: TunnelHarness) -> ConnectionObservation:
    observation = ConnectionObservation()
    harness.shared.observers.append(lambda record: observation.add(record._replace(time=1000.0)))
    return observation


def test_a_connection_counts_for_its_peer_while_it_is_open_and_afterwards(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    observation = observed(harness)
    peer, backend = carried(harness, version=TLS12)
    peer.say(b"question")
    harness.turn()
    key = PeerKey(harness.tunnel.config.name, "spiffe://a.test/peer")
    assert list(harness.tunnel.traffic_by_peer()) == [(key, PeerTraffic(1, 1, 8, 0))]
    hang_up(harness, peer, backend)
    assert list(harness.tunnel.traffic_by_peer()) == []
    assert observation.peers.read(()) == {key: PeerTraffic(1, 0, 8, 0, 1000.0)}


def test_a_refused_peer_is_kept_with_the_rule_that_would_admit_it(harnesses: Harnesses) -> None:
    harness = harnesses().serve(rules=OTHERS)
    observation = observed(harness)
    for _ in range(3):
        with suppress(TlsError):
            Peer(harness, harness.connect()).shake()
    (refusal,) = observation.refusals.newest_first()
    assert (refusal.count, refusal.reason, refusal.outcome) == (3, "no-matching-rule", "refused")
    assert (refusal.peer, refusal.source) == ("spiffe://a.test/peer", "unix:@")
    assert (refusal.flag, refusal.entry) == ("--allow-id spiffe://a.test/peer", '{ allow = "spiffe://a.test/peer" }')
    assert observation.peers.read(()) == {}


def test_a_client_that_says_nothing_is_no_refusal(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    observation = observed(harness)
    harness.connect().close()
    harness.turn()
    assert observation.refusals.newest_first() == ()
