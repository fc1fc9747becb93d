"""Rates between two successive overviews of one process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tunnel.lazy_dataclass import dataclass
from tunnel.status.overview_reading import LagSummary, ListenerSummary, PeerSummary, ProxySummary


@dataclass(frozen=True, slots=True)
class TrafficRate:
    """Numbers per second; None if unknown."""

    connections: float | None = None
    refusals: float | None = None  # by a rule or a limit
    failures: float | None = None  # other connections that were not relayed
    forwarded: float | None = None  # bytes
    returned: float | None = None  # bytes


@dataclass(frozen=True, slots=True)
class LagRate:
    """The lag of the event loop between two overviews, in seconds; None without a measurement."""

    mean: float | None = None
    most: float | None = None  # the bound of the bucket of the longest lag
    is_above: bool = False  # the longest lag is above all bounds, of which `most` is the last one


PeerName = tuple[str, str]  # listener and peer
NO_RATE = TrafficRate()


@dataclass(frozen=True, slots=True)
class OverviewRates:
    """The rates of the process, of its listeners by name, and of its peers."""

    total: TrafficRate
    listeners: Mapping[str, TrafficRate]
    peers: Mapping[PeerName, TrafficRate]
    lag: LagRate


NO_RATES = OverviewRates(NO_RATE, {}, {}, LagRate())


def measure_rates(before: ProxySummary | None, now: ProxySummary) -> OverviewRates:
    """The rates between two overviews; unknown if they are of two processes, or if the clock went back."""
    if before is None or (before.pid, before.started) != (now.pid, now.started) or now.time <= before.time:
        return NO_RATES
    seconds = now.time - before.time
    known = {one.name: one for one in before.listeners}
    listeners = {one.name: _listener_rate(known.get(one.name), one, seconds) for one in now.listeners}
    peers = {(one.listener, one.peer): one for one in before.peers}
    return OverviewRates(
        _add(listeners.values()),
        listeners,
        {(one.listener, one.peer): _peer_rate(peers.get((one.listener, one.peer)), one, seconds) for one in now.peers},
        _lag_rate(before.lag, now.lag),
    )


def _listener_rate(before: ListenerSummary | None, now: ListenerSummary, seconds: float) -> TrafficRate:
    if before is None:
        return NO_RATE
    return TrafficRate(
        _rate(before.accepted, now.accepted, seconds),
        _rate(before.refused, now.refused, seconds),
        _rate(before.failed, now.failed, seconds),
        _rate(before.forwarded, now.forwarded, seconds),
        _rate(before.returned, now.returned, seconds),
    )


def _peer_rate(before: PeerSummary | None, now: PeerSummary, seconds: float) -> TrafficRate:
    """A peer that was not listed may have been one of many: its rate is unknown."""
    if before is None:
        return NO_RATE
    return TrafficRate(
        _rate(before.connections, now.connections, seconds),
        forwarded=_rate(before.forwarded, now.forwarded, seconds),
        returned=_rate(before.returned, now.returned, seconds),
    )


def _rate(before: int, now: int, seconds: float) -> float | None:
    """None if the count has begun again, as that of a listener that was removed and added."""
    return (now - before) / seconds if now >= before else None


def _add(rates: Iterable[TrafficRate]) -> TrafficRate:
    """The sum of what is known."""
    found = list(rates)
    return TrafficRate(
        _sum(one.connections for one in found),
        _sum(one.refusals for one in found),
        _sum(one.failures for one in found),
        _sum(one.forwarded for one in found),
        _sum(one.returned for one in found),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _lag_rate(before: LagSummary, now: LagSummary) -> LagRate:
    count = now.count - before.count
    if count <= 0 or now.seconds < before.seconds:
        return LagRate()
    earlier = dict(before.buckets)
    reached = [bound for bound, number in now.buckets if number - earlier.get(bound, 0) >= count]
    bounds = [bound for bound, _ in now.buckets]
    most = min(reached) if reached else max(bounds, default=None)
    return LagRate((now.seconds - before.seconds) / count, most, not reached)
