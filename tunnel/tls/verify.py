"""Whether a certificate path proves a SPIFFE ID.

Knows path validation against the bundle of the leaf's own trust domain (X509-SVID 5); must not know who may pass. Bundles
are never pooled: there is one set of anchors a trust domain, and only the leaf's is asked. The same function judges our own
SVID before it is published and every peer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from OpenSSL import crypto

from tunnel.errors import Denial, PeerDenied
from tunnel.spiffe.bundle import BundleSet
from tunnel.spiffe.ids import TrustDomain
from tunnel.spiffe.x509 import check_authority, check_dates, check_intermediate, check_leaf
from tunnel.tls.path import Verified, build_path, check_length, span_of, to_openssl


class SpiffeVerifier:
    """Judges paths by one set of bundles."""

    def __init__(self, bundles: BundleSet) -> None:
        self._bundles = bundles
        self._anchors: dict[TrustDomain, list[crypto.X509]] = {}  # made when first asked for: there may be hundreds

    def verify(self, path: Sequence[x509.Certificate], now: datetime) -> Verified:
        """What `path`, leaf first, proves at `now`; raises PeerDenied with the rule that it breaks."""
        check_length(path)
        spiffe_id = check_leaf(path[0])
        chain = build_path(self._anchors_of(spiffe_id.trust_domain), path, now)
        if len(chain) < 2:  # a partial chain may be a leaf that is its own anchor
            raise PeerDenied(Denial.UNKNOWN_AUTHORITY, "the leaf certificate is its own authority")
        *intermediates, anchor = chain[1:]
        for certificate in intermediates:
            check_intermediate(certificate, spiffe_id.trust_domain)
        check_authority(anchor, spiffe_id.trust_domain)
        for certificate in chain:
            check_dates(certificate, now)
        return Verified(path[0], *span_of(chain), spiffe_id)

    def _anchors_of(self, trust_domain: TrustDomain) -> list[crypto.X509]:
        if trust_domain not in self._anchors:
            bundle = self._bundles.bundles.get(trust_domain)
            if bundle is None:
                why = self._bundles.disabled.get(trust_domain, "no bundle for it")
                raise PeerDenied(Denial.UNKNOWN_TRUST_DOMAIN, f"{trust_domain}: {why}")
            self._anchors[trust_domain] = [to_openssl(authority) for authority in bundle.authorities]
        return self._anchors[trust_domain]
