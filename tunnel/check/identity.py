"""Checks the identity that would be used: selection, validity period, key and trust bundles."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from tunnel.check.finding import Finding, Steps, ok, problem, warning
from tunnel.check.validity import check_validity, validity_of
from tunnel.identity.credentials import SvidCredentials, X509Context, describe_key
from tunnel.lazy_dataclass import replace
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.path import build_anchors
from tunnel.pkix.revocation import RevocationLists
from tunnel.spiffe.bundle import TrustBundle
from tunnel.spiffe.ids import TrustDomain
from tunnel.spiffe.selection import Offer, Selection, describe_offers
from tunnel.spiffe.x509 import check_anchor


def examine_identity(context: X509Context, selection: Selection, now: datetime) -> Steps[SvidCredentials | None]:
    """Return the identity that would be used with its bundles, or None."""
    svid, offered = context.svid, describe_offers(context.offered)
    if svid is None:
        yield problem("identity", f"the agent does not offer {selection}, only {offered}", "select one of these")
        return None
    for failure in context.skipped:
        yield warning("identity", f"omitted: {failure}", "see the agent's log and the entry of this identity")
    name = Offer(str(svid.spiffe_id), svid.hint)
    if len(context.offered) == 1:
        yield ok("identity", f"{name}, the only one offered")
    elif not selection.is_open():
        yield ok("identity", f"{name}, selected by {selection} from {offered}")
    else:
        which = "the first valid one" if context.skipped else "the first"
        detail = f"{name}, {which} of {len(context.offered)}: {offered}"
        advice = f"the agent's order is arbitrary: select one with --spiffe-id {svid.spiffe_id} or --spiffe-hint"
        yield warning("identity", detail, advice)
    period = replace(validity_of(svid.chain), end=svid.not_after)  # the authority may expire before the chain
    yield check_validity("expiry", period, now, "the agent should have renewed it by now: see its log")
    chain = f"chain of {len(svid.chain)}" if len(svid.chain) > 1 else "signed by the authority itself"
    yield ok("key", f"{describe_key(svid.private_key)}, {chain}, verifies against the bundle of {svid.spiffe_id.trust_domain}")
    yield from _describe_bundles(context, svid.spiffe_id.trust_domain, now)
    return SvidCredentials(svid, context.bundles, RevocationLists(context.lists))


def has_valid(authorities: tuple[Certificate, ...], now: datetime) -> bool:
    """Whether at least one is within its validity period."""
    return any(one.not_before <= now <= one.not_after for one in authorities)


def _describe_bundles(context: X509Context, own: TrustDomain, now: datetime) -> Iterator[Finding]:
    bundles = context.bundles.bundles
    others = [_describe_bundle(bundles[domain]) for domain in sorted(bundles) if domain != own]
    federated = f"federated: {', '.join(others)}" if others else "no federated trust domain"
    yield ok("trust-domains", f"{_describe_bundle(bundles[own])} is our own, {federated}")
    for note in context.notes:
        yield warning("trust-domains", note, "correct that bundle at the source of the SPIRE server")
    for domain, bundle in sorted(bundles.items()):
        for _anchor, refusal in build_anchors(bundle.authorities, check_anchor).refused:
            yield warning("trust-domains", f"{domain}: {refusal}", "replace it: every SVID signed by it is refused")
        if not has_valid(bundle.authorities, now):
            detail = f"no valid authority in the bundle of {domain}"
            yield warning("trust-domains", detail, f"no peer of {domain} verifies: refresh its federated bundle")


def _describe_bundle(bundle: TrustBundle) -> str:
    count = len(bundle.authorities)
    return f"{bundle.trust_domain} ({count} authorit{'y' if count == 1 else 'ies'})"
