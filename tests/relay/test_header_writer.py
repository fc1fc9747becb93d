"""A header is written completely, however little the socket accepts at a time."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from tests.support.socket_pairs import MAKERS, Clock, received, tcp_pair
from tunnel.errors import TargetError, TargetFault
from tunnel.relay.loop import Loop
from tunnel.relay.proxy_header import HeaderWriter

HEADER = bytes(at * 7 & 255 for at in range(65551))  # as large as a header can be
Pair = tuple[socket.socket, socket.socket]


class Writer:
    """A HeaderWriter on one end of a socket pair."""

    def __init__(self, pair: Pair) -> None:
        self.loop = Loop(Clock())
        self.near, self.far = pair
        self.outcome: list[TargetError | str] = []

    def start(self, header: bytes = HEADER) -> Writer:
        HeaderWriter(self.loop, self, self.near, header, "tcp:backend").start()
        return self

    def step_done(self, result: object) -> None:
        self.outcome.append("written")
        self.loop.rewatch(self.near, lambda _events: None, self)

    def step_failed(self, error: Exception, final_data: bytes = b"") -> None:
        assert isinstance(error, TargetError)
        self.outcome.append(error)
        self.loop.unwatch(self.near)

    def crashed(self, crash: Exception) -> None:
        raise crash

    def turn(self) -> None:
        for _ in range(3):
            self.loop.turn(0)


@pytest.fixture
def writers() -> Iterator[Callable[[Pair], Writer]]:
    made: list[Writer] = []

    def make(pair: Pair) -> Writer:
        made.append(Writer(pair))
        return made[-1]

    yield make
    for writer in made:
        writer.loop.close()
        writer.near.close()
        writer.far.close()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_all_is_written_before_the_owner_is_called(writers: Callable[[Pair], Writer], make: Callable[[], Pair]) -> None:
    writer = writers(make()).start()
    heard = b""
    for _ in range(500):
        heard += received(writer.far)
        writer.turn()
    assert heard == HEADER
    assert writer.outcome == ["written"]


def test_a_short_header_is_written_at_once(writers: Callable[[Pair], Writer]) -> None:
    assert writers(tcp_pair()).start(b"few header").outcome == ["written"], "before the loop has turned"


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_closed_target_is_reported_as_closed(writers: Callable[[Pair], Writer], when: str) -> None:
    writer = writers(MAKERS["narrow unix"]())
    if when == "before":
        writer.far.close()
        writer.start()
    else:
        writer.start()
        assert writer.outcome == [], "there was no room for all"
        writer.far.close()
    writer.turn()
    (error,) = writer.outcome
    assert isinstance(error, TargetError)
    assert (error.reason, str(error)) == (TargetFault.CLOSED, "tcp:backend: broken pipe")
