"""Verification of a peer's certificates: as an SVID (X509-SVID 5), by ordinary PKI rules (RFC 5280), or by a pin of its key.

Bundles are never pooled: an SVID is verified against the anchors of its own trust domain only. Our own SVID passes the same
verification before it is published.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from tunnel.authz.authorizer import Admitted
from tunnel.authz.host_name import HostName, parse_host
from tunnel.authz.peer import parse_peer
from tunnel.authz.pins import SpkiPin
from tunnel.errors import Denial, PeerDenied
from tunnel.lazy_dataclass import dataclass, field
from tunnel.pkix import path
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.extensions import ANY_PURPOSE, CLIENT_AUTH
from tunnel.pkix.path import Anchors, CheckStatus, at_depth, build_anchors, check_dates, check_sent, find_path, validity_of
from tunnel.pkix.revocation import NO_LISTS, RevocationChecker, RevocationLists, Warn, ignore_warning
from tunnel.pkix.strength import check_key_strength
from tunnel.spiffe.bundle import BundleSet
from tunnel.spiffe.ids import SpiffeId, TrustDomain
from tunnel.spiffe.x509 import check_anchor, check_intermediate, check_leaf

_ALWAYS = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Verified:
    """A verified leaf, and the span in which the verdict holds: certificates are valid, and revocation lists do not change."""

    leaf: Certificate
    not_before: datetime
    not_after: datetime
    spiffe_id: SpiffeId | None = None
    expires: datetime | None = None  # the end of the first certificate of the path; None if no dates are checked
    anchor: Certificate | None = field(default=None, compare=False)


class Verifier(Protocol):
    """Verifies the certificates of peers against the trust anchors of one generation.

    Two that are equal accept the same certificates: a new generation may use the admissions of the previous one.
    """

    def verify(self, sent: Sequence[Certificate], now: datetime, dates_at: datetime | None = None) -> Verified:
        """Verify the leaf, the first of the certificates sent; raises PeerDenied with the certificate and the broken rule.

        The dates of certificates are judged at `dates_at`, by default now.
        """

    def trusts(self, admitted: Admitted) -> bool:
        """Whether the anchor of a path that was verified before is trusted."""

    @property
    def revocation(self) -> RevocationLists:
        """The revocation lists."""


class _StatusCheck:
    """The check of paths against revocation lists, if there are any."""

    def __init__(self, revocation: RevocationLists, warn: Warn) -> None:
        self._checker = RevocationChecker(revocation, warn) if revocation.is_checked else None

    def check_at(self, now: datetime) -> CheckStatus | None:
        """Return the check of one certificate, with lists that are valid at `now`."""
        checker = self._checker
        return None if checker is None else lambda certificate, issuer, _at: checker.check(certificate, issuer, now)

    def conclude(self, found: path.Path, now: datetime, spiffe_id: SpiffeId | None = None) -> Verified:
        """Return the verdict on a path; it ends with the first certificate, or at the next change of a list."""
        begin, expires = validity_of(found)
        end = expires if self._checker is None else min(expires, self._checker.next_change(found, now))
        return Verified(found[0], begin, end, spiffe_id, expires=expires, anchor=found[-1])


@dataclass(frozen=True, slots=True)
class SpiffeVerifier:
    """Verifies SVIDs against one set of trust bundles and revocation lists."""

    bundles: BundleSet
    revocation: RevocationLists = NO_LISTS
    warn: Warn = field(default=ignore_warning, compare=False, repr=False)
    _status: _StatusCheck = field(init=False, compare=False, repr=False)
    # Built on first use: there may be hundreds of trust domains.
    _anchors: dict[TrustDomain, Anchors] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_status", _StatusCheck(self.revocation, self.warn))

    def verify(self, sent: Sequence[Certificate], now: datetime, dates_at: datetime | None = None) -> Verified:
        """Verify the leaf, the first of the certificates sent, as an SVID; raises PeerDenied."""
        check_sent(sent)
        at = dates_at or now
        with at_depth(0, sent[0]):
            spiffe_id = check_leaf(sent[0])
            check_dates(sent[0], at)

        def check_issuer(certificate: Certificate, is_anchor: bool) -> None:
            if not is_anchor:
                check_intermediate(certificate, spiffe_id.trust_domain)

        found = find_path(self.anchors_of(spiffe_id.trust_domain), sent, at, check_issuer, self._status.check_at(now))
        return self._status.conclude(found, now, spiffe_id)

    def trusts(self, admitted: Admitted) -> bool:
        """Whether the bundle of the peer's trust domain has the anchor of a path that was verified before."""
        if admitted.peer is None or admitted.peer.spiffe_id is None:
            return False
        domain = admitted.peer.spiffe_id.trust_domain
        return domain in self.bundles.bundles and admitted.anchor in self.anchors_of(domain).usable

    def anchors_of(self, trust_domain: TrustDomain) -> Anchors:
        """Return the anchors of a trust domain; raises PeerDenied if it has no bundle."""
        if trust_domain not in self._anchors:
            bundle = self.bundles.bundles.get(trust_domain)
            if bundle is None:
                reason = self.bundles.disabled.get(trust_domain, "no bundle for it")
                raise PeerDenied(Denial.UNKNOWN_TRUST_DOMAIN, f"{trust_domain}: {reason}")
            self._anchors[trust_domain] = build_anchors(bundle.authorities, check_anchor)
        return self._anchors[trust_domain]


