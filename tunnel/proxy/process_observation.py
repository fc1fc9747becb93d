"""What is measured and recorded only if the process has a status port or metric reports."""

from __future__ import annotations

from collections.abc import Callable

from tunnel.listener.observation import ConnectionObservation
from tunnel.listener.shared_resources import SharedResources
from tunnel.relay.loop_lag import LoopLag
from tunnel.status.histogram import LAG_BOUNDS, Histogram


class ProcessObservation:
    """Observes all listeners from its creation to the end of the process."""

    def __init__(self, shared: SharedResources) -> None:
        self.connections = ConnectionObservation()
        self.lag = Histogram(LAG_BOUNDS)
        shared.observers.append(self.connections.add)
        self.lag_observers: list[Callable[[float], object]] = [self.lag.add]
        LoopLag(shared.loop, self._add_lag).start()

    def _add_lag(self, seconds: float) -> None:
        for observe in self.lag_observers:
            observe(seconds)
