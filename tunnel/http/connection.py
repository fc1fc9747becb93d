"""HTTP/1.1 on the server's side of one connection: requests, responses and their limits.

A connection counts as waiting until the header of a request is complete (`tunnel/net/connection_limiter.py`).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import parse_qs, unquote

import h11
import trio

from tunnel.lazy_dataclass import dataclass, field
from tunnel.net.connection_limiter import ConnectionLimiter

TEXT = "text/plain; charset=utf-8"
_READ_BYTES = 16 * 1024
_LINGER = 0.5  # seconds for a client to read an error response: unread input would turn our close into a reset
_LINGER_READS = 64
_ORIGIN = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://[^/?]*")


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """HttpLimits of one connection in seconds and bytes; `header` also limits a TLS handshake."""

    header: float
    read: float = 30.0
    idle: float = 120.0
    write: float = 30.0
    head_bytes: int = 64 * 1024
    body_bytes: int = 64 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """A request; `path` is decoded, header names are in lower case, and the first of several equal headers counts."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    authority: str = ""  # of a request target in absolute form

    def query_value(self, name: str) -> str:
        """The first value of a name in the query, empty if there is none."""
        return next(iter(self.query_values(name)), "")

    def query_values(self, name: str) -> Sequence[str]:
        """All values of a name in the query, in their order."""
        return parse_qs(self.query, keep_blank_values=True).get(name, ())


@dataclass(frozen=True, slots=True)
class Response:
    """A response; an empty body has no content type.

    A response with a stream has no other body. It ends with the stream, or earlier: when the client disconnects or does not
    read, and when the server stops. The next part of the stream is requested when the last one is written.
    """

    body: bytes = b""
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()
    stream: AsyncGenerator[bytes, None] | None = None


NOT_FOUND = Response(b"404 page not found\n", HTTPStatus.NOT_FOUND)
READ_METHODS = ("GET", "HEAD")
READ_EXPECTED = Response(
    b"405 method not allowed; expected GET or HEAD\n", HTTPStatus.METHOD_NOT_ALLOWED, headers=(("Allow", "GET, HEAD"),)
)
_TOO_MANY_STREAMS = Response(
    b"503 too many streams are open; close one, or read the resource without a stream\n", HTTPStatus.SERVICE_UNAVAILABLE
)
Respond = Callable[[Request], Awaitable[Response]]


async def serve_connection(
    stream: trio.abc.HalfCloseableStream, respond: Respond, limiter: ConnectionLimiter, limits: HttpLimits
) -> None:
    """Respond to the requests of one connection until it ends; the caller closes the stream.

    Raises trio.BrokenResourceError if the client closes the connection, and trio.TooSlowError if a time limit is exceeded.
    """
    connection = _ServerConnection(stream, limiter, limits)
    try:
        while (request := await connection.next_request()) is not None:
            response = _refuse_method(request) or await respond(request)
            if not await connection.send_response(request, response):
                return
    except h11.RemoteProtocolError as error:
        await connection.send_error(HTTPStatus(error.error_status_hint))


