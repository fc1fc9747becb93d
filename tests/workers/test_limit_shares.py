"""The shares of all workers in the limits of a listener."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.configs import listener_config
from tunnel.workers.limit_shares import share_limits


@given(limit=st.integers(1, 1000), count=st.integers(1, 64))
def test_the_shares_of_connections_are_the_limit(limit: int, count: int) -> None:
    shares = [share_limits(listener_config(max_concurrent_conns=limit), index, count) for index in range(count)]
    assert sum(share.max_concurrent_conns for share in shares if share is not None) == limit
    assert all(share.max_concurrent_conns > 0 for share in shares if share is not None), "0 would be no limit"


@given(rate=st.floats(0.1, 1000), count=st.integers(1, 64))
def test_the_shares_of_a_rate_are_the_rate_and_no_share_is_less_than_one_per_second_without_need(
    rate: float, count: int
) -> None:
    shares = [share_limits(listener_config(max_rate=rate), index, count) for index in range(count)]
    rates = [share.max_rate for share in shares if share is not None]
    assert sum(rates) == pytest.approx(rate)
    assert min(rates) >= min(rate, 1)


def test_no_limit_is_no_limit_for_each_worker() -> None:
    share = share_limits(listener_config(), 1, 4)
    assert share is not None
    assert (share.max_concurrent_conns, share.max_rate) == (0, 0.0)


def test_each_worker_may_shake_hands() -> None:
    shares = [share_limits(listener_config(max_handshakes=2), index, 4) for index in range(4)]
    assert [share.max_handshakes for share in shares if share is not None] == [1, 1, 1, 1]
    assert share_limits(listener_config(max_handshakes=0), 0, 4) == listener_config(max_handshakes=0)
