"""The first words on a connection are said whole, however little room there is."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from tests.support.socket_pairs import MAKERS, Clock, received, tcp_pair
from tunnel.errors import TargetError, TargetFault
from tunnel.relay.loop import Loop
from tunnel.relay.proxy_header import HeaderWriter

WORDS = bytes(at * 7 & 255 for at in range(65551))  # as large as a header can be
Pair = tuple[socket.socket, socket.socket]


class Speaker:
    """Who has something to say."""

    def __init__(self, pair: Pair) -> None:
        self.loop = Loop(Clock())
        self.near, self.far = pair
        self.outcome: list[TargetError | str] = []

    def start(self, words: bytes = WORDS) -> Speaker:
        HeaderWriter(self.loop, self, self.near, words, "tcp:backend").start()
        return self

    def step_done(self, result: object) -> None:
        self.outcome.append("said")
        self.loop.rewatch(self.near, lambda _events: None, self)

    def step_failed(self, error: Exception, farewell: bytes = b"") -> None:
        assert isinstance(error, TargetError)
        self.outcome.append(error)
        self.loop.unwatch(self.near)

    def crashed(self, crash: Exception) -> None:
        raise crash

    def turn(self) -> None:
        for _ in range(3):
            self.loop.turn(0)


@pytest.fixture
def speakers() -> Iterator[Callable[[Pair], Speaker]]:
    made: list[Speaker] = []

    def make(pair: Pair) -> Speaker:
        made.append(Speaker(pair))
        return made[-1]

    yield make
    for speaker in made:
        speaker.loop.close()
        speaker.near.close()
        speaker.far.close()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_all_is_said_and_then_the_owner_hears_of_it(speakers: Callable[[Pair], Speaker], make: Callable[[], Pair]) -> None:
    speaker = speakers(make()).start()
    heard = b""
    for _ in range(500):
        heard += received(speaker.far)
        speaker.turn()
    assert heard == WORDS
    assert speaker.outcome == ["said"]


def test_little_is_said_at_once(speakers: Callable[[Pair], Speaker]) -> None:
    assert speakers(tcp_pair()).start(b"few words").outcome == ["said"], "before the loop has turned"


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_who_does_not_take_it_is_said_to_have_gone(speakers: Callable[[Pair], Speaker], when: str) -> None:
    speaker = speakers(MAKERS["narrow unix"]())
    if when == "before":
        speaker.far.close()
        speaker.start()
    else:
        speaker.start()
        assert speaker.outcome == [], "there was no room for all"
        speaker.far.close()
    speaker.turn()
    (error,) = speaker.outcome
    assert isinstance(error, TargetError)
    assert (error.reason, str(error)) == (TargetFault.CLOSED, "tcp:backend: broken pipe")
