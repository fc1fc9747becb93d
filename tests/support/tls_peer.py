"""One end of a TLS connection that a test controls byte by byte, with pyOpenSSL in memory.

It trusts every server, because the proxy is under test.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from OpenSSL import SSL

from tests.support.plain_backends import connect
from tests.support.workloads import Identity

_READ = 65536


class TlsPeer:
    """A client; `send` and `receive` are plain bytes, `end` and `fin` the two ways to stop sending."""

    def __init__(self, sock: socket.socket, identity: Identity | None, *, version: int | None = None) -> None:
        context = SSL.Context(SSL.TLS_METHOD)
        if version is not None:
            context.set_max_proto_version(version)
        if identity is not None:
            context.use_certificate_chain_file(str(identity.chain))
            context.use_privatekey_file(str(identity.key))
        self.socket = sock
        self.tls = SSL.Connection(context, None)
        self.tls.set_connect_state()
        self.has_ended = False  # the other side has said close_notify

    def begin_handshake(self) -> None:
        """The ClientHello, and the first bytes of the answer."""
        with suppress(SSL.WantReadError):
            self.tls.do_handshake()
        self.flush()
        self._feed()

    def shake_hands(self) -> None:
        """The whole handshake, as far as a client can see it."""
        while True:
            try:
                self.tls.do_handshake()
            except SSL.WantReadError:
                self.flush()
                self._feed()
            else:
                self.flush()
                return

    def send(self, data: bytes) -> None:
        """Send plain bytes."""
        self.socket.sendall(self.seal(data))

    def seal(self, data: bytes) -> bytes:
        """The records that hold `data`, not sent."""
        records = b""
        for start in range(0, len(data), 16384):
            self.tls.send(data[start : start + 16384])
            records += self.tls.bio_read(32768)
        return records

    def receive(self) -> bytes:
        """Some plain bytes; none at the other side's close_notify, which `has_ended` tells, or at a bare FIN."""
        while True:
            try:
                return self.tls.recv(_READ)
            except SSL.WantReadError:
                if not self._feed():
                    return b""
            except SSL.ZeroReturnError:
                self.has_ended = True
                return b""

    def receive_exactly(self, size: int) -> bytes:
        """The next `size` plain bytes; fewer only at the end."""
        data = b""
        while len(data) < size and (piece := self.receive()):
            data += piece
        return data

    def receive_all(self) -> bytes:
        """Plain bytes to the end."""
        data = b""
        while piece := self.receive():
            data += piece
        return data

    def end(self) -> None:
        """Say close_notify; reading goes on."""
        self.tls.shutdown()
        self.flush()

    def fin(self) -> None:
        """End the stream below TLS, without a word."""
        self.socket.shutdown(socket.SHUT_WR)

    def flush(self) -> None:
        """Send what OpenSSL has to say."""
        with suppress(SSL.WantReadError):
            self.socket.sendall(self.tls.bio_read(_READ))

    def _feed(self) -> bool:
        data = self.socket.recv(_READ)
        if data:
            self.tls.bio_write(data)
        else:
            self.tls.bio_shutdown()
        return bool(data)


@contextmanager
def tls_connection(address: tuple[str, int], identity: Identity | None) -> Iterator[TlsPeer]:
    """A connection after its handshake, closed at exit."""
    with connect(address) as sock:
        peer = TlsPeer(sock, identity)
        peer.shake_hands()
        yield peer
