"""Bytes and EOF are forwarded completely and in order, and a truncated stream never looks complete."""

from __future__ import annotations

import errno
import math
import random
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, cast

import pytest

from tests.support.socket_pairs import MAKERS, Wire, Wires, is_over, is_reset, narrow_unix_pair, received, tcp_pair, unix_pair
from tests.support.tls_ends import (
    ALERT,
    CLOSE_NOTIFY,
    DATA,
    HANDSHAKE,
    KEY_UPDATE,
    KEY_UPDATE_ASKING,
    USER_CANCELED,
    VERSIONS,
    any_hand_made_pair,
    hand_made_pair,
    split_records,
)
from tunnel.relay.close_reason import CloseReason
from tunnel.relay.relay_streams import _MAX_UNSENT

EVERYWHERE = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
BOTH_FAMILIES = pytest.mark.parametrize("make", [unix_pair, tcp_pair], ids=["unix", "tcp"])
BOTH_ROLES = pytest.mark.parametrize("we_serve", [True, False], ids=["server", "client"])


def payload(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


_SIZES = (1, 5, 64, 700, 4095, 4096, 4097, 16384, 20_000, 100_000, 262_144)


class Pump:
    """Sends and receives on all four ends in pieces of random sizes, until all data has arrived."""

    def __init__(self, wire: Wire, up: bytes, down: bytes, seed: int, sizes: Sequence[int] = _SIZES) -> None:
        self.wire = wire
        self._sizes = sizes
        self.dice = random.Random(seed)
        self.up, self.down = up, down
        self.sealed = b""  # by the peer, not sent yet
        self.got_up, self.got_down = bytearray(), bytearray()

    def run(self, wanted_up: int, wanted_down: int) -> None:
        """Run until so much data has arrived."""
        for _ in range(200_000):
            if len(self.got_up) >= wanted_up and len(self.got_down) >= wanted_down:
                return
            self._step()
        raise AssertionError(f"stuck at {len(self.got_up)} of {wanted_up} up and {len(self.got_down)} of {wanted_down} down")

    def _size(self) -> int:
        return self.dice.choice(self._sizes)

    def _step(self) -> None:
        self.offer()
        self.wire.loop.turn(0)
        self.take()

    def offer(self) -> None:
        """Send what the sockets accept."""
        if not self.sealed and self.up:
            size = self._size()
            piece, self.up = self.up[:size], self.up[size:]
            self.sealed = self.wire.peer.seal(piece)
        self.sealed = self.sealed[_send(self.wire.peer_socket, self.sealed[: self._size()]) :]
        self.down = self.down[_send(self.wire.program, self.down[: self._size()]) :]

    def take(self) -> None:
        """Receive what has arrived, mostly."""
        if self.dice.random() < 0.7:
            self.got_down += self.wire.peer.open(_take(self.wire.peer_socket, self._size()))
        if self.dice.random() < 0.7:
            self.got_up += _take(self.wire.program, self._size())


def _send(sock: socket.socket, data: bytes) -> int:
    try:
        return sock.send(data) if data else 0
    except BlockingIOError:
        return 0


def _take(sock: socket.socket, size: int) -> bytes:
    try:
        return sock.recv(size)
    except BlockingIOError:
        return b""


# -- bytes


@EVERYWHERE
@BOTH_ROLES
@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
def test_bytes_pass_both_ways_unchanged_however_they_are_cut(
    wires: Wires, make: Callable[..., object], we_serve: bool, version: int
) -> None:
    for seed in range(3):
        wire = wires(make, we_serve=we_serve, version=version)
        up, down = payload(600_000 + seed, seed), payload(500_000 - seed, seed + 100)
        pump = Pump(wire, up, down, seed)
        pump.run(len(up), len(down))
        assert pump.got_up == up
        assert pump.got_down == down
        assert (wire.relay.up, wire.relay.down) == (len(up), len(down))


@EVERYWHERE
def test_many_small_messages_pass_one_by_one(wires: Wires, make: Callable[..., object]) -> None:
    wire = wires(make)
    for number in range(200):
        wire.peer_send(b"ping %d" % number)
        assert wire.read() == b"ping %d" % number
        wire.write(b"pong %d" % number)
        assert wire.peer_receive() == b"pong %d" % number


class Recorded:
    """A socket that notes each call of these in a list that several share."""

    def __init__(self, sock: socket.socket, calls: list[str]) -> None:
        self._socket = sock
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        if name in ("send", "recv_into"):
            self._calls.append(name)
        return getattr(self._socket, name)


def neighbours(wires: Wires, make: Callable[..., object] = tcp_pair) -> list[Wire]:
    """Three relays on one loop that have forwarded a byte both ways."""
    first = wires(make)
    found = [first, wires(make, loop=first.loop), wires(make, loop=first.loop)]
    for wire in found:
        wire.peer_send(b"a")
        wire.write(b"b")
        assert (wire.read(), wire.peer_receive()) == (b"a", b"b")
    return found


def test_small_messages_of_one_batch_are_sent_at_its_end(wires: Wires) -> None:
    """And a receiver that sleeps wakes once."""
    found = neighbours(wires)
    calls: list[str] = []
    for wire in found:
        wire.relay._tls, wire.relay._plain = (cast(socket.socket, Recorded(one, calls)) for one in (wire.tls, wire.plain))
        wire.peer_socket.sendall(wire.peer.seal(b"up"))
    found[0].loop.turn(0)
    assert calls == ["recv_into"] * 3 + ["send"] * 3
    assert [wire.read() for wire in found] == [b"up"] * 3
    calls.clear()
    for wire in found:
        wire.program.sendall(b"down")
    found[0].loop.turn(0)
    assert calls == ["recv_into"] * 3 + ["send"] * 3
    assert [wire.peer_receive() for wire in found] == [b"down"] * 3


@EVERYWHERE
def test_messages_of_several_connections_in_one_batch_pass_unchanged(wires: Wires, make: Callable[..., object]) -> None:
    """Also if a socket has no room at the end of the batch."""
    found = neighbours(wires, make)
    data = [(payload(60_000, seed), payload(50_000, seed + 9)) for seed in range(len(found))]
    pumps = [Pump(wire, *both, seed, sizes=(1, 64, 900)) for seed, (wire, both) in enumerate(zip(found, data, strict=True))]
    for _ in range(20_000):
        for pump in pumps:
            pump.offer()
        found[0].loop.turn(0)
        for pump in pumps:
            pump.take()
        if all((len(pump.got_up), len(pump.got_down)) == (60_000, 50_000) for pump in pumps):
            break
    assert [(pump.got_up, pump.got_down) for pump in pumps] == data


def test_a_reset_before_the_end_of_the_batch_ends_its_relay_only(wires: Wires) -> None:
    found = neighbours(wires)
    gone = found[1]
    for wire in found:
        wire.peer_socket.sendall(wire.peer.seal(b"up"))
        wire.program.sendall(b"down")
    gone.program.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    gone.program.close()
    found[0].turn(5)
    assert gone.close_reason is CloseReason.RESET_BY_PLAIN
    for wire in (found[0], found[2]):
        assert wire.close_reason is None
        assert (wire.read(), wire.peer_receive()) == (b"up", b"down")


@EVERYWHERE
@pytest.mark.parametrize("size", [4096, 16384, 65_536, 262_144, 300_000])
def test_a_small_message_right_behind_a_big_one_is_not_left_behind(
    wires: Wires, make: Callable[..., object], size: int
) -> None:
    wire = wires(make)
    pump = Pump(wire, payload(size) + b"and this", payload(size, 1) + b"and that", 7)
    pump.run(size + 8, size + 8)
    assert pump.got_up.endswith(b"and this")
    assert pump.got_down.endswith(b"and that")


@BOTH_FAMILIES
def test_a_peer_that_writes_much_before_it_reads_does_not_get_stuck(wires: Wires, make: Callable[..., object]) -> None:
    """An echo whose return direction is full: the other direction must continue while the program reads."""
    wire, sent = wires(make), payload(3_000_000)
    sealed = b"".join(wire.peer.seal(sent[at : at + 50_000]) for at in range(0, len(sent), 50_000))
    echoing, got = b"", bytearray()

    def step() -> None:
        nonlocal sealed, echoing
        sealed = sealed[_send(wire.peer_socket, sealed[:65536]) :]
        echoing += _take(wire.program, 65536)
        echoing = echoing[_send(wire.program, echoing[:65536]) :]
        wire.loop.turn(0)

    for _ in range(2000):
        step()
    assert not sealed, "everything was taken though nothing was read"
    for _ in range(2000):
        step()
        got += wire.peer_receive()
    assert got == sent


@BOTH_FAMILIES
def test_what_came_behind_the_handshake_is_carried(wires: Wires, make: Callable[..., object]) -> None:
    wire = wires(make, before=b"in one packet with the Finished")
    wire.turn()
    assert wire.read() == b"in one packet with the Finished"
    wire.peer_send(b", and on")
    assert wire.read() == b", and on"


def test_a_part_of_a_record_behind_the_handshake_waits_for_its_rest(wires: Wires) -> None:
    """The last read of the handshake ends inside the peer's first record."""
    record = b""

    class Cut(Wire):
        def _do_handshake(self, we_serve: bool) -> None:
            nonlocal record
            super()._do_handshake(we_serve)
            record = self.peer.seal(b"in two parts")
            self.ours.tail = record[:11]

    wire = Cut()
    wire.turn()
    assert wire.read() == b""
    wire.peer_socket.sendall(record[11:])
    wire.turn()
    assert wire.read() == b"in two parts"
    wire.close()


class RelayWithTickets(Wire):
    """A relay whose end has not sent its session tickets."""

    def _do_handshake(self, we_serve: bool) -> None:
        assert we_serve
        size = self.ours._put(self.peer.shake(self.ours.shake(self.peer.shake())))
        self.ours.is_done = self.ours.end.handshake(size)
        assert self.ours.is_done


@pytest.mark.parametrize("is_renewed", [False, True], ids=["", "after a burst"])
@BOTH_FAMILIES
def test_tickets_wait_for_the_first_data_and_come_before_it(make: Callable[..., object], is_renewed: bool) -> None:
    with closing(RelayWithTickets(make)) as wire:  # type: ignore[arg-type]
        wire.turn()
        wire.peer_send(b"up first")
        assert wire.read() == b"up first"
        assert received(wire.peer_socket) == b"", "nothing is sent before there is data"
        if is_renewed:
            wire.relay.trim_buffers()
        wire.write(b"first words")
        raw = received(wire.peer_socket)
        assert [record[0] for record in split_records(raw)] == [DATA] * 3
        assert wire.peer.open(raw) == b"first words"
        wire.write(b"second")
        assert wire.peer_receive() == b"second"


def test_tickets_that_wait_come_before_the_end() -> None:
    with closing(RelayWithTickets()) as wire:
        wire.program.shutdown(socket.SHUT_WR)
        wire.turn()
        assert wire.peer_receive() == b""
        assert wire.peer.end.has_ended


@BOTH_FAMILIES
def test_urgent_bytes_stop_nothing(wires: Wires, make: Callable[..., object]) -> None:
    wire = wires(make)
    for sock, opposite in ((wire.program, wire.peer_receive), (wire.peer_socket, wire.read)):
        if sock.family == socket.AF_UNIX:
            continue
        sock.send(b"!", socket.MSG_OOB)
        wire.turn()
        opposite()
    for number in range(5):
        wire.write(b"after %d" % number)
        assert wire.peer_receive() == b"after %d" % number
    assert wire.close_reason is None


def test_bytes_from_the_program_around_an_urgent_one_pass(wires: Wires) -> None:
    wire = wires(tcp_pair)
    wire.program.send(b"before")
    wire.program.send(b"!", socket.MSG_OOB)
    wire.program.send(b"behind")
    got = b""
    for _ in range(5):
        wire.turn()
        got += wire.peer_receive()
    assert got == b"beforebehind"


@BOTH_FAMILIES
def test_more_than_one_read_can_take_is_taken_though_nothing_more_comes(wires: Wires, make: Callable[..., object]) -> None:
    """An edge-triggered event comes once: unread input causes no new one."""
    wire = wires(make)
    wire.relay._inbox = wire.ours.buffers.inbox_view[:20_000]
    wire.turn()
    message = payload(10_000)
    wire.peer_socket.sendall(b"".join(wire.peer.seal(message) for _ in range(5)))
    wire.turn(20)
    assert wire.read() == message * 5
    wire.program.sendall(message * 5)
    wire.turn(20)
    assert wire.peer_receive() == message * 5


# -- back-pressure


@BOTH_FAMILIES
def test_a_program_that_does_not_read_stops_the_peer(wires: Wires, make: Callable[..., object]) -> None:
    wire = wires(make)
    piece, sent = wire.peer.seal(payload(65536)), 0
    for _ in range(2000):
        data = piece[sent % len(piece) :]
        count = _send(wire.peer_socket, data)
        sent += count
        if sent % len(piece) == 0 and count:
            piece = wire.peer.seal(payload(65536))
        wire.loop.turn(0)
    held = wire.relay.up
    for _ in range(50):
        wire.loop.turn(0)
    assert wire.relay.up == held, "nothing is read while a piece waits"
    assert len(wire.relay._unsent_plain) <= 256 * 1024
    drained = 0
    for _ in range(10_000):
        drained += len(_take(wire.program, 262_144))
        wire.loop.turn(0)
    assert drained == wire.relay.up
    assert wire.relay.up > held, "it goes on when the program reads"


@BOTH_FAMILIES
def test_a_peer_that_does_not_read_stops_the_program_but_not_the_other_way(wires: Wires, make: Callable[..., object]) -> None:
    wire = wires(make)
    sent = 0
    for _ in range(2000):
        sent += _send(wire.program, payload(65536))
        wire.loop.turn(0)
    held = wire.relay.down
    for _ in range(50):
        wire.loop.turn(0)
    assert wire.relay.down == held < sent
    assert len(wire.relay._unsent_tls) <= _MAX_UNSENT
    wire.peer_send(b"the other way is open")
    assert wire.read() == b"the other way is open"
    got = 0
    for _ in range(10_000):
        got += len(wire.peer_receive())
        wire.loop.turn(0)
        if got == sent:
            break
    assert got == sent


def test_a_peer_that_asks_for_answers_and_reads_none_cannot_fill_our_memory(wires: Wires) -> None:
    """Each key update that requests one is answered before the next data; answers do not accumulate."""
    ours, writer, _reader = hand_made_pair()
    wire = wires(tcp_pair, ours=ours)
    largest = 0
    for _ in range(500):
        record = writer.write(HANDSHAKE, KEY_UPDATE_ASKING)
        writer.update()
        if _send(wire.peer_socket, record) < len(record):
            break
        wire.loop.turn(0)
        largest = max(largest, len(wire.relay._unsent_tls))
        if wire.close_reason is not None:
            break
    assert largest <= _MAX_UNSENT + 65536
    assert not wire.crashes


# -- ends


@EVERYWHERE
def test_the_programs_end_becomes_a_close_notify_and_the_peer_may_go_on(wires: Wires, make: Callable[..., object]) -> None:
    wire = wires(make)
    wire.write(b"last bytes")
    wire.program.shutdown(socket.SHUT_WR)
    wire.turn()
    assert wire.peer_receive() == b"last bytes"
    assert wire.peer.end.has_ended
    assert not is_over(wire.peer_socket), "no FIN: the peer may take it for the end of both"
    for number in range(3):
        wire.peer_send(b"still %d" % number)
        assert wire.read() == b"still %d" % number
    wire.peer_socket.sendall(wire.peer.end.close_notify())
    wire.turn()
    assert is_over(wire.program)
    assert wire.close_reason is CloseReason.CLOSED
    assert not wire.relay.has_fin_without_close_notify


@EVERYWHERE
def test_the_peers_close_notify_becomes_an_end_and_the_program_may_go_on(wires: Wires, make: Callable[..., object]) -> None:
    wire = wires(make)
    wire.peer_send(b"last bytes")
    wire.peer_socket.sendall(wire.peer.end.close_notify())
    wire.turn()
    assert wire.read() == b"last bytes"
    assert is_over(wire.program)
    assert wire.close_reason is None
    for number in range(3):
        wire.write(b"still %d" % number)
        assert wire.peer_receive() == b"still %d" % number
    wire.program.close()
    wire.turn()
    assert wire.peer_receive() == b""
    assert wire.peer.end.has_ended
    assert wire.close_reason is CloseReason.CLOSED
    assert not wire.relay.has_fin_without_close_notify


@EVERYWHERE
def test_an_end_comes_after_all_data_before_it(wires: Wires, make: Callable[..., object]) -> None:
    wire, said = wires(make), payload(700_000)
    pump = Pump(wire, said, said, 3)
    pump.run(0, 0)
    while pump.up or pump.sealed or pump.down:
        pump._step()
    wire.program.shutdown(socket.SHUT_WR)
    final_data = wire.peer.end.close_notify()
    while final_data:
        final_data = final_data[_send(wire.peer_socket, final_data) :]
        pump._step()
    pump.run(len(said), len(said))
    wire.turn(20)
    assert pump.got_up == said
    assert pump.got_down == said
    wire.peer_receive()
    assert wire.peer.end.has_ended
    assert is_over(wire.program)
    assert wire.close_reason is CloseReason.CLOSED


@BOTH_FAMILIES
def test_a_fin_between_two_records_is_an_end_and_counted_apart(wires: Wires, make: Callable[..., object]) -> None:
    wire = wires(make)
    wire.peer_send(b"last bytes")
    wire.peer_socket.shutdown(socket.SHUT_WR)
    wire.turn()
    assert wire.read() == b"last bytes"
    assert is_over(wire.program)
    assert wire.relay.has_fin_without_close_notify
    wire.write(b"the answer")
    assert wire.peer_receive() == b"the answer"
    wire.program.close()
    wire.turn()
    assert wire.close_reason is CloseReason.CLOSED


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 20, -1])
def test_a_fin_inside_a_record_is_a_cut_stream(wires: Wires, cut: int) -> None:
    wire = wires(tcp_pair)
    wire.peer_send(b"whole ")
    wire.peer_socket.sendall(wire.peer.seal(b"never whole")[:cut])
    wire.peer_socket.shutdown(socket.SHUT_WR)
    wire.turn()
    assert wire.close_reason is CloseReason.TRUNCATED
    assert wire.program.recv(100) == b"whole "
    assert is_reset(wire.program), "not an orderly end"


