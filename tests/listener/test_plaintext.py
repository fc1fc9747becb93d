"""A listener that permits plaintext serves TLS clients as usual and plain ones without an identity; any other refuses them."""

from __future__ import annotations

import socket
from ipaddress import ip_network
from typing import Any

import pytest

from tests.support.socket_pairs import is_over, is_reset, received
from tests.support.tls_ends import TLS12, TLS13
from tests.support.tunnel_harness import NAMED, Harnesses, Peer, TunnelHarness, carried, generation, hang_up, records_of
from tunnel.config.model import KEEP, Plaintext
from tunnel.errors import PeerDenied, TargetError, TargetFault, TlsFault
from tunnel.lazy_dataclass import replace
from tunnel.listener import plain_clients
from tunnel.listener.plain_clients import PlainClients, check_plaintext, may_be_plain
from tunnel.net.address import TcpAddress, UnixAddress
from tunnel.net.listen import open_listener
from tunnel.net.sockets import SocketAddress
from tunnel.relay.linger import reset
from tunnel.status.process_state import PlainSource
from tunnel.wire.proxy_v2 import HeaderMode, TlsFacts, encode_header

WAITING = Plaintext(silence=0)
WHO = "peer=plaintext rule=plaintext"


def plain(harness: TunnelHarness, data: bytes = b"PING\r\n") -> tuple[socket.socket, socket.socket]:
    """A plain client whose connection has reached the backend."""
    client = harness.connect()
    client.sendall(data)
    harness.turn()
    backend = harness.accepted_by_backend()
    assert backend is not None, harness.log.lines
    return client, backend


def over_tcp(harness: TunnelHarness) -> socket.socket:
    """Listen on TCP instead of a Unix socket, and connect."""
    listener = open_listener(TcpAddress("127.0.0.1", "0"))
    harness.tunnel.drain()
    harness.tunnel.open(listener)
    sock = harness.opened(socket.create_connection(listener.socket.getsockname()))
    sock.setblocking(False)
    harness.turn()
    return sock


# -- both kinds of clients


def test_a_plain_client_is_relayed_logged_and_counted_without_a_peer(harnesses: Harnesses) -> None:
    harness = harnesses(plaintext=WAITING).serve()
    harness.log.take()
    client, backend = plain(harness)
    assert received(backend) == b"PING\r\n"
    backend.sendall(b"PONG")
    harness.turn()
    assert received(client) == b"PONG"
    assert harness.tunnel.gauges().plain_opened == 1
    harness.clock.now += 1.5
    client.shutdown(socket.SHUT_WR)
    harness.turn()
    assert is_over(backend)
    backend.close()
    harness.turn()
    assert is_over(client)
    ends = f"unix:@ [no tls] <-> unix:{harness.place}/backend [no tls]"
    assert harness.log.lines == [
        f"opening pipe: {ends} {WHO}",
        f"closed pipe: {ends} [forwarded 6 bytes, returned 4 bytes, open 1.5s] {WHO} end=closed",
    ]
    assert harness.tunnel.counters.summary() == "accepted=1 relayed=1 plaintext=1"
    gauges = harness.tunnel.gauges()
    assert (gauges.opened, gauges.plain_opened, gauges.forwarded, gauges.returned) == (0, 0, 6, 4)


@pytest.mark.parametrize("plaintext", [WAITING, Plaintext(), Plaintext((ip_network("10.0.0.0/8"),))])
@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["tls12", "tls13"])
def test_a_tls_client_of_the_same_port_is_authenticated_as_usual(
    harnesses: Harnesses, plaintext: Plaintext, version: int
) -> None:
    harness = harnesses(plaintext=plaintext).serve()
    peer, backend = carried(harness, version=version)
    peer.say(b"question")
    assert received(backend) == b"question"
    hang_up(harness, peer, backend)
    assert "peer=spiffe://a.test/peer rule=any" in harness.log.lines[-1]
    assert harness.tunnel.counters.summary() == "accepted=1 relayed=1 close_notify=1"
    assert harness.tunnel.plain_clients.sources() == ()


