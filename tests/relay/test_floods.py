"""Records without application data: few are handled per turn, and a flood of them closes the connection."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from tests.support.socket_pairs import Wire, Wires, is_reset, received, tcp_pair, unix_pair
from tests.support.tls_ends import (
    ALERT,
    DATA,
    HANDSHAKE,
    KEY_UPDATE,
    KEY_UPDATE_ASKING,
    TLS12,
    VERSIONS,
    HandMade,
    HandMade12,
    PublicPeer,
    Side,
    admit_all,
    context,
    hand_made_pair,
    hand_made_pair_12,
    identity,
    public_context,
    split_records,
)
from tunnel.errors import TlsError, TlsFault
from tunnel.relay.relay import CloseReason
from tunnel.tls.engine import _FEW, _MANY, _MAX_HANDSHAKE_RECORDS, _MAX_IDLE

BOTH_ROLES = pytest.mark.parametrize("we_serve", [True, False], ids=["server", "client"])
BOTH_VERSIONS = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)


def key_updates(writer: HandMade, count: int, message: bytes = KEY_UPDATE) -> list[bytes]:
    records = []
    for _ in range(count):
        records.append(writer.write(HANDSHAKE, message))
        writer.update()
    return records


def client_hello() -> bytes:
    """A message that would begin a renegotiation."""
    peer = PublicPeer(public_context(identity(), version=TLS12), is_server=False)
    return split_records(peer.shake())[0][5:]


FLOODS: dict[str, Callable[[HandMade], list[bytes]]] = {
    "KeyUpdate": lambda writer: key_updates(writer, 200),
    "KeyUpdate that asks for one": lambda writer: key_updates(writer, 200, KEY_UPDATE_ASKING),
    "empty data": lambda writer: [writer.write(DATA, b"") for _ in range(200)],
    "padding": lambda writer: [writer.write(DATA, b"", padding=300) for _ in range(200)],
    "user_canceled": lambda writer: [writer.write(ALERT, b"\x01\x5a") for _ in range(200)],
}
FLOODS12: dict[str, Callable[[HandMade12], list[bytes]]] = {
    "empty data": lambda writer: [writer.write(DATA, b"") for _ in range(200)],
    "warning": lambda writer: [writer.write(ALERT, b"\x01\x5a") for _ in range(200)],
    "HelloRequest": lambda writer: [writer.write(HANDSHAKE, bytes(4)) for _ in range(200)],
    "many HelloRequests in a record": lambda writer: [writer.write(HANDSHAKE, bytes(16_000)) for _ in range(3)],
    "ClientHello": lambda writer: [writer.write(HANDSHAKE, client_hello()) for _ in range(200)],
}
ROLES12 = [  # a renegotiation is asked for by the other role than ours
    *((what, we_serve) for what in ("empty data", "warning") for we_serve in (True, False)),
    ("HelloRequest", False),
    ("many HelloRequests in a record", False),
    ("ClientHello", True),
]


def assert_flooded(wire: Wire, records: list[bytes], *, at_once: bool) -> None:
    """The flood closes the connection with its own reason, after the data received before it is forwarded."""
    for piece in [b"".join(records)] if at_once else records:
        if wire.close_reason is None:
            wire.peer_socket.sendall(piece)
            wire.turn()
    wire.turn(60)
    assert wire.close_reason is CloseReason.NO_DATA
    assert wire.program.recv(100) == b"before"
    assert is_reset(wire.program)


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
@BOTH_ROLES
@pytest.mark.parametrize("what", FLOODS)
def test_a_flood_of_records_without_data_ends_the_connection(wires: Wires, what: str, we_serve: bool, at_once: bool) -> None:
    ours, writer, _reader = hand_made_pair(we_serve=we_serve)
    wire = wires(tcp_pair, we_serve=we_serve, ours=ours)
    wire.peer_socket.sendall(writer.write(DATA, b"before"))
    assert_flooded(wire, FLOODS[what](writer), at_once=at_once)


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
@pytest.mark.parametrize(("what", "we_serve"), ROLES12)
def test_a_flood_of_tls12_ends_the_connection_too(wires: Wires, what: str, we_serve: bool, at_once: bool) -> None:
    ours, writer, _reader = hand_made_pair_12(we_serve=we_serve)
    wire = wires(tcp_pair, we_serve=we_serve, ours=ours)
    wire.peer_socket.sendall(writer.write(DATA, b"before"))
    assert_flooded(wire, FLOODS12[what](writer), at_once=at_once)


@BOTH_ROLES
def test_a_limit_is_some_tens_of_records(wires: Wires, we_serve: bool) -> None:
    ours, writer, _reader = hand_made_pair(we_serve=we_serve)
    wire = wires(tcp_pair, we_serve=we_serve, ours=ours)
    tickets = 0 if we_serve else ours.end._idle
    for record in key_updates(writer, _MAX_IDLE - 1 - tickets):
        wire.peer_socket.sendall(record)
        wire.turn()
    assert wire.close_reason is None
    wire.peer_socket.sendall(writer.write(DATA, b"still there"))
    wire.turn()
    assert wire.read() == b"still there"
    for record in key_updates(writer, _MAX_IDLE):
        assert wire.close_reason is None
        wire.peer_socket.sendall(record)
        wire.turn()
    assert wire.close_reason is CloseReason.NO_DATA
    assert wire.ended[0][1] == f"{_MAX_IDLE} records in a row without application data"


@BOTH_ROLES
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
def test_key_updates_with_data_between_them_are_fine_for_ever(wires: Wires, we_serve: bool, at_once: bool) -> None:
    ours, writer, _reader = hand_made_pair(we_serve=we_serve)
    wire = wires(tcp_pair, we_serve=we_serve, ours=ours)
    sent = got = b""
    stream = []
    for number in range(300):
        message = b"%d;" % number
        stream += [*key_updates(writer, 1 + number % 3, KEY_UPDATE_ASKING), writer.write(DATA, message)]
        sent += message
    for piece in [b"".join(stream)] if at_once else stream:
        wire.peer_socket.sendall(piece)
        wire.turn()
        received(wire.peer_socket)
        got += wire.read()
    for _ in range(300):
        wire.turn()
        received(wire.peer_socket)
        got += wire.read()
    assert got == sent
    assert wire.close_reason is None


# -- in one turn


def test_a_turn_handles_few_records_of_one_connection(wires: Wires) -> None:
    """The echo of another peer waits for one turn's share of a flood only."""
    ours, writer, _reader = hand_made_pair()
    flood = wires(tcp_pair, ours=ours)
    honest = wires(tcp_pair, loop=flood.loop)
    flood.turn()
    count = 5000
    flood.peer_socket.sendall(b"".join(writer.write(DATA, b"x") for _ in range(count)))
    handled = 0
    for number in range(10):
        honest.peer_socket.sendall(honest.peer.seal(b"ping %d" % number))
        flood.loop.turn(0)
        assert honest.read() == b"ping %d" % number, "in the same turn"
        assert 0 < flood.relay.up - handled <= _MANY
        handled = flood.relay.up
    flood.turn(200)
    assert flood.read() == b"x" * count, "none is lost"
    assert flood.close_reason is None


