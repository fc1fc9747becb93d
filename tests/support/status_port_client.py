"""HTTP servers in this process and byte-level clients for them."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h11
import trio
import trio.testing

from tests.support.tls_ends import Identity, identity
from tunnel.authz.authorizer import allow_anonymous
from tunnel.http.connection import HttpLimits, Request, Respond, Response, serve_connection
from tunnel.http.origin_policy import OpenOriginPolicy
from tunnel.http.server import HttpService, serve_http
from tunnel.net.connection_limiter import ConnectionLimiter
from tunnel.net.listen import Listener
from tunnel.tls.context import Presented, TlsContext, TlsOptions
from tunnel.tls.engine import TlsEnd
from tunnel.tls.records import Buffers
from tunnel.tls.stream import TlsSource

LIMITS = HttpLimits(header=10.0)
Stream = trio.abc.HalfCloseableStream


@dataclass(frozen=True)
class Answer:
    """What a client got."""

    status: int
    headers: dict[str, str]
    body: bytes


def parse_answers(data: bytes, methods: list[str] | None = None) -> list[Answer]:
    """The answers in a stream, each read as the answer to its method."""
    wire = h11.Connection(h11.CLIENT)
    answers = []
    for method in methods or ["GET"] * 1000:
        wire.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        wire.send(h11.EndOfMessage())
        if data:
            wire.receive_data(data)
            data = b""
        answer = _next_answer(wire)
        if answer is None:
            return answers
        answers.append(answer)
        if wire.our_state is not h11.DONE or wire.their_state is not h11.DONE:
            return answers
        wire.start_next_cycle()
    return answers


def _next_answer(wire: h11.Connection) -> Answer | None:
    head, body = None, b""
    while (event := wire.next_event()) is not h11.NEED_DATA:
        if isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            return Answer(head.status_code, {name.decode(): value.decode() for name, value in head.headers}, body)
    return None


OURS = identity(uris=("spiffe://a.test/w",), dns_names=("localhost",))


def status_context(who: Identity, options: TlsOptions = TlsOptions()) -> TlsContext:  # noqa: B008
    """A context as the status port has it: no certificate is asked for."""
    return TlsContext(Presented(who.chain, who.leaf.key), allow_anonymous("status"), is_server=True, options=options)


def source_of(made: TlsContext | Callable[[], TlsContext | None]) -> TlsSource:
    """A source with buffers of its own."""
    buffers = Buffers()

    def open_end() -> TlsEnd | None:
        now = made if isinstance(made, TlsContext) else made()
        return None if now is None else now.open_end(buffers)

    return TlsSource(open_end, buffers)


STRANGER = identity("spiffe://b.test/w")
SOURCE = source_of(status_context(OURS))


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Everything up to the end."""
    data = b""
    while piece := await stream.receive_some(65536):
        data += piece
    return data


async def until(condition: Callable[[], bool]) -> None:
    """Until something is so that no event tells of."""
    while not condition():  # noqa: ASYNC110  # what the kernel and other tasks do sets no event of ours
        await trio.sleep(0.01)


async def echo(request: Request) -> Response:
    """An answer that shows what was asked."""
    return Response(f"{request.method} {request.path} {request.query}".encode())


@asynccontextmanager
async def conversation(
    respond: Respond = echo, limits: HttpLimits = LIMITS, limiter: ConnectionLimiter | None = None
) -> AsyncIterator[trio.StapledStream]:
    """A client's end of a connection in memory that is served."""
    client, server = trio.testing.memory_stream_pair()

    async def serve() -> None:
        try:
            await serve_connection(server, respond, limiter or ConnectionLimiter(10), limits)
        except (trio.BrokenResourceError, trio.TooSlowError):
            pass
        finally:
            await server.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield client
        nursery.cancel_scope.cancel()


@dataclass
class Served:
    """A status port on a real socket."""

    address: tuple[str, int]
    stopping: trio.Event
    limiter: ConnectionLimiter
    lines: list[str]
    finished: trio.Event
    clients: list[trio.SocketStream] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)  # that were counted

    async def connect(self) -> trio.SocketStream:
        """A connection to it, closed with the port at the latest."""
        self.clients.append(await trio.open_tcp_stream(*self.address))
        return self.clients[-1]

    async def ask(self, data: bytes = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") -> list[Answer]:
        """Send bytes and read all answers."""
        async with await self.connect() as stream:
            await stream.send_all(data)
            return parse_answers(await read_all(stream))


def listen() -> Listener:
    """A listening socket at any port."""
    return Listener(socket.create_server(("127.0.0.1", 0), backlog=512), None)


@asynccontextmanager
async def served(
    respond: Respond = echo,
    *,
    limits: HttpLimits = LIMITS,
    tls: TlsSource | None = None,
    max_connections: int = 256,
    listener: Listener | None = None,
    open_origin_policy: OpenOriginPolicy | None = None,
    count_refusal: Callable[[str], None] | None = None,
    background: Callable[[], Awaitable[None]] | None = None,
) -> AsyncIterator[Served]:
    """A status port that serves while the block runs."""
    lines: list[str] = []
    stopping = trio.Event()
    listener = listener or listen()
    address = listener.socket.getsockname()
    reasons: list[str] = []
    settings = HttpService(
        respond,
        limits,
        lines.append,
        tls,
        max_connections,
        open_origin_policy,
        count_refusal=count_refusal,
        count_failure=reasons.append,
        background=background,
    )
    async with trio.open_nursery() as nursery:
        finished = trio.Event()

        async def serve(task_status: trio.TaskStatus[ConnectionLimiter]) -> None:
            await serve_http(listener, settings, stopping=stopping, task_status=task_status)
            finished.set()

        limiter = await nursery.start(serve)
        port = Served(address, stopping, limiter, lines, finished, reasons=reasons)
        try:
            yield port
        finally:
            for client in port.clients:
                client.socket.close()
        nursery.cancel_scope.cancel()


def run(test: Callable[[], Awaitable[None]], *, clock: trio.abc.Clock | None = None) -> None:
    """Run one test on trio, with a bound that only a hang meets."""

    async def bounded() -> None:
        with trio.fail_after(60 if clock is None else 100_000):
            await test()

    trio.run(bounded, clock=clock)
