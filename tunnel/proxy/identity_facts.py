"""The facts about credentials that status ports and metrics show."""

from __future__ import annotations

from tunnel.identity.credentials import Credentials, SvidCredentials
from tunnel.lazy_dataclass import replace
from tunnel.spiffe.bundle import TrustBundle
from tunnel.status.identity_report import NO_CREDENTIALS, IdentityReport, Rotation, TrustDomainReport


def describe_credentials(credentials: Credentials) -> IdentityReport:
    """Return the facts about our certificate and the trust bundles."""
    if isinstance(credentials, SvidCredentials):
        svid = credentials.svid
        domains = tuple(
            map(_describe_bundle, sorted(credentials.bundles.bundles.values(), key=lambda one: str(one.trust_domain)))
        )
        chain, subject, not_after = svid.chain, str(svid.spiffe_id), svid.not_after.timestamp()
    elif credentials.chain:
        chain, domains = credentials.chain, ()
        subject, not_after = chain[0].subject.describe(), chain[0].not_after.timestamp()
    else:
        return NO_CREDENTIALS
    return replace(
        NO_CREDENTIALS,
        subject=subject,
        serial=f"{chain[0].serial_number:x}",
        not_before=chain[0].not_before.timestamp(),
        not_after=not_after,
        trust_domains=domains,
    )


def describe_rotation(credentials: Credentials, now: float) -> Rotation:
    """Return the rotation to these credentials at the Unix time `now`."""
    facts = describe_credentials(credentials)
    return Rotation(now, facts.serial, facts.not_after)


def _describe_bundle(bundle: TrustBundle) -> TrustDomainReport:
    ends = [authority.not_after.timestamp() for authority in bundle.authorities]
    return TrustDomainReport(str(bundle.trust_domain), len(ends), min(ends, default=None))
