"""The relay of one connection: the events of its two sockets, with a short path for small messages."""

from __future__ import annotations

from tunnel.errors import TlsError
from tunnel.relay.close_reason import CloseReason
from tunnel.relay.loop import ENDING, FLUSH, HANGUP, IN, OUT
from tunnel.relay.relay_streams import SMALL_READ, RelayStreams
from tunnel.tls.engine import TlsEnd
from tunnel.tls.records import SMALL_HEADS

_READABLE = IN | OUT  # the events of a socket that has input and can be written


class Relay(RelayStreams):
    """Forwards between a TLS socket and a plain one.

    It takes a `HandshakeResult`, which holds an `Admitted`: to relay for a peer that was not authorized is a type error.
    """

    __slots__ = ()

    def start(self) -> None:
        """Take over both sockets and forward the bytes that were received with the handshake."""
        self._end.end_handshake()
        self._loop.rewatch(self._tls, self.tls_ready, self._owner)
        self._loop.rewatch(self._plain, self.plain_ready, self._owner)
        if self._tail:
            self._forward_tail(len(self._tail))
        if self.is_open:
            if self._tls_until_eagain:
                self._loop.call_again(self._tls)
            if self._plain_until_eagain:
                self._loop.call_again(self._plain)
            self._update_fast_paths()

    def _forward_tail(self, size: int) -> None:
        self._inbox[:size] = self._tail
        plain = self._end.open_one(size) if size <= SMALL_READ else 0
        if plain:
            self._tail = b""
            self.up += plain
            self._send_plain(plain)
        else:
            self._forward_records(size)

    @property
    def tls_end(self) -> TlsEnd:
        """Our end of the TLS connection."""
        return self._end

    def abort(self, reason: CloseReason, detail: str = "") -> None:
        """Close both sides so that neither receives a normal end."""
        if self.is_open:
            self._finish(reason, detail)

    def trim_buffers(self) -> None:
        """Replace OpenSSL's buffers, which are empty between two events, by small ones."""
        self.needs_trim = False
        if self.is_open:
            self._end.renew()

    def tls_ready(self, events: int) -> None:
        """Process events of the TLS socket.

        The fast path is one small record for a socket with no unsent bytes. Among other events it is sent at the end of the
        batch, and is the unsent chunk until then.
        """
        if events == _READABLE and self._is_up_fast:
            try:
                size = self._tls.recv_into(self._inbox)
            except OSError as error:
                self._read_failed(error, CloseReason.RESET_BY_PEER)
                return
            if 0 < size <= SMALL_READ and (plain := self._end.open_one(size)):
                self.up += plain
                batch = self._loop.batch
                if batch is None or plain >= SMALL_HEADS:
                    self._send_plain(plain)
                else:
                    self._unsent_plain = self._heads[plain].tobytes()
                    batch.append((self._plain_fd, FLUSH))
                return
            self._process_tls_read(size, len(self._inbox))
        elif events == FLUSH and self._is_down_fast:
            if self._flush(self._tls):
                return
        else:
            self._tls_event(events)
        self._update_fast_paths()

    def plain_ready(self, events: int) -> None:
        """Process events of the plain socket; the fast path is that of `tls_ready`, for one small message."""
        if events == _READABLE and self._is_down_fast:
            try:
                size = self._plain.recv_into(self._inbox)
            except OSError as error:
                self._read_failed(error, CloseReason.RESET_BY_PLAIN)
                return
            if 0 < size <= SMALL_READ:
                self.down += size
                try:
                    out = self._end.seal(size)
                except TlsError as error:
                    self._fail(error)
                    return
                batch = self._loop.batch
                if batch is None or out >= SMALL_HEADS:
                    self._send_tls(self._heads[out] if out < SMALL_HEADS else self._outbox[:out])
                else:
                    self._unsent_tls = self._heads[out].tobytes()
                    batch.append((self._tls_fd, FLUSH))
                return
            self._process_plain_read(size)
        elif events == FLUSH and self._is_up_fast:
            if self._flush(self._plain):
                return
        else:
            self._plain_event(events)
        self._update_fast_paths()

    def _tls_event(self, events: int) -> None:
        if events & ENDING:
            self._tls_until_eagain = True
            if events & HANGUP and self._ending.limit:  # its input is still read, which may have to wait for the other side
                self._limit_silence()
        if self._unsent_tls and self._flush(self._tls):
            self._pump_down()
            if self.is_open and not events & IN:  # input left unread because of `_MAX_UNSENT` causes no new event
                self._pump_up()
        if self.is_open and (events & (IN | ENDING) or not events):
            self._pump_up()

    def _plain_event(self, events: int) -> None:
        if events & ENDING:
            self._plain_until_eagain = True
            if events & HANGUP and self._ending.limit:  # its input is still read, which may have to wait for the other side
                self._limit_silence()
        if self._unsent_plain and self._flush(self._plain):
            self._pump_up()
        if self.is_open and (events & (IN | ENDING) or not events):
            self._pump_down()
