"""A client and its backend in one thread, which let the proxy between them finish each step before they take the next one.

So the proxy gets the same events in the same turns of its event loop, however fast or busy the machine is.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from bench.identity import Identity
from bench.processes import BenchError

WAIT_SECONDS = 60.0
_LOG_SECONDS = 2.0  # the longest wait for a line, if the proxy logs none
_LOOK_SECONDS = 0.002
_MOST = 65536

Settle = Callable[[], None]  # returns when the proxy waits for events


def client_context(identity: Identity) -> ssl.SSLContext:
    """Return the settings of a client: TLS 1.3 with the client's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_cert_chain(identity.client_chain, identity.client_key)
    context.load_verify_locations(identity.authorities)
    return context


class LockstepConnection:
    """One connection through the proxy, with both ends."""

    def __init__(self, context: ssl.SSLContext, port: int, backend: socket.socket, settle: Settle) -> None:
        self._settle = settle
        self._arrived, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._arrived, self._outgoing)
        self._client = socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS)
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settle()
        self._shake_hands()
        self._plain = backend.accept()[0]
        self._plain.settimeout(WAIT_SECONDS)

    def exchange(self, size: int) -> None:
        """Send that many bytes to the backend and as many back."""
        self._tls.write(b"q" * size)
        self._send()
        if _receive(self._plain, size) != b"q" * size:
            raise BenchError("wrong bytes arrived at the backend")
        self._plain.sendall(b"a" * size)
        self._settle()
        if self._decrypt(size) != b"a" * size:
            raise BenchError("wrong bytes arrived at the client")

    def close(self) -> None:
        """End both directions in order: close_notify of the client, FIN of the backend, close_notify of the proxy."""
        self._try_unwrap()
        self._send()
        if self._plain.recv(1):
            raise BenchError("bytes arrived after close_notify")
        self._plain.close()
        self._settle()
        while not self._try_unwrap():
            self._fill()
        self._client.close()
        self._settle()

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._send()
                self._fill()
            else:
                self._send()
                return

    def _send(self) -> None:
        self._client.sendall(self._outgoing.read())
        self._settle()

    def _fill(self) -> None:
        data = self._client.recv(_MOST)
        if not data:
            raise BenchError("the proxy ended the connection")
        self._arrived.write(data)

    def _decrypt(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                data += self._tls.read(size - len(data))
            except ssl.SSLWantReadError:
                self._fill()
        return data

    def _try_unwrap(self) -> bool:
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            return False
        return True


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

    def __init__(self, context: ssl.SSLContext, port: int, backend: socket.socket, log: Path, settle: Settle) -> None:
        self._context, self._port, self._backend, self._log, self._settle = context, port, backend, log, settle

    @classmethod
    def listen(cls) -> socket.socket:
        """Open the socket of the backend."""
        backend = socket.create_server(("127.0.0.1", 0))
        backend.settimeout(WAIT_SECONDS)
        return backend

    def open(self) -> LockstepConnection:
        """Connect, and accept the proxy's connection."""
        return LockstepConnection(self._context, self._port, self._backend, self._settle)

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
        self._settle()
