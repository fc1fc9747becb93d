"""Every connection ends in exactly one record."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.socket_pairs import received
from tests.support.tls_ends import TLS12, TLS13
from tests.support.tunnel_harness import HOME, Harnesses, Peer, TunnelHarness, carried, dialled, hang_up, records_of
from tunnel.authz.rules import IdRule
from tunnel.errors import TargetError, TargetFault, TlsError
from tunnel.listener.connection_record import ConnectionOutcome, ConnectionRecord
from tunnel.net.address import TcpAddress, UnixAddress
from tunnel.net.sockets import SocketAddress
from tunnel.relay.close_reason import CloseReason
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.status.metric_families import FAMILIES

PEER_ID = "spiffe://a.test/peer"
OTHER_RULE = IdRule(parse_spiffe_id("spiffe://a.test/other"))


@pytest.mark.parametrize(
    ("version", "tls"),
    [
        (TLS12, ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384", "x25519")),
        (TLS13, ("TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519MLKEM768")),
    ],
    ids=["tls12", "tls13"],
)
def test_a_relayed_connection_has_every_field(harnesses: Harnesses, version: int, tls: tuple[str, ...]) -> None:
    harness = harnesses().serve()
    records = records_of(harness)
    peer, backend = carried(harness, version=version)
    peer.say(b"question")
    backend.send(b"answers")
    harness.turn()
    assert (received(backend), peer.hear()) == (b"question", b"answers")
    harness.clock.now += 1.5
    assert records == [], "nothing before the end"
    hang_up(harness, peer, backend)
    (record,) = records
    assert record.outcome is ConnectionOutcome.RELAYED
    assert (record.listener, record.source) == (f"unix:{harness.place}/front", "unix:@")
    assert (record.target, record.target_name) == (f"unix:{harness.place}/backend",) * 2
    assert (str(record.peer), record.rule, record.reason) == (PEER_ID, "any", "")
    assert record.tls is not None
    assert record.tls.version == tls[0]
    assert record.tls.cipher == tls[1]
    assert record.tls.group == tls[2]
    assert (record.forwarded, record.returned, record.seconds) == (8, 7, 1.5)
    assert (record.handshake_seconds, record.dial_seconds) == (0.0, 0.0)
    assert (record.close_reason, record.has_fin_without_close_notify) == (CloseReason.CLOSED, False)


def handshake(harness: TunnelHarness) -> None:
    with suppress(TlsError):
        Peer(harness, harness.connect()).shake()


def probe(harness: TunnelHarness) -> None:
    harness.connect().close()
    harness.turn()


def connect_only(harness: TunnelHarness) -> None:
    harness.connect()


def timeout(harness: TunnelHarness) -> None:
    harness.connect()
    harness.later(11)


def stop(harness: TunnelHarness) -> None:
    harness.connect()
    harness.tunnel.drain()


@pytest.mark.parametrize(
    ("settings", "fields", "happens", "outcome", "reason", "peer"),
    [
        ({}, {"rules": (OTHER_RULE,)}, handshake, ConnectionOutcome.REFUSED, "no-matching-rule", PEER_ID),
        (
            {},
            {"bundles": BundleSet({HOME: TrustBundle(HOME, ())})},
            handshake,
            ConnectionOutcome.REFUSED,
            "unknown-authority",
            "None",
        ),
        ({}, {}, timeout, ConnectionOutcome.REFUSED, "handshake-timeout", "None"),
        (
            {"target": UnixAddress("/nowhere/at/all")},
            {},
            handshake,
            ConnectionOutcome.DIAL_FAILED,
            "connection-refused",
            PEER_ID,
        ),
        ({}, {}, probe, ConnectionOutcome.CLOSED_WITHOUT_DATA, "", "None"),
        ({"only_user": os.geteuid() + 1}, {}, connect_only, ConnectionOutcome.WRONG_LOCAL_USER, "another-user", "None"),
        ({}, {}, connect_only, ConnectionOutcome.NO_IDENTITY, "", "None"),
        ({}, {}, stop, ConnectionOutcome.STOPPED, "", "None"),
    ],
)
def test_a_connection_that_is_not_relayed_has_a_record_with_its_reason(
    harnesses: Harnesses,
    settings: dict[str, object],
    fields: dict[str, object],
    happens: Callable[[TunnelHarness], None],
    outcome: ConnectionOutcome,
    reason: str,
    peer: str,
) -> None:
    harness = harnesses(**settings)
    if outcome is ConnectionOutcome.NO_IDENTITY:
        harness.accept()
    else:
        harness.serve(**fields)
    records = records_of(harness)
    happens(harness)
    (record,) = records
    assert (record.outcome, record.reason, str(record.peer)) == (outcome, reason, peer)
    assert record.close_reason is None
    assert (record.forwarded, record.returned) == (0, 0)
    assert bool(record.rule) is (outcome is ConnectionOutcome.DIAL_FAILED), "the rule is the one that admitted the peer"


def test_a_clients_record_has_the_time_of_its_handshake(harnesses: Harnesses) -> None:
    harness = harnesses(is_server=False).serve()
    records = records_of(harness)
    program, server = dialled(harness)
    server.shake()
    program.close()
    harness.turn()
    server.end()
    (record,) = records
    assert (record.is_server, str(record.peer)) == (False, PEER_ID)
    assert record.handshake_seconds == 0.0
    assert record.tls is not None


def times_of(record: ConnectionRecord) -> tuple[float | None, ...]:
    """Begin and duration of the handshake, begin and duration of the dial, and the whole time."""
    return record.handshake_began, record.handshake_seconds, record.dial_began, record.dial_seconds, record.seconds


NAMED_TARGET = TcpAddress("name.example", "1")


def test_the_begin_of_a_servers_handshake_is_its_first_byte_and_of_its_dial_the_end_of_the_handshake(
    harnesses: Harnesses,
) -> None:
    harness = harnesses(target=NAMED_TARGET).serve()
    records = records_of(harness)
    sock = harness.connect()
    harness.later(2)
    peer = Peer(harness, sock)
    sock.sendall(peer.side.shake())
    harness.turn()
    harness.clock.now += 1
    sock.sendall(peer.side.shake(received(sock)))
    harness.turn()
    harness.later(3)
    harness.asked[0][1](TargetError(TargetFault.RESOLVE, "not known"))
    harness.turn()
    (record,) = records
    assert times_of(record) == (2.0, 1.0, 3.0, None, 6.0), "the dial has failed: it has no duration"


@pytest.mark.parametrize(("waits", "times"), [(11, (None, None, None, None, 11.0)), (4, (4.0, None, None, None, 15.0))])
def test_a_handshake_has_no_begin_before_the_first_byte_and_no_duration_if_it_fails(
    harnesses: Harnesses, waits: int, times: tuple[float | None, ...]
) -> None:
    harness = harnesses().serve()
    records = records_of(harness)
    sock = harness.connect()
    harness.later(waits)
    if not records:
        sock.sendall(Peer(harness, sock).side.shake())
        harness.turn()
        harness.later(11)
    assert times_of(records[0]) == times


def test_the_duration_of_a_handshake_is_without_the_wait_for_a_slot(harnesses: Harnesses) -> None:
    (family,) = (one for one in FAMILIES if one.name == "tunnel_handshake_duration_seconds")
    assert family.help.endswith("without the waits for the first bytes and for a handshake slot.")
    harness = harnesses(max_handshakes=1).serve()
    records = records_of(harness)
    holder, waiting = (Peer(harness, harness.connect()) for _ in range(2))
    for peer in (holder, waiting):
        peer.socket.sendall(peer.side.shake())
        harness.turn()
    harness.later(4)
    holder.socket.close()
    harness.turn()
    flight = received(waiting.socket)
    waiting.socket.sendall(waiting.side.shake(flight))
    harness.turn()
    backend = harness.accepted_by_backend()
    assert backend is not None
    hang_up(harness, waiting, backend)
    assert [one.handshake_began for one in records] == [0.0, 4.0]
    assert records[1].handshake_seconds == 0.0


def test_a_client_dials_before_its_handshake(harnesses: Harnesses) -> None:
    harness = harnesses(is_server=False, target=NAMED_TARGET).serve()
    records = records_of(harness)
    program = harness.connect()
    harness.later(2)
    harness.asked[0][1]((SocketAddress(socket.AF_UNIX, f"{harness.place}/backend"),))
    harness.turn()
    server = harness.accepted_by_backend()
    assert server is not None
    harness.clock.now += 1
    peer = Peer(harness, server, is_server=True).shake()
    program.close()
    harness.turn()
    peer.end()
    assert times_of(records[0]) == (2.0, 1.0, 0.0, 2.0, 3.0)


def test_the_times_of_several_attempts_are_those_of_the_last_one(harnesses: Harnesses, tmp_path: Path) -> None:
    """The first target accepts and its handshake fails, and the second one does not accept."""
    harness = harnesses(
        is_server=False, targets=(UnixAddress(str(tmp_path / "0" / "backend")), UnixAddress(str(tmp_path / "absent")))
    ).serve()
    records = records_of(harness)
    harness.connect()
    server = harness.accepted_by_backend()
    assert server is not None
    harness.later(1)
    server.close()
    harness.turn()
    assert times_of(records[0]) == (None, None, 1.0, None, 1.0)