def test_a_fin_right_behind_the_record_it_follows_is_seen(wires: Wires) -> None:
    wire = wires(tcp_pair)
    wire.turn()
    wire.peer_socket.sendall(wire.peer.seal(b"data"))
    wire.peer_socket.shutdown(socket.SHUT_WR)
    wire.turn()
    assert wire.read() == b"data"
    assert wire.relay.is_up_over


def test_the_programs_end_right_behind_its_data_is_seen(wires: Wires) -> None:
    wire = wires(tcp_pair)
    wire.turn()
    wire.program.sendall(b"data")
    wire.program.shutdown(socket.SHUT_WR)
    wire.turn()
    assert wire.peer_receive() == b"data"
    assert wire.peer.end.has_ended


def test_what_was_there_before_the_relay_is_carried_with_its_end() -> None:
    class Early(Wire):
        def _do_handshake(self, we_serve: bool) -> None:
            super()._do_handshake(we_serve)
            self.program.sendall(b"too early")
            self.program.shutdown(socket.SHUT_WR)
            self.peer_socket.sendall(self.peer.seal(b"early too") + self.peer.end.close_notify())

    wire = Early(tcp_pair)
    wire.turn()
    assert wire.read() == b"early too"
    assert wire.peer_receive() == b"too early"
    assert wire.close_reason is CloseReason.CLOSED
    wire.close()


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    sock.close()


