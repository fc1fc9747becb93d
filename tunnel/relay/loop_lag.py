"""The lag of the event loop: how late its timers fire, because the loop was busy with other events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tunnel.relay.loop import Loop, Timer

INTERVAL: Final = 0.25  # seconds between two measurements: an idle process wakes four times a second for them


class LoopLag:
    """Measures the lag at intervals, from `start` to `stop`, and passes each value in seconds to `record`."""

    def __init__(self, loop: Loop, record: Callable[[float], object]) -> None:
        self._loop = loop
        self._record = record
        self._timer: Timer | None = None

    def start(self) -> None:
        """Measure from now on."""
        if self._timer is None:
            self._schedule()

    def stop(self) -> None:
        """Stop measuring."""
        if self._timer is not None:
            self._loop.cancel(self._timer)
            self._timer = None

    def crashed(self, crash: Exception) -> None:
        """Stop measuring after an unexpected exception."""
        self.stop()

    def _schedule(self) -> None:
        self._timer = self._loop.call_at(self._loop.clock() + INTERVAL, self._measure, self)

    def _measure(self) -> None:
        assert self._timer is not None
        self._record(max(self._loop.clock() - self._timer.when, 0.0))
        self._schedule()
