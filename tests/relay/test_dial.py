"""A dial starts the next endpoint 250 ms after the last one, and takes the first that connects."""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.socket_pairs import Clock
from tunnel.errors import TargetError, TargetFault
from tunnel.net.race import ATTEMPT_DELAY, MAX_OPEN_ATTEMPTS, Attempt, interleave
from tunnel.net.sockets import SocketAddress
from tunnel.relay.dial import Dial
from tunnel.relay.loop import OUT, Loop


class Caller:
    """Who dials, with a clock that stands still."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.loop = Loop(self.clock)
        self.reached: list[tuple[socket.socket, SocketAddress]] = []
        self.failures: list[TargetError] = []
        self.crashes: list[Exception] = []
        self._sockets: list[socket.socket] = []
        self._queues: dict[object, socket.socket] = {}

    def step_done(self, result: object) -> None:
        assert isinstance(result, Attempt)
        self.reached.append((result.socket, result.endpoint))

    def step_failed(self, error: Exception, farewell: bytes = b"") -> None:
        assert isinstance(error, TargetError)
        self.failures.append(error)

    def crashed(self, crash: Exception) -> None:
        self.crashes.append(crash)

    def dial(self, *endpoints: SocketAddress) -> Dial:
        dial = Dial(self.loop, self, endpoints)
        dial.start()
        return dial

    def until_heard(self) -> None:
        """Turn until there is an outcome; loopback answers by itself."""
        for _ in range(100):
            if self.reached or self.failures:
                break
            self.loop.turn(1)
        assert not self.crashes, self.crashes

    def later(self, seconds: float) -> None:
        self.clock.now += seconds
        for _ in range(3):
            self.loop.turn(0)

    @property
    def attempts(self) -> int:
        """How many sockets the dial has open."""
        return len(self.loop._owners)

    @property
    def outcome(self) -> SocketAddress | TargetFault | None:
        assert len(self.reached) + len(self.failures) <= 1, "one outcome"
        if self.reached:
            return self.reached[0][1]
        return self.failures[0].reason if self.failures else None

    # -- endpoints

    def listening(self) -> SocketAddress:
        """One that answers."""
        return self._listen(8)

    def refusing(self) -> SocketAddress:
        """One where nobody listens."""
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        self._sockets.append(sock)  # bound, so that nobody else comes to listen there
        return SocketAddress(socket.AF_INET, sock.getsockname())

    def silent(self) -> SocketAddress:
        """One that does not answer: its queue is full."""
        endpoint = self._listen(0)
        self._queues[endpoint.address] = self._sockets[-1]
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(endpoint.address)
            self._sockets.append(filler)
        return endpoint

    def empty(self, silent: SocketAddress) -> None:
        """Accept what fills the queue of a silent endpoint, until the loop has an event."""
        listener = self._queues[silent.address]
        listener.settimeout(20)
        while not self.reached:  # the kernel sends SYN again after a second
            self._sockets.append(listener.accept()[0])
            self.loop.turn(0.1)

    def _listen(self, backlog: int) -> SocketAddress:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.listen(backlog)
        self._sockets.append(sock)
        return SocketAddress(socket.AF_INET, sock.getsockname())

    def close(self) -> None:
        for sock, _ in self.reached:
            self.loop.retire(sock)
        self.loop.turn(0)
        self.loop.close()
        for sock in self._sockets:
            sock.close()


@pytest.fixture
def caller() -> Iterator[Caller]:
    made = Caller()
    yield made
    made.close()


def test_the_first_endpoint_that_answers_is_taken(caller: Caller) -> None:
    first, second = caller.listening(), caller.listening()
    caller.dial(first, second)
    caller.until_heard()
    assert caller.outcome == first
    sock = caller.reached[0][0]
    assert sock.getpeername() == first.address
    assert not sock.getblocking()
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    caller.later(100)
    assert caller.outcome == first, "no deadline is left over"


def test_one_that_refuses_is_passed_over(caller: Caller) -> None:
    good = caller.listening()
    caller.dial(caller.refusing(), caller.refusing(), good, caller.refusing())
    caller.until_heard()
    assert caller.outcome == good


def test_when_all_refuse_the_last_ones_reason_is_told(caller: Caller) -> None:
    last = caller.refusing()
    caller.dial(caller.refusing(), last)
    caller.until_heard()
    assert caller.outcome is TargetFault.REFUSED
    assert str(caller.failures[0]) == f"{last}: connection refused"
    assert not caller.loop._owners, "every socket is given up"


def test_the_next_endpoint_is_tried_after_the_attempt_delay(caller: Caller) -> None:
    good = caller.listening()
    caller.dial(caller.silent(), caller.silent(), good)
    caller.later(ATTEMPT_DELAY - 0.01)
    assert caller.attempts == 1
    caller.later(0.02)
    assert caller.attempts == 2
    caller.later(ATTEMPT_DELAY - 0.02)
    assert caller.outcome is None
    caller.later(0.02)
    caller.until_heard()
    assert caller.outcome == good
    caller.later(0)
    assert caller.attempts == 1, "the others are closed"
    caller.later(100)
    assert caller.outcome == good, "no timer is left over"


def test_an_earlier_attempt_can_still_win(caller: Caller) -> None:
    slow = caller.silent()
    caller.dial(slow, caller.silent())
    caller.later(ATTEMPT_DELAY + 0.01)
    assert caller.attempts == 2
    caller.empty(slow)
    caller.until_heard()
    assert caller.outcome == slow


def test_a_failure_starts_the_next_attempt_at_once(caller: Caller) -> None:
    good = caller.listening()
    caller.dial(caller.silent(), caller.refusing(), caller.refusing(), good)
    caller.later(ATTEMPT_DELAY + 0.01)
    caller.until_heard()  # while the clock stands still
    assert caller.outcome == good


def test_the_last_attempt_has_the_callers_whole_time(caller: Caller) -> None:
    dial = caller.dial(caller.refusing(), caller.silent(), caller.silent())
    for _ in range(10):
        caller.later(100)
    assert caller.outcome is None, "the limit of the whole is the caller's"
    assert caller.attempts == 2
    dial.abandon()
    assert not caller.loop._owners


def test_open_attempts_are_bounded(caller: Caller) -> None:
    silent, good = caller.silent(), caller.listening()
    caller.dial(*[silent] * (MAX_OPEN_ATTEMPTS + 3), good)
    for _ in range(MAX_OPEN_ATTEMPTS + 2):
        caller.later(ATTEMPT_DELAY + 0.01)
        assert caller.attempts <= MAX_OPEN_ATTEMPTS
    caller.later(ATTEMPT_DELAY + 0.01)
    caller.until_heard()
    assert caller.outcome == good


def test_address_families_alternate() -> None:
    four = [SocketAddress(socket.AF_INET, (f"192.0.2.{n}", 1)) for n in range(3)]
    six = [SocketAddress(socket.AF_INET6, (f"2001:db8::{n}", 1)) for n in range(2)]
    assert interleave([*six, *four]) == [six[0], four[0], six[1], four[1], four[2]]
    assert interleave([*four, *six]) == [four[0], six[0], four[1], six[1], four[2]]


def test_who_gives_up_hears_nothing_more(caller: Caller) -> None:
    dial = caller.dial(caller.silent(), caller.listening())
    dial.abandon()
    dial.abandon()
    caller.later(100)
    assert caller.outcome is None
    assert not caller.loop._owners


def test_a_connection_is_told_once_however_often_its_socket_is_ready(caller: Caller) -> None:
    caller.dial(caller.listening(), caller.listening())
    caller.until_heard()
    for _ in range(3):
        caller.loop._handlers[caller.reached[0][0].fileno()](OUT)
    assert len(caller.reached) == 1


def test_a_connection_that_came_about_and_was_given_up_is_closed(caller: Caller) -> None:
    dial = caller.dial(caller.listening())
    dial.abandon()
    caller.later(1)
    assert caller.outcome is None
    assert not caller.loop._owners


def test_a_unix_socket_is_reached_at_once(caller: Caller, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        caller.dial(SocketAddress(socket.AF_UNIX, path))
        assert caller.outcome == SocketAddress(socket.AF_UNIX, path), "before start returns"


@pytest.mark.parametrize("is_there", [False, True], ids=["no file", "nobody listens"])
def test_a_unix_socket_without_a_listener_is_refused(caller: Caller, tmp_path: Path, is_there: bool) -> None:
    path = str(tmp_path / "s")
    if is_there:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
    caller.dial(SocketAddress(socket.AF_UNIX, path))
    assert caller.outcome is TargetFault.REFUSED
    assert path in str(caller.failures[0])


def test_a_unix_socket_whose_queue_is_full_is_unreachable_at_once(caller: Caller, tmp_path: Path) -> None:
    """The kernel has no event for room in it."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as filler:
        listener.bind(path)
        listener.listen(0)
        filler.connect(path)
        caller.dial(SocketAddress(socket.AF_UNIX, path))
        assert caller.outcome is TargetFault.UNREACHABLE


@contextmanager
def no_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_to_have_no_descriptor_left_has_its_own_word(caller: Caller) -> None:
    endpoint = caller.listening()
    with no_descriptors():
        caller.dial(endpoint, endpoint)
    assert caller.outcome is TargetFault.EXHAUSTED


def test_a_family_that_the_machine_lacks_is_passed_over(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    real, good = socket.socket, caller.listening()

    def make(family: int = socket.AF_INET, *rest: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "address family not supported")
        return real(family, *rest)

    monkeypatch.setattr("tunnel.net.race.socket.socket", make)
    caller.dial(SocketAddress(socket.AF_INET6, ("::1", 9)), good)
    caller.until_heard()
    assert caller.outcome == good
