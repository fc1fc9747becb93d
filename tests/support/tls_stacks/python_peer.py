"""A TLS peer of Python's `ssl`: `python_peer.py ROLE CHAIN KEY CA`."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Callable
from typing import TypeVar

from peer import Ended, Peer, serve_commands

T = TypeVar("T")

_READ = 65536
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class PythonPeer:
    """One connection of an `SSLObject` in memory.

    `SSLSocket.unwrap` sends close_notify and then reads: an answer that comes in between is an error, and lost.
    """

    def __init__(self, context: ssl.SSLContext, sock: socket.socket, *, is_server: bool) -> None:
        self.socket = sock
        self._input, self._output = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if is_server else "localhost"
        self._tls = context.wrap_bio(self._input, self._output, server_side=is_server, server_hostname=name)
        self._run(self._tls.do_handshake)

    def send(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    def recv(self, size: int) -> bytes:
        try:
            data = self._run(lambda: self._tls.read(size))
        except ssl.SSLZeroReturnError:  # close_notify after our own
            raise Ended("eof") from None
        except ssl.SSLEOFError:
            raise Ended("cut") from None
        if not data:
            raise Ended("eof")
        return data

    def half_close(self) -> None:
        """Send close_notify; it also wants to read that of the other side, and there is nothing to read yet."""
        assert not self._input.pending
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            self._flush()

    def close(self) -> None:
        self._run(self._tls.unwrap)

    def _run(self, action: Callable[[], T]) -> T:
        """The result of an action that needs input."""
        while True:
            try:
                result = action()
            except ssl.SSLWantReadError:
                self._flush()
            else:
                self._flush()
                return result
            if data := self.socket.recv(_READ):
                self._input.write(data)
            else:
                self._input.write_eof()

    def _flush(self) -> None:
        self.socket.sendall(self._output.read())


def main(role: str, chain: str, key: str, ca: str) -> None:
    """Serve commands in one role."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if role == "server" else ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(chain, key)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED

    def open_peer(sock: socket.socket, version: str, is_server: bool) -> Peer:
        context.minimum_version = context.maximum_version = _VERSIONS[version]
        return PythonPeer(context, sock, is_server=is_server)

    serve_commands(role, open_peer)


if __name__ == "__main__":
    main(*sys.argv[1:])