def test_a_reset_by_the_peer_is_a_reset_for_the_program(wires: Wires) -> None:
    wire = wires(tcp_pair)
    wire.peer_send(b"data")
    assert wire.read() == b"data"
    _reset(wire.peer_socket)
    wire.turn()
    assert wire.close_reason is CloseReason.RESET_BY_PEER
    assert is_reset(wire.program)


class _BreakingSocket(socket.socket):
    """A socket that reports a reset once it has accepted some more sends."""

    sends_left: float = math.inf

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:  # type: ignore[override]
        self.sends_left -= 1
        if self.sends_left < 0:
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        return super().send(data, flags)


def _breaking_pair() -> tuple[socket.socket, socket.socket]:
    """Two sockets with room for a read of the largest size, and for what is made of it."""
    near, far = tcp_pair()
    for sock in (near, far):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return _BreakingSocket(fileno=near.detach()), far


@pytest.mark.parametrize("has_ended", [False, True], ids=["open", "ended"])
@pytest.mark.parametrize("sends", [0, 1])
def test_a_reset_between_two_pieces_of_one_read_ends_the_connection(wires: Wires, sends: int, has_ended: bool) -> None:
    """The first failure closes everything at once if the peer has ended its direction."""
    wire = wires(_breaking_pair)
    wire.peer_send(b"the last word")
    if has_ended:
        wire.peer_socket.sendall(wire.peer.end.close_notify())
        wire.turn()
    cast("_BreakingSocket", wire.tls).sends_left = sends
    size = 0
    while size < 262_144:  # two pieces
        size += wire.program.send(payload(262_144 - size))
    wire.turn()
    assert wire.read() == b"the last word"
    assert cast("_BreakingSocket", wire.tls).sends_left == -1, "nothing is sent after the reset"
    _reset(wire.peer_socket)
    wire.turn()
    assert wire.close_reason is CloseReason.RESET_BY_PEER


