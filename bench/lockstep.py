"""A client and its backend in one thread: the proxy between them gets the same events in the same order at any speed."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from pathlib import Path

from bench.identity import Identity
from bench.processes import BenchError

WAIT_SECONDS = 60.0
_LOG_SECONDS = 2.0  # the longest wait for a line, if the proxy logs none
_LOOK_SECONDS = 0.002


def client_context(identity: Identity) -> ssl.SSLContext:
    """Return the settings of a client: TLS 1.3 with the client's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_cert_chain(identity.client_chain, identity.client_key)
    context.load_verify_locations(identity.authorities)
    return context


class LockstepConnection:
    """One connection through the proxy, seen from both ends."""

    def __init__(self, client: ssl.SSLSocket, plain: socket.socket) -> None:
        self._client, self._plain = client, plain
        plain.settimeout(WAIT_SECONDS)

    def exchange(self, size: int) -> None:
        """Send that many bytes to the backend and as many back."""
        for sender, receiver, byte in ((self._client, self._plain, b"q"), (self._plain, self._client, b"a")):
            sender.sendall(byte * size)
            if _receive(receiver, size) != byte * size:
                raise BenchError(f"wrong bytes after {size} bytes were sent")

    def close(self) -> None:
        """End both directions in order: close_notify of the client, FIN of the backend, close_notify of the proxy."""
        self._client.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._client.unwrap()
        if self._plain.recv(1):
            raise BenchError("bytes arrived after close_notify")
        self._plain.close()
        self._client.settimeout(WAIT_SECONDS)
        self._client.unwrap()
        self._client.close()


def _receive(receiver: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = receiver.recv(size - len(data))
        if not part:
            raise BenchError(f"the connection ended after {len(data)} of {size} bytes")
        data += part
    return data


class Lockstep:
    """Opens connections through the proxy on `port` whose target is `backend`."""

    def __init__(self, context: ssl.SSLContext, port: int, backend: socket.socket, log: Path) -> None:
        self._context, self._port, self._backend, self._log = context, port, backend, log

    @classmethod
    def listen(cls) -> socket.socket:
        """Open the socket of the backend."""
        backend = socket.create_server(("127.0.0.1", 0))
        backend.settimeout(WAIT_SECONDS)
        return backend

    def open(self) -> LockstepConnection:
        """Connect, and accept the proxy's connection."""
        raw = socket.create_connection(("127.0.0.1", self._port), timeout=WAIT_SECONDS)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = self._context.wrap_socket(raw)
        return LockstepConnection(client, self._backend.accept()[0])

    def run_connection(self) -> None:
        """One whole connection with one byte in each direction.

        Waits for the log lines of its begin and its end: lines are written together if they come within some milliseconds, so
        that the cost would depend on the speed of the machine.
        """
        logged = self._logged()
        connection = self.open()
        connection.exchange(1)
        self._await_line(logged)
        logged = self._logged()
        connection.close()
        self._await_line(logged)

    def _logged(self) -> int:
        return self._log.stat().st_size

    def _await_line(self, logged: int) -> None:
        deadline = time.monotonic() + _LOG_SECONDS
        while self._logged() == logged and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
