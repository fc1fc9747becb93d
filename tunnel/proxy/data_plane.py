"""Where connections are served: in this process, or in workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from tunnel.config.model import ListenerConfig
from tunnel.errors import TunnelError
from tunnel.listener.shared_resources import SharedResources
from tunnel.listener.targets import ResolveLater
from tunnel.listener.tunnel import Tunnel
from tunnel.listener.tunnel_control import TunnelControl
from tunnel.proxy.reloadable_policy import ReloadablePolicy
from tunnel.status.counters import Counters
from tunnel.workers.cores import count_workers

if TYPE_CHECKING:  # loaded only for a status port or metrics
    from tunnel.status.histogram import Histogram


class DataPlane(Protocol):
    """The processes that serve connections, as the control plane uses them."""

    @property
    def count(self) -> int:
        """How many workers run; 0 if this process serves the connections itself."""

    @property
    def restarts(self) -> int:
        """Workers that have died and were replaced."""

    @property
    def dropped_lines(self) -> int | None:
        """Log lines that workers could not send; None without workers."""

    @property
    def pids(self) -> set[int]:
        """The process IDs of workers."""

    def new_tunnel(self, config: ListenerConfig, resolve_later: ResolveLater) -> TunnelControl:
        """Create a tunnel."""

    def start(self) -> None:
        """Start the workers; raises WorkerError."""

    async def wait_started(self) -> None:
        """Wait until connections can be served."""

    async def refresh(self) -> bool:
        """Get the counts of all workers; False if one does not answer."""

    def share_log(self) -> None:
        """Tell the workers which log lines and records are wanted."""

    def lag(self) -> Histogram | None:
        """The lag of the event loops of workers; None without workers."""

    def exit_with_parent(self) -> None:
        """Have the workers exit at once if this process ends, instead of draining."""

    async def stop(self) -> None:
        """Get the last counts, and end the workers."""

    def kill(self) -> None:
        """End the workers at once."""


class OwnProcess:
    """This process serves the connections itself."""

    count = restarts = 0
    dropped_lines = None

    def __init__(self, shared: SharedResources) -> None:
        self._shared = shared
        self.pids: set[int] = set()

    def new_tunnel(self, config: ListenerConfig, resolve_later: ResolveLater) -> Tunnel:
        """Create a tunnel on the event loop of this process."""
        return Tunnel(self._shared, config, resolve_later)

    def start(self) -> None:
        """There is nothing to start."""

    async def wait_started(self) -> None:
        """Return at once."""

    async def refresh(self) -> bool:
        """The counts are those of the moment."""
        return True

    def share_log(self) -> None:
        """The log is that of this process."""

    def lag(self) -> None:
        """There are no workers."""

    def exit_with_parent(self) -> None:
        """There are no workers."""

    async def stop(self) -> None:
        """There is nothing to stop."""

    def kill(self) -> None:
        """There is nothing to end."""


def open_data_plane(
    workers: int,
    shared: SharedResources,
    *,
    drain_limit: float,
    counters: Counters,
    policy_of: Callable[[TunnelControl], ReloadablePolicy | None],
    on_failure: Callable[[TunnelError], None],
) -> DataPlane:
    """The data plane for a configured number of workers, which are not started yet; 0 is one for each usable core.

    `counters` are those of the process.
    """
    count = count_workers(workers)
    if count == 1:
        return OwnProcess(shared)
    from tunnel.workers.worker_pool import WorkerPool

    return WorkerPool(count, shared, drain_limit=drain_limit, counters=counters, policy_of=policy_of, on_failure=on_failure)
