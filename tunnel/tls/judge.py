"""The verdict on a peer, inside the handshake, for one generation.

Knows that authentication comes before authorization, and remembers admissions; must not know OpenSSL's calls. A remembered
verdict is good while every certificate of the path that earned it is within its dates, and it dies with its generation;
refusals are not remembered. The proof that the peer holds the key is asked of every handshake as before.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from threading import Lock
from time import time

from tunnel.authz.authorizer import Admitted, Authorizer
from tunnel.authz.peer import parse_peer
from tunnel.errors import Denial, PeerDenied, WireError
from tunnel.pkix.certificate import Certificate, parse_certificate
from tunnel.tls.verified import Verified, Verifier

_MEMORY = 4096  # peers; a proxy that meets more of them in one generation verifies some of them again
_MEMORY_BYTES = 16 * 1024 * 1024  # of their certificates, which peers make as large as they like
_ENTRY_BYTES, _NAME_BYTES = 2048, 100  # of an entry, and of each of its names, beside them


class PeerJudge:
    """Admits or refuses by the bundles and the rules of one generation."""

    def __init__(self, verifier: Verifier, authorizer: Authorizer, clock: Callable[[], float] = time) -> None:
        self._verifier = verifier
        self._authorizer = authorizer
        self._clock = clock
        self._lock = Lock()
        self._bytes = 0  # of the certificates below
        self._admissions: dict[bytes, tuple[float, float, Admitted]] = {}  # by SHA-256 of what was sent, oldest first

    def __call__(self, digest: bytes, path: Callable[[], tuple[bytes, ...]]) -> Admitted:
        """The admission of whoever sent the certificates with this digest and holds the leaf's key; raises PeerDenied."""
        now = self._clock()
        remembered = self._admissions.get(digest)
        if remembered is not None and remembered[0] <= now <= remembered[1]:
            return remembered[2]
        verified = self._verify(path(), now)
        peer = parse_peer(verified.leaf, verified.spiffe_id)
        try:
            admitted = self._authorizer.decide(peer)
        except PeerDenied as denied:
            denied.peer = peer
            raise
        if admitted.is_cacheable:
            self._remember(digest, verified, admitted)
        return admitted

    def _verify(self, path: tuple[bytes, ...], now: float) -> Verified:
        sent, unreadable = _parse_sent(path)
        try:
            return self._verifier.verify(sent, datetime.fromtimestamp(now, UTC))
        except PeerDenied as denied:
            if denied.reason is Denial.UNKNOWN_AUTHORITY and unreadable:
                raise PeerDenied(denied.reason, f"{denied.seen}; {unreadable[0]}") from denied
            raise

    def _remember(self, digest: bytes, verified: Verified, admitted: Admitted) -> None:
        span = verified.not_before.timestamp(), verified.not_after.timestamp()
        with self._lock:  # where a policy is asked, we are called on several threads
            self._forget(digest)
            self._admissions[digest] = (*span, admitted)
            self._bytes += _size_of(admitted)
            while len(self._admissions) > _MEMORY or self._bytes > _MEMORY_BYTES:
                self._forget(next(iter(self._admissions)))

    def _forget(self, digest: bytes) -> None:
        entry = self._admissions.pop(digest, None)
        if entry is not None:
            self._bytes -= _size_of(entry[2])


def _size_of(admitted: Admitted) -> int:
    """About how much memory an admission keeps: a leaf in DER, its texts once more, and an object for each name."""
    peer = admitted.peer
    if peer is None:
        return _ENTRY_BYTES
    names = len(peer.dns_names) + len(peer.uris) + len(peer.ip_addresses) + len(peer.organizational_units)
    return _ENTRY_BYTES + 3 * len(peer.leaf) + _NAME_BYTES * names


def _parse_sent(path: tuple[bytes, ...]) -> tuple[list[Certificate], list[str]]:
    """What can be read, the leaf first, and what is wrong with the rest; raises PeerDenied if the leaf cannot be read."""
    found, unreadable = [], []
    for number, der in enumerate(path, 1):
        try:
            found.append(parse_certificate(der))
        except WireError as error:
            if not found:
                raise PeerDenied(Denial.UNREADABLE, str(error)) from error
            unreadable.append(f"certificate {number} that the peer sent is {error}")
    return found, unreadable
