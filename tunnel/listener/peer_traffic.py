"""Traffic of the open connections of a listener by peer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from tunnel.authz.authorizer import Admitted
from tunnel.authz.peer import peer_name
from tunnel.status.peer_table import PeerKey, PeerTraffic


class OpenRelay(Protocol):
    """What is read of an open connection."""

    @property
    def admitted(self) -> Admitted | None:
        """The admission of the peer."""

    @property
    def is_relayed(self) -> bool:
        """Whether the relay has begun."""

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes so far from the accepted side to the target, and in the other direction."""


def group_by_peer(listener: str, connections: Iterable[OpenRelay]) -> Iterator[tuple[PeerKey, PeerTraffic]]:
    """Yield the traffic of the open relays of a listener by peer; a peer can occur several times."""
    groups: dict[int, tuple[Admitted, list[int]]] = {}  # by admission: connections of one certificate share it
    for one in connections:
        admitted = one.admitted
        if admitted is None or not one.is_relayed:
            continue
        sums = groups.setdefault(id(admitted), (admitted, [0, 0, 0]))[1]
        forwarded, returned = one.traffic
        sums[0] += 1
        sums[1] += forwarded
        sums[2] += returned
    for admitted, (opened, forwarded, returned) in groups.values():
        key = PeerKey(listener, peer_name(admitted.peer, admitted.rule))
        yield key, PeerTraffic(opened, opened, forwarded, returned)