class _ServerConnection:
    """The state of one connection between two requests."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, limiter: ConnectionLimiter, limits: HttpLimits) -> None:
        self._stream = stream
        self._limiter = limiter
        self._limits = limits
        self._wire = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        self._is_writing = False  # or a write was cut off
        self._is_idle = False  # a new connection has the shorter limit of a header

    async def next_request(self) -> Request | None:
        """The next request, with its body read and discarded; None if the connection has ended or its slot is needed."""
        head = await self._next_head()
        if head is None:
            return None
        if not self._wire.they_are_waiting_for_100_continue:  # we never request such a body
            with trio.fail_after(self._limits.read):
                await self._discard_body()
        return _parse_request(head)

    async def _next_head(self) -> h11.Request | None:
        event: object = None
        wait_limit = self._limits.idle if self._is_idle else self._limits.header
        with self._limiter.waiting(trio.current_time() + wait_limit) as wait:
            while (event := self._wire.next_event()) is h11.NEED_DATA:
                await self._receive()
                if self._is_idle:
                    self._is_idle = False
                    wait.deadline = trio.current_time() + self._limits.header
        return event if isinstance(event, h11.Request) else None

    async def _discard_body(self) -> None:
        size = 0
        while not isinstance(event := self._wire.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                await self._receive()
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > self._limits.body_bytes:
                    raise h11.RemoteProtocolError("body too large", error_status_hint=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    async def _receive(self) -> None:
        self._wire.receive_data(bytes(await self._stream.receive_some(_READ_BYTES)))

    async def send_response(self, request: Request, response: Response) -> bool:
        """Send a response; whether another request may follow."""
        if response.stream is not None:
            async with aclosing(response.stream):
                return await self._send_stream(request, response, response.stream)
        return await self._send_whole(request, response)

    async def _send_whole(self, request: Request, response: Response) -> bool:
        is_last = self._limiter.is_closed or self._wire.their_state is h11.SEND_BODY
        await self._send(response, has_body=request.method != "HEAD", is_last=is_last)
        if self._wire.our_state is not h11.DONE or self._wire.their_state is not h11.DONE:
            await linger(self._stream)
            return False
        self._wire.start_next_cycle()
        self._is_idle = not self._wire.trailing_data[0]
        return True

    async def _send_stream(self, request: Request, response: Response, parts: AsyncGenerator[bytes, None]) -> bool:
        if request.method == "HEAD":
            await self._write(self._head(response, (), is_last=True), h11.EndOfMessage())
            await linger(self._stream)
            return False
        scope = self._limiter.open_stream()
        if scope is None:
            return await self._send_whole(request, _TOO_MANY_STREAMS)
        try:
            await self._send_parts(response, parts, scope)
        finally:
            self._limiter.close_stream(scope)
        if not self._is_writing:  # else the end would be inside the part that was cut off
            await self._write(h11.EndOfMessage())
            await linger(self._stream)
        return False

    async def _send_parts(self, response: Response, parts: AsyncGenerator[bytes, None], scope: trio.CancelScope) -> None:
        """Send the head and the parts, until `scope` is cancelled."""
        failure: Exception | None = None
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_at_disconnect, scope)
                try:
                    await self._write(self._head(response, (), is_last=True))
                    async for part in parts:
                        await self._write(h11.Data(data=part))
                except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
                    failure = error  # not raised here: the nursery would wrap it
                scope.cancel()
        if failure is not None:
            raise failure

    async def _cancel_at_disconnect(self, scope: trio.CancelScope) -> None:
        """Cancel when the client ends the connection, or sends more than a few bytes: there is no next response."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            for _ in range(_LINGER_READS):
                if not await self._stream.receive_some(_READ_BYTES):
                    break
        scope.cancel()

    async def send_error(self, status: HTTPStatus) -> None:
        """Send the last response, to a client whose request is invalid or too large."""
        if self._wire.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self._send(Response(f"{status.value} {status.phrase}".encode(), status), has_body=True, is_last=True)
            await linger(self._stream)

    async def _send(self, response: Response, *, has_body: bool, is_last: bool) -> None:
        length = (("Content-Length", str(len(response.body))),)
        is_unchanged = (
            response.status is HTTPStatus.NOT_MODIFIED
        )  # RFC 9110, 8.6: the length of the unchanged resource, or none
        head = self._head(response, () if is_unchanged else length, is_last=is_last)
        body = (h11.Data(data=response.body),) if has_body else ()
        await self._write(head, *body, h11.EndOfMessage())

    def _head(self, response: Response, framing: tuple[tuple[str, str], ...], *, is_last: bool) -> h11.Response:
        status = response.status
        headers = [("Date", formatdate(usegmt=True)), *framing, *response.headers]
        if response.body or response.stream is not None:
            headers.append(("Content-Type", response.content_type))
        if is_last:
            headers.append(("Connection", "close"))
        return h11.Response(status_code=status.value, reason=status.phrase, headers=headers)

    async def _write(self, *events: h11.Event) -> None:
        parts = [self._wire.send(event) for event in events]
        self._is_writing = True
        with trio.fail_after(self._limits.write):
            await self._stream.send_all(b"".join(part for part in parts if part))
        self._is_writing = False


async def linger(stream: trio.abc.HalfCloseableStream) -> None:
    """Send EOF, and give the client time to read the response."""
    with trio.move_on_after(_LINGER):
        await stream.send_eof()
        for _ in range(_LINGER_READS):
            if not await stream.receive_some(_READ_BYTES):
                return


def _parse_request(head: h11.Request) -> Request:
    target = head.target.decode("latin-1")
    origin = _ORIGIN.match(target)
    authority = origin.group().partition("//")[2] if origin else ""
    path, _, query = target.removeprefix(origin.group() if origin else "").partition("?")
    headers = {name.decode(): value.decode("latin-1") for name, value in reversed(head.headers)}
    return Request(head.method.decode(), unquote(path) or "/", query, headers, authority)


def _refuse_method(request: Request) -> Response | None:
    """CONNECT requests a tunnel and no resource of this server (RFC 9110, 9.3.6)."""
    if request.method == "CONNECT":
        return Response(b"CONNECT is not supported\n", HTTPStatus.METHOD_NOT_ALLOWED)
    return None
