"""The PROXY header reaches the backend completely and before the payload, or nothing does."""

from __future__ import annotations

import socket
import struct

import pytest

from tests.support.socket_pairs import is_over, received
from tests.support.tls_ends import TLS12, TLS13, Side, identity
from tests.support.tunnel_harness import KNOWN, PEER, PEER_CONTEXTS, ROOT, Harnesses, Peer, TunnelHarness, carried
from tunnel.net import race
from tunnel.net.address import TcpAddress
from tunnel.net.listen import open_listener
from tunnel.wire.proxy_v2 import SPIFFE_ID_TYPE, HeaderMode, TlsFacts, encode_header

NO_TLS = TlsFacts("")
LARGE = identity("spiffe://a.test/peer", root=ROOT, dns_names=[f"{at:060d}.example" for at in range(150)])


def header_of(harness: TunnelHarness, mode: HeaderMode, facts: TlsFacts = NO_TLS) -> bytes:
    return encode_header(socket.AF_UNIX, "", str(harness.place / "front"), mode, facts)


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["tls12", "tls13"])
@pytest.mark.parametrize("mode", HeaderMode)
def test_the_header_comes_at_once_and_first(harnesses: Harnesses, mode: HeaderMode, version: int) -> None:
    harness = harnesses(header_mode=mode).serve()
    peer, backend = carried(harness, version=version)
    facts = TlsFacts(
        {TLS12: "TLS 1.2", TLS13: "TLS 1.3"}[version],
        common_name="",
        leaf=PEER.leaf.der,
        spiffe_id="spiffe://a.test/peer",
    )
    assert received(backend) == header_of(harness, mode, facts), "without a byte of payload"
    peer.say(b"payload")
    assert received(backend) == b"payload"
    backend.send(b"answer")
    harness.turn()
    assert peer.hear() == b"answer"
    assert harness.tunnel.counters.summary() == "accepted=1 relayed=1"


def test_a_unix_backend_learns_of_both_ends_of_a_tcp_connection(harnesses: Harnesses) -> None:
    harness = harnesses(header_mode=HeaderMode.CONN).serve()
    listener = open_listener(TcpAddress("127.0.0.1", "0"))
    harness.tunnel.drain()
    harness.tunnel.open(listener)
    sock = harness.opened(socket.create_connection(listener.socket.getsockname()))
    sock.setblocking(False)
    there, here = sock.getpeername(), sock.getsockname()
    harness.turn()
    Peer(harness, sock).shake()
    backend = harness.accepted_by_backend()
    assert backend is not None
    assert received(backend) == encode_header(socket.AF_INET, here, there, HeaderMode.CONN, NO_TLS)


def test_the_header_has_the_name_that_the_client_requested(harnesses: Harnesses) -> None:
    harness = harnesses(header_mode=HeaderMode.TLS).serve()
    peer = Peer(harness, harness.connect())
    peer.side = Side(PEER_CONTEXTS[False, TLS13], "db.example")
    peer.shake()
    backend = harness.accepted_by_backend()
    assert backend is not None
    assert received(backend) == header_of(harness, HeaderMode.TLS, TlsFacts("TLS 1.3", b"db.example", leaf=PEER.leaf.der))


def test_no_header_is_sent_unless_it_is_wanted(harnesses: Harnesses) -> None:
    _, backend = carried(harnesses().serve())
    assert received(backend) == b""


def narrow(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)


def test_a_header_that_finds_no_room_comes_before_the_payload(harnesses: Harnesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "set_tcp_options", narrow)
    harness = harnesses(header_mode=HeaderMode.TLS_FULL).serve()
    peer, backend = carried(harness, who=LARGE)
    peer.say(b"<payload>")
    assert harness.log.lines == [], "nothing is carried yet"
    heard = b""
    for _ in range(100):
        heard += received(backend)
        harness.turn()
    (size,) = struct.unpack("!H", heard[14:16])
    assert size > len(LARGE.leaf.der) > 8000
    assert heard[16 + size :] == b"<payload>"
    assert harness.log.lines[0].startswith("opening pipe: ")


def test_a_backend_that_does_not_take_the_header_is_given_up_in_time(
    harnesses: Harnesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race, "set_tcp_options", narrow)
    harness = harnesses(header_mode=HeaderMode.TLS_FULL, connect_timeout=10).serve()
    peer, _ = carried(harness, who=LARGE)
    harness.later(10.1)
    limit = "exceeded the connect timeout of 10s reason=timeout"
    assert harness.log.lines == [f"error writing proxy header: unix:{harness.place}/backend: {limit}{KNOWN}"]
    assert harness.tunnel.counters.summary() == "accepted=1 dial_failed=1"
    peer.hear()
    assert is_over(peer.socket)


def test_a_backend_that_closes_at_once_is_logged_as_such(harnesses: Harnesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "set_tcp_options", narrow)
    harness = harnesses(header_mode=HeaderMode.TLS_FULL).serve()
    _, backend = carried(harness, who=LARGE)
    backend.close()
    harness.turn()
    why = "broken pipe reason=closed-by-target"
    assert harness.log.lines == [f"error writing proxy header: unix:{harness.place}/backend: {why}{KNOWN}"]
    assert harness.tunnel.counters.summary() == "accepted=1 dial_failed=1"
    assert len(harness.tunnel) == 0


def test_a_header_that_cannot_be_built_lets_nobody_through(harnesses: Harnesses) -> None:
    names = [f"{at:063d}.{at:063d}.example" for at in range(480)]
    harness = harnesses(header_mode=HeaderMode.TLS_FULL).serve()
    peer = Peer(harness, harness.connect(), who=identity("spiffe://a.test/peer", root=ROOT, dns_names=names)).shake()
    for _ in range(10):
        harness.turn()
    backend = harness.accepted_by_backend()
    assert backend is not None
    assert is_over(backend), "without a byte"
    (line,) = harness.log.lines
    assert line.startswith("error building proxy header: value 0x28 of the PROXY header has ")
    assert line.endswith(f" bytes; expected at most 65535 reason=too-large{KNOWN}")
    assert harness.tunnel.counters.summary() == "accepted=1 dial_failed=1"
    peer.hear()
    assert is_over(peer.socket)


def test_a_caller_that_goes_meanwhile_takes_the_connection_with_it(
    harnesses: Harnesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race, "set_tcp_options", narrow)
    harness = harnesses(header_mode=HeaderMode.TLS_FULL).serve()
    peer, _ = carried(harness, who=LARGE)
    peer.socket.close()
    harness.turn()
    assert harness.tunnel.counters.summary() == "accepted=1 client_gone=1"
    assert len(harness.tunnel) == 0


def test_the_type_of_the_id_is_documented_where_it_is_read() -> None:
    assert SPIFFE_ID_TYPE == 0xE5, "receivers are configured with this number"
