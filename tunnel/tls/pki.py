"""Whether a certificate is good by ordinary PKI rules, as certificates on disk are (RFC 5280), or by a pin of its key."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime

from tunnel.authz.host_name import parse_host
from tunnel.authz.peer import parse_peer
from tunnel.authz.pins import SpkiPin
from tunnel.errors import Denial, PeerDenied
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.extensions import ANY_PURPOSE, CLIENT_AUTH
from tunnel.pkix.path import (
    Anchors,
    Path,
    at_depth,
    build_anchors,
    check_dates,
    check_intermediate,
    check_readable,
    check_sent,
    find_path,
    span_of,
)
from tunnel.pkix.strength import check_key_strength
from tunnel.tls.verified import Verified

_FOR_EVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class PkiVerifier:
    """Judges paths by one pool of anchors; any certificate may be an anchor, an intermediate or a leaf too, as in Go.

    Raises IdentityError for a host that no certificate could have.
    """

    def __init__(self, anchors: Anchors, purpose: bytes, host: str = "") -> None:
        self._anchors = anchors
        self._host = parse_host(host) if host else None  # whose name a peer's certificate must have
        self._purpose = purpose  # what a peer's certificate must be good for

    def verify(self, sent: Sequence[Certificate], now: datetime) -> Verified:
        """What the leaf, the first of `sent`, proves at `now`; raises PeerDenied with the rule that it breaks."""
        check_sent(sent)
        leaf = sent[0]
        with at_depth(0, leaf):
            check_dates(leaf, now)
            check_readable(leaf)
            check_intermediate(leaf)
            check_purpose(leaf, self._purpose)
        path = self._find_path(sent, now)
        if self._host is not None:
            self._host.check(parse_peer(leaf, None))
        return Verified(leaf, *span_of(path))

    def _find_path(self, sent: Sequence[Certificate], now: datetime) -> Path:
        if sent[0] in self._anchors.by_subject.get(sent[0].subject, ()):
            return (sent[0],)
        return find_path(self._anchors, sent, now, self._check_issuer)

    def _check_issuer(self, certificate: Certificate, is_anchor: bool) -> None:
        """The certificate may issue others (RFC 5280, 6.1.4 k and n); an anchor of version 1 or 2 cannot say so."""
        constraints, usage = certificate.extensions.basic_constraints(), certificate.extensions.key_usage()
        if not (is_anchor and certificate.version < 3) and (constraints is None or not constraints.is_ca):
            raise PeerDenied(Denial.NOT_CA, "an authority needs basic constraints with cA TRUE")
        if usage is not None and not usage.key_cert_sign:
            raise PeerDenied(Denial.KEY_USAGE, "its key usage lacks keyCertSign")
        certificate.extensions.check_critical()
        check_purpose(certificate, self._purpose)


def build_pki_anchors(authorities: Sequence[Certificate]) -> Anchors:
    """The anchors of a file: those whose key is strong enough."""
    return build_anchors(authorities, check_key_strength)


def check_purpose(certificate: Certificate, purpose: bytes) -> None:
    """Extended key usage is absent, or has the purpose or any: in a leaf, and in whoever signed it, as Go nests them."""
    purposes = certificate.extensions.purposes()  # an empty list restricts nothing, as in Go
    if purposes and not {purpose, ANY_PURPOSE} & purposes:
        wanted = "clientAuth" if purpose == CLIENT_AUTH else "serverAuth"
        raise PeerDenied(Denial.EXTENDED_KEY_USAGE, f"extended key usage lacks {wanted}")


class PinVerifier:
    """Takes whoever holds one of the pinned keys: no chain, no dates, no names. The pin is the whole authentication."""

    def __init__(self, pins: Sequence[SpkiPin]) -> None:
        self._pins = tuple(pins)

    def verify(self, sent: Sequence[Certificate], now: datetime) -> Verified:
        """The leaf, if its key is pinned; raises PeerDenied."""
        check_sent(sent)
        key = sent[0].key_info
        for pin in self._pins:
            if hmac.compare_digest(hashlib.new(pin.algorithm, key).digest(), pin.digest):
                return Verified(sent[0], *_FOR_EVER)
        raise PeerDenied(Denial.PIN, "unauthorized: pin verification failed")
