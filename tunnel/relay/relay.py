"""The two-way relay between a TLS socket and a plain one, with half-close and back-pressure.

Knows how bytes and ends pass from one side to the other; must not know which side was accepted, nor who the peer is, only
that it was admitted. Rules for whoever edits this file:

1. At most one piece is held for each direction; while it waits for room, its source is not read.
2. One read a turn for each direction: `recv` says by a short answer that nothing is left, and is not asked again.
3. An end is passed on as an end and a failure as a failure: nobody takes a cut stream for a whole one.
4. A failure of one side comes behind what was read from that side, and what was sent on is acknowledged before a reset.
"""

from __future__ import annotations

import socket

from tunnel.errors import TlsError, TlsFault, describe_os_error
from tunnel.relay.close_reason import CloseReason, RelayOwner
from tunnel.relay.handshake import HandshakeResult
from tunnel.relay.linger import Linger, reset
from tunnel.relay.loop import ENDING, GONE, IN, OUT, Loop, Timer
from tunnel.tls.engine import SMALL_HEADS, Buffers

_MAX_HELD = 512 * 1024  # bytes for the TLS side, above what one read can make
_SMALL = 4096  # bytes in one read up to which OpenSSL's memory stays small
_LEAST_LINGER = 1.0  # seconds for a peer to take something, where the close timeout is shorter
_AT_ONCE = {CloseReason.CUT, CloseReason.CRASH}  # nobody is there to wait
_READABLE = IN | OUT  # what an edge says of a socket that has input and room


