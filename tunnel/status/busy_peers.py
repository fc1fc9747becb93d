"""Time series by peer in bounded number: the busiest peers, and one series of each listener for all its others.

Prometheus needs counters that never decrease, although the set of the busiest peers changes:

* the series of a peer begins with its exact total, and ends when a peer that is clearly busier displaces it;
* the counters of the others are the sum of the growth of every peer while it has no series of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from tunnel.status.peer_table import NO_TRAFFIC, PeerKey, PeerTraffic

OTHERS = "other"  # instead of a name; a peer with this name is one of the others
_CONNECTION_COST = 1_000_000  # bytes: relaying as many takes as long as a handshake
_HALF_LIFE = 300.0  # seconds after which activity counts half
_FACTOR = 2.0  # a peer must be so many times as busy as the one that it displaces


@dataclass(frozen=True, slots=True)
class PeerSeries:
    """The series of one peer, or of all others of a listener."""

    key: PeerKey
    traffic: PeerTraffic


class BusyPeers:
    """Chooses the peers that have series of their own, at most `limit`, and counts for the others."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._read_at = clock()
        self._last: Mapping[PeerKey, PeerTraffic] = {}  # the totals at the last `read`
        self._scores: dict[PeerKey, float] = {}  # recent activity in bytes
        self._own: dict[PeerKey, PeerTraffic] = {}  # of the peers with series
        self._others: dict[str, PeerTraffic] = {}  # by listener

    def read(self, traffic: Mapping[PeerKey, PeerTraffic], listeners: Iterable[str]) -> list[PeerSeries]:
        """Take the totals of the peers of these listeners; return at most `limit` series, and one for each listener."""
        if not self._limit:
            return []
        growth = {key: _growth(self._last.get(key, NO_TRAFFIC), now) for key, now in traffic.items()}
        self._score(growth)
        own = self._choose(traffic)
        self._own = {key: self._continue(key, traffic[key], growth[key]) for key in own}
        self._others = self._count_others(traffic, growth, listeners)
        self._last = traffic
        series = [PeerSeries(key, one) for key, one in self._own.items()]
        return series + [PeerSeries(PeerKey(listener, OTHERS), one) for listener, one in self._others.items()]

    def _score(self, growth: Mapping[PeerKey, PeerTraffic]) -> None:
        now = self._clock()
        decay = 0.5 ** ((now - self._read_at) / _HALF_LIFE)
        self._read_at = now
        self._scores = {key: self._scores.get(key, 0.0) * decay + _load(grown) for key, grown in growth.items()}

    def _choose(self, traffic: Iterable[PeerKey]) -> list[PeerKey]:
        """The peers that keep a series, and those that get one."""
        kept = sorted((key for key in self._own if key in self._scores), key=self._scores.__getitem__)
        others = (key for key in traffic if key not in self._own and key.peer != OTHERS)
        busiest = sorted(others, key=self._scores.__getitem__, reverse=True)[: self._limit]
        free = self._limit - len(kept)
        chosen = busiest[:free]
        for key, least in zip(busiest[free:], kept, strict=False):
            is_displaced = self._scores[key] > _FACTOR * self._scores[least]
            chosen.append(key if is_displaced else least)
        return chosen + kept[len(busiest[free:]) :]

    def _continue(self, key: PeerKey, now: PeerTraffic, grown: PeerTraffic) -> PeerTraffic:
        """The traffic in a series: it does not decrease if the peer table has forgotten the peer and counts it anew."""
        before = self._own.get(key)
        return now if before is None else replace(before.plus(grown), opened=now.opened)

    def _count_others(
        self, traffic: Mapping[PeerKey, PeerTraffic], growth: Mapping[PeerKey, PeerTraffic], listeners: Iterable[str]
    ) -> dict[str, PeerTraffic]:
        """The traffic of the peers without series, by listener."""
        others = {name: replace(self._others.get(name, NO_TRAFFIC), opened=0) for name in listeners}
        for key, now in traffic.items():
            if key not in self._own:
                others[key.listener] = others[key.listener].plus(replace(growth[key], opened=now.opened))
        return others


def _growth(before: PeerTraffic, now: PeerTraffic) -> PeerTraffic:
    """What was added; nothing to a counter that is lower than before."""
    return PeerTraffic(
        max(now.connections - before.connections, 0),
        forwarded=max(now.forwarded - before.forwarded, 0),
        returned=max(now.returned - before.returned, 0),
    )


def _load(grown: PeerTraffic) -> float:
    return grown.connections * _CONNECTION_COST + grown.forwarded + grown.returned
