"""A dial starts the next attempt 250 ms after the last one, and keeps the first connection."""

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


class Dialler:
    """The owner of a dial, with a clock that only the test advances."""

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

    def step_failed(self, error: Exception, final_data: bytes = b"") -> None:
        assert isinstance(error, TargetError)
        self.failures.append(error)

    def crashed(self, crash: Exception) -> None:
        self.crashes.append(crash)

    def dial(self, *endpoints: SocketAddress) -> Dial:
        dial = Dial(self.loop, self, endpoints)
        dial.start()
        return dial

    def until_heard(self) -> None:
        """Run turns until there is an outcome."""
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
        """Return the number of sockets that the dial has open."""
        return len(self.loop._owners)

    @property
    def outcome(self) -> SocketAddress | TargetFault | None:
        assert len(self.reached) + len(self.failures) <= 1, "one outcome"
        if self.reached:
            return self.reached[0][1]
        return self.failures[0].reason if self.failures else None

    # -- endpoints

    def listening(self) -> SocketAddress:
        """An endpoint that accepts."""
        return self._listen(8)

    def refusing(self) -> SocketAddress:
        """An endpoint without a listener."""
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        self._sockets.append(sock)  # bound, so that nobody else comes to listen there
        return SocketAddress(socket.AF_INET, sock.getsockname())

    def silent(self) -> SocketAddress:
        """An endpoint that does not answer because its queue is full."""
        endpoint = self._listen(0)
        self._queues[endpoint.address] = self._sockets[-1]
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(endpoint.address)
            self._sockets.append(filler)
        return endpoint

    def empty(self, silent: SocketAddress) -> None:
        """Empty the queue of a silent endpoint until the loop has an event."""
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
def dialler() -> Iterator[Dialler]:
    made = Dialler()
    yield made
    made.close()


def test_the_first_endpoint_that_answers_is_taken(dialler: Dialler) -> None:
    first, second = dialler.listening(), dialler.listening()
    dialler.dial(first, second)
    dialler.until_heard()
    assert dialler.outcome == first
    sock = dialler.reached[0][0]
    assert sock.getpeername() == first.address
    assert not sock.getblocking()
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    dialler.later(100)
    assert dialler.outcome == first, "no deadline is left over"


def test_one_that_refuses_is_passed_over(dialler: Dialler) -> None:
    good = dialler.listening()
    dialler.dial(dialler.refusing(), dialler.refusing(), good, dialler.refusing())
    dialler.until_heard()
    assert dialler.outcome == good


def test_if_all_attempts_fail_the_error_is_the_last_one(dialler: Dialler) -> None:
    last = dialler.refusing()
    dialler.dial(dialler.refusing(), last)
    dialler.until_heard()
    assert dialler.outcome is TargetFault.REFUSED
    assert str(dialler.failures[0]) == f"{last}: connection refused"
    assert not dialler.loop._owners, "every socket is given up"


def test_the_next_endpoint_is_tried_after_the_attempt_delay(dialler: Dialler) -> None:
    good = dialler.listening()
    dialler.dial(dialler.silent(), dialler.silent(), good)
    dialler.later(ATTEMPT_DELAY - 0.01)
    assert dialler.attempts == 1
    dialler.later(0.02)
    assert dialler.attempts == 2
    dialler.later(ATTEMPT_DELAY - 0.02)
    assert dialler.outcome is None
    dialler.later(0.02)
    dialler.until_heard()
    assert dialler.outcome == good
    dialler.later(0)
    assert dialler.attempts == 1, "the others are closed"
    dialler.later(100)
    assert dialler.outcome == good, "no timer is left over"


def test_an_earlier_attempt_can_still_win(dialler: Dialler) -> None:
    slow = dialler.silent()
    dialler.dial(slow, dialler.silent())
    dialler.later(ATTEMPT_DELAY + 0.01)
    assert dialler.attempts == 2
    dialler.empty(slow)
    dialler.until_heard()
    assert dialler.outcome == slow


def test_a_failure_starts_the_next_attempt_at_once(dialler: Dialler) -> None:
    good = dialler.listening()
    dialler.dial(dialler.silent(), dialler.refusing(), dialler.refusing(), good)
    dialler.later(ATTEMPT_DELAY + 0.01)
    dialler.until_heard()  # while the clock stands still
    assert dialler.outcome == good


