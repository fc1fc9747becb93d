"""Limits per peer: open connections, and new connections per second."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Protocol

from tunnel.authz.peer import Peer
from tunnel.errors import LimitExceeded, LimitFault
from tunnel.listener.rate_limit import RateLimit
from tunnel.log_limit import source_of
from tunnel.relay.step import Step, StepOwner

MAX_ENTRIES = 65536  # peers whose rate is known; one more forgets the one whose last connection is the oldest

PeerKey = bytes
Limiting = Generator[Step, Any, Callable[[], None]]


class ConnectionLimits(Protocol):
    """The limits per peer, as a session uses them."""

    def limit(self, owner: StepOwner, peer: Peer | None, source: str, now: float) -> Limiting:
        """The steps that count a connection; raises LimitExceeded. Their result ends the count."""


class PeerLimits:
    """The open connections of each peer, and their rate; 0 is no limit.

    A peer has an entry only while it has open connections or its rate is not back at 0, which takes a second or one interval.
    """

    __slots__ = ("_due", "_max_conns", "_open", "_rate")

    def __init__(self, max_conns: int, max_rate: float) -> None:
        self.change(max_conns, max_rate)
        self._open: dict[PeerKey, int] = {}
        self._due: dict[PeerKey, float] = {}  # of the rate; in the order of the last connection

    def change(self, max_conns: int, max_rate: float) -> None:
        """Apply other limits from now on; open connections count as before."""
        self._max_conns = max_conns
        self._rate = RateLimit(max_rate) if max_rate else None

    def admit(self, peer: Peer | None, source: str, now: float) -> PeerKey:
        """Count a connection of a peer until `release`; raises LimitExceeded. Without a certificate the source counts."""
        return self.admit_key(key_of(peer, source), now)

    def admit_key(self, key: PeerKey, now: float) -> PeerKey:
        """Count a connection of the peer with this key; raises LimitExceeded."""
        count = self._open.get(key, 0)
        if self._max_conns and count >= self._max_conns:
            raise LimitExceeded(LimitFault.PEER_CONNS, f"peer has reached the limit of this listener: {count} open connections")
        if self._rate is not None:
            self._spend(self._rate, key, now)
        self._open[key] = count + 1
        return key

    def limit(self, _owner: StepOwner, peer: Peer | None, source: str, now: float) -> Limiting:
        """The steps that count a connection; raises LimitExceeded. Their result ends the count."""
        yield from ()  # no other process must be asked
        return partial(self.release, self.admit(peer, source, now))

    def release(self, key: PeerKey) -> None:
        """A connection of a peer has ended."""
        if self._open[key] > 1:
            self._open[key] -= 1
        else:
            del self._open[key]

    def __len__(self) -> int:
        return len(self._open.keys() | self._due.keys())

    def _spend(self, rate: RateLimit, key: PeerKey, now: float) -> None:
        due = self._due.get(key, 0.0)
        if rate.wait(due, now):
            raise LimitExceeded(
                LimitFault.PEER_RATE,
                f"peer exceeds the limit of this listener: {rate.per_second:g} new connections per second",
            )
        self._due.pop(key, None)
        self._due[key] = rate.advance(due, now)
        self._forget(now)

    def _forget(self, now: float) -> None:
        """Forget peers whose rate is back at 0, the oldest first: a few per connection, and more only beyond the limit."""
        for _ in range(2):
            oldest = next(iter(self._due))
            if self._due[oldest] > now and len(self._due) <= MAX_ENTRIES:
                return
            del self._due[oldest]


def key_of(peer: Peer | None, source: str) -> PeerKey:
    """Return what identifies a peer: SPIFFE ID, else subject, else public key; without a certificate the source address."""
    if peer is None:
        kind, name = b"source", source_of(source).encode("utf-8", "replace")
    elif peer.spiffe_id is not None:
        kind, name = b"id", str(peer.spiffe_id).encode()
    elif peer.subject:
        kind, name = b"subject", peer.subject.encode("utf-8", "replace")
    else:
        kind, name = b"key", peer.public_key
    from hashlib import blake2b  # with the OpenSSL of the system: 0.5 MiB

    return blake2b(name, digest_size=16, person=kind).digest()
