"""What is measured and recorded only if the process has a status port or metric reports."""

from __future__ import annotations

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
        LoopLag(shared.loop, self.lag.add).start()