def test_the_last_attempt_has_the_callers_whole_time(dialler: Dialler) -> None:
    dial = dialler.dial(dialler.refusing(), dialler.silent(), dialler.silent())
    for _ in range(10):
        dialler.later(100)
    assert dialler.outcome is None, "the limit of the whole is the dialler's"
    assert dialler.attempts == 2
    dial.abandon()
    assert not dialler.loop._owners


def test_open_attempts_are_bounded(dialler: Dialler) -> None:
    silent, good = dialler.silent(), dialler.listening()
    dialler.dial(*[silent] * (MAX_OPEN_ATTEMPTS + 3), good)
    for _ in range(MAX_OPEN_ATTEMPTS + 2):
        dialler.later(ATTEMPT_DELAY + 0.01)
        assert dialler.attempts <= MAX_OPEN_ATTEMPTS
    dialler.later(ATTEMPT_DELAY + 0.01)
    dialler.until_heard()
    assert dialler.outcome == good


def test_address_families_alternate() -> None:
    four = [SocketAddress(socket.AF_INET, (f"192.0.2.{n}", 1)) for n in range(3)]
    six = [SocketAddress(socket.AF_INET6, (f"2001:db8::{n}", 1)) for n in range(2)]
    assert interleave([*six, *four]) == [six[0], four[0], six[1], four[1], four[2]]
    assert interleave([*four, *six]) == [four[0], six[0], four[1], six[1], four[2]]


def test_an_abandoned_dial_reports_nothing(dialler: Dialler) -> None:
    dial = dialler.dial(dialler.silent(), dialler.listening())
    dial.abandon()
    dial.abandon()
    dialler.later(100)
    assert dialler.outcome is None
    assert not dialler.loop._owners


def test_a_connection_is_reported_once_for_several_events(dialler: Dialler) -> None:
    dialler.dial(dialler.listening(), dialler.listening())
    dialler.until_heard()
    for _ in range(3):
        dialler.loop._handlers[dialler.reached[0][0].fileno()](OUT)
    assert len(dialler.reached) == 1


def test_a_connection_that_came_about_and_was_given_up_is_closed(dialler: Dialler) -> None:
    dial = dialler.dial(dialler.listening())
    dial.abandon()
    dialler.later(1)
    assert dialler.outcome is None
    assert not dialler.loop._owners


def test_a_unix_socket_is_reached_at_once(dialler: Dialler, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        dialler.dial(SocketAddress(socket.AF_UNIX, path))
        assert dialler.outcome == SocketAddress(socket.AF_UNIX, path), "before start returns"


@pytest.mark.parametrize("is_there", [False, True], ids=["no file", "nobody listens"])
def test_a_unix_socket_without_a_listener_is_refused(dialler: Dialler, tmp_path: Path, is_there: bool) -> None:
    path = str(tmp_path / "s")
    if is_there:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
    dialler.dial(SocketAddress(socket.AF_UNIX, path))
    assert dialler.outcome is TargetFault.REFUSED
    assert path in str(dialler.failures[0])


def test_a_unix_socket_whose_queue_is_full_is_unreachable_at_once(dialler: Dialler, tmp_path: Path) -> None:
    """The kernel has no event for space in the queue."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as filler:
        listener.bind(path)
        listener.listen(0)
        filler.connect(path)
        dialler.dial(SocketAddress(socket.AF_UNIX, path))
        assert dialler.outcome is TargetFault.UNREACHABLE


@contextmanager
def no_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_many_open_files_has_its_own_reason(dialler: Dialler) -> None:
    endpoint = dialler.listening()
    with no_descriptors():
        dialler.dial(endpoint, endpoint)
    assert dialler.outcome is TargetFault.EXHAUSTED


def test_a_family_that_the_machine_lacks_is_passed_over(dialler: Dialler, monkeypatch: pytest.MonkeyPatch) -> None:
    real, good = socket.socket, dialler.listening()

    def make(family: int = socket.AF_INET, *rest: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "address family not supported")
        return real(family, *rest)

    monkeypatch.setattr("tunnel.net.race.socket.socket", make)
    dialler.dial(SocketAddress(socket.AF_INET6, ("::1", 9)), good)
    dialler.until_heard()
    assert dialler.outcome == good