def test_a_client_hello_in_pieces_begins_a_handshake_at_every_split(harnesses: Harnesses) -> None:
    harness = harnesses(plaintext=WAITING).serve()
    for cut in (1, 2, 3, 4, 5, 6, 7, 100):
        peer = Peer(harness, harness.connect())
        hello = peer.side.shake()
        peer.socket.sendall(hello[:cut])
        harness.turn()
        peer.socket.sendall(hello[cut:])
        harness.turn()
        for _ in range(3):
            if flight := peer.side.shake(received(peer.socket)):
                peer.socket.sendall(flight)
                harness.turn()
        assert harness.accepted_by_backend() is not None, cut
    assert harness.tunnel.counters.plaintext == 0


def test_a_tls_client_over_tcp_that_has_ended_its_stream_is_answered(harnesses: Harnesses) -> None:
    harness = harnesses(plaintext=WAITING).serve()
    records = records_of(harness)
    sock = over_tcp(harness)
    sock.sendall(Peer(harness, sock).side.shake())
    sock.shutdown(socket.SHUT_WR)
    harness.turn(8)
    assert records[0].reason == TlsFault.CLOSED.value, "not only at the connect timeout"


def test_plaintext_is_refused_by_default_and_no_client_is_plain(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    client = harness.connect()
    client.sendall(b"PING\r\n" * 10)
    harness.turn()
    assert harness.accepted_by_backend() is None
    assert harness.tunnel.counters.summary() == "accepted=1 refused=1"
    assert harness.tunnel.counters.reasons == {TlsFault.PROTOCOL.value: 1}


def test_bytes_that_only_begin_like_a_client_hello_are_never_forwarded(harnesses: Harnesses) -> None:
    harness = harnesses(plaintext=WAITING).serve()
    client = harness.connect()
    client.sendall(b"\x16\x03\x01\x00\x05\x01garbage")
    harness.turn()
    assert harness.accepted_by_backend() is None
    assert harness.tunnel.counters.summary() == "accepted=1 refused=1"


# -- silence


def test_where_the_server_speaks_first_a_silent_client_is_plain_after_the_silence(harnesses: Harnesses) -> None:
    harness = harnesses(plaintext=Plaintext(silence=0.3)).serve()
    client = harness.connect()
    harness.later(0.29)
    assert harness.accepted_by_backend() is None
    harness.later(0.02)
    backend = harness.accepted_by_backend()
    assert backend is not None
    backend.sendall(b"220 ready")
    harness.turn()
    assert received(client) == b"220 ready"


@pytest.mark.parametrize("data", [b"", b"\x16\x03"])
def test_a_client_that_is_not_recognized_in_time_is_refused(harnesses: Harnesses, data: bytes) -> None:
    harness = harnesses(plaintext=WAITING).serve()
    client = harness.connect()
    client.sendall(data)
    harness.later(10.1)
    (line,) = [line for line in harness.log.lines if "warning" not in line]
    assert line == "error on TLS handshake from unix:@: exceeded the connect timeout of 10s reason=handshake-timeout"
    assert harness.tunnel.counters.handshake_timeouts == 1


def test_a_health_check_is_counted_and_does_not_reach_the_target(harnesses: Harnesses) -> None:
    harness = harnesses(plaintext=Plaintext()).serve()
    harness.connect().close()
    harness.turn()
    assert harness.tunnel.counters.summary() == "accepted=1 closed_without_data=1"
    assert harness.accepted_by_backend() is None


# -- permitted sources


@pytest.mark.parametrize(
    ("networks", "source", "is_permitted"),
    [
        ((), "tcp:10.1.2.3:5", True),
        ((), "unix:@", True),
        (("10.0.0.0/8",), "tcp:10.1.2.3:5", True),
        (("10.0.0.0/8",), "tcp:11.1.2.3:5", False),
        (("10.0.0.0/8", "2001:db8::/32"), "tcp:[2001:db8::1]:5", True),
        (("2001:db8::/32",), "tcp:[fe80::1%eth0]:5", False),
        (("fe80::/10",), "tcp:[fe80::1%eth0]:5", True),
        (("0.0.0.0/0",), "tcp:[2001:db8::1]:5", False),
        (("0.0.0.0/0", "::/0"), "unix:@", False),
    ],
)
def test_plain_clients_can_be_limited_to_networks(networks: tuple[str, ...], source: str, is_permitted: bool) -> None:
    plaintext = Plaintext(tuple(map(ip_network, networks)))
    assert may_be_plain(plaintext, source) is is_permitted
    if is_permitted:
        check_plaintext(plaintext, source)
    else:
        with pytest.raises(PeerDenied, match="plaintext-not-permitted: plaintext from an address"):
            check_plaintext(plaintext, source)


def test_without_plaintext_no_address_is_permitted() -> None:
    assert not may_be_plain(None, "tcp:10.1.2.3:5")
    with pytest.raises(PeerDenied, match="this listener does not permit plaintext"):
        check_plaintext(None, "tcp:10.1.2.3:5")


def test_a_plain_client_from_another_address_is_refused_with_its_own_reason(harnesses: Harnesses) -> None:
    harness = harnesses(plaintext=Plaintext((ip_network("10.0.0.0/8"),), silence=0.1)).serve()
    client = harness.connect()
    harness.later(5)
    assert len(harness.tunnel) == 1, "the silence is for permitted addresses only"
    client.sendall(b"PING\r\n")
    harness.turn()
    assert harness.accepted_by_backend() is None
    assert harness.log.lines[-1] == (
        "error on TLS handshake from unix:@: plaintext-not-permitted: plaintext from an address that is in no permitted network"
        " reason=plaintext-not-permitted"
    )
    assert harness.tunnel.counters.summary() == "accepted=1 refused=1"
    assert harness.tunnel.counters.reasons == {"plaintext-not-permitted": 1}
    assert harness.tunnel.plain_clients.sources() == ()


def test_a_plain_client_from_a_permitted_network_is_relayed(harnesses: Harnesses) -> None:
    harness = harnesses(plaintext=Plaintext((ip_network("127.0.0.0/8"),))).serve()
    client = over_tcp(harness)
    client.sendall(b"PING\r\n")
    harness.turn()
    backend = harness.accepted_by_backend()
    assert backend is not None
    assert received(backend) == b"PING\r\n"
    assert harness.tunnel.plain_clients.sources() == (PlainSource("127.0.0.1", 1, harness.wall),)


# -- what the operator sees


@pytest.mark.parametrize(
    ("plaintext", "sources"),
    [
        (Plaintext(), "any address"),
        (Plaintext((ip_network("10.0.0.0/8"), ip_network("::1/128"))), "10.0.0.0/8 ::1/128"),
    ],
)
def test_a_warning_at_the_start_names_the_networks(harnesses: Harnesses, plaintext: Plaintext, sources: str) -> None:
    harness = harnesses(plaintext=plaintext).serve()
    assert harness.log.lines == [
        f"warning: plaintext connections are permitted from {sources}, without authentication and encryption"
    ]


def test_the_sources_are_listed_with_the_last_one_first() -> None:
    now = 100.0
    clients = PlainClients(lambda: now)
    for source in ("tcp:10.0.0.1:1", "tcp:[2001:db8::1]:2", "tcp:10.0.0.1:3", "unix:@"):
        clients.add(source)
        now += 1
    assert clients.sources() == (
        PlainSource("unix:@", 1, 103.0),
        PlainSource("10.0.0.1", 2, 102.0),
        PlainSource("2001:db8::1", 1, 101.0),
    )


def test_the_table_of_sources_is_bounded_and_forgets_the_one_not_seen_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_clients, "MAX_SOURCES", 3)
    clients = PlainClients(lambda: 0.0)
    for last in (1, 2, 3, 1, 4, 5):
        clients.add(f"tcp:10.0.0.{last}:1")
    assert [(one.source, one.connections) for one in clients.sources()] == [("10.0.0.5", 1), ("10.0.0.4", 1), ("10.0.0.1", 2)]
    assert clients.forgotten == 2


