"""New connections at a steady rate, each with a handshake and an echo; every failure is recorded."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from types import TracebackType

from OpenSSL import SSL

from tests.support.plain_backends import connect, receive_exactly
from tests.support.processes import LIMIT, eventually
from tests.support.tls_peer import tls_connection
from tests.support.workloads import Identity

_THREADS = 12
_TEXT = b"is anybody there"

Exchange = Callable[[], None]


class ConnectionLoad:
    """Calls `exchange` `rate` times per second while it is entered; `attempts` are those that have ended."""

    def __init__(self, exchange: Exchange, *, rate: float) -> None:
        self._exchange = exchange
        self._interval = 1 / rate
        self._numbers = itertools.count()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(_THREADS)]
        self.durations: list[float] = []
        self.failures: list[str] = []

    @property
    def attempts(self) -> int:
        return len(self.durations) + len(self.failures)

    def wait_for_more(self, count: int) -> None:
        """Wait until so many further attempts have ended."""
        wanted = self.attempts + count
        eventually(lambda: self.attempts >= wanted, f"{count} more connections")

    def __enter__(self) -> ConnectionLoad:
        self._start = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(LIMIT)

    def _run(self) -> None:
        """Take the next moment at which a connection is due; after a pause, those that were missed follow at once."""
        while True:
            due = self._start + next(self._numbers) * self._interval
            if self._is_over.wait(max(due - time.monotonic(), 0)):
                return
            begin = time.monotonic()
            try:
                self._exchange()
            except (OSError, SSL.Error, AssertionError) as error:
                self.failures.append(f"{begin - self._start:.3f} s: {error!r}")
            else:
                self.durations.append(time.monotonic() - begin)


def tls_exchange(address: tuple[str, int], identity: Identity) -> Exchange:
    """A connection with mutual TLS whose bytes come back."""

    def exchange() -> None:
        with tls_connection(address, identity) as peer:
            peer.send(_TEXT)
            assert peer.receive_exactly(len(_TEXT)) == _TEXT
            peer.end()
            assert peer.receive_all() == b""

    return exchange


def plain_exchange(address: tuple[str, int] | str) -> Exchange:
    """A plain connection whose bytes come back."""

    def exchange() -> None:
        with connect(address) as sock:
            sock.sendall(_TEXT)
            assert receive_exactly(sock, len(_TEXT)) == _TEXT

    return exchange
