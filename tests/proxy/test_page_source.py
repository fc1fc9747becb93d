"""The history of the page has one point per interval, with the longest lag in it, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tunnel.proxy.page_source import HistoryRecorder
from tunnel.status.counters import Counters, TunnelGauges
from tunnel.status.history import INTERVAL, History
from tunnel.status.snapshot import Measurement


class FakeScope:
    """Listeners whose counters the test changes."""

    def __init__(self) -> None:
        self.process = self
        self.observation: Any = self
        self.lag_observers: list[Callable[[float], object]] = []
        self.counters = Counters()
        self.gauges = TunnelGauges()
        self.is_server = True

    def listeners(self) -> list[Any]:
        return [SimpleNamespace(tunnel=self, config=self)]

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
            scope.counters = Counters(relayed=20, plaintext=5, refused=10, dial_failed=5, accept_errors=7)
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


def test_a_target_that_a_client_cannot_reach_is_no_handshake() -> None:
    async def main() -> None:
        scope, history = FakeScope(), History()
        scope.is_server = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(HistoryRecorder(scope, history).run)  # type: ignore[arg-type]
            await wait_all_tasks_blocked()
            scope.counters = Counters(relayed=10, dial_failed=5)
            await trio.sleep(INTERVAL + 0.1)
            nursery.cancel_scope.cancel()
        (point,) = history.after(0)
        assert (point.handshakes, point.failed) == (2.0, 1.0)

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_a_process_without_observation_has_a_history_without_lag() -> None:
    async def main() -> None:
        scope, history = FakeScope(), History()
        scope.observation = None
        with trio.move_on_after(INTERVAL + 0.1):
            await HistoryRecorder(scope, history).run()  # type: ignore[arg-type]
        assert [point.lag for point in history.after(0)] == [0.0]

    trio.run(main, clock=MockClock(autojump_threshold=0))