# -- everything else holds for plain clients too


@pytest.mark.parametrize("mode", HeaderMode)
def test_the_header_of_a_plain_client_claims_no_tls(harnesses: Harnesses, mode: HeaderMode) -> None:
    harness = harnesses(plaintext=WAITING, header_mode=mode).serve()
    _, backend = plain(harness)
    header = encode_header(socket.AF_UNIX, "", str(harness.place / "front"), HeaderMode.CONN, TlsFacts(""))
    assert received(backend) == header + b"PING\r\n"


def test_the_connection_has_a_longest_life(harnesses: Harnesses) -> None:
    harness = harnesses(plaintext=WAITING, max_conn_lifetime=5.0).serve()
    plain(harness)
    harness.later(5)
    assert harness.log.lines[-1].endswith(f"{WHO} end=max-conn-lifetime")
    assert harness.tunnel.counters.reaped == 1


def test_a_half_close_has_the_close_timeout(harnesses: Harnesses) -> None:
    harness = harnesses(plaintext=WAITING, close_timeout=3.0).serve()
    client, _ = plain(harness)
    client.shutdown(socket.SHUT_WR)
    harness.turn()
    harness.later(3.1)
    assert harness.log.lines[-1].endswith(f"{WHO} end=close-timeout")


def test_a_reset_is_forwarded_and_has_its_reason(harnesses: Harnesses) -> None:
    harness = harnesses(plaintext=WAITING).serve()
    client = over_tcp(harness)
    client.sendall(b"PING\r\n")
    harness.turn()
    assert harness.accepted_by_backend() is not None
    reset(client)
    client.close()
    harness.later(1)
    assert harness.log.lines[-1].endswith(f"{WHO} end=reset-by-peer")
    assert "reset_by_peer=1" in harness.tunnel.counters.summary()


