"""A histogram counts each value in every bucket whose bound it does not exceed."""

from __future__ import annotations

import pytest

from tunnel.status.histogram import DIAL_BOUNDS, HANDSHAKE_BOUNDS, LAG_BOUNDS, LIFETIME_BOUNDS, Histogram


def test_buckets_are_cumulative_and_include_their_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for seconds in (0.5, 1.0, 1.5, 3.0):
        histogram.add(seconds)
    reading = histogram.read()
    assert (reading.bounds, reading.buckets, reading.count, reading.total) == ((1.0, 2.0), (2, 3), 4, 6.0)


@pytest.mark.parametrize("bounds", [HANDSHAKE_BOUNDS, DIAL_BOUNDS, LIFETIME_BOUNDS, LAG_BOUNDS])
def test_bounds_increase(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))
