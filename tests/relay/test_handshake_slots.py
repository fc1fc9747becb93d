"""Slots and turns of handshakes: bounded, in order, and no source keeps the others out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from plane import Clock

from tunnel.relay.handshakes import _STEPS, Handshakes
from tunnel.relay.loop import Loop
from tunnel.tls.engine import Buffers

BUFFERS = Buffers()


class Caller:
    """A handshake that writes down when it may go on."""

    def __init__(self, name: str, source: str, resumed: list[str]) -> None:
        self.owner = self
        self.name, self.source = name, source
        self._resumed = resumed

    def resume(self) -> None:
        self._resumed.append(self.name)

    def crashed(self, crash: Exception) -> None:
        raise crash


class Stand:
    """The handshakes of a loop that is turned by hand."""

    def __init__(self, limit: int) -> None:
        self.loop = Loop(Clock())
        self.resumed: list[str] = []
        self.handshakes = Handshakes(self.loop, BUFFERS, limit)

    def caller(self, name: str, source: str = "192.0.2.1") -> Caller:
        return Caller(name, source, self.resumed)

    def turn(self) -> list[str]:
        """Who has gone on in one turn."""
        self.resumed.clear()
        self.loop.turn(0)
        return list(self.resumed)


@pytest.fixture
def stand(request: pytest.FixtureRequest) -> Iterator[Stand]:
    made = Stand(getattr(request, "param", 8))
    yield made
    made.loop.close()


def test_a_source_has_a_quarter_of_the_slots_and_leaves_the_rest_to_others(stand: Stand) -> None:
    greedy = [stand.caller(str(number)) for number in range(5)]
    assert [stand.handshakes.enter(one) for one in greedy] == [True, True, False, False, False]
    other = stand.caller("other", "192.0.2.2")
    assert stand.handshakes.enter(other)
    stand.handshakes.leave(greedy[0], is_waiting=False)
    assert stand.turn() == ["2"], "the first that waits"
    stand.handshakes.leave(other, is_waiting=False)
    assert stand.turn() == [], "the greedy source has its share"


def test_sources_that_wait_take_turns(stand: Stand) -> None:
    holders = [stand.caller(f"h{number}", f"198.51.100.{number // 2}") for number in range(8)]
    assert all(stand.handshakes.enter(one) for one in holders)
    crowd = [stand.caller(f"a{number}", "192.0.2.1") for number in range(4)]
    late = stand.caller("b", "192.0.2.2")
    assert not any(stand.handshakes.enter(one) for one in (*crowd, late))
    for holder in holders[:3]:
        stand.handshakes.leave(holder, is_waiting=False)
    assert sorted(stand.turn()) == ["a0", "a1", "b"]


def test_one_that_gives_up_while_it_waits_is_forgotten(stand: Stand) -> None:
    first, second, waiting, last = (stand.caller(name) for name in ("first", "second", "waiting", "last"))
    assert [stand.handshakes.enter(one) for one in (first, second, waiting, last)] == [True, True, False, False]
    stand.handshakes.leave(waiting, is_waiting=True)
    stand.handshakes.leave(first, is_waiting=False)
    assert stand.turn() == ["last"]
    for one in (second, last):
        stand.handshakes.leave(one, is_waiting=False)
    assert (stand.handshakes._held, stand.handshakes._holders, stand.handshakes._waiting) == (0, {}, {})


@pytest.mark.parametrize("stand", [0], indirect=True)
def test_without_a_limit_everyone_has_a_place(stand: Stand) -> None:
    assert all(stand.handshakes.enter(stand.caller(str(number))) for number in range(100))


def test_one_turn_has_a_bounded_number_of_steps_and_the_rest_go_on_in_their_order(stand: Stand) -> None:
    callers = [stand.caller(str(number)) for number in range(4 * _STEPS)]
    assert [stand.handshakes.may_step(one) for one in callers] == [True] * _STEPS + [False] * (3 * _STEPS)
    stand.turn()  # the turn in which they asked
    late = stand.caller("late")
    assert not stand.handshakes.may_step(late), "the others have asked before"
    turns = [sorted(stand.turn()) for _ in range(4)]
    names = [one.name for one in callers]
    batches = [names[_STEPS * at : _STEPS * (at + 1)] for at in (1, 2, 3)]
    assert turns == [*map(sorted, batches), ["late"]]
    stand.turn()
    assert stand.handshakes.may_step(stand.caller("a quiet time"))