@pytest.mark.parametrize("is_found", [True, False])
def test_early_data_waits_for_the_target(harnesses: Harnesses, is_found: bool) -> None:
    harness = harnesses(plaintext=WAITING, target=NAMED).serve()
    client = harness.connect()
    client.sendall(b"early")
    harness.turn()
    if is_found:
        harness.asked[0][1]((SocketAddress(socket.AF_UNIX, str(harness.place / "backend")),))
        harness.turn()
        backend = harness.accepted_by_backend()
        assert backend is not None
        assert received(backend) == b"early"
    else:
        harness.asked[0][1](TargetError(TargetFault.RESOLVE, "no such name"))
        harness.turn()
        expected = f"error on dial: no such name reason=name-not-resolved from=unix:@ {WHO}"
        assert harness.log.lines[-1] == expected


def test_a_client_that_leaves_while_its_target_is_dialled_ends_the_session(harnesses: Harnesses) -> None:
    harness = harnesses(plaintext=Plaintext(silence=0.1), target=NAMED).serve()
    client = harness.connect()
    harness.later(0.2)
    client.close()
    harness.turn()
    assert harness.tunnel.counters.summary() == "accepted=1 plaintext=1 client_gone=1"


def test_a_target_that_refuses_is_logged(harnesses: Harnesses) -> None:
    harness = harnesses(plaintext=WAITING, target=UnixAddress("/nowhere/at/all")).serve()
    client = harness.connect()
    client.sendall(b"PING\r\n")
    harness.turn()
    assert harness.log.lines[-1].endswith(f"reason=connection-refused from=unix:@ {WHO}")
    assert len(harness.tunnel) == 0


def test_plain_clients_do_not_need_our_identity(harnesses: Harnesses) -> None:
    harness = harnesses(plaintext=WAITING).serve()
    harness.tunnel.withdraw(0)
    plain(harness)
    Peer(harness, harness.connect()).shake()
    assert harness.accepted_by_backend() is None
    assert harness.tunnel.counters.no_identity == 1


def test_plaintext_that_is_refused_while_the_target_is_dialled_ends_the_connection(harnesses: Harnesses) -> None:
    harness = harnesses(plaintext=WAITING, target=NAMED).serve()
    client = harness.connect()
    client.sendall(b"PING\r\n")
    harness.turn()
    harness.tunnel.config = replace(harness.tunnel.config, plaintext=None)
    harness.asked[0][1]((SocketAddress(socket.AF_UNIX, str(harness.place / "backend")),))
    harness.turn()
    backend = harness.accepted_by_backend()
    assert backend is not None
    assert received(backend) == b""
    assert is_over(backend)
    assert harness.log.lines[-1].endswith("this listener does not permit plaintext reason=plaintext-not-permitted")