def test_fewer_records_are_handled_when_some_have_no_data(wires: Wires) -> None:
    ours, writer, _reader = hand_made_pair()
    wire = wires(tcp_pair, ours=ours)
    wire.turn()
    stream = b"".join(key_updates(writer, 1)[0] + writer.write(DATA, b"x") for _ in range(400))
    wire.peer_socket.sendall(stream)
    wire.loop.turn(0)
    handled = wire.relay.up
    assert handled <= _MANY
    for _ in range(10):
        wire.loop.turn(0)
        assert 0 < wire.relay.up - handled <= _FEW
        handled = wire.relay.up
    wire.turn(200)
    assert wire.read() == b"x" * 400


def test_what_is_announced_while_records_are_left_is_read_behind_them(wires: Wires) -> None:
    """An event must not give the peer another share of the turn, and must not be lost."""
    ours, writer, _reader = hand_made_pair()
    wire = wires(tcp_pair, ours=ours)
    wire.turn()
    wire.peer_socket.sendall(b"".join(writer.write(DATA, b"x") for _ in range(1000)))
    handled = 0
    for _ in range(10):
        wire.peer_socket.sendall(writer.write(DATA, b"y"))
        wire.loop.turn(0)
        assert wire.relay.up - handled <= _MANY
        handled = wire.relay.up
    wire.peer_socket.shutdown(socket.SHUT_WR)
    wire.turn(100)
    assert wire.read() == b"x" * 1000 + b"y" * 10
    assert wire.relay.has_fin_without_close_notify


