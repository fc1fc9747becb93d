"""Whether a certificate proves a SPIFFE ID (X509-SVID 5).

Bundles are never pooled: there is one set of anchors a trust domain, and only the leaf's is asked. The same function judges
our own SVID before it is published and every peer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tunnel.errors import Denial, PeerDenied
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.path import Anchors, at_depth, build_anchors, check_dates, check_sent, find_path, span_of
from tunnel.spiffe.bundle import BundleSet
from tunnel.spiffe.ids import TrustDomain
from tunnel.spiffe.x509 import check_anchor, check_intermediate, check_leaf
from tunnel.tls.verified import Verified


class SpiffeVerifier:
    """Judges paths by one set of bundles."""

    def __init__(self, bundles: BundleSet) -> None:
        self._bundles = bundles
        self._anchors: dict[TrustDomain, Anchors] = {}  # made when first asked for: there may be hundreds

    def verify(self, sent: Sequence[Certificate], now: datetime) -> Verified:
        """What the leaf, the first of `sent`, proves at `now`; raises PeerDenied with the certificate and the rule."""
        check_sent(sent)
        with at_depth(0, sent[0]):
            spiffe_id = check_leaf(sent[0])
            check_dates(sent[0], now)

        def check_issuer(certificate: Certificate, is_anchor: bool) -> None:
            if not is_anchor:
                check_intermediate(certificate, spiffe_id.trust_domain)

        path = find_path(self._anchors_of(spiffe_id.trust_domain), sent, now, check_issuer)
        return Verified(sent[0], *span_of(path), spiffe_id)

    def _anchors_of(self, trust_domain: TrustDomain) -> Anchors:
        if trust_domain not in self._anchors:
            bundle = self._bundles.bundles.get(trust_domain)
            if bundle is None:
                why = self._bundles.disabled.get(trust_domain, "no bundle for it")
                raise PeerDenied(Denial.UNKNOWN_TRUST_DOMAIN, f"{trust_domain}: {why}")
            self._anchors[trust_domain] = build_anchors(bundle.authorities, check_anchor)
        return self._anchors[trust_domain]
