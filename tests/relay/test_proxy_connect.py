"""Exchanges with a proxy over sockets with short reads and writes or an early EOF."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from tests.support.socket_pairs import MAKERS, Clock, narrow_unix_pair, received, tcp_pair, unix_pair
from tunnel.errors import TargetError, TargetFault
from tunnel.relay.loop import Loop
from tunnel.relay.proxy_connect import ProxyConnect
from tunnel.wire.outbound import Exchange, Reached, open_exchange, parse_outbound

NAME = "proxy socks5://proxy:1080"
METHOD, ANSWER = b"\x05\x00", b"\x05\x00\x00\x01" + bytes(6)
OPENED = b"HTTP/1.1 200 OK\r\n\r\n"
Pair = tuple[socket.socket, socket.socket]


class ProxyExchange:
    """A ProxyConnect on one end of a connection, and a proxy on the other."""

    def __init__(self, pair: Pair, exchange: Exchange) -> None:
        self.loop = Loop(Clock())
        self.near, self.far = pair
        self.loop.watch(self.near, lambda _events: None, self)  # as a dial has, which has seen what was announced so far
        self.turn()
        self.outcome: list[bytes | TargetError] = []
        self.step = ProxyConnect(self.loop, self, self.near, exchange, NAME)
        self.step.start()

    def step_done(self, result: object) -> None:
        assert isinstance(result, bytes)
        self.outcome.append(result)
        self.loop.rewatch(self.near, lambda _events: None, self)

    def step_failed(self, error: Exception, final_data: bytes = b"") -> None:
        assert isinstance(error, TargetError)
        self.outcome.append(error)
        self.loop.unwatch(self.near)

    def crashed(self, crash: Exception) -> None:
        raise crash

    def turn(self, times: int = 3) -> None:
        for _ in range(times):
            self.loop.turn(0)

    def peer_send(self, data: bytes, size: int = 1 << 20) -> None:
        """Send bytes of the proxy in pieces of `size`."""
        for at in range(0, len(data), size):
            self.far.sendall(data[at : at + size])
            self.turn()

    @property
    def fault(self) -> TargetFault:
        (only,) = self.outcome
        assert isinstance(only, TargetError), only
        assert str(only).startswith("proxy ")
        return only.reason

    def close(self) -> None:
        self.loop.close()
        self.near.close()
        self.far.close()


ProxyExchanges = Callable[..., ProxyExchange]


@pytest.fixture
def exchanges() -> Iterator[ProxyExchanges]:
    made: list[ProxyExchange] = []

    def make(pair: Pair | None = None, url: str = "socks5://proxy", exchange: Exchange | None = None) -> ProxyExchange:
        made.append(ProxyExchange(pair or unix_pair(), exchange or open_exchange(parse_outbound(url), "db", 443)))
        return made[-1]

    yield make
    for exchange in made:
        exchange.close()


@pytest.mark.parametrize("size", [1 << 20, 1], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_exchange_is_done_when_the_proxy_has_agreed(exchanges: ProxyExchanges, make: Callable[[], Pair], size: int) -> None:
    exchange = exchanges(make())
    assert received(exchange.far) == b"\x05\x01\x00"
    exchange.peer_send(METHOD, size)
    assert received(exchange.far) == b"\x05\x01\x00\x03\x02db\x01\xbb"
    assert exchange.outcome == []
    exchange.peer_send(ANSWER, size)
    assert exchange.outcome == [b""]


@pytest.mark.parametrize("make", [unix_pair, tcp_pair], ids=["unix", "tcp"])
def test_what_comes_behind_the_answer_is_handed_on_or_left(exchanges: ProxyExchanges, make: Callable[[], Pair]) -> None:
    exchange = exchanges(make(), "http://proxy")
    exchange.far.sendall(OPENED + b"from the target")
    exchange.turn()
    (leftover,) = exchange.outcome
    exchange.far.sendall(b" and more")
    exchange.turn()
    assert isinstance(leftover, bytes)
    assert leftover + received(exchange.near) == b"from the target and more"
    assert len(exchange.outcome) == 1, "it is told once"


@pytest.mark.parametrize("before", [b"", METHOD, METHOD + ANSWER[:-1]], ids=["silent", "after a word", "inside the last"])
def test_a_proxy_that_closes_is_reported_as_closed(exchanges: ProxyExchanges, before: bytes) -> None:
    exchange = exchanges()
    exchange.peer_send(before[:2])
    exchange.peer_send(before[2:])
    received(exchange.far)  # what is closed unread is a reset
    exchange.far.close()
    exchange.turn()
    assert exchange.fault is TargetFault.PROXY_CLOSED
    assert str(exchange.outcome[0]) == f"{NAME}: connection closed before the response"


def test_a_proxy_that_has_closed_before_the_request(exchanges: ProxyExchanges) -> None:
    near, far = unix_pair()
    far.close()
    exchange = exchanges((near, far))
    exchange.turn()
    assert exchange.fault is TargetFault.PROXY_CLOSED


def test_a_proxy_that_half_closed_before_the_request(exchanges: ProxyExchanges) -> None:
    near, far = tcp_pair()
    far.shutdown(socket.SHUT_WR)
    exchange = exchanges((near, far))
    exchange.turn()
    assert exchange.fault is TargetFault.PROXY_CLOSED


def test_a_proxy_that_resets_is_reported_as_closed(exchanges: ProxyExchanges) -> None:
    exchange = exchanges(tcp_pair())
    exchange.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    exchange.far.close()
    exchange.turn()
    assert exchange.fault is TargetFault.PROXY_CLOSED
    assert "connection reset" in str(exchange.outcome[0])


def test_a_refusal_is_read_before_the_end(exchanges: ProxyExchanges) -> None:
    exchange = exchanges(url="http://proxy")
    exchange.far.sendall(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n")
    exchange.far.close()
    exchange.turn()
    assert exchange.fault is TargetFault.PROXY_REFUSED
    assert "403 Forbidden" in str(exchange.outcome[0])


def test_an_invalid_answer_is_reported_as_invalid(exchanges: ProxyExchanges) -> None:
    exchange = exchanges()
    exchange.peer_send(b"SSH-2.0-server\r\n")
    assert exchange.fault is TargetFault.PROXY_RESPONSE


class LongExchange:
    """An exchange whose request is larger than the socket accepts."""

    def __init__(self, size: int) -> None:
        self.size = size

    def start(self) -> bytes:
        return b"1" * self.size

    def feed(self, data: bytes) -> bytes | Reached:
        return Reached(b"") if data.endswith(b"!") else b"2" * self.size


def test_what_finds_no_room_follows_when_there_is_some(exchanges: ProxyExchanges) -> None:
    exchange = exchanges(narrow_unix_pair(), exchange=LongExchange(50_000))
    exchange.far.sendall(b"?")
    heard = b""
    for _ in range(200):
        heard += exchange.far.recv(1000) if len(heard) < 100_000 else b""
        exchange.turn(1)
    assert heard == b"1" * 50_000 + b"2" * 50_000
    exchange.peer_send(b"!")
    assert exchange.outcome == [b""]