class _FilledSocket(socket.socket):
    """A socket that has room for so many bytes and no more, once it is limited and until it is released."""

    room_of: Callable[[int], int] | None = None  # by the size of the first send after this is set
    first_size = 0
    _accepted = 0

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:  # type: ignore[override]
        if self.room_of is None:
            return super().send(data, flags)
        self.first_size = self.first_size or len(data)
        left = self.room_of(self.first_size) - self._accepted
        if not left:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        sent = super().send(data[:left], flags)
        self._accepted += sent
        return sent


def _filled_pair() -> tuple[socket.socket, socket.socket]:
    """Two sockets with room for a read of the largest size, which arrives at once, and for what is made of it."""
    near, far = unix_pair()
    for sock in (near, far):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return _FilledSocket(fileno=near.detach()), far


_ROOMS: dict[str, Callable[[int], int]] = {
    "nothing": lambda _first: 0,
    "a byte": lambda _first: 1,
    "all but a byte of the first": lambda first: first - 1,
    "the first": lambda first: first,
    "a byte of the second": lambda first: first + 1,
    "all but a byte of the second": lambda first: 2 * first - 1,
}


@pytest.mark.parametrize("room_of", _ROOMS.values(), ids=_ROOMS)
def test_a_socket_that_is_full_between_two_pieces_loses_nothing(wires: Wires, room_of: Callable[[int], int]) -> None:
    wire = wires(_filled_pair)
    wire.turn()
    tls, sent = cast("_FilledSocket", wire.tls), payload(262_144)
    tls.room_of = room_of
    assert wire.program.send(sent) == len(sent)
    wire.turn()
    first = tls.first_size
    assert wire.relay.down == len(sent), "all was read"
    assert len(sent) // 2 < first < len(sent), "the first piece of two"
    arrived = received(wire.peer_socket)
    assert len(arrived) == room_of(first)
    assert len(wire.relay._unsent_tls) == 2 * first - len(arrived)
    wire.write(b"and more")
    assert wire.relay.down == len(sent), "nothing is read while a piece waits"
    tls.room_of = None
    wire.peer_send(b"an event for the socket that has room")
    assert wire.peer.open(arrived + received(wire.peer_socket)) == sent + b"and more"
    assert wire.read() == b"an event for the socket that has room"


