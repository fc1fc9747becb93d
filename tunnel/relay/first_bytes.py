"""Tells a TLS client from a plain one by its first bytes, which stay in the socket for the step that follows."""

from __future__ import annotations

import socket
from select import EPOLLERR, EPOLLHUP, EPOLLRDHUP

from tunnel.errors import TlsError, TlsFault
from tunnel.relay.loop import Loop, Timer
from tunnel.relay.step import ClosedWithoutData, StepOwner
from tunnel.tls.client_hello import PREFIX_SIZE, is_client_hello

_END = EPOLLRDHUP | EPOLLHUP


class FirstBytes:
    """A step that waits for the first bytes of a client; its result is whether they begin a TLS handshake.

    A client that sends nothing for `silence` seconds is a plain one, which waits for the server to speak first. With 0 the step
    waits for bytes; the owner sets the time limit. It fails with ClosedWithoutData, or with TlsError after a reset.
    """

    __slots__ = ("_events", "_is_over", "_is_watched", "_loop", "_owner", "_silence", "_socket", "_timer")

    def __init__(self, loop: Loop, owner: StepOwner, sock: socket.socket, silence: float = 0.0) -> None:
        self._loop = loop
        self._owner = owner
        self._socket = sock
        self._silence = silence
        self._timer: Timer | None = None
        self._events = 0  # all so far
        self._is_watched = False
        self._is_over = False

    def start(self) -> None:
        """Look at the bytes that have arrived, and watch the socket for more if they are too few."""
        self._look()
        if self._is_over:
            return
        self._is_watched = True
        self._loop.watch(self._socket, self._ready, self._owner)
        if self._silence:
            self._timer = self._loop.call_at(self._loop.clock() + self._silence, self._end_silence, self._owner)

    def abandon(self) -> None:
        """Stop waiting."""
        self._finish()

    def _ready(self, events: int) -> None:
        self._events |= events
        if not self._is_over:
            self._look()

    def _look(self) -> None:
        try:
            prefix = self._socket.recv(PREFIX_SIZE, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:  # a reset, which is reported only after all bytes
            prefix = b""
        if not prefix:
            self._fail(ClosedWithoutData())
            return
        self._silence = 0.0
        self._stop_timer()
        is_tls = is_client_hello(prefix)
        if is_tls is not None:
            self._decide(is_tls=is_tls)
        elif self._events & EPOLLERR:
            self._fail(TlsError(TlsFault.RESET, "connection reset inside the first record"))
        elif self._events & _END:
            self._decide(is_tls=False)  # a whole stream that is shorter than a ClientHello

    def _end_silence(self) -> None:
        """Decide, unless bytes have come whose event is delayed: a busy loop must not take a TLS client for a plain one."""
        self._timer = None
        self._look()
        if self._silence and not self._is_over:
            self._decide(is_tls=False)

    def _decide(self, *, is_tls: bool) -> None:
        """Hand over the socket: it is registered anew, so that the next step receives the events for what is in it."""
        self._finish()
        if self._is_watched:
            self._loop.unwatch(self._socket)
            self._loop.watch(self._socket, self._ready, self._owner)
        self._owner.step_done(is_tls)

    def _fail(self, error: Exception) -> None:
        self._finish()
        self._owner.step_failed(error)

    def _finish(self) -> None:
        self._is_over = True
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._loop.cancel(self._timer)
            self._timer = None
