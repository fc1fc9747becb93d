"""The admission of peers by one generation: verification, then authorization, with a cache of admissions.

A cached admission is used while every certificate of its path is valid, and by later generations with the same bundles and
rules. Refusals are not cached. If a rule depends on the address of the client, only the verification is cached, and the rules
are applied to every connection. The peer still proves in every handshake that it has the private key.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from threading import Lock
from time import time

from tunnel.authz.authorizer import Admitted, Authorizer
from tunnel.authz.peer import Peer, SentCertificates, parse_peer
from tunnel.errors import Denial, PeerDenied, WireError
from tunnel.ip_address import parse_source
from tunnel.lazy_dataclass import replace
from tunnel.pkix.certificate import Certificate, parse_certificate, read_serial_number
from tunnel.tls.verify import SpiffeVerifier, Verified, Verifier, checks_alike

_MOST_ENTRIES = 4096  # peers of one generation; beyond that the oldest entries are verified again
_MOST_BYTES = 16 * 1024 * 1024  # of the certificates in the cache, whose size peers decide
_ENTRY_BYTES, _NAME_BYTES = 2048, 100  # of an entry, and of each of its names, in addition


class PeerAdmission:
    """Admits or refuses peers by the verifier and the access rules of one generation."""

    def __init__(self, verifier: Verifier, authorizer: Authorizer, clock: Callable[[], float] = time) -> None:
        self._verifier = verifier
        self._authorizer = authorizer
        self._clock = clock
        self._needs_source = authorizer.needs_source()
        self._lock = Lock()
        self._bytes = 0  # of the entries below
        self._entries: dict[bytes, tuple[float, float, Admitted, int]] = {}  # by digest, oldest first: span, admission, size

    def __call__(
        self, digest: bytes, path: Callable[[], tuple[bytes, ...]], source: str = "", *, at: float | None = None
    ) -> Admitted:
        """Return the admission of a peer, with the dates of certificates judged at the Unix time `at`, by default now.

        `digest` identifies the certificates that it sent, by SHA-256; `path` returns them in DER, leaf first. `source` is the
        client that connected to us, as `tcp:HOST:PORT` or `unix:PATH`. Raises PeerDenied.
        """
        now = self._clock()
        at = now if at is None else at
        cached = self._entries.get(digest)
        if cached is not None and cached[0] <= at <= cached[1]:
            return self._decide_again(cached[2], source) if self._needs_source else cached[2]
        sent = SentCertificates(digest, path())
        verified = self._verify(sent.chain, now, at)
        peer = parse_peer(verified.leaf, verified.spiffe_id)
        expires = verified.expires.timestamp() if verified.expires is not None else None
        admitted = replace(self._decide(peer, source, expires), anchor=verified.anchor, sent=sent)
        if admitted.is_cacheable:
            self._store(digest, verified, admitted, _size_of(peer, sent))
        return admitted

    def is_equivalent(self, other: PeerAdmission) -> bool:
        """Whether both admit the same peers, so that a new generation can use the cache of the previous one.

        Never with a policy: it may have been replaced, although the rule is the same.
        """
        return not self._authorizer.is_slow() and (self._verifier, self._authorizer) == (other._verifier, other._authorizer)

    def check_known(self, peer: Peer, source: str) -> None:
        """Check what needs no path, for a peer that was verified before: its trust domain, and the rules; raises PeerDenied."""
        if isinstance(self._verifier, SpiffeVerifier) and peer.spiffe_id is not None:
            self._verifier.anchors_of(peer.spiffe_id.trust_domain)
        self._decide(peer, source, None)

    def checks_like(self, other: PeerAdmission) -> bool:
        """Whether a path that `other` has verified is valid here too, if its anchor is trusted; dates are not compared."""
        return self is other or checks_alike(self._verifier, other._verifier)

    def may_have_revoked(self, peer: Peer) -> bool:
        """Whether the serial number of a verified leaf is on a revocation list, of any issuer; takes microseconds."""
        lists = self._verifier.revocation
        return bool(lists.lists) and lists.names_serial(read_serial_number(peer.leaf))

    def trusts(self, admitted: Admitted) -> bool:
        """Whether the anchor of the path of an earlier admission is trusted."""
        return self._verifier.trusts(admitted)

    def _decide(self, peer: Peer, source: str, expires: float | None) -> Admitted:
        try:
            return self._authorizer.decide(peer, parse_source(source) if self._needs_source else None, expires)
        except PeerDenied as denied:
            denied.peer = peer
            raise

    def _decide_again(self, cached: Admitted, source: str) -> Admitted:
        """Apply the rules to another connection of a verified peer; connections with equal admissions share one."""
        assert cached.peer is not None
        admitted = self._decide(cached.peer, source, cached.expires)
        return cached if admitted.rule == cached.rule else replace(admitted, anchor=cached.anchor, sent=cached.sent)

    def _verify(self, path: tuple[bytes, ...], now: float, at: float) -> Verified:
        sent, unreadable = _parse_sent(path)
        try:
            return self._verifier.verify(sent, datetime.fromtimestamp(now, UTC), datetime.fromtimestamp(at, UTC))
        except PeerDenied as denied:
            if denied.reason is Denial.UNKNOWN_AUTHORITY and unreadable:
                raise PeerDenied(denied.reason, f"{denied.seen}; {unreadable[0]}") from denied
            raise

    def _store(self, digest: bytes, verified: Verified, admitted: Admitted, size: int) -> None:
        span = verified.not_before.timestamp(), verified.not_after.timestamp()
        with self._lock:  # handshakes that evaluate a policy run on several threads
            self._drop(digest)
            self._entries[digest] = (*span, admitted, size)
            self._bytes += size
            while len(self._entries) > _MOST_ENTRIES or self._bytes > _MOST_BYTES:
                self._drop(next(iter(self._entries)))

    def _drop(self, digest: bytes) -> None:
        entry = self._entries.pop(digest, None)
        if entry is not None:
            self._bytes -= entry[3]


def _size_of(peer: Peer, sent: SentCertificates) -> int:
    """Return the approximate memory of an entry: the certificates in DER, the leaf's texts once more, an object per name."""
    names = len(peer.dns_names) + len(peer.uris) + len(peer.ip_addresses) + len(peer.organizational_units)
    return _ENTRY_BYTES + 2 * len(peer.leaf) + sum(map(len, sent.chain)) + _NAME_BYTES * names


def _parse_sent(path: tuple[bytes, ...]) -> tuple[list[Certificate], list[str]]:
    """Return the certificates that can be parsed, and errors for the others; raises PeerDenied for an unreadable leaf."""
    found, unreadable = [], []
    for number, der in enumerate(path, 1):
        try:
            found.append(parse_certificate(der))
        except WireError as error:
            if not found:
                raise PeerDenied(Denial.UNREADABLE, str(error)) from error
            unreadable.append(f"certificate {number} that the peer sent is {error}")
    return found, unreadable