class Relay:
    """One carried connection; that it takes a `HandshakeResult`, which holds an `Admitted`, is what keeps strangers out."""

    __slots__ = (
        "_close_timeout",
        "_cut",
        "_detail",
        "_end",
        "_heads",
        "_how",
        "_inbox",
        "_is_down_calm",
        "_is_down_cut",
        "_is_resting",
        "_is_tls_gone",
        "_is_up_calm",
        "_is_up_cut",
        "_last",
        "_loop",
        "_outbox",
        "_owner",
        "_plain",
        "_plain_thorough",
        "_tail",
        "_timer",
        "_tls",
        "_tls_thorough",
        "_to_plain",
        "_to_tls",
        "down",
        "has_fin_without_close_notify",
        "is_down_over",
        "is_grown",
        "is_open",
        "is_up_over",
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
    ) -> None:
        self._loop = loop
        self._owner = owner
        self._end = handshake.end
        self._tail = handshake.tail  # of a record that is not all there, or not looked at yet
        self._tls = tls
        self._plain = plain
        self._inbox = buffers.inbox_view
        self._outbox = buffers.outbox_view
        self._heads = buffers.outbox_heads
        self._close_timeout = close_timeout
        self._to_tls = handshake.unsent  # waiting for room
        self._to_plain = b""
        # A short read proves that nothing is left, but not on a Unix socket, nor once an end has been announced: then it is
        # read until the kernel says so. Also at first, since an announcement may have come before we took over.
        self._tls_thorough = self._plain_thorough = True
        self.up = 0  # plaintext bytes, TLS side to plain side
        self.down = 0
        self.is_up_over = False
        self.is_down_over = False
        self.has_fin_without_close_notify = False
        self.is_grown = False
        self.is_open = True
        self._timer: Timer | None = None
        self._last = 0.0
        self._cut = ""  # why the plain side takes no more, when it does not
        self._is_down_cut = False  # the plain side was reset
        self._is_resting = False  # has used its share of this turn up
        self._is_tls_gone = False  # the TLS side takes no more
        self._is_up_cut = False  # the stream from the TLS side has not come to its end: the plain side must not see one
        self._how = CloseReason.CLOSED  # unless something has gone wrong
        self._detail = ""
        self._is_up_calm = self._is_down_calm = False

    def start(self) -> None:
        """Take both sockets over; what came in meanwhile is carried at once."""
        self._end.renew()  # the handshake has made the BIOs large
        self._loop.rewatch(self._tls, self.tls_ready, self._owner)
        self._loop.rewatch(self._plain, self.plain_ready, self._owner)
        if self._tail:
            self._inbox[: len(self._tail)] = self._tail
            self._carry_up(len(self._tail))
        if self.is_open:
            self._loop.call_again(self._tls)
            self._loop.call_again(self._plain)

    # -- events

    def tls_ready(self, events: int) -> None:
        """Events of the TLS socket. First the case that counts: one small record, and room for what is in it."""
        if events == _READABLE and self._is_up_calm:
            try:
                size = self._tls.recv_into(self._inbox)
            except OSError as error:
                self._read_failed(error, CloseReason.RESET_BY_PEER)
                return
            if 0 < size <= _SMALL:
                plain = self._end.open_one(size)
                if plain:
                    self.up += plain
                    self._send_plain(plain)
                    return
            self._take_up(size, len(self._inbox))
        else:
            self._tls_event(events)
        self._settle()

    def plain_ready(self, events: int) -> None:
        """Events of the plain socket. First the case that counts: a small message, and room for its record."""
        if events == _READABLE and self._is_down_calm:
            try:
                size = self._plain.recv_into(self._inbox)
            except OSError as error:
                self._read_failed(error, CloseReason.RESET_BY_PLAIN)
                return
            if 0 < size <= _SMALL:
                self.down += size
                try:
                    out = self._end.seal(size)
                except TlsError as error:
                    self._fail(error)
                    return
                self._send_tls(self._heads[out] if out < SMALL_HEADS else self._outbox[:out])
                return
            self._take_down(size)
        else:
            self._plain_event(events)
        self._settle()

    def _tls_event(self, events: int) -> None:
        if events & ENDING:
            self._tls_thorough = True
            self._watch_gone(events)
        if self._to_tls and self._flush(self._tls):
            self._pump_down()
            if self.is_open and not events & IN:  # what was left unread while too much was held has no event any more
                self._pump_up()
        if self.is_open and (events & (IN | ENDING) or not events):
            self._pump_up()

    def _plain_event(self, events: int) -> None:
        if events & ENDING:
            self._plain_thorough = True
            self._watch_gone(events)
        if self._to_plain and self._flush(self._plain):
            self._pump_up()
        if self.is_open and (events & (IN | ENDING) or not events):
            self._pump_down()

    def _settle(self) -> None:
        """Whether the next event may be the case that counts: nothing held, nothing ending, one read is all there is."""
        is_calm = self.is_open and self._timer is None and not (self._to_plain or self._to_tls)
        self._is_up_calm = is_calm and not (self._tail or self._tls_thorough)
        self._is_down_calm = is_calm and not self._plain_thorough

    def abort(self, how: CloseReason, detail: str = "") -> None:
        """Give both sides up so that neither takes it for an orderly end."""
        if self.is_open:
            self._finish(how, detail)

    def renew_memory(self) -> None:
        """Give back what a burst has grown; between two events OpenSSL's memory is empty."""
        self.is_grown = False
        if self.is_open:
            self._end.renew()

    # -- from TLS to plain

    def _pump_up(self) -> None:
        if self._to_plain or self.is_up_over or len(self._to_tls) > _MAX_HELD:
            return  # records that make OpenSSL answer, sent by a peer that reads nothing, must not fill our memory
        view = self._inbox
        start = len(self._tail)
        if start:
            view[:start] = self._tail
            view = view[start:]
            if self._end.has_more:  # the last turn has used its share up
                self._carry_more(start)
                return
        try:
            size = self._tls.recv_into(view)
        except OSError as error:
            self._read_failed(error, CloseReason.RESET_BY_PEER)
            return
        self._take_up(size, len(view))

    def _carry_more(self, size: int) -> None:
        """Whole records that are left of an earlier read: once a turn, whatever has been announced meanwhile."""
        if self._is_resting:
            return
        self._carry_up(size)
        if self.is_open and not self._end.has_more:
            self._loop.call_again(self._tls)

    def _wake(self) -> None:
        """The turn is over."""
        self._is_resting = False
        if self.is_open:
            self._loop.call_again(self._tls)

    def _take_up(self, size: int, room: int) -> None:
        """What one read from the TLS side has brought behind the tail."""
        start = len(self._tail)
        if size:
            self._carry_up(start + size)
            if self.is_open and (self._tls_thorough or size == room):
                self._loop.call_again(self._tls)
        elif self._is_tls_gone:
            self._cut_up()
        elif start:
            self._note(CloseReason.TRUNCATED, "connection closed inside a TLS record")
            self._cut_up()
        else:
            self.has_fin_without_close_notify = True
            self._end_up()

    def _carry_up(self, size: int) -> None:
        end = self._end
        plain = end.open_records(size)
        self._tail = bytes(self._inbox[end.consumed : size]) if end.consumed < size else b""
        if plain:
            self.up += plain
            self._send_plain(plain)
            self._note_size(plain)
        if end.has_spoken and self.is_open and not end.has_ended:  # a peer that has ended may have closed: it gets no tickets
            self._send_tls(end.take())
        if end.failure is not None and self.is_open:
            self._fail(end.failure)
        elif end.has_ended and self.is_open:
            self._end_up()
        elif end.has_more and self.is_open:
            self._is_resting = True
            self._loop.call_soon(self._wake)
        if self._timer is not None:
            self._last = self._loop.clock()

    def _send_plain(self, size: int) -> None:
        try:
            sent = self._plain.send(self._heads[size] if size < SMALL_HEADS else self._outbox[:size])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._plain_broke(error)
            return
        if sent < size:
            self._to_plain = bytes(self._outbox[sent:size])
            self._settle()

    def _end_up(self) -> None:
        self.is_up_over = True
        self._tail = b""
        if self._to_plain:
            self._end_one()
        else:
            self._shut_plain()

    def _cut_up(self) -> None:
        """The TLS side has failed: what it sent before goes to the plain side, and nothing more to the TLS side."""
        self._is_up_cut = self.is_down_over = True
        self._end_up()

    def _shut_plain(self) -> None:
        if self._is_up_cut:
            self._end_one()
            return
        try:
            self._plain.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._plain_broke(error)
            return
        self._end_one()

    # -- from plain to TLS

    def _pump_down(self) -> None:
        if self._to_tls or self.is_down_over:
            return
        try:
            size = self._plain.recv_into(self._inbox)
        except OSError as error:
            self._read_failed(error, CloseReason.RESET_BY_PLAIN)
            return
        self._take_down(size)

    def _take_down(self, size: int) -> None:
        """What one read from the plain side has brought."""
        if not size:
            self._end_down()
            return
        self.down += size
        try:
            out = self._end.seal(size)
        except TlsError as error:
            self._fail(error)
            return
        self._send_tls(self._outbox[:out])
        self._note_size(size)
        if self._timer is not None:
            self._last = self._loop.clock()
        if self.is_open and (self._plain_thorough or size == len(self._inbox)):
            self._loop.call_again(self._plain)

    def _send_tls(self, data: bytes | memoryview) -> None:
        if self._is_tls_gone:
            return
        if not data or self._to_tls:
            self._to_tls += bytes(data)
            return
        try:
            sent = self._tls.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._tls_broke(error)
            return
        if sent < len(data):
            self._to_tls = bytes(data[sent:])
            self._settle()

    def _end_down(self) -> None:
        self.is_down_over = True
        if self._cut:
            self._note(CloseReason.RESET_BY_PLAIN, self._cut)  # and so without the close_notify that would vouch for the end
        else:
            # close_notify without a FIN: the peer may go on sending (RFC 8446, 6.1).
            self._send_tls(self._end.close_notify())
        if self.is_open:
            self._end_one()

    # -- both

    def _read_failed(self, error: OSError, how: CloseReason) -> None:
        """Nothing is left, so whatever was announced has been read; or the side has failed, behind all that it sent."""
        if not isinstance(error, BlockingIOError):
            self._note(how, describe_os_error(error))
            if how is CloseReason.RESET_BY_PEER:
                self._is_tls_gone = True
                self._to_tls = b""
                self._cut_up()
            else:
                self._is_down_cut = self.is_down_over = True
                self._plain_broke(error)
        elif how is CloseReason.RESET_BY_PEER:
            self._tls_thorough = self._tls.family == socket.AF_UNIX
        else:
            self._plain_thorough = self._plain.family == socket.AF_UNIX

    def _flush(self, sock: socket.socket) -> bool:
        """Send what waits for room; whether none is left and the connection still open."""
        is_tls = sock is self._tls
        waiting = self._to_tls if is_tls else self._to_plain
        try:
            sent = sock.send(waiting)
        except BlockingIOError:
            return False
        except OSError as error:
            if is_tls:
                self._tls_broke(error)
            else:
                self._plain_broke(error)
            return False
        waiting = waiting[sent:]
        if self._timer is not None:
            self._last = self._loop.clock()
        if is_tls:
            self._to_tls = waiting
        else:
            self._to_plain = waiting
        if waiting:
            return False
        if is_tls and self.is_down_over:
            self._end_one()
        elif not is_tls and self.is_up_over:
            self._shut_plain()
        return self.is_open

    def _end_one(self) -> None:
        """One direction is over: when the other is too and all is said, so is the whole; till then, silence has a limit."""
        is_all_said = not self._to_plain and not self._to_tls
        if self.is_up_over and self.is_down_over and is_all_said:
            self._finish(self._how, self._detail or self._cut)
        elif self._timer is None:
            self._last = self._loop.clock()
            self._watch_silence()

    def _watch_gone(self, events: int) -> None:
        """A side that is gone is read to its end, which may have to wait for the other side: that too has a limit."""
        if events & GONE and self._timer is None and self._close_timeout:
            self._last = self._loop.clock()
            self._watch_silence()

    def _watch_silence(self) -> None:
        """After one end, silence of the other direction has a limit; what moves may go on for as long as it likes."""
        due = self._last + self._close_timeout
        if due > self._loop.clock():
            self._timer = self._loop.call_at(due, self._watch_silence, self._owner)
        else:
            # The TLS side tells a cut by the close_notify that it lacks.
            self._is_up_cut = self._is_up_cut or not self.is_up_over or bool(self._to_plain)
            how = CloseReason.CLOSE_TIMEOUT if self._how is CloseReason.CLOSED else self._how
            self._finish(how, self._detail or f"no activity for {self._close_timeout:g}s after half-close")

    def _plain_broke(self, error: OSError) -> None:
        """The plain side takes no more; what it said before that still belongs to the peer, and is carried to its end."""
        self._cut = describe_os_error(error)
        self.is_up_over = True
        self._is_up_calm = self._is_down_calm = False
        self._to_plain = b""
        if not self.is_down_over:
            self._plain_thorough = True
            self._loop.call_again(self._plain)
        self._end_one()

    def _tls_broke(self, error: OSError) -> None:
        """The TLS side takes no more; what it said before that still belongs to the plain side."""
        self._note(CloseReason.RESET_BY_PEER, describe_os_error(error))
        self._is_tls_gone = self.is_down_over = True
        self._to_tls = b""
        if not self.is_up_over:
            self._tls_thorough = True
            self._loop.call_again(self._tls)
        self._end_one()

    def _fail(self, error: TlsError) -> None:
        """OpenSSL gave up. An alert before the first byte is the refusal that TLS 1.3 has no earlier place for."""
        if error.reason is TlsFault.NO_DATA:
            how = CloseReason.NO_DATA
        elif error.alert is None:
            how = CloseReason.PROTOCOL
        else:
            how = CloseReason.REFUSED_BY_PEER if self.up == 0 else CloseReason.RESET_BY_PEER
        self._note(how, str(error))
        self._send_tls(self._end.take())
        if self.is_open:
            self._cut_up()

    def _note(self, how: CloseReason, detail: str) -> None:
        """Something has gone wrong: the first failure is the one that is told."""
        self._is_up_calm = self._is_down_calm = False
        if self._how is CloseReason.CLOSED:
            self._how, self._detail = how, detail

    def _note_size(self, size: int) -> None:
        if size > _SMALL and not self.is_grown and self.is_open:
            self.is_grown = True
            self._owner.relay_grown()

    def _finish(self, how: CloseReason, detail: str = "") -> None:
        self.is_open = self._is_up_calm = self._is_down_calm = False
        self.is_up_over = self.is_down_over = True
        self._to_plain = self._to_tls = self._tail = b""
        if self._timer is not None:
            self._loop.cancel(self._timer)
            self._timer = None
        self._part_tls(how)
        self._part_plain(how)
        self._end.free()
        self._owner.relay_ended(how, detail)

    def _part_tls(self, how: CloseReason) -> None:
        """Close the TLS side, after a failure without close_notify; the reset of the plain side is passed on as one."""
        if self._is_tls_gone or (how is CloseReason.CLOSED and not self._cut):
            self._loop.retire(self._tls)
        elif how in _AT_ONCE:
            reset(self._tls)
            self._loop.retire(self._tls)
        else:  # unread input would make of the close a reset, and lose what is on its way
            self._linger(self._tls, is_cut=how is CloseReason.LIFETIME or self._is_down_cut)

    def _part_plain(self, how: CloseReason) -> None:
        """Close the plain side: with a reset behind what it was sent, unless that was all."""
        if how in _AT_ONCE:
            reset(self._plain)
        elif not self._cut and (self._is_up_cut or self._is_tls_gone or how is CloseReason.LIFETIME):
            self._linger(self._plain, is_cut=True)
            return
        self._loop.retire(self._plain)

    def _linger(self, sock: socket.socket, *, is_cut: bool) -> None:
        limit = max(self._close_timeout, _LEAST_LINGER)
        Linger(self._loop, sock, b"", self._inbox, limit=limit, is_cut=is_cut)
