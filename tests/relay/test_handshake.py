"""Handshakes over sockets with short reads and writes or an early EOF, and delivery of the last bytes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.support.cert_factory import key_of
from tests.support.socket_pairs import Clock, is_over, is_reset, narrow_unix_pair, received, tcp_pair, unix_pair
from tests.support.tls_ends import (
    TLS12,
    TLS13,
    VERSIONS,
    Side,
    admission,
    admit_all,
    as_public,
    context,
    identity,
    lasting_authority,
)
from tunnel.authz.authorizer import Admitted
from tunnel.errors import Denial, PeerDenied, TlsError, TlsFault
from tunnel.relay.handshake import Handshake, HandshakeResult
from tunnel.relay.handshake_slots import HandshakeSlots, HandshakeTurns
from tunnel.relay.linger import Linger
from tunnel.relay.loop import Loop
from tunnel.relay.step import ClosedWithoutData
from tunnel.tls.context import Presented, TlsContext
from tunnel.tls.engine import TlsEnd
from tunnel.tls.peer_auth import PeerAuth
from tunnel.tls.records import Buffers

WHO = identity(middles=3)  # whose chain makes a flight of some kilobytes
CONTEXTS = {
    (is_server, version): context(WHO, admit_all, is_server=is_server, version=version)
    for is_server in (True, False)
    for version in (TLS12, TLS13)
}
BOTH_VERSIONS = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
BOTH_ROLES = pytest.mark.parametrize("we_serve", [True, False], ids=["server", "client"])
Pair = tuple[socket.socket, socket.socket]


class Exchange:
    """Our handshake on one end of a connection, and a peer on the other."""

    def __init__(self, pair: Pair, *, we_serve: bool = True, version: int = TLS13, ours: object = None) -> None:
        self.loop = Loop(Clock())
        self.near, self.far = pair
        self.buffers = Buffers()
        self.outcome: list[HandshakeResult | TlsError | PeerDenied | str] = []
        self.final_data = b""
        self.peer = Side(CONTEXTS[not we_serve, version])
        made = ours or CONTEXTS[we_serve, version]
        open_end = partial(made.open_end, self.buffers)  # type: ignore[attr-defined]
        self.handshake = Handshake(
            HandshakeSlots(HandshakeTurns(self.loop), self.buffers), self, self.near, open_end, is_server=we_serve
        )
        self.handshake.start()

    def step_done(self, result: object) -> None:
        assert isinstance(result, HandshakeResult)
        self.outcome.append(result)
        self.loop.rewatch(self.near, lambda _events: None, self)

    def step_failed(self, error: Exception, final_data: bytes = b"") -> None:
        assert isinstance(error, TlsError | PeerDenied | ClosedWithoutData)
        self.outcome.append("closed without data" if isinstance(error, ClosedWithoutData) else error)
        self.final_data = final_data
        self.loop.unwatch(self.near)

    def crashed(self, crash: Exception) -> None:
        raise crash

    def turn(self, times: int = 4) -> None:
        for _ in range(times):
            self.loop.turn(0)

    def exchange(self, size: int = 1 << 20) -> None:
        """Exchange flights in pieces of `size` bytes until neither side has more."""
        flight = b"" if self.peer.is_server else self.peer.shake()
        for _ in range(20):
            for at in range(0, len(flight), size):
                self.far.sendall(flight[at : at + size])
                self.turn(2)
            self.turn()
            flight = self.peer.shake(received(self.far))

    @property
    def result(self) -> HandshakeResult:
        (only,) = self.outcome
        assert isinstance(only, HandshakeResult), only
        return only

    def fault(self) -> TlsFault | Denial:
        (only,) = self.outcome
        assert isinstance(only, TlsError | PeerDenied), only
        return only.reason

    def close(self) -> None:
        self.loop.close()
        self.near.close()
        self.far.close()


Exchanges = Callable[..., Exchange]


@pytest.fixture
def exchanges() -> Iterator[Exchanges]:
    made: list[Exchange] = []

    def make(pair: Pair, **fields: object) -> Exchange:
        made.append(Exchange(pair, **fields))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for exchange in made:
        exchange.close()


@BOTH_VERSIONS
@BOTH_ROLES
@pytest.mark.parametrize("size", [1 << 20, 100, 1], ids=["whole", "cut", "byte by byte"])
@pytest.mark.parametrize("make", [unix_pair, tcp_pair], ids=["unix", "tcp"])
def test_both_sides_are_done(exchanges: Exchanges, make: Callable[[], Pair], size: int, we_serve: bool, version: int) -> None:
    exchange = exchanges(make(), we_serve=we_serve, version=version)
    exchange.exchange(size)
    assert exchange.peer.is_done
    assert exchange.result.end.version() == {TLS12: "TLSv1.2", TLS13: "TLSv1.3"}[version]
    assert exchange.result.unsent == b""


@BOTH_VERSIONS
@BOTH_ROLES
def test_a_flight_that_finds_no_room_goes_on_when_there_is_some(exchanges: Exchanges, we_serve: bool, version: int) -> None:
    near, far = narrow_unix_pair()
    filled = 0
    while True:  # no room at all at first
        try:
            filled += near.send(b"#" * 100)
        except BlockingIOError:
            break
    exchange = exchanges((near, far), we_serve=we_serve, version=version)
    if we_serve:
        far.sendall(exchange.peer.shake())
    exchange.turn()
    junk = b""
    while len(junk) < filled:
        junk += far.recv(min(100, filled - len(junk)))
        exchange.turn()
    flight = b""
    for _ in range(50):
        flight = exchange.peer.shake(received(far))
        if flight:
            far.sendall(flight)
        exchange.turn()
    assert exchange.peer.is_done
    assert exchange.result.admitted is not None


def test_what_comes_behind_the_handshake_is_handed_on_with_it(exchanges: Exchanges) -> None:
    exchange = exchanges(unix_pair())
    exchange.far.sendall(exchange.peer.shake())
    exchange.turn()
    finished = exchange.peer.shake(received(exchange.far))
    records = exchange.peer.seal(b"early") + exchange.peer.seal(b"and a part")
    exchange.far.sendall(finished + records[:-3])
    exchange.turn()
    assert exchange.result.tail == records[:-3]


@BOTH_VERSIONS
@pytest.mark.parametrize("make", [unix_pair, tcp_pair], ids=["unix", "tcp"])
def test_a_flight_in_records_of_one_byte_is_taken_over_some_turns(
    exchanges: Exchanges, make: Callable[[], Pair], version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events meanwhile are not lost, and do not cause more work in this turn."""
    records: list[int] = []  # by turn
    handshake = TlsEnd.handshake

    def counted(end: TlsEnd, size: int) -> bool:
        before = end._idle
        is_done = handshake(end, size)
        records[-1] += end._idle - before
        return is_done

    exchange = exchanges(make(), version=version)
    hello = exchange.peer.shake()[5:]
    stream = b"".join(b"\x16\x03\x01\x00\x01" + hello[at : at + 1] for at in range(len(hello)))
    exchange.far.sendall(stream[:-60])
    monkeypatch.setattr(TlsEnd, "handshake", counted)
    for at in range(10):
        records.append(0)
        exchange.far.sendall(stream[len(stream) - 60 + 6 * at :][:6])
        exchange.loop.turn(0)
    for _ in range(200):
        records.append(0)
        exchange.loop.turn(0)
    assert max(records) <= 64
    assert sum(records) == len(hello)
    monkeypatch.undo()
    flight = exchange.peer.shake(received(exchange.far))
    for _ in range(5):
        exchange.far.sendall(flight)
        exchange.turn()
        flight = exchange.peer.shake(received(exchange.far))
    assert exchange.peer.is_done
    assert exchange.result.admitted is not None


