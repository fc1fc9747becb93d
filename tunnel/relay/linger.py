"""Closing a socket so that its peer still reads our last words.

Knows that closing with unread input sends a reset, which can destroy an alert on its way; must not know why we close.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from tunnel.relay.loop import Loop

_PATIENCE = 1.0  # seconds for the peer to read and hang up; then it is cut
_ALLOWANCE = 256 * 1024  # bytes to throw away: more than can be under way from a peer that stops when told


class Linger:
    """One socket on its way out: says its last words, then reads what comes and throws it away until the end."""

    __slots__ = ("_allowance", "_buffer", "_loop", "_socket", "_timer")

    def __init__(self, loop: Loop, sock: socket.socket, farewell: bytes, buffer: memoryview) -> None:
        self._loop = loop
        self._socket = sock
        self._buffer = buffer
        self._allowance = _ALLOWANCE
        with suppress(OSError):
            if farewell:
                sock.send(farewell)
            sock.shutdown(socket.SHUT_WR)
        self._timer = loop.call_at(loop.clock() + _PATIENCE, self._close, self)
        loop.rewatch(sock, self.ready, self)
        loop.call_again(sock)

    def ready(self, _events: int) -> None:
        """Events of the socket."""
        try:
            size = self._socket.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        self._allowance -= size
        if size and self._allowance > 0:
            self._loop.call_again(self._socket)  # one read a turn: whoever talks on here has been refused already
        else:
            self._close()

    def crashed(self, crash: Exception) -> None:
        """There is nothing left to lose."""
        self._close()

    def _close(self) -> None:
        self._loop.cancel(self._timer)
        self._loop.retire(self._socket)


def reset(sock: socket.socket) -> None:
    """Make the coming close a reset, which no peer takes for an orderly end."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
