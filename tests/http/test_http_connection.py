"""Requests are answered in order for every split of their bytes; a slow or invalid client ends only its own connection."""

from __future__ import annotations

from http import HTTPStatus

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.status_port_client import LIMITS, Answer, conversation, echo, parse_answers, read_all, run
from tunnel.http.connection import HttpLimits, Request, Respond, Response, serve_connection
from tunnel.net.connection_limiter import ConnectionLimiter

ONE = b"GET /a?x=1 HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def exchange(
    *pieces: bytes, respond: Respond = echo, limits: HttpLimits = LIMITS, methods: list[str] | None = None
) -> list[Answer]:
    """The answers to what a client sends in pieces and then ends."""
    answers: list[Answer] = []

    async def talk() -> None:
        async with conversation(respond, limits) as client:
            for piece in pieces:
                await client.send_all(piece)
                await wait_all_tasks_blocked()
            await client.send_eof()
            answers.extend(parse_answers(await read_all(client), methods))

    run(talk, clock=MockClock(autojump_threshold=0))
    return answers


def bodies(answers: list[Answer]) -> list[bytes]:
    return [answer.body for answer in answers]


def test_an_answer_has_its_length_type_and_date() -> None:
    (answer,) = exchange(LAST)
    assert (answer.status, answer.body) == (200, b"GET /b ")
    assert answer.headers["content-length"] == "7"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["date"].endswith(" GMT")
    assert answer.headers["connection"] == "close"


def test_an_empty_body_has_no_type() -> None:
    async def nothing(_request: Request) -> Response:
        return Response()

    (answer,) = exchange(LAST, respond=nothing)
    assert (answer.headers["content-length"], "content-type" in answer.headers) == ("0", False)


def test_an_unchanged_resource_has_no_length() -> None:
    async def unchanged(_request: Request) -> Response:
        return Response(status=HTTPStatus.NOT_MODIFIED, headers=(("ETag", '"x"'),))

    first, second = exchange(ONE, LAST, respond=unchanged)
    assert (first.status, first.body, "content-length" in first.headers) == (304, b"", False)
    assert second.status == 304, "the connection continues"


def test_requests_follow_each_other_on_one_connection() -> None:
    assert bodies(exchange(ONE, ONE, LAST)) == [b"GET /a x=1", b"GET /a x=1", b"GET /b "]


def test_pipelined_requests_are_answered_in_turn() -> None:
    assert bodies(exchange(ONE * 20 + LAST)) == [b"GET /a x=1"] * 20 + [b"GET /b "]


def test_a_request_cut_in_two_anywhere_is_the_same_request() -> None:
    data = ONE + b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + LAST
    for cut in range(len(data) + 1):
        assert bodies(exchange(data[:cut], data[cut:])) == [b"GET /a x=1", b"POST /p ", b"GET /b "]


def test_head_has_the_headers_and_no_body() -> None:
    data = b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n" + LAST
    first, second = exchange(data, methods=["HEAD", "GET"])
    assert (first.headers["content-length"], first.body) == ("8", b"")
    assert second.body == b"GET /b "


def test_http_1_0_is_answered_and_closed() -> None:
    (answer,) = exchange(b"GET /a HTTP/1.0\r\n\r\n" + ONE)
    assert (answer.body, answer.headers["connection"]) == (b"GET /a ", "close")


@pytest.mark.parametrize("host", ["", "x", "/run/status.sock", "a b", "%2Frun%2Fx", "[::1", "x:y:z"])
def test_no_host_is_looked_at(host: str) -> None:
    (answer,) = exchange(f"GET /a HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert answer.status == 200


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("/%5fstatus", b"GET /_status "),
        ("http://example.com/_status?a", b"GET /_status a"),
        ("http://example.com", b"GET / "),
        ("/a?u=http://b/c", b"GET /a u=http://b/c"),
        ("*", b"GET * "),
        ("//[", b"GET //[ "),
        ("?x", b"GET / x"),
        ("/%ff%zz", "GET /\ufffd%zz ".encode()),
    ],
)
def test_targets_of_all_forms_have_a_path(target: str, seen: bytes) -> None:
    (answer,) = exchange(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.body == seen


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
def test_any_method_reaches_the_endpoint(method: str) -> None:
    (answer,) = exchange(f"{method} /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(), methods=[method])
    assert answer.body == f"{method} /a ".encode()


def test_connect_is_not_served() -> None:
    (answer,) = exchange(b"CONNECT /_status HTTP/1.1\r\nHost: x\r\n\r\n", methods=["CONNECT"])
    assert answer.status == 405


def test_a_wish_for_another_protocol_is_passed_over() -> None:
    wish = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    assert bodies(exchange(wish + LAST)) == [b"GET /a ", b"GET /b "]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x00\x05hello\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 4\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: rot13\r\n\r\n", 501),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nbroken\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000, 431),
        (b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000, 413),
        (b"GET /a HTTP/1.1\r\nHos", 400),
    ],
)
def test_an_invalid_or_too_large_request_gets_an_error_and_ends_the_connection(data: bytes, status: int) -> None:
    (answer,) = exchange(data)
    assert answer.status == status
    assert answer.headers["connection"] == "close"
    assert answer.body == f"{status} {HTTPStatus(status).phrase}".encode()