def test_a_client_that_closes_or_resets_without_data_is_closed_without_data(exchanges: Exchanges) -> None:
    for is_cut in (False, True):
        exchange = exchanges(tcp_pair())
        if is_cut:
            exchange.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        exchange.far.close()
        exchange.turn()
        assert exchange.outcome == ["closed without data"]


@pytest.mark.parametrize(("is_cut", "fault"), [(False, TlsFault.CLOSED), (True, TlsFault.RESET)])
def test_a_peer_that_closes_or_resets_in_the_handshake_has_failed(exchanges: Exchanges, is_cut: bool, fault: TlsFault) -> None:
    exchange = exchanges(tcp_pair())
    exchange.far.sendall(exchange.peer.shake()[:50])
    exchange.turn()
    if is_cut:
        exchange.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    exchange.far.close()
    exchange.turn()
    assert exchange.fault() is fault


def test_data_that_is_not_tls_fails_at_once(exchanges: Exchanges) -> None:
    exchange = exchanges(unix_pair())
    exchange.far.sendall(b"GET / HTTP/1.1\r\n\r\n")
    exchange.turn()
    assert exchange.fault() is TlsFault.PROTOCOL


@BOTH_VERSIONS
@BOTH_ROLES
def test_a_refused_peer_gets_an_alert(exchanges: Exchanges, we_serve: bool, version: int) -> None:
    other = admission(lasting_authority(key=key_of("p256", 11)))
    exchange = exchanges(
        unix_pair(), we_serve=we_serve, version=version, ours=context(WHO, other, is_server=we_serve, version=version)
    )
    exchange.exchange()
    assert exchange.fault() is Denial.UNKNOWN_AUTHORITY
    hear = exchange.peer.open if exchange.peer.is_done else exchange.peer.shake
    with pytest.raises(TlsError) as heard:
        hear(exchange.final_data)
    assert heard.value.alert == (48 if we_serve else 42)


