"""What is still to be sent on a socket that takes little at a time.

Knows one non-blocking socket; must not know what is sent. A socket that fails loses what waits for it: whoever reads from it
learns of the failure, and may have last words of the other side to read before.
"""

from __future__ import annotations

import socket


class Outbox:
    """Bytes on their way out, in order."""

    __slots__ = ("_socket", "waiting")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.waiting = b""  # what has found no room yet

    def send(self, data: bytes = b"") -> None:
        """Send as much as there is room for of what waits, and of `data` behind it."""
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
