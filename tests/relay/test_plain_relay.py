"""A plain client's bytes and EOF are forwarded completely and in order, and a cut stream ends in a reset."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.support.socket_pairs import MAKERS, Clock, is_over, is_reset, narrow_unix_pair, received, tcp_pair, unix_pair
from tunnel.authz.authorizer import permit_plaintext
from tunnel.relay.close_reason import CloseReason
from tunnel.relay.linger import reset
from tunnel.relay.loop import Loop
from tunnel.relay.plain_relay import PlainRelay
from tunnel.tls.records import Buffers

Pair = tuple[socket.socket, socket.socket]
EVERYWHERE = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
BOTH_FAMILIES = pytest.mark.parametrize("make", [unix_pair, tcp_pair], ids=["unix", "tcp"])
BOTH_SIDES = pytest.mark.parametrize("who", ["client", "target"])


class PlainWire:
    """A plain relay with a program on each side, whose turns and clock the test controls."""

    def __init__(self, make: Callable[[], Pair] = tcp_pair, *, close_timeout: float = 60.0) -> None:
        self.clock = Clock()
        self.loop = Loop(self.clock)
        self.ended: list[tuple[CloseReason, str]] = []
        self.accepted, self.client = make()
        self.dialled, self.target = make()
        self.relay = PlainRelay(
            self.loop,
            self,
            permit_plaintext(),
            self.accepted,
            self.dialled,
            buffers=Buffers(),
            close_timeout=close_timeout,
        )

    def relay_ended(self, reason: CloseReason, detail: str) -> None:
        self.ended.append((reason, detail))

    def relay_needs_trim(self) -> None:
        raise AssertionError("there are no buffers of OpenSSL")

    def crashed(self, crash: Exception) -> None:
        raise crash

    def ends(self, who: str) -> Pair:
        """The named program and the other one."""
        return (self.client, self.target) if who == "client" else (self.target, self.client)

    def turn(self, times: int = 4) -> None:
        for _ in range(times):
            self.loop.turn(0)

    def later(self, seconds: float) -> None:
        self.clock.now += seconds
        self.turn()

    def send(self, sock: socket.socket, data: bytes) -> None:
        sock.sendall(data)
        self.turn()

    @property
    def close_reason(self) -> CloseReason | None:
        assert len(self.ended) <= 1, "the end is reported once"
        return self.ended[0][0] if self.ended else None

    def close(self) -> None:
        self.relay.abort(CloseReason.SHUTDOWN)
        self.later(1000)  # for those that linger
        self.loop.close()
        for sock in (self.client, self.target, self.accepted, self.dialled):
            sock.close()


PlainWires = Callable[..., PlainWire]


@pytest.fixture
def plain_wires() -> Iterator[PlainWires]:
    made: list[PlainWire] = []

    def make(*args: object, is_started: bool = True, **fields: object) -> PlainWire:
        made.append(PlainWire(*args, **fields))  # type: ignore[arg-type]
        if is_started:
            made[-1].relay.start()
            made[-1].turn()
        return made[-1]

    yield make
    for wire in made:
        wire.close()


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


def fill(wire: PlainWire, sock: socket.socket) -> int:
    """Send until nothing more is accepted; return the number of bytes."""
    sent = 0
    while count := _send(sock, bytes(65536)):
        sent += count
        wire.turn()
    return sent


def becomes_reset(wire: PlainWire, sock: socket.socket) -> bool:
    """Whether the connection is reset once the kernel has acknowledged all bytes, which may take some milliseconds."""
    for _ in range(500):
        if is_reset(sock):
            return True
        wire.clock.now += 0.2
        wire.loop.turn(0.01)
    return False


# -- bytes


@EVERYWHERE
@pytest.mark.parametrize("seed", range(3))
def test_bytes_pass_both_ways_unchanged_however_they_are_cut(
    plain_wires: PlainWires, make: Callable[[], Pair], seed: int
) -> None:
    wire, dice = plain_wires(make), random.Random(seed)
    sizes = [1, 64, 4096, 20_000, 262_144, 300_000]
    to_send = {wire.client: dice.randbytes(700_000 + seed), wire.target: dice.randbytes(500_000)}
    wanted = {wire.target: to_send[wire.client], wire.client: to_send[wire.target]}
    got = {sock: bytearray() for sock in wanted}
    for _ in range(200_000):
        for sock in got:
            to_send[sock] = to_send[sock][_send(sock, to_send[sock][: dice.choice(sizes)]) :]
        wire.loop.turn(0)
        for sock in got:
            got[sock] += _take(sock, dice.choice(sizes))
        if all(len(got[sock]) == len(wanted[sock]) for sock in got):
            break
    assert got == wanted
    assert (wire.relay.up, wire.relay.down) == (700_000 + seed, 500_000)


@EVERYWHERE
@BOTH_SIDES
def test_what_was_there_before_the_relay_is_forwarded_with_its_end(
    plain_wires: PlainWires, make: Callable[[], Pair], who: str
) -> None:
    wire = plain_wires(make, is_started=False)
    one, other = wire.ends(who)
    for sock in (wire.accepted, wire.dialled):
        wire.loop.watch(sock, lambda events: None, wire)  # an earlier step has taken the events
    one.sendall(b"early")
    one.shutdown(socket.SHUT_WR)
    wire.turn()
    wire.relay.start()
    wire.turn(8)
    assert received(other) == b"early"
    assert is_over(other)


# -- backpressure


@BOTH_SIDES
@pytest.mark.parametrize("make", [narrow_unix_pair, lambda: tcp_pair(4096)], ids=["unix", "tcp"])
def test_a_reader_that_does_not_read_stops_its_source_only(plain_wires: PlainWires, make: Callable[[], Pair], who: str) -> None:
    wire = plain_wires(make)
    one, other = wire.ends(who)
    sent = fill(wire, one)
    assert sent < 2_000_000
    assert max(len(wire.relay._client.unsent), len(wire.relay._target.unsent)) <= 256 * 1024
    wire.send(other, b"the other way")
    assert received(one) == b"the other way"
    got = 0
    for _ in range(10_000):
        got += len(_take(other, 65536))
        wire.turn()
        if got == sent:
            break
    assert got == sent


# -- the end


@EVERYWHERE
@BOTH_SIDES
def test_a_fin_is_forwarded_and_the_other_direction_goes_on(
    plain_wires: PlainWires, make: Callable[[], Pair], who: str
) -> None:
    wire = plain_wires(make)
    one, other = wire.ends(who)
    wire.send(one, b"request")
    one.shutdown(socket.SHUT_WR)
    wire.turn()
    assert received(other) == b"request"
    assert is_over(other)
    wire.send(other, b"response")
    assert received(one) == b"response"
    other.close()
    wire.turn()
    assert is_over(one)
    assert wire.ended == [(CloseReason.CLOSED, "")]


@BOTH_SIDES
def test_a_fin_comes_after_all_data_before_it(plain_wires: PlainWires, who: str) -> None:
    wire = plain_wires(lambda: tcp_pair(4096))
    one, other = wire.ends(who)
    sent = fill(wire, one)
    one.shutdown(socket.SHUT_WR)
    got = 0
    for _ in range(10_000):
        piece = _take(other, 4096)
        got += len(piece)
        wire.turn()
        if got == sent:
            break
    assert got == sent
    wire.turn()
    assert is_over(other)
    assert wire.close_reason is None


@BOTH_SIDES
def test_a_reset_is_forwarded_as_a_reset_after_the_bytes_before_it(plain_wires: PlainWires, who: str) -> None:
    wire = plain_wires()
    one, other = wire.ends(who)
    wire.send(one, b"some bytes")
    reset(one)
    one.close()
    wire.turn()
    assert other.recv(100) == b"some bytes"
    assert becomes_reset(wire, other)
    assert wire.close_reason is (CloseReason.RESET_BY_PEER if who == "client" else CloseReason.RESET_BY_PLAIN)


@BOTH_SIDES
def test_after_a_reset_bytes_wait_for_a_slow_reader(plain_wires: PlainWires, who: str) -> None:
    wire = plain_wires(lambda: tcp_pair(4096))
    one, other = wire.ends(who)
    fill(wire, one)
    wire.send(other, b"unread, so that closing sends a reset")
    one.close()
    wire.turn()
    assert wire.close_reason is None
    for _ in range(10_000):
        try:
            other.recv(4096)
        except BlockingIOError:
            wire.later(0.2)
        except ConnectionResetError:
            break
    else:
        pytest.fail("the reader must see that the stream was cut")
    assert wire.close_reason is not None


@BOTH_SIDES
def test_the_last_bytes_of_a_side_that_reads_no_more_are_forwarded(plain_wires: PlainWires, who: str) -> None:
    wire = plain_wires()
    one, other = wire.ends(who)
    wire.send(other, b"never read")
    one.sendall(b"too large")
    one.close()  # with unread input: a reset
    wire.send(other, b"the rest")
    assert received_before_reset(other) == b"too large"
    wire.later(1)
    assert wire.close_reason in (CloseReason.RESET_BY_PEER, CloseReason.RESET_BY_PLAIN)


def received_before_reset(sock: socket.socket) -> bytes:
    try:
        return sock.recv(4096)
    except BlockingIOError:
        return b""


@BOTH_SIDES
def test_a_side_that_has_closed_entirely_is_noticed_at_the_next_data(plain_wires: PlainWires, who: str) -> None:
    wire = plain_wires()
    one, other = wire.ends(who)
    one.close()
    wire.turn()
    assert wire.close_reason is None, "it may only have shut down its own direction"
    for _ in range(3):
        if wire.close_reason is None:
            wire.send(other, b"is anything there?")
    assert wire.close_reason in (CloseReason.RESET_BY_PEER, CloseReason.RESET_BY_PLAIN)
    assert is_over(other), "its own stream was complete"


@BOTH_FAMILIES
def test_an_abort_gives_neither_side_a_normal_end(plain_wires: PlainWires, make: Callable[[], Pair]) -> None:
    for reason in (CloseReason.SHUTDOWN, CloseReason.LIFETIME):
        wire = plain_wires(make)
        wire.relay.abort(reason, "why")
        wire.relay.abort(reason, "again")
        wire.later(1)
        assert wire.ended == [(reason, "why")]
        if make is tcp_pair:
            assert becomes_reset(wire, wire.client)
            assert becomes_reset(wire, wire.target)


def test_an_abort_after_a_half_close_cuts_the_other_direction(plain_wires: PlainWires) -> None:
    wire = plain_wires()
    wire.client.shutdown(socket.SHUT_WR)
    wire.turn()
    wire.relay.abort(CloseReason.LIFETIME)
    wire.later(1)
    assert becomes_reset(wire, wire.client)


# -- time limits


@BOTH_SIDES
def test_silence_after_a_half_close_has_a_limit(plain_wires: PlainWires, who: str) -> None:
    wire = plain_wires(close_timeout=10)
    one, other = wire.ends(who)
    one.shutdown(socket.SHUT_WR)
    wire.turn()
    wire.later(9)
    wire.send(other, b"still there")
    wire.later(9.9)
    assert wire.close_reason is None
    wire.later(0.2)
    assert wire.ended == [(CloseReason.CLOSE_TIMEOUT, "no activity for 10s after half-close")]
    assert one.recv(100) == b"still there"
    assert becomes_reset(wire, one), "the stream to it was cut"
    assert is_over(other), "the stream to it was complete"


@BOTH_SIDES
def test_a_close_timeout_of_zero_closes_at_the_first_end(plain_wires: PlainWires, who: str) -> None:
    wire = plain_wires(close_timeout=0)
    wire.ends(who)[0].shutdown(socket.SHUT_WR)
    wire.turn()
    assert wire.close_reason is CloseReason.CLOSE_TIMEOUT


def test_a_slow_reader_after_a_half_close_is_no_silence(plain_wires: PlainWires) -> None:
    wire = plain_wires(narrow_unix_pair, close_timeout=10)
    wire.client.shutdown(socket.SHUT_WR)
    wire.turn()
    sent, got = fill(wire, wire.target), 0
    for _ in range(3):
        wire.later(6)
        assert wire.close_reason is None
        got += len(_take(wire.client, 8192))
        wire.turn()
    assert got <= sent


def test_without_an_end_silence_has_no_limit(plain_wires: PlainWires) -> None:
    wire = plain_wires(close_timeout=1)
    wire.later(100_000)
    wire.send(wire.client, b"still there")
    assert received(wire.target) == b"still there"


def test_a_side_that_hung_up_while_its_bytes_wait_has_a_limit(plain_wires: PlainWires) -> None:
    wire = plain_wires(narrow_unix_pair, close_timeout=10)
    fill(wire, wire.client)
    wire.client.close()
    wire.turn()
    wire.later(10.1)
    assert wire.close_reason is not None


@BOTH_SIDES
def test_a_side_that_is_gone_when_the_end_is_forwarded_ends_the_relay(plain_wires: PlainWires, who: str) -> None:
    wire = plain_wires(is_started=False)
    one, other = wire.ends(who)
    reset(other)
    other.close()
    one.shutdown(socket.SHUT_WR)
    wire.relay.start()
    wire.turn()
    assert wire.close_reason in (CloseReason.RESET_BY_PEER, CloseReason.RESET_BY_PLAIN)


@BOTH_SIDES
def test_bytes_that_wait_for_a_side_that_closes_are_dropped(plain_wires: PlainWires, who: str) -> None:
    wire = plain_wires(narrow_unix_pair)
    one, other = wire.ends(who)
    fill(wire, one)
    other.close()
    wire.turn()
    assert wire.close_reason in (CloseReason.RESET_BY_PEER, CloseReason.RESET_BY_PLAIN)


def test_no_descriptor_is_watched_after_the_end(plain_wires: PlainWires) -> None:
    wire = plain_wires()
    wire.client.close()
    wire.target.close()
    wire.turn()
    assert wire.close_reason is CloseReason.CLOSED
    assert wire.loop._owners == {}