# -- the last bytes


class LingeringSocket:
    """A socket of ours that lingers."""

    def __init__(self, pair: Pair, final_data: bytes) -> None:
        self.clock = Clock()
        self.loop = Loop(self.clock)
        self.near, self.far = pair
        Linger(self.loop, self.near, final_data, memoryview(bytearray(4096)))

    def turn(self) -> None:
        for _ in range(4):
            self.loop.turn(0)


@pytest.fixture
def lingering() -> Iterator[LingeringSocket]:
    made = LingeringSocket(tcp_pair(), b"last bytes")
    yield made
    made.clock.now += 100
    made.turn()
    made.loop.close()
    made.far.close()


def test_the_last_bytes_arrive_although_the_peer_still_sends(lingering: LingeringSocket) -> None:
    for _ in range(20):
        lingering.far.send(b"more and more" * 1000)
        lingering.turn()
    assert lingering.far.recv(100) == b"last bytes"
    assert is_over(lingering.far)
    assert not is_reset(lingering.far)


def test_a_peer_that_has_closed_is_closed_at_once(lingering: LingeringSocket) -> None:
    lingering.turn()
    assert lingering.near.fileno() >= 0
    lingering.far.close()
    lingering.turn()
    assert lingering.near.fileno() == -1


def test_a_peer_that_does_not_close_is_closed_after_a_second(lingering: LingeringSocket) -> None:
    lingering.clock.now += 0.9
    lingering.far.send(b"more")
    lingering.turn()
    assert lingering.near.fileno() >= 0
    lingering.clock.now += 0.2
    lingering.turn()
    assert lingering.near.fileno() == -1
    assert not lingering.loop._owners


def test_a_linger_without_a_peer_ends_at_once() -> None:
    near, far = tcp_pair()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    far.close()
    gone = LingeringSocket((near, far), b"hello?")
    gone.turn()
    assert near.fileno() == -1
    gone.loop.close()


