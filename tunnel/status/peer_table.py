"""Connections and bytes by peer: exact counts of the peers that were seen last, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

MAX_PEERS = 1024  # pairs of listener and peer; one more evicts the pair whose last connection ended first


class PeerKey(NamedTuple):
    """A peer of one listener: its SPIFFE ID, another name in its certificate, `anonymous` or `plaintext`."""

    listener: str
    peer: str


class PeerTraffic(NamedTuple):
    """What one peer has sent and received; bytes are of plaintext, as in the ConnectionRecord."""

    connections: int = 0  # relayed, also those that are open
    opened: int = 0  # relayed connections that are open now
    forwarded: int = 0
    returned: int = 0
    last_seen: float = 0.0  # Unix time of the end of the last connection; 0 if none has ended

    def plus(self, other: PeerTraffic) -> PeerTraffic:
        """The sum of both."""
        return PeerTraffic(
            self.connections + other.connections,
            self.opened + other.opened,
            self.forwarded + other.forwarded,
            self.returned + other.returned,
            max(self.last_seen, other.last_seen),
        )


NO_TRAFFIC = PeerTraffic()


class _Ended:
    """Sums over the connections of one peer that have ended."""

    __slots__ = ("connections", "forwarded", "last_seen", "returned")

    def __init__(self) -> None:
        self.connections = self.forwarded = self.returned = 0
        self.last_seen = 0.0


class PeerTable:
    """Counts ended connections by peer; open ones are counted when the table is read, so that they cost nothing before."""

    def __init__(self) -> None:
        self._ended: dict[PeerKey, _Ended] = {}  # in the order in which their last connections ended

    def add(self, key: PeerKey, forwarded: int, returned: int, now: float) -> None:
        """Count a relayed connection that has ended at the Unix time `now`."""
        sums = self._ended.pop(key, None)
        if sums is None:
            sums = _Ended()
            if len(self._ended) >= MAX_PEERS:
                del self._ended[next(iter(self._ended))]
        self._ended[key] = sums
        sums.connections += 1
        sums.forwarded += forwarded
        sums.returned += returned
        sums.last_seen = max(sums.last_seen, now)

    def read(self, live: Iterable[tuple[PeerKey, PeerTraffic]]) -> Mapping[PeerKey, PeerTraffic]:
        """The traffic of each peer in the table, and of each one in `live`, which are the open connections."""
        found = {
            key: PeerTraffic(sums.connections, 0, sums.forwarded, sums.returned, sums.last_seen)
            for key, sums in self._ended.items()
        }
        for key, traffic in live:
            found[key] = found.get(key, NO_TRAFFIC).plus(traffic)
        return found