@pytest.mark.parametrize(
    ("plaintext", "detail"),
    [
        (None, "this listener does not permit plaintext"),
        (Plaintext((ip_network("10.0.0.0/8"),)), "plaintext from an address that is in no permitted network"),
    ],
)
def test_open_connections_are_closed_when_plaintext_is_no_longer_permitted(
    harnesses: Harnesses, plaintext: Plaintext | None, detail: str
) -> None:
    harness = harnesses(plaintext=WAITING).serve()
    plain(harness)
    peer, backend = carried(harness)
    harness.tunnel.reconfigure(replace(harness.tunnel.config, plaintext=plaintext))
    harness.turn(8)
    assert harness.tunnel.counters.withdrawals == {"plaintext-not-permitted": 1}
    assert any(detail in line for line in harness.log.lines)
    assert any(line.endswith(f"{WHO} end=withdrawn") for line in harness.log.lines)
    peer.say(b"still there")
    assert received(backend) == b"still there"


@pytest.mark.parametrize("fields", [{}, {"on_withdrawal": KEEP}, {"closes_without_identity": True}, {"closes_expired": True}])
def test_other_changes_close_no_plain_connection(harnesses: Harnesses, fields: dict[str, Any]) -> None:
    harness = harnesses(plaintext=WAITING, **fields).serve()
    client, backend = plain(harness)
    if fields.get("on_withdrawal") is KEEP:
        harness.tunnel.config = replace(harness.tunnel.config, plaintext=None)
    harness.tunnel.swap(generation(2, rules=()))
    harness.tunnel.withdraw(0)
    harness.later(1)
    client.sendall(b"still there")
    harness.turn()
    assert received(backend) == b"PING\r\nstill there"


@pytest.mark.parametrize("when", ["before the first byte", "in the relay"])
def test_a_stop_ends_plain_connections(harnesses: Harnesses, when: str) -> None:
    harness = harnesses(plaintext=Plaintext()).serve()
    if when == "in the relay":
        plain(harness)
    else:
        harness.connect()
    harness.tunnel.drain()
    assert len(harness.tunnel) == (when == "in the relay")
    harness.tunnel.abort()
    harness.turn()
    assert len(harness.tunnel) == 0


def test_a_plain_record_has_no_peer_and_no_tls(harnesses: Harnesses) -> None:
    harness = harnesses(plaintext=WAITING).serve()
    records = records_of(harness)
    client, backend = plain(harness)
    client.close()
    backend.close()
    harness.turn()
    (record,) = records
    assert (record.peer, record.tls, record.handshake_seconds, record.is_plaintext) == (None, None, None, True)
    assert record.dial_seconds is not None


@pytest.mark.parametrize("is_early", [True, False])
def test_a_bug_behind_the_first_bytes_ends_its_session_only(
    harnesses: Harnesses, monkeypatch: pytest.MonkeyPatch, is_early: bool
) -> None:
    harness = harnesses(plaintext=WAITING).serve()
    client = harness.opened(socket.socket(socket.AF_UNIX))
    client.connect(str(harness.place / "front"))
    if not is_early:
        harness.turn()
    client.sendall(b"PING\r\n")

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("tunnel.listener.session.permit_plaintext", fail)
        harness.turn()
    assert harness.tunnel.counters.crashed == 1
    assert len(harness.tunnel) == 0
    plain(harness)


def test_a_bug_in_the_relay_ends_its_session_only(harnesses: Harnesses, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = harnesses(plaintext=WAITING).serve()
    client, _ = plain(harness)
    _, other = plain(harness)

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("tunnel.relay.plain_relay.PlainRelay._forward", fail)
        client.sendall(b"more")
        harness.turn()
    assert harness.tunnel.counters.crashed == 1
    assert len(harness.tunnel) == 1
    other.sendall(b"still works")
    assert not is_reset(other)
