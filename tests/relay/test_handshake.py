"""A handshake over a socket that gives little, takes little or ends, and last words that are heard."""

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
    context,
    identity,
    lasting_authority,
)
from tunnel.authz.authorizer import Admitted
from tunnel.errors import Denial, PeerDenied, TlsError, TlsFault
from tunnel.relay.handshake import Handshake, HandshakeResult
from tunnel.relay.handshake_slots import HandshakeSlots
from tunnel.relay.linger import Linger
from tunnel.relay.loop import Loop
from tunnel.relay.step import ClosedWithoutData
from tunnel.tls.context import Presented, TlsContext
from tunnel.tls.engine import Buffers, TlsEnd
from tunnel.tls.peer_auth import PeerAuth

WHO = identity(middles=3)  # whose chain makes a flight of some kilobytes
CONTEXTS = {
    (is_server, version): context(WHO, admit_all, is_server=is_server, version=version)
    for is_server in (True, False)
    for version in (TLS12, TLS13)
}
BOTH_VERSIONS = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
BOTH_ROLES = pytest.mark.parametrize("we_serve", [True, False], ids=["server", "client"])
Pair = tuple[socket.socket, socket.socket]


class Bout:
    """A handshake of ours on one end of a connection, and a peer on the other."""

    def __init__(self, pair: Pair, *, we_serve: bool = True, version: int = TLS13, ours: object = None) -> None:
        self.loop = Loop(Clock())
        self.near, self.far = pair
        self.buffers = Buffers()
        self.outcome: list[HandshakeResult | TlsError | PeerDenied | str] = []
        self.farewell = b""
        self.peer = Side(CONTEXTS[not we_serve, version])
        made = ours or CONTEXTS[we_serve, version]
        open_end = partial(made.open_end, self.buffers)  # type: ignore[attr-defined]
        self.handshake = Handshake(HandshakeSlots(self.loop, self.buffers), self, self.near, open_end, is_server=we_serve)
        self.handshake.start()

    def step_done(self, result: object) -> None:
        assert isinstance(result, HandshakeResult)
        self.outcome.append(result)
        self.loop.rewatch(self.near, lambda _events: None, self)

    def step_failed(self, error: Exception, farewell: bytes = b"") -> None:
        assert isinstance(error, TlsError | PeerDenied | ClosedWithoutData)
        self.outcome.append("silent" if isinstance(error, ClosedWithoutData) else error)
        self.farewell = farewell
        self.loop.unwatch(self.near)

    def crashed(self, crash: Exception) -> None:
        raise crash

    def turn(self, times: int = 4) -> None:
        for _ in range(times):
            self.loop.turn(0)

    def exchange(self, size: int = 1 << 20) -> None:
        """Carry flights in pieces of a size until nobody has anything to say."""
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


Bouts = Callable[..., Bout]


@pytest.fixture
def bouts() -> Iterator[Bouts]:
    made: list[Bout] = []

    def make(pair: Pair, **fields: object) -> Bout:
        made.append(Bout(pair, **fields))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for bout in made:
        bout.close()


@BOTH_VERSIONS
@BOTH_ROLES
@pytest.mark.parametrize("size", [1 << 20, 100, 1], ids=["whole", "cut", "byte by byte"])
@pytest.mark.parametrize("make", [unix_pair, tcp_pair], ids=["unix", "tcp"])
def test_both_sides_are_done(bouts: Bouts, make: Callable[[], Pair], size: int, we_serve: bool, version: int) -> None:
    bout = bouts(make(), we_serve=we_serve, version=version)
    bout.exchange(size)
    assert bout.peer.is_done
    assert bout.result.end.version() == {TLS12: "TLSv1.2", TLS13: "TLSv1.3"}[version]
    assert bout.result.unsent == b""


