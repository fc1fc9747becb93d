"""The sample is bounded, deterministic with a fixed clock and random source, and prefers recent values."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.socket_pairs import Clock
from tunnel.status.reservoir import SIZE, Reservoir, Sample


@pytest.mark.parametrize(
    ("values", "fraction", "expected"),
    [
        ((), 0.5, 0.0),
        ((7,), 0.5, 7.0),
        ((7,), 0.999, 7.0),
        ((1, 2), 0.5, 1.5),
        ((1, 2, 3), 0.5, 2.0),
        ((1, 2, 3), 0.75, 3.0),
        ((1, 2, 3), 0.1, 1.0),
        ((10, 20, 30, 40), 0.5, 25.0),
        (tuple(range(1, 100)), 0.95, 95.0),
        (tuple(range(1, 101)), 0.99, 99.99),
        (tuple(range(1, 101)), 1.0, 100.0),
    ],
)
def test_a_percentile_lies_between_its_neighbours(values: tuple[int, ...], fraction: float, expected: float) -> None:
    assert Sample(values).percentile(fraction) == pytest.approx(expected)


def test_the_statistics_of_an_empty_sample_are_zero() -> None:
    empty = Sample()
    assert (empty.minimum, empty.maximum, empty.mean, empty.variance, empty.deviation) == (0, 0, 0, 0, 0)


@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=50))
def test_a_sample_agrees_with_the_statistics_module(values: list[int]) -> None:
    sample = Sample(tuple(sorted(values)))
    assert (sample.minimum, sample.maximum) == (min(values), max(values))
    assert sample.mean == pytest.approx(statistics.fmean(values))
    assert sample.variance == pytest.approx(statistics.pvariance(values), rel=1e-6, abs=1e-3)
    assert sample.minimum <= sample.percentile(0.5) <= sample.maximum


def filled(count: int, *, size: int = SIZE, seed: int = 1) -> Reservoir:
    reservoir = Reservoir(size, chance=random.Random(seed).random, clock=Clock())
    for value in range(count):
        reservoir.update(value)
    return reservoir


@pytest.mark.parametrize("count", [0, 1, 7, 8])
def test_everything_is_kept_while_there_is_room(count: int) -> None:
    assert filled(count, size=8).sample().values == tuple(range(count))


def test_no_more_is_kept_than_there_is_room_for() -> None:
    assert len(filled(20_000).sample().values) == SIZE


def test_chance_decides_and_nothing_else() -> None:
    assert filled(5000, seed=3).sample() == filled(5000, seed=3).sample()
    assert filled(5000, seed=3).sample() != filled(5000, seed=4).sample()


def test_at_one_moment_all_values_have_the_same_chance() -> None:
    assert filled(100_000).sample().mean == pytest.approx(50_000, rel=0.1)


def test_what_is_recent_displaces_what_is_old() -> None:
    clock = Clock()
    reservoir = Reservoir(chance=random.Random(1).random, clock=clock)
    for value in (1, 2):
        for _ in range(5000):
            reservoir.update(value)
        clock.now += 600  # exp(0.015 * 600) is some 8000
    assert set(reservoir.sample().values) == {2}


def test_a_long_life_and_every_chance_are_borne() -> None:
    clock = Clock()
    clock.now = 1e9  # 31 years: exp(0.015 * 1e9) is no number any more
    for chance in (0.0, 1 - 2**-53):
        reservoir = Reservoir(1, chance=lambda drawn=chance: drawn, clock=clock)
        reservoir.update(5)
        reservoir.update(6)
        assert len(reservoir.sample().values) == 1
