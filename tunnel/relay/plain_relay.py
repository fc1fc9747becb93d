"""The two-way relay between a plain client and the target, with the end semantics of `relay_streams.py`.

The rules 1 to 4 of that file hold here too. A FIN is a proper end; a stream that ends in any other way ends in a reset.
"""

from __future__ import annotations

import socket
from functools import partial

from tunnel.authz.authorizer import Admitted
from tunnel.errors import describe_os_error
from tunnel.net.sockets import is_unix
from tunnel.relay.close_reason import IMMEDIATE, CloseReason, RelayOwner
from tunnel.relay.close_timer import CloseTimer
from tunnel.relay.linger import MIN_LINGER, Linger, reset
from tunnel.relay.loop import ENDING, HANGUP, IN, Loop
from tunnel.tls.records import Buffers


class _PlainSide:
    """One socket: the stream that comes from it, and the chunk that it has not accepted yet."""

    __slots__ = (
        "failure",
        "has_ended",
        "is_broken",
        "is_shut",
        "other",
        "reads_until_eagain",
        "received",
        "socket",
        "unsent",
    )

    other: _PlainSide

    def __init__(self, sock: socket.socket, failure: CloseReason) -> None:
        self.socket = sock
        self.failure = failure  # the reason of the relay's end if this side fails
        self.unsent = b""
        self.received = 0  # bytes
        self.reads_until_eagain = True  # else a short read means that nothing is left
        self.has_ended = False  # nothing more is read from it
        self.is_shut = False  # it has received a FIN from us
        self.is_broken = False  # it accepts no more bytes