# -- a slow admission


class SlowAdmission:
    """An admission that waits until the test releases it."""

    def __init__(self, *, admits: bool = True) -> None:
        self._admits = admits
        self.asked = threading.Event()
        self.may_answer = threading.Event()

    def __call__(self, digest: bytes, path: Callable[[], tuple[bytes, ...]], source: str) -> Admitted:
        self.asked.set()
        assert self.may_answer.wait(60)
        if not self._admits:
            raise PeerDenied(Denial.NO_RULE, "not you")
        return admit_all(digest, path, source)

    def context(self, *, is_server: bool, version: int) -> TlsContext:
        made = TlsContext(Presented(WHO.chain, WHO.leaf.key), PeerAuth(self, is_slow=True), is_server=is_server)
        as_public(made).set_max_proto_version(version)
        return made


def until(exchange: Exchange, is_so: Callable[[], bool]) -> None:
    """Run turns until the condition holds: a thread is working, which the fake clock does not control."""
    for _ in range(6000):
        exchange.turn(1)
        if is_so():
            return
        time.sleep(0.01)
    raise AssertionError("not within a minute")


def carry(exchange: Exchange) -> None:
    """Process our bytes at the peer, and send its response."""
    answer = exchange.peer.shake(received(exchange.far)) if not exchange.peer.is_done else b""
    if answer:
        exchange.far.sendall(answer)


@BOTH_VERSIONS
@BOTH_ROLES
def test_a_slow_verdict_falls_inside_the_handshake_while_the_loop_turns(
    exchanges: Exchanges, we_serve: bool, version: int
) -> None:
    slow = SlowAdmission()
    exchange = exchanges(tcp_pair(), we_serve=we_serve, version=version, ours=slow.context(is_server=we_serve, version=version))
    if not exchange.peer.is_server:
        exchange.far.sendall(exchange.peer.shake())
    until(exchange, lambda: carry(exchange) or slow.asked.is_set())
    assert not exchange.outcome
    for _ in range(3):
        exchange.turn()  # the loop is free
    slow.may_answer.set()
    until(exchange, lambda: carry(exchange) or bool(exchange.outcome))
    assert exchange.result.admitted == admit_all(b"", tuple)


def test_the_result_tells_of_input_that_came_while_a_thread_worked(exchanges: Exchanges) -> None:
    slow = SlowAdmission()
    exchange = exchanges(tcp_pair(), ours=slow.context(is_server=True, version=TLS13))
    until(exchange, lambda: carry(exchange) or slow.asked.is_set())
    exchange.far.sendall(exchange.peer.seal(b"early"))
    exchange.turn()
    slow.may_answer.set()
    until(exchange, lambda: bool(exchange.outcome))
    (result,) = exchange.outcome
    assert isinstance(result, HandshakeResult)
    assert result.may_have_input


def test_the_result_tells_that_all_input_was_read(exchanges: Exchanges) -> None:
    exchange = exchanges(tcp_pair())
    exchange.exchange()
    (result,) = exchange.outcome
    assert isinstance(result, HandshakeResult)
    assert not result.may_have_input


@BOTH_VERSIONS
@BOTH_ROLES
def test_a_slow_refusal_is_an_alert_in_the_handshake(exchanges: Exchanges, we_serve: bool, version: int) -> None:
    slow = SlowAdmission(admits=False)
    slow.may_answer.set()
    exchange = exchanges(tcp_pair(), we_serve=we_serve, version=version, ours=slow.context(is_server=we_serve, version=version))
    if not exchange.peer.is_server:
        exchange.far.sendall(exchange.peer.shake())
    until(exchange, lambda: carry(exchange) or bool(exchange.outcome))
    assert exchange.fault() is Denial.NO_RULE
    with pytest.raises(TlsError) as heard:
        (exchange.peer.open if exchange.peer.is_done else exchange.peer.shake)(exchange.final_data)
    assert heard.value.alert == 42


