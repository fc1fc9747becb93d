"""Delays of the backoff, with a fixed random source."""

from __future__ import annotations

import pytest

from tunnel.backoff import Backoff


def delays(backoff: Backoff, count: int, *, floor: float = 0.0, cap: float = 30.0) -> list[float]:
    return [backoff.next(floor=floor, cap=cap) for _ in range(count)]


def test_delays_double_up_to_the_cap_and_the_first_is_none() -> None:
    assert delays(Backoff(lambda: 0.0), 10) == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_no_delay_is_under_the_floor() -> None:
    assert delays(Backoff(lambda: 0.0), 4, floor=1.0) == [1.0, 1.0, 1.0, 2.0]


def test_the_cap_is_over_the_floor() -> None:
    assert delays(Backoff(lambda: 0.0), 2, floor=9.0, cap=5.0) == [5.0, 5.0]


def test_jitter_adds_at_most_a_quarter() -> None:
    assert delays(Backoff(lambda: 1.0), 4) == [0.0, 0.625, 1.25, 2.5]
    assert delays(Backoff(lambda: 0.5), 2, floor=1.0) == [1.125, 1.125]


def test_a_reset_starts_again_without_delay() -> None:
    backoff = Backoff(lambda: 0.0)
    delays(backoff, 5)
    backoff.reset()
    assert delays(backoff, 3) == [0.0, 0.5, 1.0]


def test_many_failures_do_not_overflow() -> None:
    backoff = Backoff(lambda: 0.0)
    assert max(delays(backoff, 5000)) == 30.0


@pytest.mark.parametrize("cap", [5.0, 30.0])
def test_the_cap_may_change_between_failures(cap: float) -> None:
    backoff = Backoff(lambda: 0.0)
    delays(backoff, 20)
    assert backoff.next(floor=0.0, cap=cap) == cap
