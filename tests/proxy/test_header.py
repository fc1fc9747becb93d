"""What a backend hears before the payload: a header that is right, whole and first, or nothing at all."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_tunnel import KNOWN, PEER, PEER_CONTEXTS, ROOT, Peer, Stage, carried

from tests.support.socket_pairs import is_over, received
from tests.support.tls_ends import TLS12, TLS13, Side, identity
from tunnel.net import race
from tunnel.net.address import TcpAddress
from tunnel.net.listen import open_listener
from tunnel.wire.proxy_v2 import SPIFFE_ID_TYPE, HeaderMode, TlsFacts, encode_header

Stages = Callable[..., Stage]
NO_TLS = TlsFacts("")
LARGE = identity("spiffe://a.test/peer", root=ROOT, dns_names=[f"{at:060d}.example" for at in range(150)])


@pytest.fixture
def stages(tmp_path: Path) -> Iterator[Stages]:
    made: list[Stage] = []

    def make(**fields: Any) -> Stage:
        made.append(Stage(tmp_path, **fields))
        return made[-1]

    yield make
    for stage in made:
        stage.close()


def header_of(stage: Stage, mode: HeaderMode, facts: TlsFacts = NO_TLS) -> bytes:
    return encode_header(socket.AF_UNIX, "", str(stage.place / "front"), mode, facts)


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["tls12", "tls13"])
@pytest.mark.parametrize("mode", HeaderMode)
def test_the_header_comes_at_once_and_first(stages: Stages, mode: HeaderMode, version: int) -> None:
    stage = stages(header=mode).serve()
    peer, backend = carried(stage, version=version)
    facts = TlsFacts(
        {TLS12: "TLS 1.2", TLS13: "TLS 1.3"}[version],
        common_name="",
        leaf=PEER.leaf.der,
        spiffe_id="spiffe://a.test/peer",
    )
    assert received(backend) == header_of(stage, mode, facts), "without a byte of payload"
    peer.say(b"payload")
    assert received(backend) == b"payload"
    backend.send(b"answer")
    stage.turn()
    assert peer.hear() == b"answer"
    assert stage.tunnel.counters.summary() == "accepted=1 carried=1"


def test_a_unix_backend_learns_of_both_ends_of_a_tcp_connection(stages: Stages) -> None:
    stage = stages(header=HeaderMode.CONN).serve()
    listener = open_listener(TcpAddress("127.0.0.1", "0"))
    stage.tunnel.drain()
    stage.tunnel.open(listener)
    sock = stage.opened(socket.create_connection(listener.socket.getsockname()))
    sock.setblocking(False)
    there, here = sock.getpeername(), sock.getsockname()
    stage.turn()
    Peer(stage, sock).shake()
    backend = stage.accepted_by_backend()
    assert backend is not None
    assert received(backend) == encode_header(socket.AF_INET, here, there, HeaderMode.CONN, NO_TLS)


def test_the_name_that_the_client_asked_for_is_told(stages: Stages) -> None:
    stage = stages(header=HeaderMode.TLS).serve()
    peer = Peer(stage, stage.connect())
    peer.side = Side(PEER_CONTEXTS[False, TLS13], "db.example")
    peer.shake()
    backend = stage.accepted_by_backend()
    assert backend is not None
    assert received(backend) == header_of(stage, HeaderMode.TLS, TlsFacts("TLS 1.3", b"db.example", leaf=PEER.leaf.der))


def test_no_header_is_sent_unless_it_is_wanted(stages: Stages) -> None:
    _, backend = carried(stages().serve())
    assert received(backend) == b""


def narrow(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)


def test_a_header_that_finds_no_room_comes_before_the_payload(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "set_tcp_options", narrow)
    stage = stages(header=HeaderMode.TLS_FULL).serve()
    peer, backend = carried(stage, who=LARGE)
    peer.say(b"<payload>")
    assert stage.log.lines == [], "nothing is carried yet"
    heard = b""
    for _ in range(100):
        heard += received(backend)
        stage.turn()
    (size,) = struct.unpack("!H", heard[14:16])
    assert size > len(LARGE.leaf.der) > 8000
    assert heard[16 + size :] == b"<payload>"
    assert stage.log.lines[0].startswith("opening pipe: ")


def test_a_backend_that_does_not_take_the_header_is_given_up_in_time(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "set_tcp_options", narrow)
    stage = stages(header=HeaderMode.TLS_FULL, connect_timeout=10).serve()
    peer, _ = carried(stage, who=LARGE)
    stage.later(10.1)
    limit = "nothing within the connect timeout of 10s reason=timeout"
    assert stage.log.lines == [f"error writing proxy header: unix:{stage.place}/backend: {limit}{KNOWN}"]
    assert stage.tunnel.counters.summary() == "accepted=1 dial_failed=1"
    peer.hear()
    assert is_over(peer.socket)


def test_a_backend_that_hangs_up_at_once_is_said_to_have_done_so(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "set_tcp_options", narrow)
    stage = stages(header=HeaderMode.TLS_FULL).serve()
    _, backend = carried(stage, who=LARGE)
    backend.close()
    stage.turn()
    why = "broken pipe reason=closed-by-target"
    assert stage.log.lines == [f"error writing proxy header: unix:{stage.place}/backend: {why}{KNOWN}"]
    assert stage.tunnel.counters.summary() == "accepted=1 dial_failed=1"
    assert len(stage.tunnel) == 0


def test_a_header_that_cannot_be_built_lets_nobody_through(stages: Stages) -> None:
    names = [f"{at:063d}.{at:063d}.example" for at in range(480)]
    stage = stages(header=HeaderMode.TLS_FULL).serve()
    peer = Peer(stage, stage.connect(), who=identity("spiffe://a.test/peer", root=ROOT, dns_names=names)).shake()
    for _ in range(10):
        stage.turn()
    backend = stage.accepted_by_backend()
    assert backend is not None
    assert is_over(backend), "without a byte"
    (line,) = stage.log.lines
    assert line.startswith("error building proxy header: value 0x28 of the PROXY header has ")
    assert line.endswith(f" bytes, of which 65535 fit reason=too-large{KNOWN}")
    assert stage.tunnel.counters.summary() == "accepted=1 dial_failed=1"
    peer.hear()
    assert is_over(peer.socket)


def test_a_caller_that_goes_meanwhile_takes_the_connection_with_it(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "set_tcp_options", narrow)
    stage = stages(header=HeaderMode.TLS_FULL).serve()
    peer, _ = carried(stage, who=LARGE)
    peer.socket.close()
    stage.turn()
    assert stage.tunnel.counters.summary() == "accepted=1 client_gone=1"
    assert len(stage.tunnel) == 0


def test_the_type_of_the_id_is_documented_where_it_is_read() -> None:
    assert SPIFFE_ID_TYPE == 0xE5, "receivers are configured with this number"
