"""The lag of the event loop is how late a timer fires."""

from __future__ import annotations

import pytest

from tunnel.relay.loop import Loop
from tunnel.relay.loop_lag import INTERVAL, LoopLag


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_interval_is_measured_until_it_stops() -> None:
    clock, seen = Clock(), list[float]()
    loop = Loop(clock)
    lag = LoopLag(loop, seen.append)
    lag.start()
    lag.start()
    loop.turn(0)
    assert seen == []
    for late in (0.0, 0.5):
        clock.now += INTERVAL + late
        loop.turn(0)
    assert seen == pytest.approx([0.0, 0.5])
    lag.stop()
    clock.now += 10
    loop.turn(0)
    assert len(seen) == 2
    lag.crashed(RuntimeError())
    loop.close()