def test_the_last_bytes_of_a_program_that_reads_no_more_reach_the_peer(wires: Wires) -> None:
    """A service refuses a large upload: it responds and closes while the peer still sends."""
    wire = wires(tcp_pair)
    wire.peer_send(b"the beginning")  # never read by the program, so its close is a reset
    wire.program.sendall(b"too large")
    wire.program.close()
    wire.peer_send(b"the rest")
    assert wire.peer_receive() == b"too large"
    for _ in range(3):
        wire.peer_send(b"and more")
    assert not wire.relay.is_open
    assert not wire.peer.end.has_ended, "a cut must not pass for an end"


def test_what_waits_for_the_peer_is_not_lost_when_the_program_has_ended(wires: Wires) -> None:
    """A slow reader gets the complete response of a program that has closed, although more is sent to the program."""
    wire = wires(lambda: tcp_pair(4096))
    answer = bytes(range(256)) * 4096
    heard = bytearray()
    sent = 0
    while sent < len(answer):
        try:
            sent += wire.program.send(answer[sent:])
        except BlockingIOError:
            wire.turn()
            heard += wire.peer_receive()
    wire.program.close()
    wire.peer_send(b"one word more")
    wire.peer_send(b"and one more")
    while wire.relay.is_open and (piece := wire.peer_receive()):
        heard += piece
        wire.turn()
    heard += wire.peer_receive()
    assert len(heard) == len(answer)
    assert heard == answer


