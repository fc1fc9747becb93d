"""The two streams between a TLS socket and a plain socket, with half-close and backpressure.

Rules for changes to this file:

1. Backpressure: each direction holds at most one unsent chunk; while it does, its source is not read.
2. One read per turn and direction: a short read means that nothing is left, and is not repeated only to get EAGAIN.
3. EOF is forwarded as EOF, and a failure as a reset or without close_notify: a truncated stream never looks complete.
4. A failure of one side is forwarded after the bytes read from it, and a reset is sent after these bytes are acknowledged.
"""

from __future__ import annotations

import socket

from tunnel.errors import TlsError, describe_os_error
from tunnel.net.sockets import is_unix
from tunnel.relay.close_reason import CloseReason, RelayOwner
from tunnel.relay.ending import RelayEnding
from tunnel.relay.handshake import HandshakeResult
from tunnel.relay.loop import Loop
from tunnel.tls.records import RECORD_BYTES, SMALL_HEADS, Buffers

_MAX_UNSENT = 512 * 1024  # bytes: more than one read can produce
SMALL_READ = 4096  # bytes: reads up to this size do not enlarge OpenSSL's buffers


class RelayStreams:
    """The two streams of one connection, each from a read to the send on the other side; `Relay` calls them at events."""

    __slots__ = (
        "_end",
        "_ending",
        "_has_yielded",
        "_heads",
        "_inbox",
        "_is_down_fast",
        "_is_up_fast",
        "_loop",
        "_outbox",
        "_owner",
        "_plain",
        "_plain_fd",
        "_plain_until_eagain",
        "_tail",
        "_tls",
        "_tls_fd",
        "_tls_until_eagain",
        "_unsent_plain",
        "_unsent_tls",
        "down",
        "has_fin_without_close_notify",
        "is_down_over",
        "is_open",
        "is_up_over",
        "needs_trim",
        "up",
    )

    def __init__(
        self,
        loop: Loop,
        owner: RelayOwner,
        handshake: HandshakeResult,
        tls: socket.socket,
        plain: socket.socket,
        *,
        buffers: Buffers,
        close_timeout: float,
        plain_may_have_input: bool = True,
    ) -> None:
        """`plain_may_have_input`: it may have some for which there will be no event."""
        self._loop = loop
        self._owner = owner
        self._ending = RelayEnding(loop, tls, plain, inbox=buffers.inbox_view, close_timeout=close_timeout)
        self._end = handshake.end
        self._tail = handshake.tail  # bytes of an incomplete record, or not yet decrypted
        self._tls = tls
        self._plain = plain
        self._tls_fd, self._plain_fd = tls.fileno(), plain.fileno()
        self._inbox = buffers.inbox_view
        self._outbox = buffers.outbox_view
        self._heads = buffers.outbox_heads
        self._unsent_tls = handshake.unsent  # the chunk that the TLS socket has not accepted yet
        self._unsent_plain = b""
        # A short read means that nothing is left, except on a Unix socket and after an event of `ENDING`: then the socket is
        # read until EAGAIN. At the start too, if such an event may have come before this handler was set.
        self._tls_until_eagain = handshake.may_have_input or is_unix(tls)
        self._plain_until_eagain = plain_may_have_input or is_unix(plain)
        self.up = 0  # plaintext bytes, TLS side to plain side
        self.down = 0
        self.is_up_over = False
        self.is_down_over = False
        self.has_fin_without_close_notify = False
        self.needs_trim = False
        self.is_open = True
        self._has_yielded = False  # has used up its share of this turn
        self._is_up_fast = self._is_down_fast = False

    def _update_fast_paths(self) -> None:
        """Allow the fast paths if nothing is unsent, nothing is ending, and one short read is known to be all."""
        is_fast = self.is_open and not (self._ending.has_begun or self._unsent_plain or self._unsent_tls)
        self._is_up_fast = is_fast and not (self._tail or self._tls_until_eagain)
        self._is_down_fast = is_fast and not self._plain_until_eagain

    # -- from TLS to plain

    def _pump_up(self) -> None:
        if self._unsent_plain or self.is_up_over or len(self._unsent_tls) > _MAX_UNSENT:
            return  # a peer that reads nothing must not fill our memory with OpenSSL's answers to its records
        view = self._inbox
        start = len(self._tail)
        if start:
            view[:start] = self._tail
            view = view[start:]
            if self._end.has_more:  # the last turn has used up its share
                self._forward_rest(start)
                return
        try:
            size = self._tls.recv_into(view)
        except OSError as error:
            self._read_failed(error, CloseReason.RESET_BY_PEER)
            return
        self._process_tls_read(size, len(view))

    def _forward_rest(self, size: int) -> None:
        """Forward the complete records left of an earlier read, at most once per turn."""
        if self._has_yielded:
            return
        self._forward_records(size)
        if self.is_open and not self._end.has_more:
            self._loop.call_again(self._tls)

    def _resume_reading(self) -> None:
        """Allow reading again: the turn is over."""
        self._has_yielded = False
        if self.is_open:
            self._loop.call_again(self._tls)

    def _process_tls_read(self, size: int, room: int) -> None:
        """Process `size` bytes read behind the tail from the TLS side; `room` is the most that the read could return."""
        start = len(self._tail)
        if size:
            self._forward_records(start + size)
            if self.is_open and (self._tls_until_eagain or size == room):
                self._loop.call_again(self._tls)
        elif self._ending.is_tls_closed:
            self._truncate_up()
        elif start:
            self._record_failure(CloseReason.TRUNCATED, "connection closed inside a TLS record")
            self._truncate_up()
        else:
            self.has_fin_without_close_notify = True
            self._end_up()

    def _forward_records(self, size: int) -> None:
        end = self._end
        plain = end.open_records(size)
        self._tail = bytes(self._inbox[end.consumed : size]) if end.consumed < size else b""
        if plain:
            self.up += plain
            self._send_plain(plain)
            self._request_trim(plain)
        if end.has_output and self.is_open and not end.has_ended:  # no tickets after close_notify: the peer may have closed
            self._send_tls(end.take())
        if end.failure is not None and self.is_open:
            self._fail(end.failure)
        elif end.has_ended and self.is_open:
            self._end_up()
        elif end.has_more and self.is_open:
            self._has_yielded = True
            self._loop.call_soon(self._resume_reading)
        self._ending.note_traffic()

    def _send_plain(self, size: int) -> None:
        try:
            sent = self._plain.send(self._heads[size] if size < SMALL_HEADS else self._outbox[:size])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._plain_write_failed(error)
            return
        if sent < size:
            self._unsent_plain = bytes(self._outbox[sent:size])
            self._update_fast_paths()

    def _end_up(self) -> None:
        self.is_up_over = True
        self._tail = b""
        if self._unsent_plain:
            self._end_direction()
        else:
            self._shut_plain()

    def _truncate_up(self) -> None:
        """The TLS side has failed: forward what it sent before, and send nothing more to it."""
        self._ending.is_up_truncated = self.is_down_over = True
        self._end_up()

    def _shut_plain(self) -> None:
        if self._ending.is_up_truncated:
            self._end_direction()
            return
        try:
            self._plain.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._plain_write_failed(error)
            return
        self._end_direction()

    # -- from plain to TLS

    def _pump_down(self) -> None:
        if self._unsent_tls or self.is_down_over:
            return
        try:
            size = self._plain.recv_into(self._inbox)
        except OSError as error:
            self._read_failed(error, CloseReason.RESET_BY_PLAIN)
            return
        self._process_plain_read(size)

    def _process_plain_read(self, size: int) -> None:
        """Process `size` bytes read from the plain side."""
        if not size:
            self._end_down()
            return
        self.down += size
        try:
            self._seal_and_send(size)
        except TlsError as error:
            self._fail(error)
            return
        self._request_trim(size)
        self._ending.note_traffic()
        if self.is_open and (self._plain_until_eagain or size == len(self._inbox)):
            self._loop.call_again(self._plain)

    def _seal_and_send(self, size: int) -> None:
        if size <= RECORD_BYTES:  # for one record, a copy costs less than the calls without it
            self._send_tls(self._outbox[: self._end.seal(size)])
            return
        for piece in self._end.seal_pieces(size):
            self._send_tls(piece)
            if self._ending.is_tls_closed:  # OpenSSL's memory may be free by now
                return

    def _send_tls(self, data: bytes | memoryview) -> None:
        if self._ending.is_tls_closed:
            return
        if not data or self._unsent_tls:
            self._unsent_tls += bytes(data)
            return
        try:
            sent = self._tls.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._tls_write_failed(error)
            return
        if sent < len(data):
            self._unsent_tls = bytes(data[sent:])
            self._update_fast_paths()

    def _end_down(self) -> None:
        self.is_down_over = True
        if self._ending.plain_error:
            # Send no close_notify, which would mark the stream as complete.
            self._record_failure(CloseReason.RESET_BY_PLAIN, self._ending.plain_error)
        else:
            # close_notify without a FIN: the peer may continue to send (RFC 8446, 6.1).
            self._send_tls(self._end.close_notify())
        if self.is_open:
            self._end_direction()

    # -- both

    def _read_failed(self, error: OSError, reason: CloseReason) -> None:
        """EAGAIN: all input has been read. Any other error: the side has failed, after all that it sent."""
        if not isinstance(error, BlockingIOError):
            self._record_failure(reason, describe_os_error(error))
            if reason is CloseReason.RESET_BY_PEER:
                self._ending.is_tls_closed = True
                self._unsent_tls = b""
                self._truncate_up()
            else:
                self._ending.is_plain_reset = self.is_down_over = True
                self._plain_write_failed(error)
        elif reason is CloseReason.RESET_BY_PEER:
            self._tls_until_eagain = is_unix(self._tls)
        else:
            self._plain_until_eagain = is_unix(self._plain)

    def _flush(self, sock: socket.socket) -> bool:
        """Send the unsent chunk; return whether nothing is left and the connection is still open."""
        is_tls = sock is self._tls
        waiting = self._unsent_tls if is_tls else self._unsent_plain
        try:
            sent = sock.send(waiting)
        except BlockingIOError:
            return False
        except OSError as error:
            if is_tls:
                self._tls_write_failed(error)
            else:
                self._plain_write_failed(error)
            return False
        waiting = waiting[sent:]
        self._ending.note_traffic()
        if is_tls:
            self._unsent_tls = waiting
        else:
            self._unsent_plain = waiting
        if waiting:
            return False
        if is_tls and self.is_down_over:
            self._end_direction()
        elif not is_tls and self.is_up_over:
            self._shut_plain()
        return self.is_open

    def _end_direction(self) -> None:
        """One direction has ended: finish if the other has too and all is sent; until then limit the time without traffic."""
        is_all_sent = not self._unsent_plain and not self._unsent_tls
        if self.is_up_over and self.is_down_over and is_all_sent:
            self._finish(self._ending.reason, self._ending.detail or self._ending.plain_error)
        else:
            self._limit_silence()

    def _limit_silence(self) -> None:
        """Finish if the other direction has no traffic for the close timeout."""
        self._ending.limit_silence(self._owner, self._end_silence)

    def _end_silence(self) -> None:
        self._ending.record_silence(is_up_over=self.is_up_over and not self._unsent_plain)
        self._finish(self._ending.reason, self._ending.detail)

    def _plain_write_failed(self, error: OSError) -> None:
        """The plain side accepts no more bytes; what it sent before is still forwarded to the peer."""
        self._ending.plain_error = describe_os_error(error)
        self.is_up_over = True
        self._is_up_fast = self._is_down_fast = False
        self._unsent_plain = b""
        if not self.is_down_over:
            self._plain_until_eagain = True
            self._loop.call_again(self._plain)
        self._end_direction()

    def _tls_write_failed(self, error: OSError) -> None:
        """The TLS side accepts no more bytes; what it sent before is still forwarded to the plain side."""
        self._record_failure(CloseReason.RESET_BY_PEER, describe_os_error(error))
        self._ending.is_tls_closed = self.is_down_over = True
        self._unsent_tls = b""
        if not self.is_up_over:
            self._tls_until_eagain = True
            self._loop.call_again(self._tls)
        self._end_direction()

    def _fail(self, error: TlsError) -> None:
        """OpenSSL reported an error."""
        self._ending.record_tls_failure(error, has_data=self.up > 0)
        self._update_fast_paths()
        self._send_tls(self._end.take())
        if self.is_open:
            self._truncate_up()

    def _record_failure(self, reason: CloseReason, detail: str) -> None:
        """Keep the first failure for the record."""
        self._ending.record(reason, detail)
        self._update_fast_paths()

    def _request_trim(self, size: int) -> None:
        if size > SMALL_READ and not self.needs_trim and self.is_open:
            self.needs_trim = True
            self._owner.relay_needs_trim()

    def _finish(self, reason: CloseReason, detail: str = "") -> None:
        self.is_open = self._is_up_fast = self._is_down_fast = False
        self.is_up_over = self.is_down_over = True
        self._unsent_plain = self._unsent_tls = self._tail = b""
        try:
            self._ending.close(reason)
            self._end.free()
        finally:  # else a bug in these would keep the session, and its place among the open connections, for ever
            self._owner.relay_ended(reason, detail)
