"""Closes a socket so that the peer still receives what was sent.

Closing a socket with unread input sends a reset, which discards the bytes that the peer's kernel has not acknowledged.
"""

from __future__ import annotations

import fcntl
import socket
import termios
from contextlib import suppress

from tunnel.net.sockets import is_unix
from tunnel.relay.loop import Loop

MIN_LINGER = 1.0  # seconds for a peer to acknowledge bytes, if the close timeout is shorter
_MAX_WAIT = 1.0  # seconds for the peer to read and close; then it is reset
_MAX_DISCARDED = 256 * 1024  # bytes: more than can be in flight from a peer that stops sending when it sees our end
_FIRST_CHECK = 0.1  # seconds until the first check of unacknowledged bytes, for which there is no event


class Linger:
    """Sends the last bytes (such as an alert), discards input, and closes the socket.

    While bytes are unacknowledged, it waits as long as their number falls at least every `limit` seconds. With `with_reset` it
    closes with a reset as soon as all are acknowledged; else it sends a FIN first, and the peer has a second to close.
    """

    __slots__ = (
        "_buffer",
        "_bytes_to_discard",
        "_last_progress",
        "_limit",
        "_loop",
        "_socket",
        "_timer",
        "_unacknowledged",
        "_with_reset",
    )

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        final_data: bytes,
        buffer: memoryview,
        *,
        limit: float = 0,
        with_reset: bool = False,
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._buffer = buffer
        self._limit = limit
        self._with_reset = with_reset
        self._bytes_to_discard = _MAX_DISCARDED
        with suppress(OSError):
            if final_data:
                sock.send(final_data)
            if not with_reset:
                sock.shutdown(socket.SHUT_WR)
        self._last_progress = loop.clock()
        self._unacknowledged = self._count_unacknowledged()
        self._timer = loop.call_at(self._last_progress + self._seconds_to_check(), self._check, self)
        if with_reset and not self._unacknowledged:
            self._close()
            return
        loop.rewatch(sock, self.ready, self)
        loop.call_again(sock)

    def ready(self, _events: int) -> None:
        """Process events of the socket."""
        try:
            size = self._socket.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            self._close()
            return
        self._bytes_to_discard -= size
        if not size and self._with_reset:  # the peer sends no more, but may still read
            return
        if size and (self._bytes_to_discard > 0 or self._count_unacknowledged()):
            self._loop.call_again(self._socket)  # one read per turn: this peer must not delay others
        else:
            self._close()

    def crashed(self, crash: Exception) -> None:
        """Close after a bug."""
        self._close()

    def _count_unacknowledged(self) -> int:
        return unacknowledged(self._socket) if self._limit else 0

    def _seconds_to_check(self) -> float:
        """Seconds until the next check: as long as the peer has acknowledged nothing, within limits."""
        stalled = self._loop.clock() - self._last_progress
        return min(max(stalled, _FIRST_CHECK), _MAX_WAIT) if self._unacknowledged else _MAX_WAIT

    def _check(self) -> None:
        """Close, or wait on while the peer acknowledges bytes."""
        now, unacknowledged_bytes = self._loop.clock(), self._count_unacknowledged()
        if unacknowledged_bytes != self._unacknowledged:
            self._unacknowledged, self._last_progress = unacknowledged_bytes, now
        is_over = self._with_reset if not unacknowledged_bytes else now >= self._last_progress + self._limit
        if is_over or (not unacknowledged_bytes and now >= self._last_progress + _MAX_WAIT):
            self._close()
        else:
            self._timer = self._loop.call_at(now + self._seconds_to_check(), self._check, self)

    def _close(self) -> None:
        self._loop.cancel(self._timer)
        if self._with_reset:
            reset(self._socket)
        self._loop.retire(self._socket)


def unacknowledged(sock: socket.socket) -> int:
    """The number of sent bytes that a reset would discard: 0 on a Unix socket, where the peer has them already."""
    if is_unix(sock):
        return 0
    count = bytearray(4)
    try:
        fcntl.ioctl(sock, termios.TIOCOUTQ, count)
    except OSError:
        return 0
    return int.from_bytes(count, "little")


def reset(sock: socket.socket) -> None:
    """Make the next close of this socket send a reset."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
