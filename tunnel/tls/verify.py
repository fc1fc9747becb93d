"""Whether a certificate path proves a SPIFFE ID.

Knows path validation against the bundle of the leaf's own trust domain (X509-SVID 5); must not know who may pass. Bundles
are never pooled: there is one set of anchors a trust domain, and only the leaf's is asked. The same function judges our own
SVID before it is published and every peer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509

from tunnel.errors import Denial, PeerDenied
from tunnel.spiffe.bundle import BundleSet
from tunnel.spiffe.ids import TrustDomain
from tunnel.spiffe.x509 import check_dates, check_intermediate, check_leaf
from tunnel.tls.anchors import Anchors, build_anchors
from tunnel.tls.path import PathDenied, Verified, at_depth, check_length, span_of

_WITHOUT_RULE = (Denial.NOT_CA, Denial.KEY_USAGE)  # what OpenSSL finds before we do, without naming the rule


class SpiffeVerifier:
    """Judges paths by one set of bundles."""

    def __init__(self, bundles: BundleSet) -> None:
        self._bundles = bundles
        self._anchors: dict[TrustDomain, Anchors] = {}  # made when first asked for: there may be hundreds

    def verify(self, path: Sequence[x509.Certificate], now: datetime) -> Verified:
        """What `path`, leaf first, proves at `now`; raises PeerDenied with the certificate and the rule that it breaks."""
        check_length(path)
        with at_depth(0, path[0]):
            spiffe_id = check_leaf(path[0])
        chain = self._build(path, spiffe_id.trust_domain, now)
        if len(chain) < 2:  # a partial chain may be a leaf that is its own anchor
            raise PeerDenied(Denial.UNKNOWN_AUTHORITY, "the leaf certificate is its own authority")
        for depth, certificate in enumerate(chain):
            with at_depth(depth, certificate):
                if 0 < depth < len(chain) - 1:
                    check_intermediate(certificate, spiffe_id.trust_domain)
                check_dates(certificate, now)
        return Verified(path[0], *span_of(chain), spiffe_id)

    def _build(self, path: Sequence[x509.Certificate], trust_domain: TrustDomain, now: datetime) -> list[x509.Certificate]:
        anchors = self._anchors_of(trust_domain)
        try:
            return anchors.build_path(path, now)
        except PathDenied as denied:
            if denied.depth and denied.reason in _WITHOUT_RULE:
                with at_depth(denied.depth, denied.certificate):
                    check_intermediate(denied.certificate, trust_domain)
            raise

    def _anchors_of(self, trust_domain: TrustDomain) -> Anchors:
        if trust_domain not in self._anchors:
            bundle = self._bundles.bundles.get(trust_domain)
            if bundle is None:
                why = self._bundles.disabled.get(trust_domain, "no bundle for it")
                raise PeerDenied(Denial.UNKNOWN_TRUST_DOMAIN, f"{trust_domain}: {why}")
            self._anchors[trust_domain] = build_anchors(bundle.authorities)
        return self._anchors[trust_domain]
