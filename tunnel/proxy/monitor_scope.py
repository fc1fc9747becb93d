"""What a status port or a metric report is about: some listeners of the process, and their identity sources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Protocol

from tunnel.config.model import IdentityConfig, ListenerConfig
from tunnel.config.values import default_of
from tunnel.lazy_dataclass import replace
from tunnel.listener.shared_resources import SharedResources
from tunnel.net.connection_limiter import ConnectionLimiter
from tunnel.proxy.data_plane import DataPlane
from tunnel.proxy.identity_feed import IdentityFeed
from tunnel.proxy.proxy_listener import ProxyListener
from tunnel.proxy.state_reporter import StateReporter
from tunnel.status.counters import Counters, TunnelGauges, total
from tunnel.status.process_state import ListenerState, ProcessState
from tunnel.tls.engine import TlsEnd

if TYPE_CHECKING:  # loaded only when a status port or metrics are wanted
    from tunnel.proxy.process_observation import ProcessObservation
    from tunnel.status.histogram import Histogram, HistogramReading
    from tunnel.status.identity_report import IdentityReport
    from tunnel.status.listener_readings import ListenerMeasurement
    from tunnel.status.peer_table import PeerKey, PeerTraffic
    from tunnel.status.recent_refusals import RecentRefusal
    from tunnel.status.snapshot import Measurement


class Monitored(Protocol):
    """The process, as a scope reads it."""

    counters: Counters
    feeds: dict[IdentityConfig, IdentityFeed]
    listeners: dict[str, ProxyListener]
    state_reporter: StateReporter
    shared: SharedResources
    started: float  # Unix time
    data_plane: DataPlane

    @property
    def retired(self) -> Sequence[ProxyListener]:
        """Listeners that a reload has removed, and that still have connections."""

    @property
    def observation(self) -> ProcessObservation | None:
        """What is observed; None if there was no monitor yet."""

    def loop_lags(self) -> Iterable[Histogram]:
        """The lag of the event loop of each process."""

    def dropped_lines(self) -> Mapping[str, int]:
        """Log lines that were dropped since the start."""


class MonitorScope:
    """The listeners with these names, those of the moment; all listeners if there are no names."""

    def __init__(self, process: Monitored, names: tuple[str, ...] = ()) -> None:
        self.process = process
        self.names = names
        self.status_port: ConnectionLimiter | None = None  # of the status port, while it is open

    def listeners(self) -> list[ProxyListener]:
        """The listeners that are configured now."""
        return [one for one in self.process.listeners.values() if not self.names or one.name in self.names]

    def counters(self) -> Counters:
        """The sum of the counters of the listeners, of their identity sources, and of the process."""
        sources = {id(one): one for one in map(self.feed_of, self._serving())}
        parts = (*(one.tunnel.read_counters() for one in self._serving()), *(source.counters for source in sources.values()))
        return total((self.process.counters, *parts))

    def measure(self) -> Measurement:
        """What the metrics show at this moment."""
        from tunnel.status.snapshot import Measurement

        listeners = tuple(map(_measure, self.listeners()))
        retired = [] if self.names else [one.tunnel.gauges() for one in self.process.retired]
        gone = TunnelGauges(forwarded=self.process.counters.forwarded, returned=self.process.counters.returned)
        gauges = reduce(TunnelGauges.plus, (*(one.gauges for one in listeners), *retired), gone)
        return Measurement(self.counters(), gauges, listeners)

    def connections(self) -> int:
        """How many connections are open."""
        return sum(len(one.tunnel) for one in self._serving())

    def peers(self) -> Mapping[PeerKey, PeerTraffic]:
        """Connections and bytes by peer, of the listeners that are configured now; none before the first monitor.

        The open connections of a removed listener count for the one that has its name now, as they will when they end.
        """
        if self.process.observation is None:
            return {}
        names = {one.name for one in self.listeners()}
        tunnels = [one.tunnel for one in (*self.process.listeners.values(), *self.process.retired) if one.name in names]
        known = self.process.observation.connections.peers.read(one for tunnel in tunnels for one in tunnel.traffic_by_peer())
        return {key: traffic for key, traffic in known.items() if key.listener in names}

    def refusals(self) -> Sequence[RecentRefusal]:
        """Recent refusals of the listeners that are configured now, the newest first."""
        if self.process.observation is None:
            return ()
        names = {one.name for one in self.listeners()}
        return [one for one in self.process.observation.connections.refusals.newest_first() if one.listener in names]

    def loop_lag(self) -> HistogramReading:
        """The lag of the event loop; nothing before the first monitor."""
        from tunnel.status.histogram import LAG_BOUNDS, Histogram

        lag = Histogram(LAG_BOUNDS)
        for part in self.process.loop_lags():
            lag.absorb(part)
        return lag.read()

    def identities(self) -> Sequence[IdentityReport]:
        """The identity sources of the listeners."""
        own = {id(feed): feed for feed in map(self.feed_of, self.listeners())}
        return [feed.report() for feed in own.values()]

    def state(self) -> ProcessState:
        """The current state, after checking whether an identity has expired."""
        listeners = {one.name: one for one in self.listeners()}
        for listener in listeners.values():
            if listener.tunnel.generation is not None:  # else the review would log that an identity is lost
                listener.tunnel.review()
        state = self.process.state_reporter.state.limited_to(self.names)
        return replace(state, listeners=tuple(self._complete(one, listeners[one.name]) for one in state.listeners))

    def request_timeout(self) -> float:
        """Seconds for the header of a request: the connect timeout of the first listener."""
        return next((one.config.connect_timeout for one in self.listeners()), default_of(ListenerConfig, "connect_timeout"))

    def open_status_end(self) -> TlsEnd | None:
        """Open a TLS end with the newest certificate, even if expired: the status port must stay reachable."""
        for one in self.listeners():
            generation = one.tunnel.generation
            if generation is not None and generation.status_context is not None:
                return generation.status_context.open_end(self.process.shared.buffers)
        return None

    def _complete(self, state: ListenerState, listener: ProxyListener) -> ListenerState:
        """Add what changes with each connection, and what is known before the first identity."""
        tunnel = listener.tunnel
        if tunnel.generation is None:
            known = filter(None, (tunnel.identity_error, self.feed_of(listener).problem))
            state = replace(state, identity_error=": ".join(known))
        return replace(state, opened=len(tunnel), targets=tunnel.targets.states(), plaintext=tunnel.plaintext_state())

    def _serving(self) -> Iterable[ProxyListener]:
        """The listeners, and for a scope of all those that were removed and still have connections."""
        return self.listeners() if self.names else (*self.process.listeners.values(), *self.process.retired)

    def feed_of(self, listener: ProxyListener) -> IdentityFeed:
        """The identity source of a listener, with its counters."""
        return self.process.feeds[listener.config.identity]


def _measure(listener: ProxyListener) -> ListenerMeasurement:
    from tunnel.status.listener_readings import ListenerMeasurement

    tunnel = listener.tunnel
    return ListenerMeasurement(listener.name, tunnel.read_counters(), tunnel.gauges(), tunnel.targets.gauges())
