"""Time series by peer in bounded number: the busiest peers, and one series of each listener for all its others.

Prometheus needs counters that never decrease, although the set of the busiest peers changes:

* the series of a peer begins with its exact total, and ends when a peer that is clearly busier displaces it;
* the counters of the others are the sum of the growth of every peer while it has no series of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from heapq import nlargest
from typing import Final

from tunnel.lazy_dataclass import dataclass
from tunnel.status.peer_table import NO_TRAFFIC, PeerKey, PeerTraffic

OTHERS = "other"  # instead of a name; a peer with this name is one of the others
_CONNECTION_COST = 1_000_000  # bytes: relaying as many takes as long as a handshake
_HALF_LIFE = 300.0  # seconds after which activity counts half
_FACTOR = 2.0  # a peer must be so many times as busy as the one that it displaces

_Growth = tuple[int, int, int]  # connections, and bytes forwarded and returned
_NOTHING: Final[_Growth] = (0, 0, 0)


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
        self._others: dict[str, _Growth] = {}  # by listener

    def read(self, traffic: Mapping[PeerKey, PeerTraffic], listeners: Iterable[str]) -> list[PeerSeries]:
        """Take the totals of the peers of these listeners; return at most `limit` series, and one for each listener."""
        if not self._limit:
            return []
        last = self._last
        growth = {key: _growth(last.get(key, NO_TRAFFIC), now) for key, now in traffic.items()}
        self._score(growth)
        self._own = {key: self._continue(key, traffic[key], growth[key]) for key in self._choose(traffic)}
        self._last = traffic
        own = [PeerSeries(key, one) for key, one in self._own.items()]
        return own + self._count_others(traffic, growth, listeners)

    def _score(self, growth: Mapping[PeerKey, _Growth]) -> None:
        now = self._clock()
        decay = 0.5 ** ((now - self._read_at) / _HALF_LIFE)
        self._read_at = now
        before = self._scores
        self._scores = {
            key: before.get(key, 0.0) * decay + connections * _CONNECTION_COST + forwarded + returned
            for key, (connections, forwarded, returned) in growth.items()
        }

    def _choose(self, traffic: Iterable[PeerKey]) -> list[PeerKey]:
        """The peers that keep a series, and those that get one."""
        score = self._scores.__getitem__
        kept = sorted((key for key in self._own if key in self._scores), key=score)
        others = (key for key in traffic if key not in self._own and key.peer != OTHERS)
        busiest = nlargest(self._limit, others, key=score)
        free = self._limit - len(kept)
        chosen, candidates = busiest[:free], busiest[free:]
        for key, least in zip(candidates, kept, strict=False):
            chosen.append(key if score(key) > _FACTOR * score(least) else least)
        return chosen + kept[len(candidates) :]

    def _continue(self, key: PeerKey, now: PeerTraffic, grown: _Growth) -> PeerTraffic:
        """The traffic in a series: it does not decrease if the peer table has forgotten the peer and counts it anew."""
        before = self._own.get(key)
        if before is None:
            return now
        connections, forwarded, returned = grown
        return PeerTraffic(
            before.connections + connections,
            now.opened,
            before.forwarded + forwarded,
            before.returned + returned,
            now.last_seen,
        )

    def _count_others(
        self, traffic: Mapping[PeerKey, PeerTraffic], growth: Mapping[PeerKey, _Growth], listeners: Iterable[str]
    ) -> list[PeerSeries]:
        """The series of the peers without series of their own, by listener."""
        counts = {name: [*self._others.get(name, _NOTHING), 0] for name in listeners}
        for key, now in traffic.items():
            if key not in self._own:
                sums = counts[key.listener]
                for place, added in enumerate((*growth[key], now.opened)):
                    sums[place] += added
        self._others = {name: (sums[0], sums[1], sums[2]) for name, sums in counts.items()}
        return [
            PeerSeries(PeerKey(name, OTHERS), PeerTraffic(connections, opened, forwarded, returned))
            for name, (connections, forwarded, returned, opened) in counts.items()
        ]


def _growth(before: PeerTraffic, now: PeerTraffic) -> _Growth:
    """What was added; nothing to a counter that is lower than before."""
    if now is before:
        return _NOTHING
    return (
        max(now.connections - before.connections, 0),
        max(now.forwarded - before.forwarded, 0),
        max(now.returned - before.returned, 0),
    )