def test_a_reset_by_the_program_is_a_reset_for_the_peer_and_no_close_notify(wires: Wires) -> None:
    wire = wires(tcp_pair)
    wire.turn()
    _reset(wire.program)
    wire.turn()
    assert wire.close_reason is CloseReason.RESET_BY_PLAIN
    assert is_reset(wire.peer_socket)
    assert not wire.peer.end.has_ended


def test_a_program_that_goes_away_entirely_is_noticed_at_the_next_data(wires: Wires) -> None:
    wire = wires(tcp_pair)
    wire.program.close()
    wire.turn()
    assert wire.close_reason is None, "the program may only have shut down its own direction"
    for _ in range(3):
        wire.peer_socket.send(wire.peer.seal(b"anybody there?"))
        wire.turn()
        if wire.close_reason is not None:
            break
    assert wire.close_reason is not None


@BOTH_FAMILIES
def test_bytes_that_are_no_record_cut_both_sides(wires: Wires, make: Callable[..., object]) -> None:
    wire = wires(make)
    wire.peer_send(b"good")
    wire.peer_socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
    wire.turn()
    assert wire.close_reason is CloseReason.PROTOCOL


@BOTH_ROLES
@BOTH_FAMILIES
@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
def test_a_close_that_begins_with_user_canceled_loses_nothing(
    wires: Wires, make: Callable[..., object], we_serve: bool, version: int
) -> None:
    """The peer closes as Java does, after more data than the program accepts at once; the response still arrives."""
    ours, writer, reader = any_hand_made_pair(version, we_serve=we_serve)
    wire = wires(make, we_serve=we_serve, ours=ours)
    data, stream = payload(1_500_000), b""
    for at in range(0, len(data), 16_000):
        stream += writer.write(DATA, data[at : at + 16_000])
    stream += writer.write(ALERT, USER_CANCELED) + writer.write(ALERT, CLOSE_NOTIFY)
    got = b""
    while not wire.relay.is_up_over or wire.relay._unsent_plain:
        stream = stream[_send(wire.peer_socket, stream[:100_000]) :]
        wire.turn()
        got += _take(wire.program, 30_000)
    got += received(wire.program)
    assert (len(got), got == data) == (len(data), True)
    assert is_over(wire.program)
    wire.write(b"answer")
    wire.program.shutdown(socket.SHUT_WR)
    wire.turn()
    answer = split_records(received(wire.peer_socket))[-2:]
    assert [reader.read(record) for record in answer] == [(DATA, b"answer"), (ALERT, CLOSE_NOTIFY)]
    assert wire.close_reason is CloseReason.CLOSED


