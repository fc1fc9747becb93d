"""Slots and turns of handshakes: limited, in order, and one source cannot take them all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.socket_pairs import Clock
from tunnel.relay.handshake_slots import _RUNS_PER_TURN, HandshakeSlots, HandshakeTurns
from tunnel.relay.loop import Loop
from tunnel.tls.records import Buffers

BUFFERS = Buffers()


class FakeHandshake:
    """A handshake that records its resumption."""

    def __init__(self, name: str, source: str, resumed: list[str]) -> None:
        self.owner = self
        self.name, self.source = name, source
        self._resumed = resumed

    def resume(self) -> None:
        self._resumed.append(self.name)

    def crashed(self, crash: Exception) -> None:
        raise crash


class Slots:
    """The handshake slots of a loop whose turns the test runs."""

    def __init__(self, limit: int) -> None:
        self.loop = Loop(Clock())
        self.resumed: list[str] = []
        self.handshakes = HandshakeSlots(HandshakeTurns(self.loop), BUFFERS, limit)

    def handshake(self, name: str, source: str = "192.0.2.1") -> FakeHandshake:
        return FakeHandshake(name, source, self.resumed)

    def turn(self) -> list[str]:
        """Run one turn and return the names of the handshakes that were resumed."""
        self.resumed.clear()
        self.loop.turn(0)
        return list(self.resumed)


@pytest.fixture
def slots(request: pytest.FixtureRequest) -> Iterator[Slots]:
    made = Slots(getattr(request, "param", 8))
    yield made
    made.loop.close()


def test_a_source_has_a_quarter_of_the_slots_and_leaves_the_rest_to_others(slots: Slots) -> None:
    greedy = [slots.handshake(str(number)) for number in range(5)]
    assert [slots.handshakes.acquire(one) for one in greedy] == [True, True, False, False, False]
    other = slots.handshake("other", "192.0.2.2")
    assert slots.handshakes.acquire(other)
    slots.handshakes.release(greedy[0], is_waiting=False)
    assert slots.turn() == ["2"], "the first that waits"
    slots.handshakes.release(other, is_waiting=False)
    assert slots.turn() == [], "the greedy source has its share"


def test_sources_that_wait_take_turns(slots: Slots) -> None:
    holders = [slots.handshake(f"h{number}", f"198.51.100.{number // 2}") for number in range(8)]
    assert all(slots.handshakes.acquire(one) for one in holders)
    crowd = [slots.handshake(f"a{number}", "192.0.2.1") for number in range(4)]
    late = slots.handshake("b", "192.0.2.2")
    assert not any(slots.handshakes.acquire(one) for one in (*crowd, late))
    for holder in holders[:3]:
        slots.handshakes.release(holder, is_waiting=False)
    assert sorted(slots.turn()) == ["a0", "a1", "b"]


def test_one_that_gives_up_while_it_waits_is_forgotten(slots: Slots) -> None:
    first, second, waiting, last = (slots.handshake(name) for name in ("first", "second", "waiting", "last"))
    assert [slots.handshakes.acquire(one) for one in (first, second, waiting, last)] == [True, True, False, False]
    slots.handshakes.release(waiting, is_waiting=True)
    slots.handshakes.release(first, is_waiting=False)
    assert slots.turn() == ["last"]
    for one in (second, last):
        slots.handshakes.release(one, is_waiting=False)
    assert (
        slots.handshakes._held,
        slots.handshakes._held_by_source,
        slots.handshakes._waiting,
    ) == (0, {}, {})


@pytest.mark.parametrize("slots", [0], indirect=True)
def test_without_a_limit_everyone_has_a_place(slots: Slots) -> None:
    assert all(slots.handshakes.acquire(slots.handshake(str(number))) for number in range(100))


def test_one_turn_has_a_bounded_number_of_steps_and_the_rest_go_on_in_their_order(slots: Slots) -> None:
    waiting_handshakes = [slots.handshake(str(number)) for number in range(4 * _RUNS_PER_TURN)]
    assert [slots.handshakes.may_run(one) for one in waiting_handshakes] == [True] * _RUNS_PER_TURN + [False] * (
        3 * _RUNS_PER_TURN
    )
    slots.turn()  # the turn in which they asked
    late = slots.handshake("late")
    assert not slots.handshakes.may_run(late), "the others have asked before"
    turns = [sorted(slots.turn()) for _ in range(4)]
    names = [one.name for one in waiting_handshakes]
    batches = [names[_RUNS_PER_TURN * at : _RUNS_PER_TURN * (at + 1)] for at in (1, 2, 3)]
    assert turns == [*map(sorted, batches), ["late"]]
    slots.turn()
    assert slots.handshakes.may_run(slots.handshake("a quiet time"))