@BOTH_VERSIONS
@BOTH_ROLES
def test_a_flight_that_finds_no_room_goes_on_when_there_is_some(bouts: Bouts, we_serve: bool, version: int) -> None:
    near, far = narrow_unix_pair()
    filled = 0
    while True:  # no room at all at first
        try:
            filled += near.send(b"#" * 100)
        except BlockingIOError:
            break
    bout = bouts((near, far), we_serve=we_serve, version=version)
    if we_serve:
        far.sendall(bout.peer.shake())
    bout.turn()
    junk = b""
    while len(junk) < filled:
        junk += far.recv(min(100, filled - len(junk)))
        bout.turn()
    flight = b""
    for _ in range(50):
        flight = bout.peer.shake(received(far))
        if flight:
            far.sendall(flight)
        bout.turn()
    assert bout.peer.is_done
    assert bout.result.admitted is not None


def test_what_comes_behind_the_handshake_is_handed_on_with_it(bouts: Bouts) -> None:
    bout = bouts(unix_pair())
    bout.far.sendall(bout.peer.shake())
    bout.turn()
    finished = bout.peer.shake(received(bout.far))
    records = bout.peer.seal(b"early") + bout.peer.seal(b"and a part")
    bout.far.sendall(finished + records[:-3])
    bout.turn()
    assert bout.result.tail == records[:-3]


