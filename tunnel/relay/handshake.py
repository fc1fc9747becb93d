"""The TLS handshake of one connection, on the event loop. The owner has the time limit."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from tunnel.authz.authorizer import Admitted
from tunnel.errors import Denial, PeerDenied, TlsError, TlsFault, describe_os_error
from tunnel.relay.handshake_slots import HandshakeSlots
from tunnel.relay.loop import ENDING, IN
from tunnel.relay.outbox import Outbox
from tunnel.relay.step import ClosedWithoutData, NoUsableIdentity, StepOwner
from tunnel.tls.engine import TlsEnd

_READ_BYTES = 32 * 1024  # in one go: more than a handshake needs, and what is held for data that comes behind it


@dataclass(frozen=True, slots=True)
class HandshakeResult:
    """A finished handshake, and what is left over: bytes received after it, and bytes still to be sent."""

    end: TlsEnd
    admitted: Admitted
    tail: bytes
    unsent: bytes


OpenEnd = Callable[[], TlsEnd]  # of the generation in use; raises NoIdentity


class Handshake:
    """One handshake on a watched socket; its result is a `HandshakeResult`.

    It is done when our side can tell (RFC 8446, 4.4.4). It fails with TlsError, PeerDenied,
    ClosedWithoutData or NoUsableIdentity; the farewell holds the alert.
    """

    __slots__ = (
        "_buffers",
        "_end",
        "_handshakes",
        "_has_slot",
        "_is_due",
        "_is_over",
        "_is_resting",
        "_is_server",
        "_is_thorough",
        "_leftover",
        "_lent",
        "_loop",
        "_open_end",
        "_outbox",
        "_socket",
        "_tail",
        "has_received",
        "is_waiting",
        "owner",
        "source",
    )

    def __init__(
        self,
        handshakes: HandshakeSlots,
        owner: StepOwner,
        sock: socket.socket,
        open_end: OpenEnd,
        source: str = "",
        *,
        is_server: bool = True,
        leftover: bytes | None = None,
    ) -> None:
        self._handshakes = handshakes
        self._loop = handshakes.loop
        self._buffers = handshakes.buffers
        self.owner = owner
        self.source = source  # who is counted for its slot: the peer's address
        self._socket = sock
        self._open_end = open_end
        self._end: TlsEnd | None = None  # none while a client has sent nothing: it costs some tens of kilobytes
        self._has_slot = False
        self._is_due = False  # the loop will call `resume`
        self._is_resting = False  # has used its share of this turn up
        self.is_waiting = False  # for a slot
        self._tail = b""
        self._outbox = Outbox(sock)
        self._is_thorough = sock.family == socket.AF_UNIX
        self._lent: Future[bool] | None = None  # a thread is at work on our end, or will be
        self._is_over = False
        self.has_received = False
        self._is_server = is_server
        self._leftover = leftover  # of a client: what an exchange with a proxy has received after its answer

    def start(self) -> None:
        """A server waits for the client's first flight; a client sends its own."""
        self._loop.rewatch(self._socket, self.ready, self.owner)
        if self._is_server:
            if self._is_thorough:
                self._loop.call_again(self._socket)
            return
        if self._leftover is None:
            self._loop.call_again(self._socket)  # the target may have sent something before the socket was watched
        else:
            self._is_thorough = True  # its events have been handled by the exchange
        self._advance(0)
        if self._leftover and not self._is_over:
            self.has_received = True
            self._buffers.inbox[: len(self._leftover)] = self._leftover
            self._advance(len(self._leftover))

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
        """Give the slot back, and cancel the work of a thread that has not begun."""
        self._leave()
        if self._lent is not None:
            self._lent.cancel()

    def resume(self) -> None:
        """Go on with what had to wait for a slot or for a turn."""
        has_got_slot = self.is_waiting
        self._is_due = self.is_waiting = False
        if not self._is_over:
            self._has_slot = self._has_slot or has_got_slot
            self._receive(is_due=True)
        elif has_got_slot:  # and has been given up since
            self._handshakes.leave(self, is_waiting=False)

    def _may_receive(self, *, is_due: bool) -> bool:
        """Whether there is a slot for this handshake, and a turn."""
        if self._is_due or self.is_waiting:
            return False
        if not self._has_slot:
            self._has_slot = self._handshakes.enter(self)
            self.is_waiting = not self._has_slot
            if self.is_waiting:
                return False
        self._is_due = not is_due and not self._handshakes.may_step(self)
        return not self._is_due

    def _give_back(self) -> None:
        """A client that has sent nothing yet needs no slot."""
        if not self.has_received and self._has_slot:
            self._has_slot = False
            self._handshakes.leave(self, is_waiting=False)

    def _leave(self) -> None:
        """It is over, one way or another."""
        if not self._is_over:
            self._is_over = True
            if self._has_slot or self.is_waiting:
                self._handshakes.leave(self, is_waiting=self.is_waiting)

    def _receive(self, *, is_due: bool = False) -> None:
        if not self._may_receive(is_due=is_due):
            return
        start = len(self._tail)
        self._buffers.inbox[:start] = self._tail
        if self._end is not None and self._end.has_more:  # the last turn has used its share up
            if not self._is_resting:
                self._is_thorough = True
                self._advance(start)
            return
        try:
            size = self._socket.recv_into(self._buffers.inbox_view[start : start + _READ_BYTES])
        except BlockingIOError:
            self._give_back()
            return
        except OSError as error:
            self._end_early(TlsError(TlsFault.RESET, describe_os_error(error)))
            return
        if size:
            self.has_received = True
            if size == _READ_BYTES:
                self._loop.call_again(self._socket)
            self._advance(start + size)
        else:
            self._end_early(TlsError(TlsFault.CLOSED, "connection closed in the handshake"))

    def _wake(self) -> None:
        """The turn is over."""
        self._is_resting = False
        if not self._is_over:
            self._loop.call_again(self._socket)

    def _end_early(self, error: TlsError) -> None:
        self._leave()
        self.owner.step_failed(error if self.has_received else ClosedWithoutData())

    def _advance(self, size: int) -> None:
        if self._end is None:
            try:
                self._end = self._open_end()
            except NoUsableIdentity as error:
                self._leave()
                self.owner.step_failed(error)
                return
        end = self._end
        if end.is_slow() and size:
            data = bytes(self._buffers.inbox_view[:size])
            step = partial(end.handshake_apart, data)
            self._lent = self._loop.call_in_thread(step, partial(self._returned, end, data), self.owner)
            return
        try:
            is_done = end.handshake(size)
        except (TlsError, PeerDenied) as error:
            self._fail(end, error)
            return
        self._proceed(end, is_done, bytes(self._buffers.inbox_view[end.consumed : size]))

    def _returned(self, end: TlsEnd, data: bytes, step: Future[bool]) -> None:
        """Back from a thread; what has happened on the socket meanwhile is looked at in the next turn."""
        if self._is_over:
            return
        self._lent = None
        try:
            is_done = step.result()
        except (TlsError, PeerDenied) as error:
            self._fail(end, error)
            return
        if not is_done:
            self._loop.call_again(self._socket)
        self._proceed(end, is_done, data[end.consumed :])

    def _fail(self, end: TlsEnd, error: TlsError | PeerDenied) -> None:
        self._leave()
        self.owner.step_failed(error, self._outbox.waiting + end.take())

    def _proceed(self, end: TlsEnd, is_done: bool, tail: bytes) -> None:
        self._tail = tail
        if not is_done:
            self._outbox.send(end.take())
            if end.has_more:
                self._is_resting = True
                self._loop.call_soon(self._wake)
            elif self._is_thorough:
                self._loop.call_again(self._socket)
            return
        self._leave()
        if end.admitted is None or end.is_resumed():  # belt and braces: our judge has not seen this peer
            self.owner.step_failed(PeerDenied(Denial.NO_CERTIFICATE, "handshake without a verdict"))
        else:
            if end.has_tickets_only():
                self._acknowledge()
            else:
                self._outbox.send(end.take())
            self.owner.step_done(HandshakeResult(end, end.admitted, self._tail, self._outbox.waiting))

    def _acknowledge(self) -> None:
        """Acknowledge the client's Finished without sending data: session tickets wait in `end` for the first data.

        A client that closes without reading them would reset the connection, and what it sent last would be lost. Without
        the acknowledgement a client that has not set TCP_NODELAY delays its first message by 40 ms.
        """
        if self._socket.family != socket.AF_UNIX:
            with suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
