"""Timers: exact counts, sums and buckets, and rates."""

from __future__ import annotations

import math

import pytest

from tests.support.socket_pairs import Clock
from tunnel.status.durations import LONG, SHORT, DurationMetric, Rates, spread


def test_bounds_rise_from_the_least_to_the_greatest() -> None:
    assert (len(SHORT), SHORT[0], SHORT[-1]) == (24, 10_000, 10_000_000_000)
    assert (len(LONG), LONG[0], LONG[-1]) == (30, 1_000_000, 86_400_000_000_000)
    for bounds in (SHORT, LONG):
        assert list(bounds) == sorted(set(bounds))
    assert spread(1, 1000, 4) == (1, 10, 100, 1000)


@pytest.mark.parametrize(
    ("values", "buckets"),
    [
        ((), (0, 0, 0)),
        ((0,), (1, 1, 1)),
        ((10,), (1, 1, 1)),
        ((11,), (0, 1, 1)),
        ((1000,), (0, 0, 1)),
        ((1001,), (0, 0, 0)),
        ((5, 50, 500, 5000), (1, 2, 3)),
    ],
)
def test_a_bucket_holds_all_that_lasted_no_longer_than_its_bound(values: tuple[int, ...], buckets: tuple[int, ...]) -> None:
    timer = DurationMetric((10, 100, 1000), clock=Clock())
    for value in values:
        timer.update(value)
    seen = timer.distribution()
    assert (seen.count, seen.total, seen.buckets) == (len(values), sum(values), buckets)
    assert seen.sample.values == values


def test_count_and_sum_forget_nothing() -> None:
    timer = DurationMetric(SHORT, clock=Clock())
    for _ in range(5000):
        timer.update(3)
    assert (timer.distribution().count, timer.distribution().total) == (5000, 15_000)


def busy(timer: DurationMetric, count: int) -> None:
    for _ in range(count):
        timer.update(1)


def test_a_steady_rate_is_every_average() -> None:
    clock = Clock()
    timer = DurationMetric(SHORT, clock=clock)
    for _ in range(20):
        busy(timer, 50)
        clock.now += 10
        timer.distribution()
    assert timer.distribution().rates == Rates(*[pytest.approx(5.0)] * 4)


@pytest.mark.parametrize("step", [1, 15, 60])
def test_a_rate_decays_alike_however_often_it_is_read(step: int) -> None:
    clock = Clock()
    timer = DurationMetric(SHORT, clock=clock)
    busy(timer, 600)
    clock.now += 60
    assert timer.distribution().rates.one_minute == pytest.approx(10)
    for _ in range(60 // step):
        clock.now += step
        seen = timer.distribution().rates
    assert seen.one_minute == pytest.approx(10 * math.exp(-1))
    assert seen.five_minutes == pytest.approx(10 * math.exp(-1 / 5))
    assert seen.fifteen_minutes == pytest.approx(10 * math.exp(-1 / 15))
    assert seen.mean == pytest.approx(5)


def test_before_any_time_has_passed_there_is_no_rate() -> None:
    timer = DurationMetric(SHORT, clock=Clock())
    busy(timer, 3)
    assert timer.distribution().rates == Rates()
    assert timer.distribution().count == 3