def test_a_chunked_body_is_read_and_dropped() -> None:
    post = b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    assert bodies(exchange(post + LAST)) == [b"POST /p ", b"GET /b "]


def test_a_body_that_waits_to_be_asked_for_is_not_waited_for() -> None:
    (answer,) = exchange(b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n")
    assert (answer.body, answer.headers["connection"]) == (b"POST /p ", "close")


def test_noise_never_ends_in_a_bug() -> None:
    for seed in range(256):
        noise = bytes((seed * 31 + at * at * 7) & 255 for at in range(200))
        for answer in exchange(noise + b"\r\n\r\n"):
            assert answer.status == 400


def closed_after(limits: HttpLimits, *steps: tuple[float, bytes]) -> float:
    """When, in seconds of trio's clock, the server ends a connection on which so much is sent at such times."""
    ended: list[float] = []

    async def talk() -> None:
        start = trio.current_time()
        async with conversation(limits=limits) as client, trio.open_nursery() as nursery:

            async def listen() -> None:
                await read_all(client)
                ended.append(trio.current_time() - start)
                nursery.cancel_scope.cancel()

            nursery.start_soon(listen)
            for when, data in steps:
                await trio.sleep_until(start + when)
                await client.send_all(data)

    run(talk, clock=MockClock(autojump_threshold=0))
    return ended[0]


SLOW = HttpLimits(header=10.0, read=30.0, idle=120.0)
POST = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n"


@pytest.mark.parametrize(
    ("steps", "end"),
    [
        ((), 10),
        (((1, ONE[:9]),), 10),
        (tuple((second, b"GET / HTTP/1.1\r\nX: y"[second : second + 1]) for second in range(20)), 10),
        (((1, ONE),), 121),
        (((1, ONE), (100, ONE[:1])), 110),
        (((1, ONE + ONE[:5]),), 11),
        (((1, ONE), (100, ONE)), 220),
        (((1, POST),), 31),
        (((1, POST), *((second, b"x") for second in range(2, 60))), 31),
    ],
    ids=["silent", "half a head", "a byte a second", "idle", "slow later", "slow behind", "again", "no body", "slow body"],
)
def test_a_slow_client_is_closed_at_the_limit(steps: tuple[tuple[float, bytes], ...], end: float) -> None:
    assert closed_after(SLOW, *steps) == pytest.approx(end, abs=0.6)


def test_a_client_that_does_not_read_is_left_in_time() -> None:
    async def much(_request: Request) -> Response:
        return Response(b"x" * 10_000_000)

    async def talk() -> None:
        near, far = trio.testing.lockstep_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, ONE)
            start = trio.current_time()
            with pytest.raises(trio.TooSlowError):
                await serve_connection(far, much, ConnectionLimiter(1), SLOW)
            assert trio.current_time() - start == 30

    run(talk, clock=MockClock(autojump_threshold=0))


def test_a_closed_lobby_serves_what_is_under_way_and_then_ends() -> None:
    limiter = ConnectionLimiter(10)
    go_on = trio.Event()

    async def slow(_request: Request) -> Response:
        await go_on.wait()
        return Response(b"done")

    async def talk() -> None:
        async with conversation(slow, limiter=limiter) as client:
            await client.send_all(ONE)
            await wait_all_tasks_blocked()
            limiter.close()
            go_on.set()
            (answer,) = parse_answers(await read_all(client))
            assert (answer.body, answer.headers["connection"]) == (b"done", "close")

    run(talk, clock=MockClock(autojump_threshold=0))


def test_a_closed_lobby_ends_who_is_idle_at_once() -> None:
    async def talk() -> None:
        limiter = ConnectionLimiter(10)
        async with conversation(limiter=limiter) as client:
            await client.send_all(ONE)
            await client.receive_some(1)
            start = trio.current_time()
            limiter.close()
            await read_all(client)
            assert trio.current_time() == start

    run(talk, clock=MockClock(autojump_threshold=0))