def test_a_late_refusal_in_tls13_has_its_own_reason(wires: Wires) -> None:
    """The client's handshake is done before the server has verified the client."""
    ours, writer, _reader = hand_made_pair(we_serve=False)
    wire = wires(tcp_pair, we_serve=False, ours=ours)
    wire.turn()
    wire.peer_socket.sendall(writer.write(ALERT, b"\x02\x2a"))
    wire.turn()
    assert wire.close_reason is CloseReason.REFUSED_BY_PEER
    assert "bad certificate" in wire.ended[0][1]
    assert is_reset(wire.program)


def test_an_alert_in_the_middle_of_the_data_is_no_refusal(wires: Wires) -> None:
    ours, writer, _reader = hand_made_pair(we_serve=False)
    wire = wires(tcp_pair, we_serve=False, ours=ours)
    wire.peer_socket.sendall(writer.write(DATA, b"half a page"))
    wire.turn()
    wire.peer_socket.sendall(writer.write(ALERT, b"\x02\x50"))
    wire.turn()
    assert wire.close_reason is CloseReason.RESET_BY_PEER
    assert wire.program.recv(100) == b"half a page"
    assert is_reset(wire.program)


def test_nothing_is_reported_twice_after_the_end(wires: Wires) -> None:
    wire = wires()
    wire.relay.abort(CloseReason.LIFETIME, "max connection lifetime reached")
    wire.relay.abort(CloseReason.SHUTDOWN)
    wire.relay.trim_buffers()
    wire.relay.tls_ready(5)
    wire.relay.plain_ready(5)
    wire.turn()
    assert wire.ended == [(CloseReason.LIFETIME, "max connection lifetime reached")]


# -- key updates


@BOTH_ROLES
@BOTH_FAMILIES
def test_a_key_update_is_followed_and_answered(wires: Wires, make: Callable[..., object], we_serve: bool) -> None:
    ours, writer, reader = hand_made_pair(we_serve=we_serve)
    wire = wires(make, we_serve=we_serve, ours=ours)
    wire.turn()
    if we_serve:
        received(wire.peer_socket)
    for turn in range(3):
        wire.peer_socket.sendall(writer.write(HANDSHAKE, KEY_UPDATE_ASKING))
        writer.update()
        wire.peer_socket.sendall(writer.write(DATA, b"up %d" % turn))
        wire.turn()
        assert wire.read() == b"up %d" % turn
        wire.write(b"down %d" % turn)
        contents = []
        for record in split_records(received(wire.peer_socket)):
            contents.append(reader.read(record))
            if contents[-1][0] == HANDSHAKE:
                reader.update()
        assert contents == [(HANDSHAKE, KEY_UPDATE), (DATA, b"down %d" % turn)]


def test_records_without_data_end_nothing(wires: Wires) -> None:
    ours, writer, _reader = hand_made_pair()
    wire = wires(tcp_pair, ours=ours)
    for _ in range(5):
        wire.peer_socket.sendall(writer.write(DATA, b"", padding=9))
        wire.turn()
    wire.peer_socket.sendall(writer.write(DATA, b"") + writer.write(DATA, b"data") + writer.write(DATA, b""))
    wire.turn()
    assert wire.read() == b"data"
    assert wire.close_reason is None


# -- limits


def half_closed(wires: Wires, close_timeout: float, who: str) -> Wire:
    wire = wires(tcp_pair, close_timeout=close_timeout)
    wire.turn()
    if who == "program":
        wire.program.shutdown(socket.SHUT_WR)
    else:
        wire.peer_socket.sendall(wire.peer.end.close_notify())
    wire.turn()
    return wire


BOTH_SIDES = pytest.mark.parametrize("who", ["program", "peer"])


@BOTH_SIDES
def test_silence_after_half_close_has_a_limit(wires: Wires, who: str) -> None:
    wire = half_closed(wires, 10, who)
    wire.later(9.9)
    assert wire.close_reason is None
    wire.later(0.2)
    assert wire.close_reason is CloseReason.CLOSE_TIMEOUT
    assert wire.ended[0][1] == "no activity for 10s after half-close"
    if who == "program":
        assert is_reset(wire.program), "what was cut is no end"
    else:
        received(wire.peer_socket)
        assert not wire.peer.end.has_ended, "the peer tells a cut by the close_notify that it lacks"


