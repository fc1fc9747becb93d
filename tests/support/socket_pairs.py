"""A relay between two socket pairs, whose turns and clock the test controls."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

from tests.support.tls_ends import TLS13, Side, admit_all, context, identity
from tunnel.relay.buffer_trimmer import BufferTrimmer
from tunnel.relay.close_reason import CloseReason
from tunnel.relay.handshake import HandshakeResult
from tunnel.relay.loop import Loop
from tunnel.relay.relay import Relay
from tunnel.tls.context import TlsContext

SERVING = {True: context(identity(), admit_all, is_server=True), False: context(identity(), admit_all, is_server=False)}


class Clock:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def unix_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a Unix connection, non-blocking."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


def tcp_pair(room: int = 0) -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection over loopback, non-blocking; with `room`, buffers of about that size."""
    with socket.socket() as listener:
        far = socket.socket()
        for sock in (listener, far):
            if room:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        far.connect(listener.getsockname())
        near, _ = listener.accept()
    for sock in (near, far):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
    return near, far


def narrow_unix_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a Unix connection with the smallest buffers that the kernel allows."""
    near, far = unix_pair()
    for sock in (near, far):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    return near, far


MAKERS: dict[str, Callable[[], tuple[socket.socket, socket.socket]]] = {
    "unix": unix_pair,
    "tcp": tcp_pair,
    "narrow unix": narrow_unix_pair,
    "narrow tcp": lambda: tcp_pair(4096),
}


class Wire:
    """A relay, as server or client, with a TLS peer on one side and a plain program on the other."""

    def __init__(
        self,
        make: Callable[[], tuple[socket.socket, socket.socket]] = unix_pair,
        *,
        we_serve: bool = True,
        version: int = TLS13,
        close_timeout: float = 60.0,
        before: bytes = b"",
        ours: Side | None = None,
        loop: Loop | None = None,
    ) -> None:
        """`before` is plaintext that the peer sends right behind its handshake; `ours` is an end with a finished handshake.

        With a `loop` it is that of another wire, which closes it.
        """
        self.clock = Clock()
        self.loop = loop or Loop(self.clock)
        self._is_loop_lent = loop is not None
        self.buffer_trimmer = BufferTrimmer(self.loop)
        self.ended: list[tuple[CloseReason, str]] = []
        self.trim_requests = 0
        self.crashes: list[Exception] = []
        self.tls, self.peer_socket = make()
        self.plain, self.program = make()
        self.peer = Side(SERVING[not we_serve] if version == TLS13 else _context(not we_serve, version))
        self.ours = ours or Side(SERVING[we_serve] if version == TLS13 else _context(we_serve, version))
        if ours is None:
            self._do_handshake(we_serve)
        tail = self.ours.tail + (self.peer.seal(before) if before else b"")
        handshake = HandshakeResult(self.ours.end, admit_all(b"", tuple), tail, unsent=b"")
        self.relay = Relay(
            self.loop, self, handshake, self.tls, self.plain, buffers=self.ours.buffers, close_timeout=close_timeout
        )
        self.relay.start()

    def _do_handshake(self, we_serve: bool) -> None:
        """Complete both handshakes."""
        client, server = (self.peer, self.ours) if we_serve else (self.ours, self.peer)
        flight = server.shake(client.shake())
        client.shake(server.shake(client.shake(flight)))

    # -- calls of the relay to its owner

    def relay_ended(self, reason: CloseReason, detail: str) -> None:
        self.ended.append((reason, detail))

    def relay_needs_trim(self) -> None:
        assert not self.ended, "an ended relay must not request a trim"
        self.trim_requests += 1
        self.buffer_trimmer.add(self.relay)

    def crashed(self, crash: Exception) -> None:
        self.crashes.append(crash)

    # -- what a test does

    def turn(self, times: int = 3) -> None:
        """Run turns of the loop."""
        for _ in range(times):
            self.loop.turn(0)
        assert not self.crashes, self.crashes

    def later(self, seconds: float) -> None:
        """Advance the clock and run turns."""
        self.clock.now += seconds
        self.turn()

    def peer_send(self, data: bytes) -> None:
        """Send plaintext from the peer."""
        self.peer_socket.sendall(self.peer.seal(data))
        self.turn()

    def peer_receive(self) -> bytes:
        """Return the plaintext that the peer has received."""
        return self.peer.open(received(self.peer_socket))

    def write(self, data: bytes) -> None:
        """Send bytes from the program."""
        self.program.sendall(data)
        self.turn()

    def read(self) -> bytes:
        """Return the bytes that the program has received."""
        return received(self.program)

    @property
    def close_reason(self) -> CloseReason | None:
        """The close reason of the relay, None while it is open."""
        assert len(self.ended) <= 1, "the end is reported once"
        return self.ended[0][0] if self.ended else None

    def close(self) -> None:
        """Close everything."""
        if self.relay.is_open:
            self.relay.abort(CloseReason.SHUTDOWN)
        self.loop.turn(0)
        if not self._is_loop_lent:
            self.loop.close()
        for sock in (self.peer_socket, self.program, self.tls):  # the last one may still be lingering
            sock.close()


def _context(is_server: bool, version: int) -> TlsContext:
    return context(identity(), admit_all, is_server=is_server, version=version)


def received(sock: socket.socket) -> bytes:
    """Return all bytes received so far."""
    parts = []
    with suppress(BlockingIOError):
        while data := sock.recv(65536):
            parts.append(data)
    return b"".join(parts)


def is_over(sock: socket.socket) -> bool:
    """Whether the other side has closed normally."""
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False


def is_reset(sock: socket.socket) -> bool:
    """Whether the connection was reset."""
    try:
        sock.recv(1)
    except ConnectionResetError:
        return True
    except BlockingIOError:
        return False
    return False


Wires = Callable[..., Wire]
