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

from tunnel.authz.authorizer import Authorizer
from tunnel.authz.peer import Admitted
from tunnel.errors import Denial, PeerDenied, WireError
from tunnel.spiffe.x509 import parse_certificate
from tunnel.tls.facts import describe_peer
from tunnel.tls.path import Verified, Verifier

_MEMORY = 4096  # peers; a proxy that meets more of them in one generation verifies some of them again


class PeerJudge:
    """Admits or refuses by the bundles and the rules of one generation."""

    def __init__(self, verifier: Verifier, authorizer: Authorizer, clock: Callable[[], float] = time) -> None:
        self._verifier = verifier
        self._authorizer = authorizer
        self._clock = clock
        self._lock = Lock()
        self._admissions: dict[bytes, tuple[float, float, Admitted]] = {}  # by SHA-256 of the leaf, oldest first

    def __call__(self, digest: bytes, path: Callable[[], tuple[bytes, ...]]) -> Admitted:
        """The admission of whoever proves to hold the leaf with this digest; raises PeerDenied."""
        now = self._clock()
        remembered = self._admissions.get(digest)
        if remembered is not None and remembered[0] <= now <= remembered[1]:
            return remembered[2]
        verified = self._verify(path(), now)
        admitted = self._authorizer.decide(describe_peer(verified.leaf, verified.spiffe_id))
        if admitted.is_lasting:
            self._remember(digest, verified, admitted)
        return admitted

    def _verify(self, path: tuple[bytes, ...], now: float) -> Verified:
        try:
            certificates = [parse_certificate(der) for der in path]
        except WireError as error:
            raise PeerDenied(Denial.UNREADABLE, str(error)) from error
        return self._verifier.verify(certificates, datetime.fromtimestamp(now, UTC))

    def _remember(self, digest: bytes, verified: Verified, admitted: Admitted) -> None:
        span = verified.not_before.timestamp(), verified.not_after.timestamp()
        with self._lock:  # where a policy is asked, we are called on several threads
            self._admissions.pop(digest, None)
            if len(self._admissions) >= _MEMORY:
                del self._admissions[next(iter(self._admissions))]
            self._admissions[digest] = (*span, admitted)
