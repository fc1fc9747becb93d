"""The history of the page has one point per interval, with the longest lag in it, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tunnel.proxy.page_source import HistoryRecorder
from tunnel.status.counters import Counters, TunnelGauges
from tunnel.status.histogram import ConnectionDurations
from tunnel.status.history import INTERVAL, History
from tunnel.status.snapshot import Measurement


def counted(handshakes: int = 0, **counts: int) -> Counters:
    counters = Counters(**counts, durations=ConnectionDurations())
    for _ in range(handshakes):
        counters.durations.handshake.add(0.001)  # type: ignore[union-attr]
    return counters


class FakeScope:
    """Listeners whose counters the test changes."""

    def __init__(self) -> None:
        self.process = self.data_plane = self
        self.observation: Any = self
        self.lag_observers: list[Callable[[float], object]] = []
        self.counters = counted()
        self.gauges = TunnelGauges()

    def listeners(self) -> list[Any]:
        return [SimpleNamespace(tunnel=self)]

    def read_counters(self) -> Counters:
        return self.counters

    async def refresh(self) -> bool:
        return True

    def measure(self) -> Measurement:
        return Measurement(self.counters, self.gauges)


def test_a_point_is_taken_at_each_interval_until_the_port_stops() -> None:
    async def main() -> None:
        scope, history = FakeScope(), History()
        recorder = HistoryRecorder(scope, history)  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(recorder.run)
            await wait_all_tasks_blocked()
            (observe,) = scope.lag_observers
            scope.counters = counted(20, relayed=20, refused=10, dial_failed=5, accept_errors=7)
            scope.counters.reasons = {"no-matching-rule": 10, "refused": 5}
            scope.gauges = TunnelGauges(opened=3, forwarded=500, returned=1000)
            for seconds in (0.001, 0.2, 0.003):
                observe(seconds)
            await trio.sleep(INTERVAL + 0.1)
            await trio.sleep(INTERVAL)
            nursery.cancel_scope.cancel()
        first, second = history.after(0)
        assert first[1:] == (3, 4.0, 2.0, 1.0, 100.0, 200.0, 0.2)
        assert second[1:] == (3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        assert scope.lag_observers == []

    trio.run(main, clock=MockClock(autojump_threshold=0))
