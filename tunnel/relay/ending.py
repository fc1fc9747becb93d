"""How a relay ends: the reason, the limit for a half-closed connection, and what each side gets to see."""

from __future__ import annotations

import socket
from collections.abc import Callable

from tunnel.errors import TlsError, TlsFault
from tunnel.relay.close_reason import IMMEDIATE, CloseReason
from tunnel.relay.close_timer import CloseTimer
from tunnel.relay.linger import MIN_LINGER, Linger, reset
from tunnel.relay.loop import Loop, Owner


class RelayEnding:
    """What is known about the end of one relay, and the closing of its two sockets."""

    __slots__ = (
        "_close_timeout",
        "_inbox",
        "_loop",
        "_plain",
        "_timer",
        "_tls",
        "detail",
        "is_plain_reset",
        "is_tls_closed",
        "is_up_truncated",
        "plain_error",
        "reason",
    )

    def __init__(
        self, loop: Loop, tls: socket.socket, plain: socket.socket, *, inbox: memoryview, close_timeout: float
    ) -> None:
        self._loop = loop
        self._tls = tls
        self._plain = plain
        self._inbox = inbox
        self._close_timeout = close_timeout
        self._timer: CloseTimer | None = None  # runs from the end of the first direction on
        self.reason = CloseReason.CLOSED  # or the first failure
        self.detail = ""
        self.plain_error = ""  # why writing to the plain side failed
        self.is_plain_reset = False  # the plain side sent a reset
        self.is_tls_closed = False  # the TLS side accepts no more bytes
        self.is_up_truncated = False  # the stream from the TLS side has no proper end: the plain side must not see EOF

    @property
    def has_begun(self) -> bool:
        """Whether one direction has ended, a side has hung up, or something has failed."""
        return self._timer is not None or self.reason is not CloseReason.CLOSED or bool(self.plain_error)

    @property
    def limit(self) -> float:
        """The close timeout in seconds, 0 for none."""
        return self._close_timeout

    def record(self, reason: CloseReason, detail: str) -> None:
        """Keep the first failure."""
        if self.reason is CloseReason.CLOSED:
            self.reason, self.detail = reason, detail

    def record_tls_failure(self, error: TlsError, *, has_data: bool) -> None:
        """Keep an error of OpenSSL. In TLS 1.3 a refusal by the server is an alert before its first byte of data."""
        if error.reason is TlsFault.NO_DATA:
            reason = CloseReason.NO_DATA
        elif error.alert is None:
            reason = CloseReason.PROTOCOL
        else:
            reason = CloseReason.RESET_BY_PEER if has_data else CloseReason.REFUSED_BY_PEER
        self.record(reason, str(error))

    def limit_silence(self, owner: Owner, expire: Callable[[], None]) -> None:
        """Call `expire` once nothing is forwarded for the close timeout."""
        if self._timer is None:
            self._timer = CloseTimer(self._loop, owner, self._close_timeout, expire)
            self._timer.start()

    def note_traffic(self) -> None:
        """The time without traffic begins again."""
        if self._timer is not None:
            self._timer.note_traffic()

    def record_silence(self, *, is_up_over: bool) -> None:
        """Keep the close timeout as the reason; the TLS side recognizes a truncation by the missing close_notify."""
        self.is_up_truncated = self.is_up_truncated or not is_up_over
        self.detail = self.detail or f"no activity for {self._close_timeout:g}s after half-close"
        if self.reason is CloseReason.CLOSED:
            self.reason = CloseReason.CLOSE_TIMEOUT

    def close(self, reason: CloseReason) -> None:
        """Close both sides."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._close_tls(reason)
        self._close_plain(reason)

    def _close_tls(self, reason: CloseReason) -> None:
        """Close the TLS side: after a failure without close_notify; a reset of the plain side is forwarded as a reset."""
        if self.is_tls_closed or (reason is CloseReason.CLOSED and not self.plain_error):
            self._loop.retire(self._tls)
        elif reason in IMMEDIATE:
            reset(self._tls)
            self._loop.retire(self._tls)
        else:  # closing with unread input would send a reset and lose bytes in flight
            self._linger(self._tls, with_reset=reason is CloseReason.LIFETIME or self.is_plain_reset)

    def _close_plain(self, reason: CloseReason) -> None:
        """Close the plain side: with a reset after the bytes sent to it, unless the stream was complete."""
        if reason in IMMEDIATE:
            reset(self._plain)
        elif not self.plain_error and (self.is_up_truncated or self.is_tls_closed or reason is CloseReason.LIFETIME):
            self._linger(self._plain, with_reset=True)
            return
        self._loop.retire(self._plain)

    def _linger(self, sock: socket.socket, *, with_reset: bool) -> None:
        limit = max(self._close_timeout, MIN_LINGER)
        Linger(self._loop, sock, b"", self._inbox, limit=limit, with_reset=with_reset)
