"""TLS for trio: our own engine over a stream of bytes.

Knows flights, records and the buffers that all connections of the process share; must not know HTTP requests or who may
connect, which the engine's context decides. The shared buffers are used between two awaits and never across one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import trio

from tunnel.errors import PeerDenied, TlsError, TlsFault
from tunnel.tls.engine import Buffers, TlsEnd

_READ_BYTES = 32 * 1024
_WRITE_BYTES = 64 * 1024
_FAREWELL = 1.0  # seconds for last words to a peer that does not read
_STARTS_OF_HTTP = (b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO")  # where Go's server looks, in five bytes
_ANSWER_TO_HTTP = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"


@dataclass(frozen=True, slots=True)
class TlsSource:
    """Where new ends come from: `open_end` answers with one of the generation in force, or None while there is none."""

    open_end: Callable[[], TlsEnd | None]
    buffers: Buffers  # those that the ends were opened with


async def accept_tls(transport: trio.abc.HalfCloseableStream, source: TlsSource) -> TlsStream:
    """A server's handshake; raises TlsError or PeerDenied when the peer has been told why, and trio.BrokenResourceError.

    A client that speaks plain HTTP is told so in plain HTTP.
    """
    opening = await transport.receive_some(_READ_BYTES)  # a client that says nothing costs no more than its socket
    if not opening:
        raise TlsError(TlsFault.CLOSED, "EOF")
    stream = _begin(transport, source)
    try:
        await stream.shake_hands(bytes(opening))
    except TlsError as error:
        if not stream.opening.startswith(_STARTS_OF_HTTP):
            await stream.say_farewell()
            raise
        await transport.send_all(_ANSWER_TO_HTTP)
        raise TlsError(TlsFault.PROTOCOL, "client sent an HTTP request to an HTTPS server") from error
    except PeerDenied:
        await stream.say_farewell()
        raise
    return stream


async def connect_tls(transport: trio.abc.HalfCloseableStream, source: TlsSource) -> TlsStream:
    """A client's handshake, up to the verdict on the server; raises as `accept_tls` does."""
    stream = _begin(transport, source)
    try:
        await stream.shake_hands()
        stream.require_verdict()
    except (TlsError, PeerDenied):
        await stream.say_farewell()
        raise
    return stream


def _begin(transport: trio.abc.HalfCloseableStream, source: TlsSource) -> TlsStream:
    end = source.open_end()
    if end is None:
        raise TlsError(TlsFault.CLOSED, "no identity that may be used now")
    return TlsStream(transport, end, source.buffers)


class TlsStream(trio.abc.HalfCloseableStream):
    """One TLS connection for one task: whoever reads does not write at the same time."""

    def __init__(self, transport: trio.abc.HalfCloseableStream, end: TlsEnd, buffers: Buffers) -> None:
        self._transport = transport
        self._end = end
        self._buffers = buffers
        self._tail = b""  # a record that is not whole yet
        self._plain = b""
        self._is_open = False
        self._failure: TlsError | None = None  # to be told when all that was sent before it is read
        self.opening = b""  # the first five bytes that came

    async def shake_hands(self, opening: bytes = b"") -> None:
        """Both flights, and the verdict that falls between them; `opening` is what a client has sent already."""
        self.opening = opening[:5]
        is_done = await self._take_flight(opening) if opening else self._end.handshake(0)
        while True:
            flight = self._end.take()
            if flight:
                await self._transport.send_all(flight)
            if is_done:
                break
            data = b"" if self._end.has_more else await self._receive()
            is_done = await self._take_flight(data)
        self._is_open = True

    def require_verdict(self) -> None:
        """Belt and braces: raises TlsError unless the judge has seen this peer in this very handshake."""
        if self._end.admitted is None or self._end.is_resumed():
            raise TlsError(TlsFault.PROTOCOL, "handshake without a verdict")

    async def _receive(self) -> bytes:
        data = bytes(await self._transport.receive_some(_READ_BYTES))
        if not data:
            raise TlsError(TlsFault.CLOSED, "EOF")
        self.opening = (self.opening + data[:5])[:5]
        return data

    async def _take_flight(self, data: bytes) -> bool:
        if not data:
            await trio.lowlevel.checkpoint()  # whole records are left of the last turn's share
        data = self._tail + data
        if self._end.is_slow():  # never abandoned: the thread works on memory that `aclose` gives back
            is_done = await trio.to_thread.run_sync(self._end.handshake_apart, data)
        else:
            is_done = self._end.handshake(self._put(data))
        self._tail = data[self._end.consumed :]
        return is_done

    def _put(self, data: bytes) -> int:
        self._buffers.inbox_view[: len(data)] = data
        return len(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Plaintext; empty when the peer has ended. Raises trio.BrokenResourceError."""
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
        if self._end.has_spoken and (words := self._end.take()):
            await self._transport.send_all(words)

    async def _fail(self, error: TlsError) -> None:
        self._is_open = False
        await self.say_farewell()
        raise trio.BrokenResourceError(str(error)) from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send; raises trio.BrokenResourceError."""
        view = memoryview(data)
        for at in range(0, len(view), _WRITE_BYTES):
            await self._transport.send_all(self._seal(bytes(view[at : at + _WRITE_BYTES])))

    def _seal(self, piece: bytes) -> bytes:
        self._buffers.inbox_view[: len(piece)] = piece
        try:
            return bytes(self._buffers.outbox_view[: self._end.seal(len(piece))])
        except TlsError as error:
            self._is_open = False
            raise trio.BrokenResourceError(str(error)) from error

    async def wait_send_all_might_not_block(self) -> None:
        """Until the transport would take something."""
        await self._transport.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Say that nothing more comes; the peer may go on."""
        if self._is_open:
            self._is_open = False
            await self._transport.send_all(self._end.close_notify())

    async def say_farewell(self) -> None:
        """Send what OpenSSL still has to say, such as the alert that tells the peer why."""
        if words := self._end.take():
            await self._send_last(words)

    async def aclose(self) -> None:
        """End both directions; nothing else may be called then."""
        try:
            if self._is_open:
                self._is_open = False
                await self._send_last(self._end.close_notify())
        finally:
            self._end.free()
            await trio.aclose_forcefully(self._transport)

    async def _send_last(self, words: bytes) -> None:
        with trio.move_on_after(_FAREWELL), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._transport.send_all(words)