@BOTH_VERSIONS
@pytest.mark.parametrize("make", [unix_pair, tcp_pair], ids=["unix", "tcp"])
def test_a_flight_in_records_of_one_byte_is_taken_over_some_turns(
    bouts: Bouts, make: Callable[[], Pair], version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is announced meanwhile is neither forgotten nor a reason to handle more."""
    steps: list[int] = []
    step = TlsEnd._step

    def counted(end: TlsEnd) -> bool:
        steps[-1] += 1
        return step(end)

    bout = bouts(make(), version=version)
    hello = bout.peer.shake()[5:]
    stream = b"".join(b"\x16\x03\x01\x00\x01" + hello[at : at + 1] for at in range(len(hello)))
    bout.far.sendall(stream[:-60])
    monkeypatch.setattr(TlsEnd, "_step", counted)
    for at in range(10):
        steps.append(0)
        bout.far.sendall(stream[len(stream) - 60 + 6 * at :][:6])
        bout.loop.turn(0)
    for _ in range(200):
        steps.append(0)
        bout.loop.turn(0)
    assert max(steps) <= 64
    assert sum(steps) == len(hello)
    monkeypatch.undo()
    flight = bout.peer.shake(received(bout.far))
    for _ in range(5):
        bout.far.sendall(flight)
        bout.turn()
        flight = bout.peer.shake(received(bout.far))
    assert bout.peer.is_done
    assert bout.result.admitted is not None


def test_a_peer_that_goes_without_a_word_is_silent_however_it_goes(bouts: Bouts) -> None:
    for is_cut in (False, True):
        bout = bouts(tcp_pair())
        if is_cut:
            bout.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        bout.far.close()
        bout.turn()
        assert bout.outcome == ["silent"]


@pytest.mark.parametrize(("is_cut", "fault"), [(False, TlsFault.CLOSED), (True, TlsFault.RESET)])
def test_a_peer_that_goes_in_the_middle_has_failed(bouts: Bouts, is_cut: bool, fault: TlsFault) -> None:
    bout = bouts(tcp_pair())
    bout.far.sendall(bout.peer.shake()[:50])
    bout.turn()
    if is_cut:
        bout.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    bout.far.close()
    bout.turn()
    assert bout.fault() is fault


def test_noise_fails_at_once(bouts: Bouts) -> None:
    bout = bouts(unix_pair())
    bout.far.sendall(b"GET / HTTP/1.1\r\n\r\n")
    bout.turn()
    assert bout.fault() is TlsFault.PROTOCOL


@BOTH_VERSIONS
@BOTH_ROLES
def test_who_is_refused_hears_an_alert(bouts: Bouts, we_serve: bool, version: int) -> None:
    other = admission(lasting_authority(key=key_of("p256", 11)))
    bout = bouts(unix_pair(), we_serve=we_serve, version=version, ours=context(WHO, other, is_server=we_serve, version=version))
    bout.exchange()
    assert bout.fault() is Denial.UNKNOWN_AUTHORITY
    hear = bout.peer.open if bout.peer.is_done else bout.peer.shake
    with pytest.raises(TlsError) as heard:
        hear(bout.farewell)
    assert heard.value.alert == (48 if we_serve else 42)


# -- last words


class Leaving:
    """A socket of ours on its way out."""

    def __init__(self, pair: Pair, farewell: bytes) -> None:
        self.clock = Clock()
        self.loop = Loop(self.clock)
        self.near, self.far = pair
        Linger(self.loop, self.near, farewell, memoryview(bytearray(4096)))

    def turn(self) -> None:
        for _ in range(4):
            self.loop.turn(0)


@pytest.fixture
def leaving() -> Iterator[Leaving]:
    made = Leaving(tcp_pair(), b"last words")
    yield made
    made.clock.now += 100
    made.turn()
    made.loop.close()
    made.far.close()


def test_last_words_are_heard_though_more_is_being_said(leaving: Leaving) -> None:
    for _ in range(20):
        leaving.far.send(b"more and more" * 1000)
        leaving.turn()
    assert leaving.far.recv(100) == b"last words"
    assert is_over(leaving.far)
    assert not is_reset(leaving.far)


def test_who_has_heard_and_hung_up_is_let_go_at_once(leaving: Leaving) -> None:
    leaving.turn()
    assert leaving.near.fileno() >= 0
    leaving.far.close()
    leaving.turn()
    assert leaving.near.fileno() == -1


def test_who_does_not_hang_up_is_cut_after_a_second(leaving: Leaving) -> None:
    leaving.clock.now += 0.9
    leaving.far.send(b"more")
    leaving.turn()
    assert leaving.near.fileno() >= 0
    leaving.clock.now += 0.2
    leaving.turn()
    assert leaving.near.fileno() == -1
    assert not leaving.loop._owners


def test_last_words_to_nobody_end_at_once() -> None:
    near, far = tcp_pair()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    far.close()
    gone = Leaving((near, far), b"hello?")
    gone.turn()
    assert near.fileno() == -1
    gone.loop.close()


# -- a verdict that takes time


class SlowJudge:
    """A judge whose answers wait until the test lets them go."""

    def __init__(self, *, admits: bool = True) -> None:
        self._admits = admits
        self.asked = threading.Event()
        self.may_answer = threading.Event()

    def __call__(self, digest: bytes, path: Callable[[], tuple[bytes, ...]]) -> Admitted:
        self.asked.set()
        assert self.may_answer.wait(60)
        if not self._admits:
            raise PeerDenied(Denial.NO_RULE, "not you")
        return admit_all(digest, path)

    def context(self, *, is_server: bool, version: int) -> TlsContext:
        made = TlsContext(Presented(WHO.chain, WHO.leaf.key), PeerAuth(self, is_slow=True), is_server=is_server)
        made._peer_auth.context.set_max_proto_version(version)
        return made


def until(bout: Bout, is_so: Callable[[], bool]) -> None:
    """Turn the loop until something holds: a thread is at work, which no clock of ours drives."""
    for _ in range(6000):
        bout.turn(1)
        if is_so():
            return
        time.sleep(0.01)
    raise AssertionError("not within a minute")


def carry(bout: Bout) -> None:
    """One step of the peer's with what has come from us."""
    answer = bout.peer.shake(received(bout.far)) if not bout.peer.is_done else b""
    if answer:
        bout.far.sendall(answer)


@BOTH_VERSIONS
@BOTH_ROLES
def test_a_slow_verdict_falls_inside_the_handshake_while_the_loop_turns(bouts: Bouts, we_serve: bool, version: int) -> None:
    slow = SlowJudge()
    bout = bouts(tcp_pair(), we_serve=we_serve, version=version, ours=slow.context(is_server=we_serve, version=version))
    if not bout.peer.is_server:
        bout.far.sendall(bout.peer.shake())
    until(bout, lambda: carry(bout) or slow.asked.is_set())
    assert not bout.outcome
    for _ in range(3):
        bout.turn()  # the loop is free
    slow.may_answer.set()
    until(bout, lambda: carry(bout) or bool(bout.outcome))
    assert bout.result.admitted == admit_all(b"", tuple)


@BOTH_VERSIONS
@BOTH_ROLES
def test_a_slow_refusal_is_an_alert_in_the_handshake(bouts: Bouts, we_serve: bool, version: int) -> None:
    slow = SlowJudge(admits=False)
    slow.may_answer.set()
    bout = bouts(tcp_pair(), we_serve=we_serve, version=version, ours=slow.context(is_server=we_serve, version=version))
    if not bout.peer.is_server:
        bout.far.sendall(bout.peer.shake())
    until(bout, lambda: carry(bout) or bool(bout.outcome))
    assert bout.fault() is Denial.NO_RULE
    with pytest.raises(TlsError) as heard:
        (bout.peer.open if bout.peer.is_done else bout.peer.shake)(bout.farewell)
    assert heard.value.alert == 42


def test_data_that_comes_while_a_verdict_is_awaited_is_kept(bouts: Bouts) -> None:
    slow = SlowJudge()
    bout = bouts(tcp_pair(), ours=slow.context(is_server=True, version=TLS13))
    bout.far.sendall(bout.peer.shake())
    until(bout, lambda: carry(bout) or slow.asked.is_set())
    bout.far.sendall(bout.peer.seal(b"early"))
    bout.turn()
    slow.may_answer.set()
    until(bout, lambda: bool(bout.outcome))
    bout.turn()
    rest = bout.result.tail + received(bout.near)
    ours = Side.__new__(Side)
    ours.buffers, ours.end, ours.tail = bout.buffers, bout.result.end, b""
    assert ours.open(rest) == b"early"


def test_a_verdict_for_a_handshake_that_was_given_up_reaches_nobody(bouts: Bouts) -> None:
    slow = SlowJudge()
    bout = bouts(tcp_pair(), ours=slow.context(is_server=True, version=TLS13))
    bout.far.sendall(bout.peer.shake())
    until(bout, lambda: carry(bout) or slow.asked.is_set())
    bout.handshake.abandon()
    slow.may_answer.set()
    for _ in range(20):
        bout.turn()
        time.sleep(0.01)
    assert bout.outcome == []


def test_a_handshake_that_was_given_up_while_it_waited_for_a_thread_takes_none(
    bouts: Bouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever comes after a crowd that has given up would wait for all of it."""
    monkeypatch.setattr("tunnel.relay.loop._THREADS", 1)
    bout = bouts(tcp_pair(), ours=SlowJudge().context(is_server=True, version=TLS13))
    is_free, over = threading.Event(), []
    bout.loop.call_in_thread(is_free.wait, over.append, bout)
    bout.far.sendall(bout.peer.shake())
    bout.turn()
    end = bout.handshake._end
    bout.handshake.abandon()
    bout.loop.call_in_thread(bool, over.append, bout)
    is_free.set()
    until(bout, lambda: len(over) == 2)
    assert bout.outcome == []
    assert end.take() == b"", "nothing was answered to the ClientHello"


def test_verdicts_of_one_context_do_not_mix(bouts: Bouts) -> None:
    """Two handshakes wait at once on their threads, and each gets its own."""

    def odd(digest: bytes, path: Callable[[], tuple[bytes, ...]]) -> Admitted:
        both.wait(60)
        (leaf, *_rest) = path()
        if leaf != first.der:
            raise PeerDenied(Denial.NO_RULE, "the other one")
        return admit_all(digest, path)

    both = threading.Barrier(2)
    ours = TlsContext(Presented(WHO.chain, WHO.leaf.key), PeerAuth(odd, is_slow=True), is_server=True)
    one, other = identity(), identity(uri="spiffe://a.test/other")
    first = one.leaf
    pair_of_bouts = []
    for who in (one, other):
        bout = bouts(tcp_pair(), ours=ours)
        bout.peer = Side(context(who, admit_all, is_server=False))
        bout.far.sendall(bout.peer.shake())
        pair_of_bouts.append(bout)

    def both_have_ended() -> bool:
        for bout in pair_of_bouts:
            carry(bout)
            bout.turn(1)
        return all(bout.outcome for bout in pair_of_bouts)

    until(pair_of_bouts[0], both_have_ended)
    assert isinstance(pair_of_bouts[0].outcome[0], HandshakeResult)
    assert isinstance(pair_of_bouts[1].outcome[0], PeerDenied)
