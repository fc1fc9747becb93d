"""Connection attempts to the addresses of one target: the first that connects wins (RFC 8305, section 5)."""

from __future__ import annotations

import errno
import math
import os
import select
import socket
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing
from itertools import chain, zip_longest
from time import monotonic

from tunnel.errors import TargetError, TargetFault
from tunnel.net.sockets import SocketAddress, connect_error, set_tcp_options, use_no_pacing

ATTEMPT_DELAY = 0.25  # seconds from one attempt to the next: RFC 8305, section 8
MAX_OPEN_ATTEMPTS = 16  # at one time; one more attempt aborts the oldest


def interleave(endpoints: Iterable[SocketAddress]) -> list[SocketAddress]:
    """Alternate between the address families, starting with that of the first endpoint (RFC 8305, section 4)."""
    families: dict[int, list[SocketAddress]] = {}
    for endpoint in endpoints:
        families.setdefault(endpoint.family, []).append(endpoint)
    return [endpoint for endpoint in chain.from_iterable(zip_longest(*families.values())) if endpoint is not None]


class Attempt:
    """One non-blocking connect to one endpoint."""

    __slots__ = ("endpoint", "events", "socket")

    def __init__(self, endpoint: SocketAddress) -> None:
        """Raises OSError if the socket cannot be created."""
        self.endpoint = endpoint
        self.events = 0  # all that its watcher has seen
        self.socket = socket.socket(endpoint.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

    def connect(self) -> int:
        """Start to connect; return 0, EINPROGRESS, or another errno."""
        try:
            set_tcp_options(self.socket)
            use_no_pacing(self.socket, self.endpoint)
            return self.socket.connect_ex(self.endpoint.address)
        except OSError as error:
            return error.errno or errno.EINVAL

    def result(self) -> int:
        """Return the outcome of a completed connect: 0 or an errno."""
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


class Race:
    """The attempts for one connection; the caller waits for events and owns the deadline."""

    __slots__ = ("_close", "_failure", "_open", "_rest", "winner")

    def __init__(
        self, endpoints: Iterable[SocketAddress], close: Callable[[socket.socket], None] = socket.socket.close
    ) -> None:
        self._rest = deque(endpoints)
        if len(self._rest) > 1:
            self._rest = deque(interleave(self._rest))
        self._close = close
        self._open: dict[Attempt, None] = {}  # in the order in which they started
        self.winner: Attempt | None = None
        self._failure: TargetError | None = None

    @property
    def has_more(self) -> bool:
        """Whether another attempt can start."""
        return bool(self._rest)

    @property
    def failure(self) -> TargetError:
        """The error of the attempt that failed last."""
        return self._failure or TargetError(TargetFault.RESOLVE, "the name has no address")

    @property
    def is_lost(self) -> bool:
        """Whether every attempt has failed."""
        return not self._rest and not self._open and self.winner is None

    def begin(self) -> Attempt | None:
        """Start attempts until one is in progress and return it; None if one has won or none is left."""
        while self._rest and self.winner is None:
            endpoint = self._rest.popleft()
            try:
                attempt = Attempt(endpoint)
            except OSError as error:
                self._failure = connect_error(endpoint, error.errno or errno.EINVAL)
                continue
            if len(self._open) >= MAX_OPEN_ATTEMPTS:
                self._fail(next(iter(self._open)), errno.ETIMEDOUT)
            self._open[attempt] = None
            code = attempt.connect()
            if code == errno.EINPROGRESS:
                return attempt
            self._take(attempt, code)  # EAGAIN: a Unix socket with a full backlog, for which epoll reports no event
        return None

    def settle(self, attempt: Attempt) -> bool:
        """Process the outcome of an attempt whose socket is writable or has an error; False if that was done already."""
        if attempt not in self._open:
            return False
        self._take(attempt, attempt.result())
        return True

    def stop(self) -> None:
        """Close every attempt but the winner."""
        self._rest.clear()
        while self._open:
            self._close(self._open.popitem()[0].socket)

    def _take(self, attempt: Attempt, code: int) -> None:
        if code:
            self._fail(attempt, code)
            return
        del self._open[attempt]
        self.winner = attempt
        self.stop()

    def _fail(self, attempt: Attempt, code: int) -> None:
        del self._open[attempt]
        self._failure = connect_error(attempt.endpoint, code)
        self._close(attempt.socket)


class PolledRace:
    """A race whose sockets are watched by one epoll descriptor, for use outside the event loop."""

    def __init__(self, endpoints: tuple[SocketAddress, ...]) -> None:
        """Raises TargetError if there is no free descriptor."""
        self._race = Race(endpoints)
        self._attempts: dict[int, Attempt] = {}
        try:
            self._epoll = select.epoll()
        except OSError as error:
            raise connect_error(endpoints[0], error.errno or errno.EINVAL) from error

    @property
    def delay(self) -> float:
        """Seconds until the next attempt; infinite if there is none."""
        return ATTEMPT_DELAY if self._race.has_more else math.inf

    def fileno(self) -> int:
        """The descriptor that becomes readable when an attempt completes."""
        return self._epoll.fileno()

    def begin(self) -> socket.socket | None:
        """Start the next attempt; return the connected socket, if any. Raises TargetError if all attempts have failed."""
        attempt = self._race.begin()
        if attempt is not None:
            self._attempts[attempt.socket.fileno()] = attempt
            self._epoll.register(attempt.socket, select.EPOLLOUT | select.EPOLLONESHOT)
        if self._race.is_lost:
            raise self._race.failure
        return self._race.winner.socket if self._race.winner is not None else None

    def settle(self, timeout: float = 0) -> None:
        """Process the outcomes of attempts, waiting at most `timeout` seconds for the first."""
        for fd, _ in self._epoll.poll(timeout):
            self._race.settle(self._attempts[fd])

    def close(self) -> None:
        """Close every attempt but the winner."""
        self._race.stop()
        self._epoll.close()


def connect_first(endpoints: tuple[SocketAddress, ...], timeout: float) -> socket.socket:
    """Return a non-blocking socket, connected to the first endpoint that accepts within `timeout` seconds.

    Raises TargetError or TimeoutError.
    """
    deadline = monotonic() + timeout
    with closing(PolledRace(endpoints)) as race:
        while (sock := race.begin()) is None:
            left = deadline - monotonic()
            if left <= 0:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            race.settle(min(race.delay, left))
        return sock
