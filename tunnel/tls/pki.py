"""Whether a certificate path is good by ordinary PKI rules, as certificates on disk are.

Knows paths to a set of anchors (RFC 5280), purposes, the host's name, and pins of public keys; must not know SPIFFE's
stricter profile or who may pass. How strong a key is OpenSSL has looked at before, inside the handshake.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tunnel.authz.host import parse_host
from tunnel.authz.pins import SpkiPin
from tunnel.errors import Denial, PeerDenied
from tunnel.spiffe.x509 import check_dates, find_extension
from tunnel.tls.facts import describe_peer, public_key_of
from tunnel.tls.path import Verified, at_depth, build_path, check_length, span_of, to_openssl

_FOR_EVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class PkiVerifier:
    """Judges paths by one pool of anchors; any certificate may be an anchor, an intermediate or a leaf too, as in Go.

    Raises IdentityError for a host that no certificate could have.
    """

    def __init__(self, anchors: Sequence[x509.Certificate], purpose: x509.ObjectIdentifier, host: str = "") -> None:
        self._anchors = [to_openssl(anchor) for anchor in anchors]
        self._host = parse_host(host) if host else None  # whose name a peer's certificate must have
        self._purpose = purpose  # what a peer's certificate must be good for

    def verify(self, path: Sequence[x509.Certificate], now: datetime) -> Verified:
        """What `path`, leaf first, proves at `now`; raises PeerDenied with the rule that it breaks."""
        check_length(path)
        chain = build_path(self._anchors, path, now)
        for depth, certificate in enumerate(chain):
            with at_depth(depth, certificate):
                check_dates(certificate, now)
                check_purpose(certificate, self._purpose)
        if self._host is not None:
            self._host.check(describe_peer(path[0], None))
        return Verified(path[0], *span_of(chain))


def check_purpose(certificate: x509.Certificate, purpose: x509.ObjectIdentifier) -> None:
    """Extended key usage is absent, or has the purpose or any: in a leaf, and in whoever signed it, as Go nests them."""
    usage = find_extension(certificate, x509.ExtendedKeyUsage)
    if usage is not None and not {purpose, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usage.value):
        wanted = "clientAuth" if purpose == ExtendedKeyUsageOID.CLIENT_AUTH else "serverAuth"
        raise PeerDenied(Denial.EXTENDED_KEY_USAGE, f"extended key usage lacks {wanted}")


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
