"""The HTTP client: the same response for every split of the bytes, limits, and the two drivers."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

import h11
import pytest
import trio
import trio.testing

from tests.support.processes import LIMIT
from tunnel.errors import ConfigError, WireError, WireFault
from tunnel.http import client
from tunnel.http.client import (
    USER_AGENT,
    HttpExchange,
    ReceivedResponse,
    fetch,
    fetch_blocking,
    parse_http_url,
    request_url,
)

INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nX-First: a\r\nx-first: b\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
UNTIL_END = b"HTTP/1.0 200 OK\r\n\r\nhello"


def exchange(max_body: int = 1000) -> HttpExchange:
    return HttpExchange("GET", "/", {"Host": "x"}, max_body=max_body)


def response_of(*pieces: bytes, max_body: int = 1000) -> ReceivedResponse:
    """The response to pieces of a stream that then ends."""
    one = exchange(max_body)
    for piece in (*pieces, b""):
        if (response := one.feed(piece)) is not None:
            return response
    raise AssertionError("no response at the end of the connection")


@pytest.mark.parametrize(
    ("data", "status"),
    [(SIZED, 200), (INTERIM + SIZED, 200), (CHUNKED, 503), (UNTIL_END, 200)],
    ids="sized interim chunked end".split(),
)
def test_a_response_is_the_same_for_every_split(data: bytes, status: int) -> None:
    for cut in range(1, len(data)):
        response = response_of(data[:cut], data[cut:])
        assert (response.status, response.body) == (status, b"hello")


def test_of_equal_headers_the_first_counts() -> None:
    assert response_of(SIZED).headers["x-first"] == "a"


def test_without_a_wanted_body_the_header_is_enough() -> None:
    head = SIZED.removesuffix(b"hello")
    assert exchange(0).feed(head) == ReceivedResponse(200, {"x-first": "a", "content-length": "5"}, b"")


@pytest.mark.parametrize("data", [SIZED, CHUNKED, UNTIL_END])
def test_a_body_is_read_up_to_the_limit(data: bytes) -> None:
    assert response_of(data, max_body=4).body == b"hell"


def test_a_body_that_is_cut_off_is_returned_as_far_as_it_came() -> None:
    assert response_of(SIZED[:-2]).body == b"hel"


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", WireFault.TRUNCATED),
        (b"HTTP/1.1 200", WireFault.MALFORMED),
        (INTERIM, WireFault.MALFORMED),
        (b"SSH-2.0-x\r\n\r\n", WireFault.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, WireFault.MALFORMED),
    ],
    ids=["end", "cut", "interim", "ssh", "large"],
)
def test_what_is_no_response_is_refused(data: bytes, fault: WireFault) -> None:
    with pytest.raises(WireError) as refused:
        response_of(data)
    assert refused.value.reason is fault


def test_noise_is_a_response_or_a_wire_error() -> None:
    chance = random.Random(11)
    for _ in range(2000):
        data = bytearray(INTERIM + chance.choice((SIZED, CHUNKED, UNTIL_END)))
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        with suppress(WireError):
            response_of(bytes(data))


def test_the_request_has_what_every_server_needs() -> None:
    wire = h11.Connection(h11.SERVER)
    wire.receive_data(request_url("POST", parse_http_url("http://x:81/a?b"), {"Content-Type": "text/x"}, b"body").request)
    head, body = wire.next_event(), wire.next_event()
    assert isinstance(head, h11.Request)
    assert (head.method, head.target, isinstance(body, h11.Data) and body.data) == (b"POST", b"/a?b", b"body")
    assert dict(head.headers) == {
        b"host": b"x:81",
        b"content-type": b"text/x",
        b"user-agent": USER_AGENT.encode(),
        b"accept": b"*/*",
        b"content-length": b"4",
        b"connection": b"close",
    }


def test_both_drivers_return_the_same() -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(INTERIM + SIZED)
        blocking = fetch_blocking(near, exchange(), LIMIT)

    async def talk() -> ReceivedResponse:
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(INTERIM + SIZED)
        return await fetch(ours, exchange())

    assert blocking == trio.run(talk)


def test_a_response_that_comes_byte_by_byte_is_abandoned_at_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 3.0, 6.0])
    monkeypatch.setattr(client, "monotonic", lambda: next(seconds))
    near, far = socket.socketpair(type=socket.SOCK_SEQPACKET)  # each byte is a step
    with near, far:
        for byte in (b"H", b"T", b"T"):
            far.send(byte)
        with pytest.raises(TimeoutError):
            fetch_blocking(near, exchange(), 5.0)


# -- URLs


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "/a",
        "ftp://x/",
        "http://",
        "http:///a",
        "http://x:y/",
        "http://[::1/",
        "http://x/a b",
        "http://x/\n",
        "http://\xe4/",
    ],
)
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no URL"):
        parse_http_url(text)


def test_credentials_of_a_url_are_never_shown() -> None:
    assert "hunter2" not in repr(parse_http_url("http://me:hunter2@x/"))
    with pytest.raises(ConfigError) as refused:
        parse_http_url("http://me:hunter2@x:y/")
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None
