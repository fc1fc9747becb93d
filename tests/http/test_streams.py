"""A response with a stream ends with the stream, with the client, with the server, or because the client does not read."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from http import HTTPStatus

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.status_port_client import (
    OURS,
    SOURCE,
    Answer,
    conversation,
    parse_answers,
    read_all,
    run,
    served,
    until,
)
from tests.support.tls_ends import admit_all, context
from tunnel.http.connection import HttpLimits, Request, Response
from tunnel.net.connection_limiter import MAX_STREAMS, ConnectionLimiter
from tunnel.tls.records import Buffers
from tunnel.tls.stream import TlsSource, connect_tls

ASK = b"GET /s HTTP/1.1\r\nHost: x\r\n\r\n"
PART = b"data: x\n\n"


class Source:
    """A source of streams that counts what was requested of it."""

    def __init__(self, parts: int | None = None, size: int = 1, *, is_silent: bool = False) -> None:
        self.parts, self.part, self.is_silent = parts, PART * size, is_silent
        self.made = 0
        self.opened = 0
        self.closed = 0

    async def respond(self, _request: Request) -> Response:
        return Response(content_type="text/event-stream", headers=(("Cache-Control", "no-store"),), stream=self._stream())

    async def _stream(self) -> AsyncGenerator[bytes, None]:
        self.opened += 1
        try:
            while self.parts is None or self.made < self.parts:
                self.made += 1
                yield self.part
                if self.is_silent:
                    await trio.sleep_forever()
        finally:
            self.closed += 1


def exchange(source: Source, request: bytes = ASK, method: str = "GET") -> list[Answer]:
    """The answers to a client that reads to the end."""
    answers: list[Answer] = []

    async def talk() -> None:
        async with conversation(source.respond) as client:
            await client.send_all(request)
            answers.extend(parse_answers(await read_all(client), [method]))

    run(talk, clock=MockClock(autojump_threshold=0))
    return answers


def test_a_stream_is_sent_in_chunks_and_is_the_last_response() -> None:
    source = Source(parts=3)
    (answer,) = exchange(source, ASK + ASK)
    assert (answer.status, answer.body) == (200, PART * 3)
    assert answer.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in answer.headers
    assert (answer.headers["connection"], answer.headers["content-type"]) == ("close", "text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert (source.opened, source.closed) == (1, 1)


def test_a_client_of_http_1_0_gets_the_stream_until_the_connection_ends() -> None:
    async def talk() -> None:
        async with conversation(Source(parts=2).respond) as client:
            await client.send_all(b"GET /s HTTP/1.0\r\n\r\n")
            head, _, body = (await read_all(client)).partition(b"\r\n\r\n")
            assert (b"chunked" in head, body) == (False, PART * 2)

    run(talk, clock=MockClock(autojump_threshold=0))


def test_a_head_request_starts_no_stream() -> None:
    source = Source()
    (answer,) = exchange(source, b"HEAD /s HTTP/1.1\r\nHost: x\r\n\r\n", "HEAD")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"", "text/event-stream")
    assert source.opened == 0


@pytest.mark.parametrize("is_reset", [False, True])
def test_a_stream_ends_when_the_client_disconnects(is_reset: bool) -> None:
    source = Source(is_silent=True)

    async def talk() -> None:
        async with conversation(source.respond) as client:
            await client.send_all(ASK)
            await wait_all_tasks_blocked()
            assert (source.opened, source.closed) == (1, 0)
            if is_reset:
                await client.aclose()
            else:
                await client.send_eof()
            await wait_all_tasks_blocked()
            assert source.closed == 1

    run(talk)


def test_a_client_that_does_not_stop_sending_gets_no_more() -> None:
    source = Source(is_silent=True)

    async def talk() -> None:
        async with conversation(source.respond) as client:
            await client.send_all(ASK)
            for _ in range(100):
                await client.send_all(b"x")
                await wait_all_tasks_blocked()
            assert source.closed == 1

    run(talk, clock=MockClock(autojump_threshold=0))


def test_a_client_that_does_not_read_is_disconnected_and_nothing_is_made_for_it() -> None:
    source = Source(size=10_000)

    async def talk() -> None:
        async with served(source.respond, limits=HttpLimits(header=10.0, write=0.05)) as port:
            stalled = await port.connect()
            await stalled.send_all(ASK)
            await until(lambda: source.closed == 1)
            made = source.made * len(source.part)
            assert made < 64 * 1024 * 1024, "only what the kernel's buffers hold"
            await until(lambda: port.limiter.count == 0)
            assert port.lines == []

    run(talk)


def test_a_stream_is_never_the_idle_connection_that_leaves_for_another() -> None:
    source = Source(is_silent=True)

    async def talk() -> None:
        async with served(source.respond, max_connections=2) as port:
            reader = await port.connect()
            await reader.send_all(ASK)
            await until(lambda: source.opened == 1)
            for _ in range(3):
                await port.connect()
                (refused,) = await port.ask()
                assert refused.status == 503, "half of the connections may be streams"
            assert source.closed == 0

    run(talk)


def test_the_number_of_streams_is_limited() -> None:
    source = Source(is_silent=True)

    async def talk() -> None:
        async with served(source.respond) as port:
            readers = []
            for number in range(MAX_STREAMS):
                readers.append(await port.connect())
                await readers[-1].send_all(ASK)
                await until(lambda: source.opened == number + 1)  # noqa: B023
            (refused,) = await port.ask()
            assert (refused.status, b"too many streams" in refused.body) == (503, True)
            await readers[0].aclose()
            await until(lambda: source.closed == 1)
            again = await port.connect()
            await again.send_all(ASK)
            await until(lambda: source.opened == MAX_STREAMS + 1)

    run(talk)


def test_a_refused_stream_leaves_the_connection_usable() -> None:
    async def respond(request: Request) -> Response:
        return await Source().respond(request) if request.path == "/s" else Response(b"ok")

    async def talk() -> None:
        async with conversation(respond, limiter=ConnectionLimiter(1)) as client:
            await client.send_all(ASK + b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            statuses = [(one.status, one.body) for one in parse_answers(await read_all(client))]
            assert statuses[0][0] == HTTPStatus.SERVICE_UNAVAILABLE
            assert statuses[1] == (200, b"ok")

    run(talk, clock=MockClock(autojump_threshold=0))


def test_a_stop_of_the_server_ends_streams_at_once_and_completely() -> None:
    source = Source(is_silent=True)

    async def talk() -> None:
        async with served(source.respond) as port:
            reader = await port.connect()
            await reader.send_all(ASK)
            await until(lambda: source.opened == 1)
            port.stopping.set()
            (answer,) = parse_answers(await read_all(reader))
            assert answer.body == PART, "the last chunk is there: the response is complete"
            await port.finished.wait()
            assert source.closed == 1

    run(talk)


def test_a_stream_that_begins_during_the_stop_ends_at_once() -> None:
    limiter = ConnectionLimiter(10)
    limiter.close()
    scope = limiter.open_stream()
    assert scope is not None
    assert scope.cancel_called


def test_a_bug_in_a_stream_ends_its_connection_only() -> None:
    async def respond(_request: Request) -> Response:
        async def fail() -> AsyncGenerator[bytes, None]:
            yield PART
            raise ValueError("a bug")

        return Response(stream=fail())

    async def talk() -> None:
        async with served(respond) as port:
            await port.ask(ASK)
            assert [line for line in port.lines if "a bug" in line]
            await until(lambda: port.limiter.count == 0)

    run(talk)


def test_a_stream_over_tls_ends_when_the_client_disconnects() -> None:
    source = Source(is_silent=True)
    buffers = Buffers()
    ours = context(OURS, admit_all, is_server=False)

    async def talk() -> None:
        async with served(source.respond, tls=SOURCE) as port:
            stream = await connect_tls(await port.connect(), TlsSource(lambda: ours.open_end(buffers), buffers))
            await stream.send_all(ASK)
            got = b""
            while PART not in got:
                got += await stream.receive_some()
            await stream.aclose()
            await until(lambda: source.closed == 1)
            assert port.lines == []

    run(talk)
