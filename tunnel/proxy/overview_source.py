"""Collects the overview of a process, or of some of its listeners."""

from __future__ import annotations

import os
import time

import trio

from tunnel import __version__
from tunnel.lazy_dataclass import replace
from tunnel.proxy.monitor_scope import MonitorScope
from tunnel.proxy.proxy_listener import ProxyListener
from tunnel.status.overview import ListenerOverview, Overview, encode_overview, summarize_listener
from tunnel.status.process_state import ListenerState, ProcessState


class OverviewSource:
    """Reads the listeners of a scope."""

    def __init__(self, scope: MonitorScope, hostname: str) -> None:
        self._scope = scope
        self._hostname = hostname

    async def encode(self, name: str = "") -> bytes | None:
        """Return the document about one listener, about all if there is no name; None if the name is unknown."""
        scope = self._scope
        if name:
            if all(one.name != name for one in scope.listeners()):
                return None
            scope = MonitorScope(scope.process, (name,))
        return await _encode(self._collect(scope))

    async def encode_all(self) -> bytes:
        """Return the document about all listeners."""
        await self._scope.process.data_plane.refresh()
        return await _encode(self._collect(self._scope))

    def _collect(self, scope: MonitorScope) -> Overview:
        process, state = scope.process, scope.state()
        listeners = {one.name: one for one in scope.listeners()}
        return Overview(
            time=time.time(),
            hostname=self._hostname,
            version=__version__,
            pid=os.getpid(),
            started=process.started,
            state=state,
            listeners=tuple(_summarize(state, one, listeners[one.name]) for one in state.listeners),
            identities=[replace(one, listeners=_only(one.listeners, listeners)) for one in scope.identities()],
            peers=scope.peers(),
            refusals=scope.refusals(),
            loop_lag=scope.loop_lag(),
            dropped_log_lines=sum(process.dropped_lines().values()),
        )


async def _encode(overview: Overview) -> bytes:
    """Encode in a turn of its own: with 200 listeners, the collection takes 5 ms and the encoding 2 ms."""
    await trio.lowlevel.checkpoint()
    return encode_overview(overview)


def _only(names: tuple[str, ...], known: dict[str, ProxyListener]) -> tuple[str, ...]:
    return tuple(name for name in names if name in known)


def _summarize(process: ProcessState, state: ListenerState, listener: ProxyListener) -> ListenerOverview:
    tunnel, config = listener.tunnel, listener.config
    return summarize_listener(
        process,
        state,
        tunnel.read_counters(),
        tunnel.gauges(),
        connection_limit=config.max_concurrent_conns,
        handshakes_in_progress=tunnel.handshakes_in_progress,
        handshake_limit=config.max_handshakes if config.is_server else 0,
    )
