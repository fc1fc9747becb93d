"""The TLS handshake of one connection, on the event loop.

Knows how to carry a handshake's flights over a socket; must not know who is admitted. What the peer sent too early, and
what OpenSSL wants to say later, are handed on with the result.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from tunnel.authz.peer import Admitted
from tunnel.errors import Denial, PeerDenied, TlsError, TlsFault, words_of
from tunnel.relay.loop import ENDING, IN, Loop, Owner
from tunnel.relay.outbox import Outbox
from tunnel.tls.engine import Buffers, TlsEnd

_READ_BYTES = 32 * 1024  # in one go: more than a handshake needs, and what is held for data that comes behind it


@dataclass(frozen=True, slots=True)
class Shaken:
    """A finished handshake, and the bytes left over: received behind it, and to be sent when there is room."""

    end: TlsEnd
    admitted: Admitted
    tail: bytes
    unsent: bytes


class HandshakeOwner(Owner, Protocol):
    """Who wants the handshake."""

    def shaken(self, result: Shaken) -> None:
        """The handshake is done on both sides, as far as ours can tell (RFC 8446, 4.4.4)."""

    def shake_failed(self, error: TlsError | PeerDenied, farewell: bytes) -> None:
        """The handshake failed; `farewell` holds the alert that tells the peer why."""

    def shake_silent(self) -> None:
        """The peer closed the connection without having sent a byte."""

    def shake_probed(self, farewell: bytes) -> None:
        """An ACME authority has seen what it came for; `farewell` is the end of the handshake."""


class Handshake:
    """One handshake on a watched socket."""

    __slots__ = (
        "_buffers",
        "_end",
        "_is_over",
        "_is_thorough",
        "_lent",
        "_loop",
        "_outbox",
        "_owner",
        "_socket",
        "_tail",
        "has_received",
    )

    def __init__(self, loop: Loop, owner: HandshakeOwner, sock: socket.socket, end: TlsEnd, buffers: Buffers) -> None:
        self._loop = loop
        self._owner = owner
        self._socket = sock
        self._end = end
        self._buffers = buffers
        self._tail = b""
        self._outbox = Outbox(sock)
        self._is_thorough = sock.family == socket.AF_UNIX
        self._lent: Future[bool] | None = None  # a thread is at work on our end, or will be
        self._is_over = False
        self.has_received = False

    def start(self, behind: bytes | None = None) -> None:
        """A client speaks first; a server's socket may hold something already.

        `behind` is what an exchange before the handshake has left; what was announced meanwhile is not announced again.
        """
        if behind is not None:
            self._is_thorough = True
        self._advance(0)
        if behind and not self._is_over:
            self.has_received = True
            self._buffers.inbox[: len(behind)] = behind
            self._advance(len(behind))

    def ready(self, events: int) -> None:
        """Events of the socket."""
        if events & ENDING:
            self._is_thorough = True
        if self._lent is not None:
            return
        if self._outbox.waiting:
            self._outbox.send()
        if events & (IN | ENDING) or not events:
            self._receive()

    def abandon(self) -> None:
        """The owner has given up: an answer that is still to come reaches nobody, and no thread begins for it."""
        self._is_over = True
        if self._lent is not None:
            self._lent.cancel()

    def _receive(self) -> None:
        start = len(self._tail)
        self._buffers.inbox[:start] = self._tail
        try:
            size = self._socket.recv_into(self._buffers.inbox_view[start : start + _READ_BYTES])
        except BlockingIOError:
            return
        except OSError as error:
            if self.has_received:
                self._owner.shake_failed(TlsError(TlsFault.RESET, words_of(error)), b"")
            else:
                self._owner.shake_silent()
            return
        if size:
            self.has_received = True
            if size == _READ_BYTES:
                self._loop.call_again(self._socket)
            self._advance(start + size)
        elif self.has_received:
            self._owner.shake_failed(TlsError(TlsFault.CLOSED, "connection closed in the handshake"), b"")
        else:
            self._owner.shake_silent()

    def _advance(self, size: int) -> None:
        end = self._end
        if end.is_slow() and size:
            data = bytes(self._buffers.inbox_view[:size])
            step = partial(end.handshake_apart, data)
            self._lent = self._loop.call_in_thread(step, partial(self._returned, data), self._owner)
            return
        try:
            is_done = end.handshake(size)
        except (TlsError, PeerDenied) as error:
            self._fail(error)
            return
        self._proceed(is_done, bytes(self._buffers.inbox_view[end.consumed : size]))

    def _returned(self, data: bytes, step: Future[bool]) -> None:
        """Back from a thread; what has happened on the socket meanwhile is looked at in the next turn."""
        if self._is_over:
            return
        self._lent = None
        try:
            is_done = step.result()
        except (TlsError, PeerDenied) as error:
            self._fail(error)
            return
        if not is_done:
            self._loop.call_again(self._socket)
        self._proceed(is_done, data[self._end.consumed :])

    def _fail(self, error: TlsError | PeerDenied) -> None:
        self._owner.shake_failed(error, self._outbox.waiting + self._end.take())

    def _proceed(self, is_done: bool, tail: bytes) -> None:
        end = self._end
        self._tail = tail
        flight = end.take()
        if not is_done:
            self._outbox.send(flight)
            if self._is_thorough:
                self._loop.call_again(self._socket)
        elif end.admitted is None or end.is_resumed():  # belt and braces: our judge has not seen this peer
            self._owner.shake_failed(PeerDenied(Denial.NO_CERTIFICATE, "handshake without a verdict"), b"")
        else:
            self._outbox.send(flight)
            self._owner.shaken(Shaken(end, end.admitted, self._tail, self._outbox.waiting))


NewHandshake = Callable[[Loop, HandshakeOwner, socket.socket, TlsEnd, Buffers], Handshake]