class PlainRelay:
    """The relay of one plain connection; `admitted` shows that the listener permits it."""

    __slots__ = (
        "_client",
        "_close_reason",
        "_close_timeout",
        "_detail",
        "_inbox",
        "_loop",
        "_owner",
        "_target",
        "_timer",
        "admitted",
        "is_open",
    )

    has_fin_without_close_notify = False  # there is no close_notify to miss

    def __init__(
        self,
        loop: Loop,
        owner: RelayOwner,
        admitted: Admitted,
        client: socket.socket,
        target: socket.socket,
        *,
        buffers: Buffers,
        close_timeout: float,
    ) -> None:
        self._loop = loop
        self._owner = owner
        self.admitted = admitted
        self._client = _PlainSide(client, CloseReason.RESET_BY_PEER)
        self._target = _PlainSide(target, CloseReason.RESET_BY_PLAIN)
        self._client.other, self._target.other = self._target, self._client
        self._inbox = buffers.inbox_view
        self._close_timeout = close_timeout
        self.is_open = True
        self._timer: CloseTimer | None = None
        self._close_reason = CloseReason.CLOSED  # or the first failure
        self._detail = ""

    @property
    def up(self) -> int:
        """Bytes from the client."""
        return self._client.received

    @property
    def down(self) -> int:
        """Bytes from the target."""
        return self._target.received

    def start(self) -> None:
        """Take over both sockets."""
        for side in (self._client, self._target):
            self._loop.rewatch(side.socket, partial(self._ready, side), self._owner)
            self._loop.call_again(side.socket)  # earlier events are not repeated

    def abort(self, reason: CloseReason, detail: str = "") -> None:
        """Close both sides so that neither receives a normal end."""
        if self.is_open:
            self._client.is_shut = self._target.is_shut = False
            self._finish(reason, detail)

    # -- one direction

    def _ready(self, side: _PlainSide, events: int) -> None:
        if events & ENDING:
            side.reads_until_eagain = True
            if events & HANGUP and self._close_timeout:  # its input is still read, which may have to wait for the other side
                self._limit_silence()
        if side.unsent and self._flush(side):
            self._pump(side.other)
        if self.is_open and (events & (IN | ENDING) or not events):
            self._pump(side)

    def _pump(self, side: _PlainSide) -> None:
        """Read once from a side, unless the other one has not accepted the last chunk yet."""
        if side.has_ended or side.other.unsent:
            return
        try:
            size = side.socket.recv_into(self._inbox)
        except BlockingIOError:
            side.reads_until_eagain = is_unix(side.socket)
        except OSError as error:
            self._read_failed(side, error)
        else:
            self._forward(side, size)

    def _forward(self, side: _PlainSide, size: int) -> None:
        if not size:
            self._end_stream(side)
            return
        side.received += size
        self._send(side.other, size)
        if self.is_open and (side.reads_until_eagain or size == len(self._inbox)):
            self._loop.call_again(side.socket)

    def _send(self, side: _PlainSide, size: int) -> None:
        if self._timer is not None:
            self._timer.note_traffic()
        try:
            sent = side.socket.send(self._inbox[:size])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._write_failed(side, error)
            return
        if sent < size:
            side.unsent = bytes(self._inbox[sent:size])

    def _flush(self, side: _PlainSide) -> bool:
        """Send the unsent chunk; return whether nothing is left."""
        try:
            sent = side.socket.send(side.unsent)
        except BlockingIOError:
            return False
        except OSError as error:
            self._write_failed(side, error)
            return False
        side.unsent = side.unsent[sent:]
        if self._timer is not None:
            self._timer.note_traffic()
        return not side.unsent

    def _end_stream(self, side: _PlainSide) -> None:
        """Forward an EOF. After a failed write it proves nothing: the kernel reports a reset once, and then EOF."""
        side.has_ended = True
        if not side.is_broken:
            try:
                side.other.socket.shutdown(socket.SHUT_WR)
            except OSError as error:
                self._write_failed(side.other, error)
                return
            side.other.is_shut = True
        self._end_direction()

    # -- failures

    def _read_failed(self, side: _PlainSide, error: OSError) -> None:
        """A side was reset: forward what it sent before, and read no more for it."""
        self._record_failure(side, error)
        side.has_ended = side.other.has_ended = True
        self._end_direction()

    def _write_failed(self, side: _PlainSide, error: OSError) -> None:
        """A side accepts no more bytes; what it sent before is still forwarded."""
        self._record_failure(side, error)
        side.other.has_ended = True
        if not side.has_ended:
            side.reads_until_eagain = True
            self._loop.call_again(side.socket)
        self._end_direction()

    def _record_failure(self, side: _PlainSide, error: OSError) -> None:
        side.is_broken = True
        side.unsent = b""
        if self._close_reason is CloseReason.CLOSED:
            self._close_reason, self._detail = side.failure, describe_os_error(error)

    # -- the end

    def _end_direction(self) -> None:
        """One direction has ended: finish if the other has too; until then limit the time without traffic.

        Nothing is unsent at the end of both: the end of a stream is read after the bytes before it have been sent.
        """
        if self._client.has_ended and self._target.has_ended:
            self._finish(self._close_reason, self._detail)
        else:
            self._limit_silence()

    def _limit_silence(self) -> None:
        """Finish if nothing is forwarded for the close timeout."""
        if self._timer is None:
            self._timer = CloseTimer(self._loop, self._owner, self._close_timeout, self._end_silence)
            self._timer.start()

    def _end_silence(self) -> None:
        reason = CloseReason.CLOSE_TIMEOUT if self._close_reason is CloseReason.CLOSED else self._close_reason
        self._finish(reason, self._detail or f"no activity for {self._close_timeout:g}s after half-close")

    def _finish(self, reason: CloseReason, detail: str = "") -> None:
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            self._close(self._client, reason)
            self._close(self._target, reason)
        finally:  # else a bug in these would keep the session, and its place among the open connections, for ever
            self._owner.relay_ended(reason, detail)

    def _close(self, side: _PlainSide, reason: CloseReason) -> None:
        """Close a side: with a reset after the bytes sent to it, unless it has received the complete stream."""
        side.has_ended, side.unsent = True, b""
        if reason in IMMEDIATE:
            reset(side.socket)
        elif reason is not CloseReason.CLOSED and not side.is_broken:
            limit = max(self._close_timeout, MIN_LINGER)
            Linger(self._loop, side.socket, b"", self._inbox, limit=limit, with_reset=not side.is_shut)
            return
        self._loop.retire(side.socket)
