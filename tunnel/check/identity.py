"""Which identity would be used, and what it is good for: the choice among several, lifetimes and bundles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from tunnel.check.finding import Finding, Steps, ok, problem, warning
from tunnel.check.spans import judge_dates, span_of_chain
from tunnel.identity.credentials import SvidCredentials, X509Context, describe_key
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.path import build_anchors
from tunnel.spiffe.bundle import TrustBundle
from tunnel.spiffe.ids import TrustDomain
from tunnel.spiffe.selection import Offer, Selection, describe_offers
from tunnel.spiffe.x509 import check_anchor


def examine_identity(context: X509Context, selection: Selection, now: datetime) -> Steps[SvidCredentials | None]:
    """The identity that would be used with its bundles, or None."""
    svid, offered = context.svid, describe_offers(context.offered)
    if svid is None:
        yield problem("identity", f"the agent does not offer {selection}, only {offered}", "name one of these")
        return None
    for failure in context.left_out:
        yield warning("identity", f"left out: {failure}", "see the agent's log and the entry of this identity")
    name = Offer(str(svid.spiffe_id), svid.hint)
    if len(context.offered) == 1:
        yield ok("identity", f"{name}, the only one offered")
    elif not selection.is_open():
        yield ok("identity", f"{name}, chosen by {selection} out of {offered}")
    else:
        which = "the first good one" if context.left_out else "the first"
        seen = f"{name}, {which} of {len(context.offered)}: {offered}"
        advice = f"an agent's order is arbitrary: choose, by --spiffe-id {svid.spiffe_id} for instance, or by --spiffe-hint"
        yield warning("identity", seen, advice)
    span = replace(span_of_chain(svid.chain), end=svid.not_after)  # which may be that of the authority
    yield judge_dates("expiry", span, now, "the agent should have renewed it by now: see its log")
    many = f"chain of {len(svid.chain)}" if len(svid.chain) > 1 else "signed by the authority itself"
    yield ok("key", f"{describe_key(svid.private_key)}, {many}, verifies against the bundle of {svid.spiffe_id.trust_domain}")
    yield from _describe_bundles(context, svid.spiffe_id.trust_domain, now)
    return SvidCredentials(svid, context.bundles)


def has_living(authorities: tuple[Certificate, ...], now: datetime) -> bool:
    """Whether one of them at least is within its dates."""
    return any(one.not_before <= now <= one.not_after for one in authorities)


def _describe_bundles(context: X509Context, own: TrustDomain, now: datetime) -> Iterator[Finding]:
    bundles = context.bundles.bundles
    others = [_bundle_words(bundles[domain]) for domain in sorted(bundles) if domain != own]
    federated = f"federated: {', '.join(others)}" if others else "federated with none"
    yield ok("trust-domains", f"{_bundle_words(bundles[own])} is ours, {federated}")
    for note in context.notes:
        yield warning("trust-domains", note, "correct that bundle where the agent's server has it from")
    if context.crl_count:
        seen = f"the agent sends revocation lists ({context.crl_count}), which are not used"
        yield warning("trust-domains", seen, "rely on short lifetimes, and not on revocation")
    for domain, bundle in sorted(bundles.items()):
        for _anchor, refusal in build_anchors(bundle.authorities, check_anchor).refused:
            yield warning("trust-domains", f"{domain}: {refusal}", "every SVID that it has signed is refused: replace it")
        if not has_living(bundle.authorities, now):
            seen = f"the bundle of {domain} holds no authority that is valid now"
            yield warning("trust-domains", seen, f"nobody of {domain} verifies: refresh the federation with it")


def _bundle_words(bundle: TrustBundle) -> str:
    count = len(bundle.authorities)
    return f"{bundle.trust_domain} ({count} authorit{'y' if count == 1 else 'ies'})"
