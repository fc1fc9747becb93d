"""A rate permits one second's events at once, and then one per interval."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.listener.rate_limit import AcceptRate, RateLimit

START = 1e6  # of a clock that has run for some days


def permitted(rate: float, times: list[float]) -> list[float]:
    """The times at which an event was permitted, of all at which one was tried."""
    limit, due, found = RateLimit(rate), 0.0, []
    for now in times:
        if not limit.wait(due, now):
            due = limit.advance(due, now)
            found.append(now)
    return found


@pytest.mark.parametrize(("rate", "at_once"), [(0.1, 1), (0.5, 1), (1, 1), (1.5, 1), (2, 2), (5, 5), (1000, 1000)])
def test_one_seconds_events_are_permitted_at_once_and_at_least_one(rate: float, at_once: int) -> None:
    assert len(permitted(rate, [START] * 2000)) == at_once


@pytest.mark.parametrize("rate", [0.5, 1, 3, 7, 50, 999])
def test_in_the_long_run_the_rate_is_kept(rate: float) -> None:
    seconds = 20
    found = permitted(rate, [START + tick / 5000 for tick in range(seconds * 5000)])
    assert rate * seconds <= len(found) + 1 <= rate * seconds + max(rate, 1) + 1


@given(st.lists(st.floats(0, 30), max_size=200).map(sorted))
def test_no_second_has_more_than_twice_the_rate(times: list[float]) -> None:
    found = permitted(4, times)
    assert all(len([one for one in found if start <= one < start + 1]) <= 8 for start in found)


def test_a_source_without_events_for_a_second_begins_anew() -> None:
    limit, due = RateLimit(3), 0.0
    for _ in range(3):
        due = limit.advance(due, START)
    assert limit.wait(due, START) == pytest.approx(1 / 3, abs=1e-3)
    assert due <= START + 1.001


def test_accepting_pauses_until_the_next_connection_is_permitted() -> None:
    accepting = AcceptRate(RateLimit(2))
    assert accepting.spend(START) == 0
    pause = accepting.spend(START)
    assert pause == pytest.approx(0.5, abs=1e-3)
    assert accepting.spend(START + pause) == pytest.approx(0.5, abs=1e-3)
    assert accepting.spend(START + 10) == 0