@dataclass(frozen=True, slots=True)
class PkiVerifier:
    """Verifies certificates against one set of anchors; an anchor may also be an intermediate or the leaf itself, as in Go.

    `purpose` is the required extended key usage; raises IdentityError for an invalid `host`.
    """

    anchors: Anchors
    purpose: bytes
    host: str = ""
    revocation: RevocationLists = field(default=NO_LISTS, kw_only=True)
    warn: Warn = field(default=ignore_warning, compare=False, repr=False, kw_only=True)
    _host: HostName | None = field(init=False, compare=False, repr=False)
    _status: _StatusCheck = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_host", parse_host(self.host) if self.host else None)
        object.__setattr__(self, "_status", _StatusCheck(self.revocation, self.warn))

    def verify(self, sent: Sequence[Certificate], now: datetime, dates_at: datetime | None = None) -> Verified:
        """Verify the leaf, the first of the certificates sent, and its host name if one is required; raises PeerDenied."""
        check_sent(sent)
        leaf, at = sent[0], dates_at or now
        with at_depth(0, leaf):
            check_dates(leaf, at)
            path.check_readable(leaf)
            path.check_intermediate(leaf)
            check_purpose(leaf, self.purpose)
        found = self._find_path(sent, now, at)
        if self._host is not None:
            self._host.check(parse_peer(leaf, None))
        return self._status.conclude(found, now)

    def trusts(self, admitted: Admitted) -> bool:
        """Whether the anchor of a path that was verified before is trusted."""
        return admitted.anchor in self.anchors.usable

    def _find_path(self, sent: Sequence[Certificate], now: datetime, at: datetime) -> path.Path:
        if sent[0] in self.anchors.by_subject.get(sent[0].subject, ()):
            return (sent[0],)
        return find_path(self.anchors, sent, at, self._check_issuer, self._status.check_at(now))

    def _check_issuer(self, certificate: Certificate, is_anchor: bool) -> None:
        """Check that a certificate may issue others (RFC 5280, 6.1.4 k and n); an anchor of version 1 or 2 cannot state it."""
        constraints, usage = certificate.extensions.basic_constraints(), certificate.extensions.key_usage()
        if not (is_anchor and certificate.version < 3) and (constraints is None or not constraints.is_ca):
            raise PeerDenied(Denial.NOT_CA, "an issuer needs basic constraints with cA TRUE")
        if usage is not None and not usage.key_cert_sign:
            raise PeerDenied(Denial.KEY_USAGE, "its key usage lacks keyCertSign")
        certificate.extensions.check_critical()
        check_purpose(certificate, self.purpose)


def build_pki_anchors(authorities: Sequence[Certificate]) -> Anchors:
    """Return the anchors of a CA file; certificates with a weak key are left out."""
    return build_anchors(authorities, check_key_strength)


def check_purpose(certificate: Certificate, purpose: bytes) -> None:
    """Check that extended key usage is absent or includes `purpose`: in the leaf and in every issuer, as in Go."""
    purposes = certificate.extensions.purposes()  # an empty list restricts nothing, as in Go
    if purposes and not {purpose, ANY_PURPOSE} & purposes:
        wanted = "clientAuth" if purpose == CLIENT_AUTH else "serverAuth"
        raise PeerDenied(Denial.EXTENDED_KEY_USAGE, f"extended key usage lacks {wanted}")


@dataclass(frozen=True, slots=True)
class PinVerifier:
    """Accepts a leaf with a pinned key; issuers, dates and names are not checked."""

    pins: tuple[SpkiPin, ...]

    def verify(self, sent: Sequence[Certificate], now: datetime, dates_at: datetime | None = None) -> Verified:
        """Return the leaf if its key is pinned; raises PeerDenied."""
        check_sent(sent)
        if any(pin.is_match(sent[0].key_info) for pin in self.pins):
            return Verified(sent[0], *_ALWAYS)
        raise PeerDenied(Denial.PIN, "unauthorized: pin verification failed")

    def trusts(self, admitted: Admitted) -> bool:
        """True: there are no anchors."""
        return True

    @property
    def revocation(self) -> RevocationLists:
        """No lists: issuers are not checked."""
        return NO_LISTS


def checks_alike(one: Verifier, other: Verifier) -> bool:
    """Whether both make the same checks of a path, apart from the trust in its anchor."""
    if isinstance(one, SpiffeVerifier) and isinstance(other, SpiffeVerifier):
        return one.revocation == other.revocation
    if isinstance(one, PkiVerifier) and isinstance(other, PkiVerifier):
        return (one.purpose, one.host, one.revocation) == (other.purpose, other.host, other.revocation)
    return one == other
