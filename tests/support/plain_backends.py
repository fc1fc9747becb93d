"""Plain servers as targets of proxies."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from types import TracebackType

from tests.support.processes import LIMIT

Serve = Callable[[socket.socket], None]


class Backend:
    """Listens at once; runs `serve` in a thread for each connection, and ends all of them at exit."""

    def __init__(self, serve: Serve, *, path: Path | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        self._serve = serve
        if path is not None:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self._listener.listen()
            self.target = f"unix:{path}"
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._listener = socket.create_server((host, port), family=family, backlog=4096)
            self.port: int = self._listener.getsockname()[1]
            self.target = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def accepted(self) -> int:
        """The number of accepted connections."""
        return len(self._connections)

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(LIMIT)
        self._listener.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(LIMIT)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(LIMIT)
                self._connections.append(connection)
                thread = threading.Thread(target=self._run, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _run(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            self._serve(connection)


def echo(connection: socket.socket) -> None:
    """Echo data and EOF."""
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def receive_all(connection: socket.socket) -> bytes:
    """Receive until EOF."""
    parts = []
    while data := connection.recv(65536):
        parts.append(data)
    return b"".join(parts)


def receive_exactly(connection: socket.socket, size: int) -> bytes:
    """Receive `size` bytes, or fewer at EOF."""
    parts = b""
    while len(parts) < size and (data := connection.recv(size - len(parts))):
        parts += data
    return parts


def connect(address: tuple[str, int] | str) -> socket.socket:
    """A plain connection with the timeout of every wait."""
    if isinstance(address, tuple):
        sock = socket.create_connection(address, LIMIT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(LIMIT)
    sock.connect(address)
    return sock


_PORTS_OF_WORKER = 1_500


def _worker_ports() -> Iterator[int]:
    """The ports of this worker of pytest-xdist, over and over; they are below those that the kernel gives to connections."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    first = 20_000 + _PORTS_OF_WORKER * worker
    return islice(cycle(range(first, first + _PORTS_OF_WORKER)), os.getpid() % _PORTS_OF_WORKER, None)


_PORTS = _worker_ports()


def free_port() -> int:
    """A port that nothing uses, and that neither the kernel nor another worker takes before it is used."""
    for port in islice(_PORTS, _PORTS_OF_WORKER):
        with suppress(OSError), socket.create_server(("", port)):
            return port
    raise AssertionError("no port is free")
