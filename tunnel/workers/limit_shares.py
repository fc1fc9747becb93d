"""The share of one worker in the limits of a listener.

All workers accept from one queue: one that has reached its share leaves connections to the others, so the shares together are
exactly the limit.
"""

from __future__ import annotations

from tunnel.config.model import ListenerConfig
from tunnel.lazy_dataclass import replace


def share_limits(config: ListenerConfig, index: int, count: int) -> ListenerConfig | None:
    """The configuration of a listener for the worker `index` of `count`; None if it has no share, and must not accept."""
    connections = _share(config.max_concurrent_conns, index, count)
    rate = _share_rate(config.max_rate, index, count)
    if (config.max_concurrent_conns and not connections) or (config.max_rate and not rate):
        return None
    handshakes = max(_share(config.max_handshakes, index, count), 1) if config.max_handshakes else 0
    return replace(config, max_concurrent_conns=connections, max_rate=rate, max_handshakes=handshakes)


def _share(limit: int, index: int, count: int) -> int:
    return limit // count + (index < limit % count)


def _share_rate(rate: float, index: int, count: int) -> float:
    """A share of less than one connection per second would permit a whole one at once to each worker."""
    sharers = max(min(count, int(rate)), 1)
    return rate / sharers if index < sharers else 0.0