def test_data_that_comes_while_a_verdict_is_awaited_is_kept(exchanges: Exchanges) -> None:
    slow = SlowAdmission()
    exchange = exchanges(tcp_pair(), ours=slow.context(is_server=True, version=TLS13))
    exchange.far.sendall(exchange.peer.shake())
    until(exchange, lambda: carry(exchange) or slow.asked.is_set())
    exchange.far.sendall(exchange.peer.seal(b"early"))
    exchange.turn()
    slow.may_answer.set()
    until(exchange, lambda: bool(exchange.outcome))
    exchange.turn()
    rest = exchange.result.tail + received(exchange.near)
    ours = Side.__new__(Side)
    ours.buffers, ours.end, ours.tail = exchange.buffers, exchange.result.end, b""
    assert ours.open(rest) == b"early"


def test_a_verdict_for_a_handshake_that_was_given_up_reaches_nobody(exchanges: Exchanges) -> None:
    slow = SlowAdmission()
    exchange = exchanges(tcp_pair(), ours=slow.context(is_server=True, version=TLS13))
    exchange.far.sendall(exchange.peer.shake())
    until(exchange, lambda: carry(exchange) or slow.asked.is_set())
    exchange.handshake.abandon()
    assert exchange.handshake.tls_end is None, "the thread uses it, and OpenSSL does not allow a second one"
    slow.may_answer.set()
    for _ in range(20):
        exchange.turn()
        time.sleep(0.01)
    assert exchange.outcome == []


def test_a_handshake_that_was_given_up_while_it_waited_for_a_thread_takes_none(
    exchanges: Exchanges, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a new handshake would wait for all abandoned ones."""
    monkeypatch.setattr("tunnel.relay.loop._THREADS", 1)
    exchange = exchanges(tcp_pair(), ours=SlowAdmission().context(is_server=True, version=TLS13))
    is_free, over = threading.Event(), []
    exchange.loop.call_in_thread(is_free.wait, over.append, exchange)
    exchange.far.sendall(exchange.peer.shake())
    exchange.turn()
    end = exchange.handshake._end
    exchange.handshake.abandon()
    exchange.loop.call_in_thread(bool, over.append, exchange)
    is_free.set()
    until(exchange, lambda: len(over) == 2)
    assert exchange.outcome == []
    assert end.take() == b"", "nothing was answered to the ClientHello"


def test_verdicts_of_one_context_do_not_mix(exchanges: Exchanges) -> None:
    """Two handshakes wait on their threads at once, and each gets its own result."""

    def odd(digest: bytes, path: Callable[[], tuple[bytes, ...]], source: str) -> Admitted:
        both.wait(60)
        (leaf, *_rest) = path()
        if leaf != first.der:
            raise PeerDenied(Denial.NO_RULE, "the other one")
        return admit_all(digest, path, source)

    both = threading.Barrier(2)
    ours = TlsContext(Presented(WHO.chain, WHO.leaf.key), PeerAuth(odd, is_slow=True), is_server=True)
    one, other = identity(), identity(uri="spiffe://a.test/other")
    first = one.leaf
    pair_of_bouts = []
    for who in (one, other):
        exchange = exchanges(tcp_pair(), ours=ours)
        exchange.peer = Side(context(who, admit_all, is_server=False))
        exchange.far.sendall(exchange.peer.shake())
        pair_of_bouts.append(exchange)

    def both_have_ended() -> bool:
        for exchange in pair_of_bouts:
            carry(exchange)
            exchange.turn(1)
        return all(exchange.outcome for exchange in pair_of_bouts)

    until(pair_of_bouts[0], both_have_ended)
    assert isinstance(pair_of_bouts[0].outcome[0], HandshakeResult)
    assert isinstance(pair_of_bouts[1].outcome[0], PeerDenied)
