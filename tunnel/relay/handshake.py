"""The TLS handshake of one connection, on the event loop. The owner sets the time limit."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from tunnel.authz.authorizer import Admitted
from tunnel.errors import Denial, PeerDenied, TlsError, TlsFault, describe_os_error
from tunnel.lazy_dataclass import dataclass
from tunnel.net.sockets import is_unix
from tunnel.relay.handshake_slots import HandshakeSlots
from tunnel.relay.loop import ENDING, IN
from tunnel.relay.step import ClosedWithoutData, NoUsableIdentity, SendQueue, StepOwner
from tunnel.tls.engine import TlsEnd

if TYPE_CHECKING:  # loaded with the first thread
    from concurrent.futures import Future

_READ_BYTES = 32 * 1024  # per read: more than a handshake needs; also bounds the data held behind it

_NOTHING_SENT = "the target closed the connection without sending anything"


@dataclass(frozen=True, slots=True)
class HandshakeResult:
    """A finished handshake, with the bytes received after it (`tail`) and the bytes still to be sent (`unsent`)."""

    end: TlsEnd
    admitted: Admitted
    tail: bytes
    unsent: bytes
    may_have_input: bool = True  # the socket may have input for which there will be no event


OpenEnd = Callable[[], TlsEnd]  # of the generation in use; raises NoIdentity


class Handshake:
    """A step that performs one handshake on a connected socket; its result is a `HandshakeResult`.

    It is done when our side has verified the peer's Finished (RFC 8446, 4.4.4). It fails with TlsError, PeerDenied,
    ClosedWithoutData or NoUsableIdentity; the final data is the alert.
    """

    __slots__ = (
        "_buffers",
        "_end",
        "_handshakes",
        "_has_slot",
        "_has_yielded",
        "_is_over",
        "_is_resume_scheduled",
        "_is_server",
        "_leftover",
        "_loop",
        "_may_have_input",
        "_open_end",
        "_reads_until_eagain",
        "_send_queue",
        "_socket",
        "_tail",
        "_thread_step",
        "began",
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
        self.source = source  # the peer's address, by which slots are counted
        self._socket = sock
        self._open_end = open_end
        self._end: TlsEnd | None = None  # None until a client has sent something: it costs some tens of kilobytes
        self._has_slot = False
        self._is_resume_scheduled = False  # the loop will call `resume`
        self._has_yielded = False  # has used up its share of this turn
        self.is_waiting = False  # for a slot
        self._tail = b""
        self._send_queue = SendQueue(sock)
        self._reads_until_eagain = is_unix(sock)
        self._may_have_input = True  # after the last read
        self._thread_step: Future[bool] | None = None  # while a thread uses our end, or will
        self._is_over = False
        self.began: float | None = None  # by the clock of the loop; a server's begins with the first bytes of the client
        self.has_received = False
        self._is_server = is_server
        self._leftover = leftover  # of a client: bytes that a proxy sent behind its answer

    @property
    def tls_end(self) -> TlsEnd | None:
        """Our end; None until a client has sent something, and while a thread uses it."""
        return self._end if self._thread_step is None else None

    def start(self) -> None:
        """Wait for the client's first flight, or as a client send ours."""
        self._loop.rewatch(self._socket, self.ready, self.owner)
        if self._is_server:
            if self._reads_until_eagain:
                self._loop.call_again(self._socket)
            return
        self.began = self._loop.clock()
        if self._leftover is None:
            self._loop.call_again(self._socket)  # the target may have sent something before the socket was watched
        else:
            self._reads_until_eagain = True  # its events have been handled by the exchange
        self._advance(0)
        if self._leftover and not self._is_over:
            self.has_received = True
            self._buffers.inbox[: len(self._leftover)] = self._leftover
            self._advance(len(self._leftover))

    def ready(self, events: int) -> None:
        """Process events of the socket."""
        if events & ENDING:
            self._reads_until_eagain = True
        if self._thread_step is not None:
            self._may_have_input = True
            return
        if self._send_queue.unsent:
            self._send_queue.send()
        if events & (IN | ENDING) or not events:
            self._receive()

    def abandon(self) -> None:
        """Release the slot, and cancel the work for a thread if it has not begun."""
        self._finish()
        if self._thread_step is not None:
            self._thread_step.cancel()

    def resume(self) -> None:
        """Continue: the slot or the turn that this handshake waited for has come."""
        has_got_slot = self.is_waiting
        self._is_resume_scheduled = self.is_waiting = False
        if not self._is_over:
            self._has_slot = self._has_slot or has_got_slot
            self._receive(is_due=True)
        elif has_got_slot:  # and was abandoned meanwhile
            self._handshakes.release(self, is_waiting=False)

    def _may_receive(self, *, is_due: bool) -> bool:
        """Whether this handshake has a slot and may run in this turn; if not, `resume` is called later."""
        if self._is_resume_scheduled or self.is_waiting:
            return False
        if not self._has_slot:
            self._has_slot = self._handshakes.acquire(self)
            self.is_waiting = not self._has_slot
            if self.is_waiting:
                return False
        self._is_resume_scheduled = not is_due and not self._handshakes.may_run(self)
        return not self._is_resume_scheduled

    def _release_slot(self) -> None:
        """Release the slot of a client that has sent nothing yet."""
        if not self.has_received and self._has_slot:
            self._has_slot = False
            self._handshakes.release(self, is_waiting=False)

    def _finish(self) -> None:
        """Mark the handshake as over and release its slot."""
        if not self._is_over:
            self._is_over = True
            if self._has_slot or self.is_waiting:
                self._handshakes.release(self, is_waiting=self.is_waiting)

    def _receive(self, *, is_due: bool = False) -> None:
        if not self._may_receive(is_due=is_due):
            return
        start = len(self._tail)
        self._buffers.inbox[:start] = self._tail
        if self._end is not None and self._end.has_more:  # the last turn has used up its share
            if not self._has_yielded:
                self._reads_until_eagain = True
                self._advance(start)
            return
        try:
            size = self._socket.recv_into(self._buffers.inbox_view[start : start + _READ_BYTES])
        except BlockingIOError:
            self._release_slot()
            return
        except OSError as error:
            self._on_connection_closed(TlsError(TlsFault.RESET, describe_os_error(error)))
            return
        if size:
            if self.began is None:
                self.began = self._loop.clock()
            self.has_received = True
            self._may_have_input = self._reads_until_eagain or size == _READ_BYTES
            if size == _READ_BYTES:
                self._loop.call_again(self._socket)
            self._advance(start + size)
        else:
            what = "connection closed in the handshake" if self.has_received else _NOTHING_SENT
            self._on_connection_closed(TlsError(TlsFault.CLOSED, what))

    def _resume_reading(self) -> None:
        """Allow reading again: the turn is over."""
        self._has_yielded = False
        if not self._is_over:
            self._loop.call_again(self._socket)

    def _on_connection_closed(self, error: TlsError) -> None:
        self._finish()
        self.owner.step_failed(ClosedWithoutData() if self._is_server and not self.has_received else error)

    def _advance(self, size: int) -> None:
        if self._end is None:
            try:
                self._end = self._open_end()
            except NoUsableIdentity as error:
                self._finish()
                self.owner.step_failed(error)
                return
        end = self._end
        if end.is_slow() and size:
            data = bytes(self._buffers.inbox_view[:size])
            step = partial(end.handshake_apart, data)
            self._thread_step = self._loop.call_in_thread(step, partial(self._on_thread_result, end, data), self.owner)
            return
        try:
            is_done = end.handshake(size)
        except (TlsError, PeerDenied) as error:
            self._fail(end, error)
            return
        self._proceed(end, is_done, bytes(self._buffers.inbox_view[end.consumed : size]))

    def _on_thread_result(self, end: TlsEnd, data: bytes, step: Future[bool]) -> None:
        """Continue after a step on a thread; events of the socket meanwhile are processed in the next turn."""
        if self._is_over:
            return
        self._thread_step = None
        try:
            is_done = step.result()
        except (TlsError, PeerDenied) as error:
            self._fail(end, error)
            return
        if not is_done:
            self._loop.call_again(self._socket)
        self._proceed(end, is_done, data[end.consumed :])

    def _fail(self, end: TlsEnd, error: TlsError | PeerDenied) -> None:
        self._finish()
        self.owner.step_failed(error, self._send_queue.unsent + end.take())

    def _proceed(self, end: TlsEnd, is_done: bool, tail: bytes) -> None:
        self._tail = tail
        if not is_done:
            self._send_queue.send(end.take())
            if end.has_more:
                self._has_yielded = True
                self._loop.call_soon(self._resume_reading)
            elif self._reads_until_eagain:
                self._loop.call_again(self._socket)
            return
        self._finish()
        if end.admitted is None or end.is_resumed():  # never expected: our verification did not run
            self.owner.step_failed(PeerDenied(Denial.NO_CERTIFICATE, "the verification did not run"))
        else:
            if end.has_tickets_only():
                self._acknowledge()
            else:
                self._send_queue.send(end.take())
            # A client's socket stays watched by this step until the relay begins.
            may_have_input = self._may_have_input or self._reads_until_eagain or not self._is_server
            self.owner.step_done(HandshakeResult(end, end.admitted, self._tail, self._send_queue.unsent, may_have_input))

    def _acknowledge(self) -> None:
        """Acknowledge the client's Finished without sending data: session tickets stay in `end` until the first data.

        If tickets were sent now, a client that closes without reading them would reset the connection, and its last bytes
        would be lost. Without the acknowledgement, a client without TCP_NODELAY delays its first message by 40 ms.
        """
        if not is_unix(self._socket):
            try:
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            except OSError:
                return  # the next read reports it
