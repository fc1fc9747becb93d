"""Connections are independent: silence, floods and crashes of one delay no other."""

from __future__ import annotations

import errno
import os
import re
import resource
import socket
import struct
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.status_port_client import LIMITS, echo, listen, parse_answers, read_all, run, served, until
from tunnel.http.connection import Request, Response
from tunnel.http.server import GRACE, HttpService, connection_limit, serve_http
from tunnel.net.address import parse_address
from tunnel.net.listen import open_listener

ONE = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


async def settle() -> None:
    """Until nothing moves any more in this process, the kernel's part of loopback included."""
    for _ in range(3):
        await trio.sleep(0.01)
        await wait_all_tasks_blocked()


def test_curl_is_served() -> None:
    async def talk() -> None:
        async with served() as port:
            url = f"http://127.0.0.1:{port.address[1]}/one"
            done = await trio.run_process(["curl", "-sS", "-m", "30", url, url], capture_stdout=True)
            assert done.stdout == b"GET /one GET /one "

    run(talk)


def test_a_unix_socket_is_served(tmp_path: Path) -> None:
    async def talk() -> None:
        path = tmp_path / "status.sock"
        listener = open_listener(parse_address(f"unix:{path}"))
        async with served(listener=listener) as port:
            command = ["curl", "-sS", "-m", "30", "--unix-socket", str(path), "http://any.thing/two"]
            done = await trio.run_process(command, capture_stdout=True)
            assert done.stdout == b"GET /two "
            port.stopping.set()
            await port.finished.wait()
            assert not path.exists()

    run(talk)


def test_silent_connections_delay_no_request() -> None:
    async def talk() -> None:
        async with served() as port:
            for _ in range(200):
                await port.connect()
            (answer,) = await port.ask()
            assert answer.status == 200

    run(talk)


def test_silent_connections_are_closed_if_others_send_requests() -> None:
    async def talk() -> None:
        async with served(max_connections=8) as port:
            silent = [await port.connect() for _ in range(40)]
            for _ in range(5):
                (answer,) = await port.ask()
                assert answer.status == 200
            assert port.limiter.count <= 8
            assert await silent[0].receive_some(1) == b""  # who has waited longest has left

    run(talk)


