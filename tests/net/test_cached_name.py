"""A cached name: when it is asked for again, and what is used while that fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tunnel.errors import TargetError, TargetFault
from tunnel.net.cached_name import (
    MAX_LIFETIME,
    MIN_LIFETIME,
    STALE_LIMIT,
    STALE_WAIT,
    Answer,
    CachedName,
    Timed,
    bounded_lifetime,
)
from tunnel.net.sockets import NameNotFound

FAILURE = TargetError(TargetFault.RESOLVE, "no name server answers")
GONE = NameNotFound(TargetFault.RESOLVE, "unknown")
LIFETIME = 5.0


class Timers:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, Callable[[], object]]] = []

    def clock(self) -> float:
        return self.now

    def call_later(self, delay: float, action: Callable[[], object]) -> None:
        self.due.append((self.now + delay, action))

    def later(self, seconds: float) -> None:
        self.now += seconds
        for when, action in list(self.due):
            if when <= self.now:
                self.due.remove((when, action))
                action()


class Caller:
    def __init__(self) -> None:
        self.answers: list[object] = []

    def answered(self, answer: object) -> None:
        self.answers.append(answer)


class Name:
    """A cached name whose resolutions the test answers."""

    def __init__(self) -> None:
        self.timers = Timers()
        self.asked: list[Callable[[Answer[str]], object]] = []
        self.cached: CachedName[str] = CachedName(self.asked.append, self.timers)

    def wait(self) -> list[object]:
        caller = Caller()
        self.cached.wait(caller)
        return caller.answers

    def answer(self, answer: str | TargetError) -> None:
        self.asked.pop()(Timed(answer, LIFETIME) if isinstance(answer, str) else answer)


@pytest.fixture
def name() -> Name:
    return Name()


def test_one_resolution_serves_all_who_wait(name: Name) -> None:
    first, second = name.wait(), name.wait()
    assert len(name.asked) == 1
    name.answer("A")
    assert first == second == ["A"]
    assert name.cached.fresh() == "A"


def test_an_answer_is_used_for_its_lifetime(name: Name) -> None:
    name.wait()
    name.answer("A")
    name.timers.later(LIFETIME - 0.01)
    assert name.cached.fresh() == "A"
    name.timers.later(0.02)
    assert name.cached.fresh() is None
    answers = name.wait()
    assert answers == []
    name.answer("B")
    assert answers == ["B"]


def test_a_first_failure_is_reported_and_asked_again(name: Name) -> None:
    answers = name.wait()
    name.answer(FAILURE)
    assert answers == [FAILURE]
    assert name.cached.fresh() is None
    name.wait()
    assert len(name.asked) == 1


def test_the_old_answer_is_used_while_a_refresh_fails(name: Name) -> None:
    name.wait()
    name.answer("A")
    name.timers.later(LIFETIME)
    answers = name.wait()
    name.answer(FAILURE)
    assert answers == ["A"]
    assert name.cached.fresh() == "A", "and not every connection asks"
    name.timers.later(2)
    assert name.cached.fresh() is None


def test_the_old_answer_is_used_while_a_refresh_takes_long(name: Name) -> None:
    name.wait()
    name.answer("A")
    name.timers.later(LIFETIME)
    answers = name.wait()
    name.timers.later(STALE_WAIT + 0.01)
    assert answers == ["A"]
    name.answer("B")
    assert answers == ["A"]
    assert name.cached.fresh() == "B"


def test_the_old_answer_is_not_used_for_ever(name: Name) -> None:
    name.wait()
    name.answer("A")
    name.timers.later(LIFETIME + STALE_LIMIT)
    answers = name.wait()
    name.timers.later(STALE_WAIT + 1)
    assert answers == []
    name.answer(FAILURE)
    assert answers == [FAILURE]
    assert name.cached.fresh() is None


def test_an_answer_that_the_name_does_not_exist_ends_the_old_one(name: Name) -> None:
    name.wait()
    name.answer("A")
    name.timers.later(LIFETIME)
    answers = name.wait()
    name.answer(GONE)
    assert answers == [GONE]
    assert name.cached.fresh() is None


def test_the_timer_of_an_earlier_resolution_is_ignored(name: Name) -> None:
    name.wait()
    name.answer("A")
    name.timers.later(LIFETIME)
    name.wait()
    name.answer("B")
    name.timers.now += LIFETIME
    answers = name.wait()
    name.timers.due.pop(0)[1]()
    assert answers == []


def test_who_no_longer_waits_gets_nothing(name: Name) -> None:
    caller = Caller()
    name.cached.wait(caller)
    name.cached.forget(caller)
    name.cached.forget(caller)
    name.answer("A")
    assert caller.answers == []


def test_each_result_is_announced_once(name: Name) -> None:
    seen: list[object] = []
    name.cached.on_answer = seen.append
    name.cached.refresh()
    name.cached.refresh()
    assert len(name.asked) == 1
    name.answer("A")
    name.timers.later(LIFETIME)
    name.cached.refresh()
    name.answer(FAILURE)
    assert seen == ["A", "A"]


@pytest.mark.parametrize(("given", "used"), [(0, MIN_LIFETIME), (30, 30), (1e9, MAX_LIFETIME)])
def test_lifetimes_have_bounds(given: float, used: float) -> None:
    assert bounded_lifetime(given) == used
