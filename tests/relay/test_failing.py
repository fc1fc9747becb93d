"""Bytes sent before a failure are delivered, wherever the stream ends, and the failure is forwarded after them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.support.socket_pairs import Wire, Wires, is_over, is_reset, received, tcp_pair, unix_pair
from tests.support.tls_ends import ALERT, DATA, VERSIONS, any_hand_made_pair
from tunnel.errors import TlsError
from tunnel.relay.linger import unacknowledged
from tunnel.relay.relay import CloseReason

BOTH_FAMILIES = pytest.mark.parametrize("make", [unix_pair, tcp_pair], ids=["unix", "tcp"])
BOTH_ROLES = pytest.mark.parametrize("we_serve", [True, False], ids=["server", "client"])
BOTH_VERSIONS = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
MESSAGES = (b"first ", b"second ", bytes(range(256)) * 20, b" last")
PLAIN = b"".join(MESSAGES)
BAD = {
    "junk": b"\x80\x00\x01\x02\x03\x04\x05\x06",
    "plain text": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a record of no key": b"\x17\x03\x03\x00\x20" + bytes(32),
    "a record that is too long": b"\x17\x03\x03\xff\xff" + bytes(32),
}


# -- a record that fails


@BOTH_VERSIONS
@BOTH_ROLES
@pytest.mark.parametrize("bad", [*BAD, "a fatal alert"])
def test_a_failing_record_takes_nothing_from_those_before_it(wires: Wires, version: int, we_serve: bool, bad: str) -> None:
    for cut in range(len(MESSAGES) + 1):
        ours, writer, _reader = any_hand_made_pair(version, we_serve=we_serve)
        stream = [writer.write(DATA, message) for message in MESSAGES]
        stream.append(BAD[bad] if bad in BAD else writer.write(ALERT, b"\x02\x50"))
        wire = wires(tcp_pair, we_serve=we_serve, ours=ours)
        wire.turn()
        for piece in (b"".join(stream[:cut]), b"".join(stream[cut:])):
            wire.peer_socket.sendall(piece)
            wire.turn()
        assert wire.program.recv(65536) == PLAIN, f"cut in front of record {cut}"
        assert is_reset(wire.program), "a failure is no end"
        assert wire.close_reason is (CloseReason.RESET_BY_PEER if bad == "a fatal alert" else CloseReason.PROTOCOL)
        assert wire.relay.up == len(PLAIN)


@BOTH_VERSIONS
@BOTH_ROLES
def test_every_record_written_alone_gives_the_same_as_all_at_once(wires: Wires, version: int, we_serve: bool) -> None:
    ours, writer, _reader = any_hand_made_pair(version, we_serve=we_serve)
    wire = wires(tcp_pair, we_serve=we_serve, ours=ours)
    for piece in [*(writer.write(DATA, message) for message in MESSAGES), BAD["junk"]]:
        wire.peer_socket.sendall(piece)
        wire.turn()
    assert wire.program.recv(65536) == PLAIN
    assert is_reset(wire.program)


@BOTH_VERSIONS
@BOTH_ROLES
@pytest.mark.parametrize("bad", BAD)
def test_behind_a_handshake_too_what_came_before_the_failure_is_delivered(version: int, we_serve: bool, bad: str) -> None:
    class Early(Wire):
        def _do_handshake(self, we_serve: bool) -> None:
            super()._do_handshake(we_serve)
            self.ours.tail += b"".join(map(self.peer.seal, MESSAGES)) + BAD[bad]

    wire = Early(tcp_pair, we_serve=we_serve, version=version)
    wire.turn()
    assert wire.program.recv(65536) == PLAIN
    assert is_reset(wire.program)
    assert wire.close_reason is CloseReason.PROTOCOL
    wire.close()


def _held(wires: Wires, sent: bytes) -> Wire:
    """A wire whose program does not accept all bytes that precede a failure."""
    wire = wires(unix_pair, close_timeout=10)
    wire.plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    wire.peer_socket.sendall(wire.peer.seal(sent) + BAD["junk"])
    wire.turn()
    assert wire.relay._unsent_plain
    assert wire.close_reason is None
    return wire


def test_a_slow_program_gets_all_before_the_failure(wires: Wires) -> None:
    sent = bytes(range(256)) * 200
    wire = _held(wires, sent)
    got = bytearray()
    for _ in range(100):
        got += wire.read()
        wire.later(1)
    assert got == sent
    assert wire.close_reason is CloseReason.PROTOCOL


def test_a_program_that_reads_nothing_more_delays_a_failure_by_the_close_timeout(wires: Wires) -> None:
    wire = _held(wires, bytes(60_000))
    wire.later(9)
    assert wire.close_reason is None
    wire.later(2)
    assert wire.close_reason is CloseReason.PROTOCOL, "the failure is what is told, and not the limit"


def test_the_alert_for_a_failing_record_reaches_the_peer(wires: Wires) -> None:
    wire = wires(tcp_pair)
    wire.write(b"half an answer")
    wire.peer_socket.sendall(BAD["a record of no key"])
    wire.turn()
    assert wire.peer.open(received(wire.peer_socket)) == b"half an answer"
    assert isinstance(wire.peer.end.failure, TlsError)
    assert wire.peer.end.failure.alert == 20, "bad_record_mac"


def test_an_end_inside_a_record_takes_nothing_from_a_slow_peer(wires: Wires) -> None:
    wire = wires(tcp_pair)
    answer = bytes(range(256)) * 2000
    sent = _fill(wire, answer)
    wire.peer_socket.sendall(wire.peer.seal(b"never whole")[:9])
    wire.peer_socket.shutdown(socket.SHUT_WR)
    wire.turn()
    assert wire.close_reason is CloseReason.TRUNCATED
    assert _read_slowly(wire, wire.peer_receive) == answer[:sent]
    assert not wire.peer.end.has_ended


# -- a reset


def _fill(wire: Wire, data: bytes) -> int:
    """Send all from the program through the relay; the peer reads nothing."""
    sent = 0
    while sent < len(data):
        try:
            sent += wire.program.send(data[sent:])
        except BlockingIOError:
            wire.turn()
    while unacknowledged(wire.program) or wire.relay.down < sent:
        wire.turn()
    return sent


def _read_slowly(wire: Wire, read: Callable[[], bytes]) -> bytes:
    got = bytearray()
    quiet = 0
    while quiet < 20:
        piece = read()
        got += piece
        quiet = 0 if piece else quiet + 1
        wire.later(0.05)
    return bytes(got)


def _small_reads(sock: socket.socket) -> bytes:
    try:
        return sock.recv(20_000)
    except (BlockingIOError, ConnectionResetError):
        return b""


@BOTH_VERSIONS
@BOTH_ROLES
def test_a_reset_of_the_program_takes_nothing_from_its_answer(wires: Wires, version: int, we_serve: bool) -> None:
    wire = wires(tcp_pair, version=version, we_serve=we_serve)
    wire.peer_send(b"a request that is never read")
    answer = bytes(range(256)) * 4096
    _fill(wire, answer)
    wire.program.close()  # with unread input: a reset
    wire.turn()
    assert wire.close_reason is CloseReason.RESET_BY_PLAIN
    got = _read_slowly(wire, lambda: wire.peer.open(_small_reads(wire.peer_socket)))
    assert got == answer
    assert not wire.peer.end.has_ended, "a cut must not pass for an end"
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        wire.peer_socket.send(b"x")


def test_a_reset_of_the_program_takes_nothing_from_what_waits_for_room(wires: Wires) -> None:
    wire = wires(lambda: tcp_pair(4096))
    wire.peer_send(b"a request that is never read")
    answer = bytes(range(256)) * 64
    sent = wire.program.send(answer)
    while not wire.relay._unsent_tls:
        wire.turn()
        try:
            sent += wire.program.send(answer)
        except BlockingIOError:
            continue
    wire.program.close()
    wire.turn()
    got = _read_slowly(wire, lambda: wire.peer.open(_small_reads(wire.peer_socket)))
    assert len(got) == wire.relay.down
    assert not wire.peer.end.has_ended
    assert wire.close_reason is CloseReason.RESET_BY_PLAIN


@BOTH_VERSIONS
@BOTH_ROLES
def test_a_reset_of_the_peer_takes_nothing_from_its_upload(wires: Wires, version: int, we_serve: bool) -> None:
    wire = wires(tcp_pair, version=version, we_serve=we_serve)
    wire.write(b"progress that is never read")
    upload = bytes(range(256)) * 4096
    stream = b"".join(wire.peer.seal(upload[at : at + 65536]) for at in range(0, len(upload), 65536))
    while stream:
        try:
            stream = stream[wire.peer_socket.send(stream) :]
        except BlockingIOError:
            wire.turn()
    while unacknowledged(wire.peer_socket):
        wire.turn()
    wire.peer_socket.close()  # with unread input: a reset
    wire.turn()
    got = _read_slowly(wire, lambda: _small_reads(wire.program))
    assert got == upload
    assert wire.close_reason is CloseReason.RESET_BY_PEER
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        wire.program.send(b"x")


@BOTH_FAMILIES
def test_a_peer_that_takes_no_more_is_still_read(wires: Wires, make: Callable[..., object]) -> None:
    """It has sent everything and closed, which a write to it detects."""
    wire = wires(make)
    wire.turn()
    upload = bytes(range(256)) * 100
    wire.peer_socket.sendall(wire.peer.seal(upload))
    wire.program.sendall(b"an answer that comes first")
    wire.peer_socket.close()
    wire.loop.turn(0)
    wire.relay._plain_until_eagain = wire.relay._tls_until_eagain = True
    wire.turn(10)
    assert wire.program.recv(65536) == upload
    assert wire.relay.up == len(upload)


def test_close_notify_before_a_reset_is_an_end(wires: Wires) -> None:
    wire = wires(tcp_pair)
    wire.write(b"never read")
    wire.peer_socket.sendall(wire.peer.seal(b"all of it") + wire.peer.end.close_notify())
    wire.peer_socket.close()
    wire.turn()
    assert wire.program.recv(65536) == b"all of it"
    assert is_over(wire.program)


def test_the_wait_for_a_program_that_takes_nothing_ends(wires: Wires) -> None:
    wire = wires(tcp_pair, close_timeout=10)
    upload = bytes(4_000_000)
    stream = b"".join(wire.peer.seal(upload[at : at + 65536]) for at in range(0, len(upload), 65536))
    for _ in range(1000):
        with suppress(BlockingIOError):
            stream = stream[wire.peer_socket.send(stream[:65536]) :]
        wire.loop.turn(0)
    wire.peer_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    wire.peer_socket.close()
    wire.turn()
    for _ in range(300):
        wire.later(0.2)
    assert not wire.relay.is_open
    assert wire.plain.fileno() == -1, "the socket is given back"
    assert not wire.loop._timers