def test_a_request_under_way_never_leaves_for_another() -> None:
    async def talk() -> None:
        go_on = trio.Event()

        async def slow(request: Request) -> Response:
            if request.path == "/slow":
                await go_on.wait()
            return Response(request.path.encode())

        async with served(slow, max_connections=2) as port:
            slow_one = await port.connect()
            await slow_one.send_all(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            for _ in range(10):
                (answer,) = await port.ask()
                assert answer.body == b"/a"
            go_on.set()
            (answer,) = parse_answers(await read_all(slow_one))
            assert answer.body == b"/slow"

    run(talk)


def test_all_places_busy_is_a_wait_and_not_a_refusal() -> None:
    async def talk() -> None:
        go_on = trio.Event()

        async def slow(_request: Request) -> Response:
            await go_on.wait()
            return Response(b"done")

        async with served(slow, max_connections=2) as port, trio.open_nursery() as nursery:
            bodies: list[bytes] = []

            async def ask() -> None:
                bodies.extend(answer.body for answer in await port.ask())

            for _ in range(6):
                nursery.start_soon(ask)
            await settle()
            assert port.limiter.count == 2
            go_on.set()
            await until(lambda: len(bodies) == 6)

    run(talk)


def test_a_bug_in_one_request_ends_its_connection_only() -> None:
    async def buggy(request: Request) -> Response:
        if request.path == "/bug":
            raise RuntimeError("first line\nsecond [line]")
        return Response(b"fine")

    async def talk() -> None:
        async with served(buggy) as port:
            assert await port.ask(b"GET /bug HTTP/1.1\r\nHost: x\r\n\r\n") == []
            (answer,) = await port.ask()
            assert answer.body == b"fine"
            (line,) = port.lines
            assert line.startswith("http: panic serving 127.0.0.1:")
            assert "RuntimeError" in line
            assert "\n" not in line

    run(talk)


def test_a_reset_by_the_client_is_not_logged() -> None:
    async def talk() -> None:
        async with served() as port:
            stream = await port.connect()
            await stream.send_all(ONE[:10])
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.aclose()
            (answer,) = await port.ask()
            assert answer.status == 200
            assert port.lines == []

    run(talk)


def test_requests_are_served_side_by_side_so_one_may_ask_the_port_itself() -> None:
    async def talk() -> None:
        listener = listen()
        address = listener.socket.getsockname()

        async def nested(request: Request) -> Response:
            if request.path == "/inner":
                return Response(b"inner")
            async with await trio.open_tcp_stream(*address) as stream:
                await stream.send_all(b"GET /inner HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                (answer,) = parse_answers(await read_all(stream))
            return Response(b"outer " + answer.body)

        async with served(nested, listener=listener) as port:
            (answer,) = await port.ask()
            assert answer.body == b"outer inner"

    run(talk)


def test_stopping_refuses_newcomers_drops_the_idle_and_answers_who_has_asked() -> None:
    async def talk() -> None:
        asked, go_on = trio.Event(), trio.Event()

        async def slow(request: Request) -> Response:
            if request.path == "/slow":
                asked.set()
                await go_on.wait()
            return Response(b"done")

        async with served(slow) as port:
            idle, silent, busy = await port.connect(), await port.connect(), await port.connect()
            await idle.send_all(ONE)
            await idle.receive_some(1000)
            await busy.send_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await asked.wait()
            port.stopping.set()
            assert await idle.receive_some(1) == b""
            assert await silent.receive_some(1) == b""
            with pytest.raises(OSError, match="all attempts to connect"):
                await port.connect()
            assert not port.finished.is_set()
            go_on.set()
            (answer,) = parse_answers(await read_all(busy))
            assert (answer.body, answer.headers["connection"]) == (b"done", "close")
            await port.finished.wait()

    run(talk)


def test_a_background_task_runs_until_the_server_stops() -> None:
    async def talk() -> None:
        states: list[str] = []

        async def work() -> None:
            states.append("begun")
            try:
                await trio.sleep_forever()
            finally:
                states.append("ended")

        async with served(background=work) as port:
            await port.ask()
            assert states == ["begun"]
            port.stopping.set()
            await port.finished.wait()
            assert states == ["begun", "ended"]

    run(talk)


def test_a_request_that_asks_for_the_end_is_answered_before_it() -> None:
    async def talk() -> None:
        stop: list[trio.Event] = []

        async def shut_down(_request: Request) -> Response:
            stop[0].set()
            await wait_all_tasks_blocked()
            return Response()

        async with served(shut_down) as port:
            stop.append(port.stopping)
            async with await port.connect() as stream:
                await stream.send_all(b"POST /_shutdown HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                (answer,) = parse_answers(await read_all(stream))
            assert (answer.status, answer.body, answer.headers["connection"]) == (200, b"", "close")
            await port.finished.wait()

    run(talk)


def test_a_request_that_takes_longer_than_the_grace_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    assert GRACE == 5.0
    monkeypatch.setattr("tunnel.http.server.GRACE", 0.05)

    async def talk() -> None:
        asked = trio.Event()

        async def endless(_request: Request) -> Response:
            asked.set()
            await trio.sleep_forever()
            raise AssertionError("unreachable")

        async with served(endless) as port:
            stream = await port.connect()
            await stream.send_all(ONE)
            await asked.wait()
            port.stopping.set()
            await port.finished.wait()
            with suppress(trio.BrokenResourceError):
                assert await stream.receive_some(1) == b""

    run(talk)


class FailingSocket:
    """A listening socket whose accept fails as told, and then works no more."""

    def __init__(self, *codes: int) -> None:
        self._codes = list(codes)
        self.has_failed = trio.Event()

    async def accept(self) -> tuple[trio.socket.SocketType, object]:
        await trio.lowlevel.checkpoint()
        if self._codes:
            code = self._codes.pop(0)
            raise OSError(code, os.strerror(code))
        self.has_failed.set()
        await trio.sleep_forever()
        raise AssertionError("unreachable")


def test_an_accept_error_is_logged_and_repeated_after_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    async def talk() -> None:
        failing = FailingSocket(errno.ECONNABORTED, *[errno.EMFILE] * 10)
        monkeypatch.setattr(trio.socket, "from_stdlib_socket", lambda _sock: failing)
        stopping = trio.Event()
        async with trio.open_nursery() as nursery:
            port = HttpService(echo, LIMITS, lines.append)
            nursery.start_soon(partial(serve_http, listen(), port, stopping=stopping))
            await failing.has_failed.wait()
            stopping.set()

    run(talk, clock=trio.testing.MockClock(autojump_threshold=0))
    pauses = "5 10 20 40 80 160 320 640 1000 1000".split()
    assert lines == [f"http: Accept error: too many open files; retrying in {pause}ms" for pause in pauses]


@pytest.mark.parametrize(("soft", "places"), [(64, 16), (1024, 256), (1_000_000, 256), (2, 1), (resource.RLIM_INFINITY, 256)])
def test_most_descriptors_are_left_to_the_tunnel(monkeypatch: pytest.MonkeyPatch, soft: int, places: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (soft, soft))
    assert connection_limit() == places


def test_slow_loris_is_one_of_many() -> None:
    async def talk() -> None:
        async with served(max_connections=16) as port, trio.open_nursery() as nursery:

            async def drip() -> None:
                with suppress(trio.BrokenResourceError):
                    async with await port.connect() as stream:
                        for byte in b"GET / HTTP/1.1\r\nX-" + b"a" * 10_000:
                            await stream.send_all(bytes([byte]))
                            await trio.sleep(0.005)

            for _ in range(64):
                nursery.start_soon(drip)
            for _ in range(10):
                (answer,) = await port.ask()
                assert answer.status == 200
            nursery.cancel_scope.cancel()

    run(talk)


def test_apachebench_like_load_leaves_no_connection_behind() -> None:
    async def talk() -> None:
        async with served() as port:

            async def ask_often() -> None:
                for _ in range(20):
                    (answer,) = await port.ask()
                    assert answer.status == 200

            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(ask_often)
            await until(lambda: port.limiter.count == 0)

    run(talk)


def test_a_client_that_sends_eof_first_gets_its_response() -> None:
    async def talk() -> None:
        async with served() as port:
            async with await port.connect() as stream:
                await stream.send_all(b"GET /nc HTTP/1.0\r\n\r\n")
                await stream.send_eof()
                answer = await read_all(stream)
            assert re.match(rb"HTTP/1.1 200 OK\r\n.*\r\n\r\nGET /nc $", answer, re.DOTALL)

    run(talk)
