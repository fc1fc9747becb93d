"""A TLS peer of pyOpenSSL, whose OpenSSL is newer than the one of Python's `ssl`: `openssl_peer.py ROLE CHAIN KEY CA`."""

from __future__ import annotations

import select
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from OpenSSL import SSL
from peer import Ended, Peer, serve_commands

_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
T = TypeVar("T")


class OpenSslPeer:
    """One connection of an `SSL`; its socket has a timeout, so every call may ask for a wait."""

    def __init__(self, connection: SSL.Connection, sock: socket.socket) -> None:
        self.socket = sock
        self._tls = connection

    def _patiently(self, call: Callable[[], T]) -> T:
        while True:
            try:
                return call()
            except SSL.WantReadError:
                ready = select.select([self.socket], [], [], self.socket.gettimeout())
            except SSL.WantWriteError:
                ready = select.select([], [self.socket], [], self.socket.gettimeout())
            if ready == ([], [], []):
                raise TimeoutError

    def shake_hands(self) -> None:
        """The handshake."""
        self._patiently(self._tls.do_handshake)

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            piece = view[:16384]
            view = view[self._patiently(lambda piece=piece: self._tls.send(piece)) :]  # type: ignore[misc]

    def recv(self, size: int) -> bytes:
        try:
            return self._patiently(lambda: self._tls.recv(size))
        except SSL.ZeroReturnError:
            raise Ended("eof") from None
        except SSL.SysCallError as error:
            raise Ended("cut" if error.args[0] == -1 else "reset") from None
        except SSL.Error as error:
            if "unexpected eof" in str(error):
                raise Ended("cut") from None
            raise

    def half_close(self) -> None:
        self._patiently(self._tls.shutdown)

    def close(self) -> None:
        """Both directions, as SSL_shutdown(3) describes it."""
        self.half_close()
        with suppress(Ended):
            while True:
                self.recv(65536)


def main(role: str, chain: str, key: str, ca: str) -> None:
    """Serve commands in one role."""

    def open_peer(sock: socket.socket, version: str, is_server: bool) -> Peer:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(_VERSIONS[version])
        context.set_max_proto_version(_VERSIONS[version])
        context.use_certificate_chain_file(chain)
        context.use_privatekey_file(key)
        context.load_verify_locations(ca)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
        connection = SSL.Connection(context, sock)
        if is_server:
            connection.set_accept_state()
        else:
            connection.set_connect_state()
        made = OpenSslPeer(connection, sock)
        made.shake_hands()
        return made

    serve_commands(role, open_peer)


if __name__ == "__main__":
    main(*sys.argv[1:])
