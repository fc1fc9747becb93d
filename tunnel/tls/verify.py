"""Whether a certificate path proves a SPIFFE ID.

Knows path validation against the bundle of the leaf's own trust domain (X509-SVID 5); must not know who may pass. Bundles
are never pooled: there is one store a trust domain, and only the leaf's is asked. The same function judges our own SVID
before it is published and every peer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from OpenSSL import crypto

from tunnel.errors import Denial, PeerDenied
from tunnel.spiffe.bundle import BundleSet
from tunnel.spiffe.ids import SpiffeId, TrustDomain
from tunnel.spiffe.x509 import check_authority, check_dates, check_intermediate, check_leaf

MAX_PATH = 16  # certificates; SPIRE's paths have two or three

# OpenSSL's numbers for why a path fails (x509_vfy.h). Those that only say that no anchor is at hand come first.
NO_ANCHOR_ERRORS = frozenset({2, 18, 19, 20, 21})
_DENIALS = {
    9: Denial.NOT_YET_VALID,
    10: Denial.EXPIRED,
    26: Denial.EXTENDED_KEY_USAGE,
    32: Denial.KEY_USAGE,
    66: Denial.WEAK_KEY,
    67: Denial.WEAK_KEY,
    68: Denial.WEAK_SIGNATURE,
    79: Denial.NOT_CA,
} | dict.fromkeys(NO_ANCHOR_ERRORS, Denial.UNKNOWN_AUTHORITY)


@dataclass(frozen=True, slots=True)
class Verified:
    """An ID that is proven, and the span in which every certificate of the path is within its dates."""

    spiffe_id: SpiffeId
    leaf: x509.Certificate
    not_before: datetime
    not_after: datetime


def denial_of(openssl_error: int) -> Denial:
    """Our word for OpenSSL's number of a path's fault."""
    return _DENIALS.get(openssl_error, Denial.BAD_PATH)


class Verifier:
    """Judges paths by one set of bundles."""

    def __init__(self, bundles: BundleSet) -> None:
        self._bundles = bundles
        self._anchors: dict[TrustDomain, list[crypto.X509]] = {}  # made when first asked for: there may be hundreds

    def verify(self, path: Sequence[x509.Certificate], now: datetime) -> Verified:
        """What `path`, leaf first, proves at `now`; raises PeerDenied with the rule that it breaks."""
        if not 1 <= len(path) <= MAX_PATH:
            raise PeerDenied(Denial.BAD_PATH, f"{len(path)} certificates where 1 to {MAX_PATH} are wanted")
        spiffe_id = check_leaf(path[0])
        chain = self._build(spiffe_id.trust_domain, path, now)
        if len(chain) < 2:  # PARTIAL_CHAIN would take a leaf that is its own anchor
            raise PeerDenied(Denial.UNKNOWN_AUTHORITY, "the leaf certificate is its own authority")
        *intermediates, anchor = chain[1:]
        for certificate in intermediates:
            check_intermediate(certificate, spiffe_id.trust_domain)
        check_authority(anchor, spiffe_id.trust_domain)
        for certificate in chain:
            check_dates(certificate, now)
        return Verified(
            spiffe_id,
            path[0],
            max(certificate.not_valid_before_utc for certificate in chain),
            min(certificate.not_valid_after_utc for certificate in chain),
        )

    def _build(self, trust_domain: TrustDomain, path: Sequence[x509.Certificate], now: datetime) -> list[x509.Certificate]:
        store = crypto.X509Store()
        # Every certificate of a bundle is an anchor, self-signed or not (Trust Domain and Bundle, section 4.2).
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        # A store takes a time once and silently keeps it at the next call, so each verification has a store of its own.
        store.set_time(now)
        for anchor in self._anchors_of(trust_domain):
            store.add_cert(anchor)
        leaf, *untrusted = map(_to_openssl, path)
        attempt = crypto.X509StoreContext(store, leaf, untrusted)
        try:
            return [certificate.to_cryptography() for certificate in attempt.get_verified_chain()]
        except crypto.X509StoreContextError as error:
            code, _depth, text = error.errors[:3]
            raise PeerDenied(denial_of(code), str(text)) from error

    def _anchors_of(self, trust_domain: TrustDomain) -> list[crypto.X509]:
        if trust_domain not in self._anchors:
            bundle = self._bundles.bundles.get(trust_domain)
            if bundle is None:
                why = self._bundles.disabled.get(trust_domain, "no bundle for it")
                raise PeerDenied(Denial.UNKNOWN_TRUST_DOMAIN, f"{trust_domain}: {why}")
            self._anchors[trust_domain] = [_to_openssl(authority) for authority in bundle.authorities]
        return self._anchors[trust_domain]


def _to_openssl(certificate: x509.Certificate) -> crypto.X509:
    """The certificate as OpenSSL has it, which does not read all that the other library reads."""
    try:
        return crypto.X509.from_cryptography(certificate)
    except crypto.Error as error:
        raise PeerDenied(Denial.UNREADABLE, "a certificate that OpenSSL cannot read") from error