@BOTH_SIDES
def test_traffic_after_half_close_goes_on_for_as_long_as_it_likes(wires: Wires, who: str) -> None:
    wire = half_closed(wires, 10, who)
    for number in range(10):
        wire.later(9)
        if who == "program":
            wire.peer_send(b"%d" % number)
            assert wire.read() == b"%d" % number
        else:
            wire.write(b"%d" % number)
            assert wire.peer_receive() == b"%d" % number
    assert wire.close_reason is None
    wire.later(9)
    assert wire.close_reason is None
    wire.later(1.1)
    assert wire.close_reason is CloseReason.CLOSE_TIMEOUT


def test_a_slow_reader_after_half_close_is_no_silence(wires: Wires) -> None:
    wire = wires(narrow_unix_pair, close_timeout=10)
    wire.peer_socket.sendall(wire.peer.end.close_notify())
    wire.turn()
    sent = 0
    while count := _send(wire.program, payload(65536)):
        sent += count
        wire.turn()
    assert wire.relay._unsent_tls, "it waits for room"
    got = 0
    for _ in range(3):
        wire.later(6)
        assert wire.close_reason is None, "what waited has moved"
        got += len(wire.peer.open(_take(wire.peer_socket, 8192)))
        wire.turn()
    assert got == sent


@BOTH_SIDES
def test_a_close_timeout_of_zero_closes_at_once(wires: Wires, who: str) -> None:
    wire = half_closed(wires, 0, who)
    assert wire.close_reason is CloseReason.CLOSE_TIMEOUT


def test_without_a_half_close_silence_has_no_limit(wires: Wires) -> None:
    wire = wires(close_timeout=1)
    for _ in range(3):
        wire.later(100_000)
    wire.peer_send(b"still there")
    assert wire.read() == b"still there"


# -- memory


def test_memory_is_given_back_when_a_burst_is_over_and_not_before(wires: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = wires()
    renewed: list[float] = []
    monkeypatch.setattr(wire.relay, "_end", CountingEnd(wire.relay._end, renewed, wire.clock), raising=True)
    wire.peer_send(b"small")
    assert wire.trim_requests == 0, "small messages leave nothing behind"
    for number in range(3):
        wire.peer_send(payload(100_000))
        wire.read()
        wire.later(0.9)
        assert wire.trim_requests == 1, f"told once, {number}"
    assert renewed == []
    wire.later(1.1)
    wire.later(1.1)
    assert len(renewed) == 1
    assert not wire.loop._timers, "no timer while there is nothing to give back"
    wire.write(payload(100_000))
    wire.peer_receive()
    assert wire.trim_requests == 2, "the next burst starts again"
    wire.peer_send(b"and the connection works")
    assert wire.read().endswith(b"and the connection works")
    wire.later(1.1)
    wire.later(1.1)
    wire.later(1.1)
    assert len(renewed) == 2
    wire.peer_send(b"and still works")
    assert wire.read() == b"and still works"


class CountingEnd:
    """A TLS end that counts calls of `renew`."""

    def __init__(self, end: object, renewed: list[float], clock: Callable[[], float]) -> None:
        self._inner, self._renewed, self._clock = end, renewed, clock

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def renew(self) -> None:
        self._renewed.append(self._clock())
        self._inner.renew()  # type: ignore[attr-defined]


def test_memory_of_an_ended_relay_is_left_alone(wires: Wires) -> None:
    wire = wires()
    wire.peer_send(payload(100_000))
    assert wire.trim_requests == 1
    wire.relay.abort(CloseReason.SHUTDOWN)
    wire.later(5)
    assert not wire.loop._timers


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
def test_a_relay_works_after_its_memory_was_renewed_in_the_middle_of_a_record(wires: Wires, version: int) -> None:
    wire = wires(tcp_pair, version=version)
    record = wire.peer.seal(b"cut by a renewal")
    wire.peer_socket.sendall(record[:10])
    wire.turn()
    wire.relay.trim_buffers()
    wire.peer_socket.sendall(record[10:])
    wire.turn()
    assert wire.read() == b"cut by a renewal"


def test_a_program_that_reads_nothing_more_is_cut_when_the_peer_has_ended(wires: Wires) -> None:
    """The peer's EOF waits behind data that the program does not read: the close timeout applies."""
    wire = wires(unix_pair, close_timeout=60.0)
    wire.plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    wire.peer_socket.sendall(wire.peer.seal(bytes(60_000)) + wire.peer.end.close_notify())
    wire.turn()
    assert wire.read(), "a part of it was taken"
    wire.turn()
    wire.later(59)
    assert wire.close_reason is None, "what moves is not silent"
    wire.later(2)
    assert wire.close_reason is CloseReason.CLOSE_TIMEOUT
