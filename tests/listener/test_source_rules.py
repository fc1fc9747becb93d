"""The address of a client reaches the access rules, in the handshake and when a newer generation decides again."""

from __future__ import annotations

import socket
from ipaddress import ip_network

import pytest

from tests.support.socket_pairs import received
from tests.support.tunnel_harness import Harnesses, Peer, TunnelHarness, generation
from tunnel.authz.rules import AnyRule, DenyRule, Rule, SourceRule
from tunnel.net.address import TcpAddress
from tunnel.net.listen import open_listener

LOOPBACK, ELSEWHERE = (SourceRule((ip_network(text),)) for text in ("127.0.0.0/8", "192.0.2.0/24"))
ADMITTING: tuple[tuple[Rule, ...], ...] = ((LOOPBACK,), (DenyRule(ELSEWHERE), AnyRule()))
REFUSING: tuple[tuple[tuple[Rule, ...], str], ...] = (
    ((ELSEWHERE,), "no-matching-rule"),
    ((DenyRule(LOOPBACK), AnyRule()), "denied-by-rule"),
)


@pytest.fixture
def harness(harnesses: Harnesses) -> TunnelHarness:
    return harnesses()


def connect(harness: TunnelHarness) -> Peer:
    """A client on a TCP port of the tunnel."""
    listener = open_listener(TcpAddress("127.0.0.1", "0"))
    harness.tunnel.open(listener)
    sock = harness.opened(socket.create_connection(listener.socket.getsockname()))
    sock.setblocking(False)
    return Peer(harness, sock)


@pytest.mark.parametrize("rules", ADMITTING, ids=str)
def test_a_client_in_a_network_is_admitted(harness: TunnelHarness, rules: tuple[Rule, ...]) -> None:
    harness.tunnel.swap(generation(rules=rules))
    connect(harness).shake()
    assert harness.tunnel.counters.relayed == 1, harness.log.lines


@pytest.mark.parametrize(("rules", "reason"), REFUSING, ids=str)
def test_a_client_is_refused_by_its_address(harness: TunnelHarness, rules: tuple[Rule, ...], reason: str) -> None:
    harness.tunnel.swap(generation(rules=rules))
    connect(harness).shake()
    assert harness.tunnel.counters.relayed == 0
    assert f"reason={reason}" in harness.log.lines[-1]
    assert harness.accepted_by_backend() is None


@pytest.mark.parametrize(("rules", "reason"), REFUSING, ids=str)
def test_a_newer_generation_decides_by_the_address_too(harness: TunnelHarness, rules: tuple[Rule, ...], reason: str) -> None:
    harness.tunnel.swap(generation())
    peer = connect(harness)
    peer.socket.sendall(peer.side.shake())
    harness.turn()
    harness.tunnel.swap(generation(2, rules=rules))
    peer.socket.sendall(peer.side.shake(received(peer.socket)))
    harness.turn()
    assert harness.tunnel.counters.relayed == 0
    assert f"reason={reason}" in harness.log.lines[-1]


def test_a_client_on_a_unix_socket_has_no_address_and_is_denied_by_every_network(harnesses: Harnesses) -> None:
    harness = harnesses().serve(rules=(DenyRule(ELSEWHERE), AnyRule()))
    Peer(harness, harness.connect()).shake()
    assert "reason=denied-by-rule" in harness.log.lines[-1]
