"""A queue of bytes to send on a non-blocking socket."""

from __future__ import annotations

import socket


class Outbox:
    """Bytes to send, in order.

    If the socket fails, they are dropped without an error: the next read reports it, after the last bytes from the peer.
    """

    __slots__ = ("_socket", "waiting")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.waiting = b""  # not sent yet

    def send(self, data: bytes = b"") -> None:
        """Append `data` and send as much as the socket accepts."""
        self.waiting += data
        if not self.waiting:
            return
        try:
            sent = self._socket.send(self.waiting)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self.waiting)
        self.waiting = self.waiting[sent:]
