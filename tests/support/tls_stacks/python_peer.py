"""A TLS peer of Python's `ssl`: `python_peer.py ROLE CHAIN KEY CA`."""

from __future__ import annotations

import socket
import ssl
import sys

from peer import Ended, Peer, serve_commands

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class PythonPeer:
    """One connection of an `SSLSocket`."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.socket = sock
        self.send = sock.sendall
        self._limit = sock.gettimeout()

    def recv(self, size: int) -> bytes:
        try:
            data = self.socket.recv(size)
        except ssl.SSLZeroReturnError:  # close_notify after our own
            raise Ended("eof") from None
        except ssl.SSLEOFError:
            raise Ended("cut") from None
        if not data:
            raise Ended("eof")
        return data

    def half_close(self) -> None:
        """`unwrap` sends close_notify; that it wants to read the other one shows when it may not wait."""
        self.socket.setblocking(False)
        try:
            self.socket.unwrap()
        except ssl.SSLWantReadError:
            self.socket.settimeout(self._limit)

    def close(self) -> None:
        self.socket = self.socket.unwrap()


def main(role: str, chain: str, key: str, ca: str) -> None:
    """Serve commands in one role."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if role == "server" else ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(chain, key)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED

    def open_peer(sock: socket.socket, version: str, is_server: bool) -> Peer:
        context.minimum_version = context.maximum_version = _VERSIONS[version]
        name = None if is_server else "localhost"
        return PythonPeer(context.wrap_socket(sock, server_side=is_server, server_hostname=name, suppress_ragged_eofs=False))

    serve_commands(role, open_peer)


if __name__ == "__main__":
    main(*sys.argv[1:])
