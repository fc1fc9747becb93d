"""Closing a socket so that its peer still reads what was sent to it.

Knows that closing with unread input sends a reset, which destroys what the peer's kernel has not acknowledged; must not know
why we close.
"""

from __future__ import annotations

import fcntl
import socket
import termios
from contextlib import suppress

from tunnel.relay.loop import Loop

_WAIT_LIMIT = 1.0  # seconds for the peer to read and hang up; then it is cut
_ALLOWANCE = 256 * 1024  # bytes to throw away: more than can be under way from a peer that stops when told
_INTERVAL = 0.1  # seconds until the first look at what is not acknowledged, for which there is no event


class Linger:
    """One socket on its way out: says its last words, then reads what comes and throws it away until the end.

    What the peer has not acknowledged is waited for as long as it gets less within every `limit` seconds. If `is_cut`, the end
    is a reset, as soon as all is acknowledged; else it is a FIN, for a peer that then has a second to hang up.
    """

    __slots__ = ("_allowance", "_buffer", "_is_cut", "_limit", "_loop", "_moved", "_socket", "_timer", "_unread")

    def __init__(
        self, loop: Loop, sock: socket.socket, farewell: bytes, buffer: memoryview, *, limit: float = 0, is_cut: bool = False
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._buffer = buffer
        self._limit = limit
        self._is_cut = is_cut
        self._allowance = _ALLOWANCE
        with suppress(OSError):
            if farewell:
                sock.send(farewell)
            if not is_cut:
                sock.shutdown(socket.SHUT_WR)
        self._moved = loop.clock()
        self._unread = self._look()
        self._timer = loop.call_at(self._moved + self._wait_limit(), self._check, self)
        if is_cut and not self._unread:
            self._close()
            return
        loop.rewatch(sock, self.ready, self)
        loop.call_again(sock)

    def ready(self, _events: int) -> None:
        """Events of the socket."""
        try:
            size = self._socket.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            self._close()
            return
        self._allowance -= size
        if not size and self._is_cut:  # it says nothing more, but may still read
            return
        if size and (self._allowance > 0 or self._look()):
            self._loop.call_again(self._socket)  # one read a turn: whoever talks on here has been refused already
        else:
            self._close()

    def crashed(self, crash: Exception) -> None:
        """There is nothing left to lose."""
        self._close()

    def _look(self) -> int:
        return unacknowledged(self._socket) if self._limit else 0

    def _wait_limit(self) -> float:
        """Seconds until the next look: the longer the peer takes nothing, the longer."""
        stalled = self._loop.clock() - self._moved
        return min(max(stalled, _INTERVAL), _WAIT_LIMIT) if self._unread else _WAIT_LIMIT

    def _check(self) -> None:
        """Go on waiting while the peer takes something, or close."""
        now, unread = self._loop.clock(), self._look()
        if unread != self._unread:
            self._unread, self._moved = unread, now
        is_over = self._is_cut if not unread else now >= self._moved + self._limit
        if is_over or (not unread and now >= self._moved + _WAIT_LIMIT):
            self._close()
        else:
            self._timer = self._loop.call_at(now + self._wait_limit(), self._check, self)

    def _close(self) -> None:
        self._loop.cancel(self._timer)
        if self._is_cut:
            reset(self._socket)
        self._loop.retire(self._socket)


def unacknowledged(sock: socket.socket) -> int:
    """The bytes sent that a reset would destroy: none on a Unix socket, where they are with the peer already."""
    if sock.family == socket.AF_UNIX:
        return 0
    count = bytearray(4)
    try:
        fcntl.ioctl(sock, termios.TIOCOUTQ, count)
    except OSError:
        return 0
    return int.from_bytes(count, "little")


def reset(sock: socket.socket) -> None:
    """Make the coming close a reset, which no peer takes for an orderly end."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
