"""Whether a certificate path is good by ordinary PKI rules, as certificates on disk are.

Knows paths to a set of anchors (RFC 5280) and pins of public keys; must not know SPIFFE's stricter profile or who may pass.
What a certificate may be used for, how strong its key is and whether it has the host's name, OpenSSL has looked at before,
inside the handshake.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509

from tunnel.authz.pins import SpkiPin
from tunnel.errors import Denial, PeerDenied
from tunnel.spiffe.x509 import check_dates
from tunnel.tls.facts import public_key_of
from tunnel.tls.path import Verified, build_path, check_length, span_of, to_openssl

_FOR_EVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class PkiVerifier:
    """Judges paths by one pool of anchors; any certificate may be an anchor, an intermediate or a leaf too, as in Go."""

    def __init__(self, anchors: Sequence[x509.Certificate]) -> None:
        self._anchors = [to_openssl(anchor) for anchor in anchors]

    def verify(self, path: Sequence[x509.Certificate], now: datetime) -> Verified:
        """What `path`, leaf first, proves at `now`; raises PeerDenied with the rule that it breaks."""
        check_length(path)
        chain = build_path(self._anchors, path, now)
        for certificate in chain:
            check_dates(certificate, now)
        return Verified(path[0], *span_of(chain))


class PinVerifier:
    """Takes whoever holds one of the pinned keys: no chain, no dates, no names. The pin is the whole authentication."""

    def __init__(self, pins: Sequence[SpkiPin]) -> None:
        self._pins = tuple(pins)

    def verify(self, path: Sequence[x509.Certificate], now: datetime) -> Verified:
        """The leaf, if its key is pinned; raises PeerDenied."""
        check_length(path)
        key = public_key_of(path[0])
        for pin in self._pins:
            if key and hmac.compare_digest(hashlib.new(pin.algorithm, key).digest(), pin.digest):
                return Verified(path[0], *_FOR_EVER)
        raise PeerDenied(Denial.PIN, "unauthorized: pin verification failed")
