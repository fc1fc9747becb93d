"""TLS over trio streams: the driver of the engine for connections outside the relay.

The buffers are shared by all connections of the process: they are used between two awaits and never across one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from tunnel.errors import PeerDenied, TlsError, TlsFault
from tunnel.lazy_dataclass import dataclass
from tunnel.tls.engine import TlsEnd
from tunnel.tls.records import Buffers

_READ_BYTES = 32 * 1024
_WRITE_BYTES = 64 * 1024
_LAST_WRITE = 1.0  # seconds for an alert to a peer that does not read
_REQUEST_START = 5  # bytes
_HTTP_REQUESTS = (b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO")  # as in Go's server
_HTTP_ANSWER = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"


@dataclass(frozen=True, slots=True)
class TlsSource:
    """Creates the engine's end for each new connection, with the current generation; None while there is none."""

    open_end: Callable[[], TlsEnd | None]
    buffers: Buffers  # those that the ends were opened with


async def accept_tls(transport: trio.abc.HalfCloseableStream, source: TlsSource) -> TlsStream:
    """A server's handshake; raises TlsError or PeerDenied after the alert is sent, and trio.BrokenResourceError.

    A client that sends plain HTTP gets an answer in plain HTTP; one that sends nothing costs no more than its socket.
    """
    opening = b""
    while len(opening) < _REQUEST_START and any(start.startswith(opening) for start in _HTTP_REQUESTS):
        data = bytes(await transport.receive_some(_READ_BYTES))
        if not data:
            raise TlsError(TlsFault.CLOSED, "EOF")
        opening += data
    if opening.startswith(_HTTP_REQUESTS):
        await transport.send_all(_HTTP_ANSWER)
        raise TlsError(TlsFault.PROTOCOL, "client sent an HTTP request to an HTTPS server")
    stream = _open_stream(transport, source)
    await stream.handshake(opening)
    return stream


async def connect_tls(transport: trio.abc.HalfCloseableStream, source: TlsSource) -> TlsStream:
    """A client's handshake, with the verification of the server; raises as `accept_tls` does."""
    stream = _open_stream(transport, source)
    await stream.handshake()
    await stream.require_verdict()
    return stream


def _open_stream(transport: trio.abc.HalfCloseableStream, source: TlsSource) -> TlsStream:
    end = source.open_end()
    if end is None:
        raise TlsError(TlsFault.CLOSED, "no identity that may be used now")
    return TlsStream(transport, end, source.buffers)


class TlsStream(trio.abc.HalfCloseableStream):
    """One TLS connection; one task may read while another one writes, because records are sent in the order of their making."""

    def __init__(self, transport: trio.abc.HalfCloseableStream, end: TlsEnd, buffers: Buffers) -> None:
        self._transport = transport
        self._end = end
        self._buffers = buffers
        self._tail = b""  # an incomplete record
        self._plain = b""
        self._is_open = False
        self._sending = trio.StrictFIFOLock()  # from the making of a record until it is sent
        self._failure: TlsError | None = None  # raised when everything that was received before it has been read

    async def handshake(self, opening: bytes = b"") -> None:
        """Both flights and the verdict on the peer; `opening` is what has been received already.

        Raises TlsError or PeerDenied after the alert is sent.
        """
        try:
            await self._exchange_flights(opening)
        except (TlsError, PeerDenied):
            await self._send_pending()
            raise
        self._is_open = True

    async def _exchange_flights(self, opening: bytes) -> None:
        is_done = await self._take_flight(opening) if opening else self._end.handshake(0)
        while True:
            flight = self._end.take()
            if flight:
                await self._transport.send_all(flight)
            if is_done:
                return
            data = b"" if self._end.has_more else await self._receive()
            is_done = await self._take_flight(data)

    async def require_verdict(self) -> None:
        """Raise TlsError unless the verifier has accepted this peer in this handshake; a second check, for defence in depth."""
        if self._end.admitted is None or self._end.is_resumed():
            await self._send_pending()
            raise TlsError(TlsFault.PROTOCOL, "the verification did not run")

    async def _receive(self) -> bytes:
        data = bytes(await self._transport.receive_some(_READ_BYTES))
        if not data:
            raise TlsError(TlsFault.CLOSED, "EOF")
        return data

    async def _take_flight(self, data: bytes) -> bool:
        if not data:
            await trio.lowlevel.checkpoint()  # complete records are left from the previous call
        data = self._tail + data
        if self._end.is_slow():  # never abandoned: the thread works on memory that `aclose` frees
            is_done = await trio.to_thread.run_sync(self._end.handshake_apart, data)
        else:
            is_done = self._end.handshake(self._put(data))
        self._tail = data[self._end.consumed :]
        return is_done

    def _put(self, data: bytes) -> int:
        self._buffers.inbox_view[: len(data)] = data
        return len(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Plaintext; empty at the end of the peer's data. Raises trio.BrokenResourceError."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._plain and self._tail and not self._end.has_more:
            await self._open_records(b"")
        while not self._plain and not self._end.has_ended:
            if self._failure is not None:
                await self._fail(self._failure)
            if self._end.has_more:
                await trio.lowlevel.checkpoint()
                data = b""
            elif not (data := bytes(await self._transport.receive_some(_READ_BYTES))):
                return b""
            await self._open_records(data)
        size = len(self._plain) if max_bytes is None else max_bytes
        taken, self._plain = self._plain[:size], self._plain[size:]
        return taken

    async def _open_records(self, data: bytes) -> None:
        data = self._tail + data
        got = self._end.open_records(self._put(data))
        self._plain += bytes(self._buffers.outbox_view[:got])
        self._tail = data[self._end.consumed :]
        self._failure = self._end.failure
        if self._failure is not None:
            return
        if self._end.has_output:
            async with self._sending:
                if pending := self._end.take():
                    await self._transport.send_all(pending)

    async def _fail(self, error: TlsError) -> None:
        self._is_open = False
        await self._send_pending()
        raise trio.BrokenResourceError(str(error)) from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send; raises trio.BrokenResourceError."""
        view = memoryview(data)
        for at in range(0, len(view), _WRITE_BYTES):
            async with self._sending:
                await self._transport.send_all(self._seal(bytes(view[at : at + _WRITE_BYTES])))

    def _seal(self, piece: bytes) -> bytes:
        self._buffers.inbox_view[: len(piece)] = piece
        try:
            return bytes(self._buffers.outbox_view[: self._end.seal(len(piece))])
        except TlsError as error:
            self._is_open = False
            raise trio.BrokenResourceError(str(error)) from error

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the transport is writable."""
        await self._transport.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Send close_notify; the peer may go on sending."""
        if self._is_open:
            self._is_open = False
            async with self._sending:
                await self._transport.send_all(self._end.close_notify())

    async def aclose(self) -> None:
        """Close both directions; no method may be called after this."""
        try:
            if self._is_open:
                self._is_open = False
                await self._send_last(self._end.close_notify())
        finally:
            self._end.free()
            await trio.aclose_forcefully(self._transport)

    async def _send_pending(self) -> None:
        """Send what OpenSSL has written and not sent yet, such as an alert."""
        with trio.move_on_after(_LAST_WRITE):
            async with self._sending:
                if pending := self._end.take():
                    await self._send_last(pending)

    async def _send_last(self, data: bytes) -> None:
        with trio.move_on_after(_LAST_WRITE), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._transport.send_all(data)