def test_records_left_over_wait_for_a_slow_program(wires: Wires) -> None:
    ours, writer, _reader = hand_made_pair()
    wire = wires(unix_pair, ours=ours)
    wire.plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    stream = b"".join(writer.write(DATA, b"%04d" % number * 100) for number in range(600))
    got = bytearray()
    for _ in range(3000):
        stream = stream[_send(wire.peer_socket, stream) :]
        wire.loop.turn(0)
        got += _take(wire.program)
    assert bytes(got) == b"".join(b"%04d" % number * 100 for number in range(600))


def _send(sock: socket.socket, data: bytes) -> int:
    try:
        return sock.send(data) if data else 0
    except BlockingIOError:
        return 0


def _take(sock: socket.socket) -> bytes:
    try:
        return sock.recv(3000)
    except BlockingIOError:
        return b""


# -- in the handshake


@BOTH_VERSIONS
def test_a_handshake_in_records_of_one_byte_succeeds_in_shares(version: int) -> None:
    """Go accepts it too: a handshake message may be split anywhere (RFC 8446, 5.1)."""
    client = PublicPeer(public_context(identity(), version=version), is_server=False)
    server = Side(context(identity(), admit_all, is_server=True, version=version))
    hello = client.shake()[5:]
    stream = b"".join(b"\x16\x03\x01\x00\x01" + hello[at : at + 1] for at in range(len(hello)))
    answer, shares = server.shake(stream), 1
    while server.end.has_more:
        before = len(server.tail)
        answer += server.shake(b"")
        assert before - len(server.tail) <= _MANY * 6, "a share is some records"
        shares += 1
    assert shares >= len(hello) // _MANY
    server.shake(client.shake(answer))
    assert server.is_done


def test_a_handshake_has_a_limit_of_records() -> None:
    server = Side(context(identity(), admit_all, is_server=True))
    hello = b"\x01\x01\xff\x00" + bytes(100_000)
    stream = b"".join(b"\x16\x03\x01\x00\x01" + hello[at : at + 1] for at in range(_MAX_HANDSHAKE_RECORDS + 1))
    server.shake(stream)
    for _ in range(_MAX_HANDSHAKE_RECORDS // _MANY - 1):
        assert server.end.has_more
        server.shake(b"")
    with pytest.raises(TlsError) as failed:
        server.shake(b"")
    assert failed.value.reason is TlsFault.NO_DATA


@BOTH_ROLES
def test_warnings_in_the_handshake_have_a_limit(we_serve: bool) -> None:
    side = Side(context(identity(), admit_all, is_server=we_serve, version=TLS12))
    if we_serve:
        side.shake(PublicPeer(public_context(identity(), version=TLS12), is_server=False).shake())
    else:
        side.shake()
    with pytest.raises(TlsError) as failed:
        side.shake(b"\x15\x03\x03\x00\x02\x01\x5a" * 40)
    assert failed.value.reason is TlsFault.NO_DATA
