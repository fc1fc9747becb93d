"""HTTP/1.1 on one connection: requests in, answers out, in turn.

Knows h11 and the limits of time and size; must not know paths, TLS or listeners. A request counts from the moment its head
is whole; until then the connection only waits (`lobby.py`). Which Host is ours, `guard.py` says.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import parse_qs, unquote

import h11
import trio

from tunnel.net.connection_limiter import ConnectionLimiter

TEXT = "text/plain; charset=utf-8"
_PIECE = 16 * 1024
_LINGER = 0.5  # seconds for a client to read why it was refused, before unread input turns our close into a reset
_LINGER_PIECES = 64
_ORIGIN = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://[^/?]*")


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and bytes that one connection may take; `header` also limits a TLS handshake."""

    header: float
    read: float = 30.0
    idle: float = 120.0
    write: float = 30.0
    head_bytes: int = 64 * 1024
    body_bytes: int = 64 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks; `path` is decoded, header names are in lower case, of several equal ones the first counts."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    authority: str = ""  # of a target in absolute form

    def first(self, name: str) -> str:
        """The first value of a name in the query, empty when there is none."""
        return parse_qs(self.query, keep_blank_values=True).get(name, [""])[0]


@dataclass(frozen=True, slots=True)
class Response:
    """What it is told; an empty body has no type."""

    body: bytes = b""
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()


Respond = Callable[[Request], Awaitable[Response]]


async def serve_connection(
    stream: trio.abc.HalfCloseableStream, respond: Respond, limiter: ConnectionLimiter, limits: Limits
) -> None:
    """Answer the requests of one connection until one side has enough.

    Raises trio.BrokenResourceError when the client is gone, trio.TooSlowError when it takes too long to be served. The
    stream stays open, and is the caller's to close.
    """
    talk = _Talk(stream, limiter, limits)
    try:
        while (request := await talk.next_request()) is not None:
            response = _refusal(request) or await respond(request)
            if not await talk.answer(request, response):
                return
    except h11.RemoteProtocolError as error:
        await talk.refuse(HTTPStatus(error.error_status_hint))


class _Talk:
    """One connection's state between two requests."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, limiter: ConnectionLimiter, limits: Limits) -> None:
        self._stream = stream
        self._limiter = limiter
        self._limits = limits
        self._wire = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        self._is_idle = False  # a new connection is expected to speak

    async def next_request(self) -> Request | None:
        """The next request with its body read and dropped; None when there is none, for whatever reason."""
        head = await self._next_head()
        if head is None:
            return None
        if not self._wire.they_are_waiting_for_100_continue:  # such a body is never asked for
            with trio.fail_after(self._limits.read):
                await self._drop_body()
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

    async def _drop_body(self) -> None:
        size = 0
        while not isinstance(event := self._wire.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                await self._receive()
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > self._limits.body_bytes:
                    raise h11.RemoteProtocolError("body too large", error_status_hint=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    async def _receive(self) -> None:
        self._wire.receive_data(bytes(await self._stream.receive_some(_PIECE)))

    async def answer(self, request: Request, response: Response) -> bool:
        """Send an answer; whether another request may follow."""
        is_last = self._limiter.is_closed or self._wire.their_state is h11.SEND_BODY
        await self._send(response, has_body=request.method != "HEAD", is_last=is_last)
        if self._wire.our_state is not h11.DONE or self._wire.their_state is not h11.DONE:
            await linger(self._stream)
            return False
        self._wire.start_next_cycle()
        self._is_idle = not self._wire.trailing_data[0]
        return True

    async def refuse(self, status: HTTPStatus) -> None:
        """The last answer to a client that does not speak HTTP, or too much of it."""
        if self._wire.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self._send(Response(f"{status.value} {status.phrase}".encode(), status), has_body=True, is_last=True)
            await linger(self._stream)

    async def _send(self, response: Response, *, has_body: bool, is_last: bool) -> None:
        status = response.status
        headers = [("Date", formatdate(usegmt=True)), ("Content-Length", str(len(response.body))), *response.headers]
        if response.body:
            headers.append(("Content-Type", response.content_type))
        if is_last:
            headers.append(("Connection", "close"))
        parts = [self._wire.send(h11.Response(status_code=status.value, reason=status.phrase, headers=headers))]
        if has_body:
            parts.append(self._wire.send(h11.Data(data=response.body)))
        parts.append(self._wire.send(h11.EndOfMessage()))
        with trio.fail_after(self._limits.write):
            await self._stream.send_all(b"".join(part for part in parts if part))


async def linger(stream: trio.abc.HalfCloseableStream) -> None:
    """Say that nothing more comes, and let the client read what came before."""
    with trio.move_on_after(_LINGER):
        await stream.send_eof()
        for _ in range(_LINGER_PIECES):
            if not await stream.receive_some(_PIECE):
                return


def _parse_request(head: h11.Request) -> Request:
    target = head.target.decode("latin-1")
    origin = _ORIGIN.match(target)
    authority = origin.group().partition("//")[2] if origin else ""
    path, _, query = target.removeprefix(origin.group() if origin else "").partition("?")
    headers = {name.decode(): value.decode("latin-1") for name, value in reversed(head.headers)}
    return Request(head.method.decode(), unquote(path) or "/", query, headers, authority)


def _refusal(request: Request) -> Response | None:
    """A tunnel through the status port is no request for anything that it has (RFC 9110, 9.3.6)."""
    if request.method == "CONNECT":
        return Response(b"CONNECT is not served here\n", HTTPStatus.METHOD_NOT_ALLOWED)
    return None
