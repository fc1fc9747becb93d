"""Describes which peers the access rules admit, and finds rules that can admit none.

A rule that can admit no peer is a problem if it is the only one, and a warning if there are others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from tunnel.authz.pattern import UriPattern
from tunnel.authz.rules import (
    AllRule,
    AnyRule,
    CommonNameRule,
    DenyRule,
    DnsRule,
    IdRule,
    IpRule,
    KeyRule,
    PolicyRule,
    Rule,
    SourceRule,
    TrustDomainRule,
    UnitRule,
    UriRule,
)
from tunnel.check.finding import Finding, ok, problem, warning
from tunnel.check.preflight import Preflight
from tunnel.errors import SpiffeIdError
from tunnel.identity.credentials import Credentials, SvidCredentials
from tunnel.lazy_dataclass import dataclass
from tunnel.spiffe.bundle import BundleSet
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id, parse_trust_domain

NAME = "rule"
_EXAMPLE_SEGMENT = "x"


@dataclass(frozen=True, slots=True)
class RuleMeaning:
    """Which peers a rule admits, and its fault if it has one."""

    admits: str
    fault: str = ""
    advice: str = ""
    is_void: bool = False  # it can admit no peer


def describe_rules(preflight: Preflight, credentials: Credentials | None) -> Iterator[Finding]:
    """Yield a finding for each rule; without credentials, trust domains are not checked."""
    access = preflight.config.access
    if preflight.config.is_server and not access.is_mutual:
        advice = "remove --disable-authentication, unless this is intended"
        yield warning(NAME, "no client certificate is requested: every client that reaches the port is admitted", advice)
        return
    if access.pins:
        yield ok(
            NAME,
            f"admits a {preflight.peer} with one of {len(access.pins)} pinned keys, whatever else its certificate contains",
        )
        return
    own, bundles = None, None
    if isinstance(credentials, SvidCredentials):
        own, bundles = credentials.svid.spiffe_id.trust_domain, credentials.bundles
    meanings = [describe_rule(rule, preflight.peer, own, bundles) for rule in access.rules]
    is_fatal = access.policy is None and all(meaning.is_void for meaning in meanings)
    for rule, meaning in zip(access.rules, meanings, strict=True):
        detail = f"{_flag(rule, preflight)}: {meaning.admits}"
        if not meaning.fault:
            yield ok(NAME, detail)
        elif meaning.is_void and is_fatal:
            yield problem(NAME, f"{detail}; {meaning.fault}", meaning.advice)
        else:
            yield warning(NAME, f"{detail}; {meaning.fault}", meaning.advice)
    if access.policy is not None:
        scope = f" of {own}" if own else ""
        peers = f"every {preflight.peer}{scope} that no other rule admits"
        yield ok(NAME, f"--{preflight.verb}-policy: {access.policy.query} decides on {peers}")


def _flag(rule: Rule, preflight: Preflight) -> str:
    """Return the rule as a flag; the kinds that no flag makes by their own text."""
    if isinstance(rule, KeyRule | SourceRule | AllRule | DenyRule):
        return str(rule)
    if isinstance(rule, AnyRule):
        everyone = "--allow-all" if preflight.config.is_server else "--verify-any"
        return everyone if rule.name == "any" else rule.name
    kind, _, value = str(rule).partition(":")
    return f"--{preflight.verb}-{kind} {value}"


def describe_rule(rule: Rule, peer: str, own: TrustDomain | None, bundles: BundleSet | None) -> RuleMeaning:
    """Return which peers a rule admits; `own` is our trust domain, None if there is none or it is not known."""
    match rule:
        case IdRule():
            return _with_bundle(RuleMeaning(f"this {peer}"), rule.spiffe_id.trust_domain, bundles)
        case TrustDomainRule():
            return _with_bundle(RuleMeaning(f"every {peer} of this trust domain"), rule.trust_domain, bundles)
        case UriRule():
            return _describe_pattern(rule.pattern, peer, own, bundles)
        case AnyRule():
            return _describe_any(rule, peer, own, bundles)
        case PolicyRule():
            return RuleMeaning(f"every {peer} that the policy admits")
        case CommonNameRule():
            return _describe_name("common name", peer, own)
        case UnitRule():
            return _describe_name("organizational unit", peer, own)
        case DnsRule():
            return _describe_name("DNS name", peer, own)
        case IpRule():
            return _describe_name("IP address", peer, own)
        case KeyRule():
            return _describe_name("public key", peer, own)
        case SourceRule():
            return RuleMeaning(f"every {peer}{_scope(own)} that connects from these networks")
        case AllRule():
            return _describe_all(rule, peer, own, bundles)
        case DenyRule():
            denied = describe_rule(rule.condition, peer, None, bundles)
            return RuleMeaning(f"refuses {denied.admits}", is_void=True)
        case _:
            assert_never(rule)


def _describe_name(kind: str, peer: str, own: TrustDomain | None) -> RuleMeaning:
    return RuleMeaning(f"every {peer}{_scope(own)} whose certificate has this {kind}")


def _scope(own: TrustDomain | None) -> str:
    return f" of {own}, our own trust domain," if own else ""


def _describe_all(rule: AllRule, peer: str, own: TrustDomain | None, bundles: BundleSet | None) -> RuleMeaning:
    """Describe conditions that must all match; one that names a trust domain frees the others from our own."""
    own = None if rule.names_trust_domain() else own
    meanings = [describe_rule(part, peer, own, bundles) for part in rule.parts]
    faulty = next((meaning for meaning in meanings if meaning.fault), RuleMeaning(""))
    admits = "the peers that are all of: " + "; ".join(meaning.admits for meaning in meanings)
    return RuleMeaning(admits, faulty.fault, faulty.advice, faulty.is_void)


def _describe_any(rule: AnyRule, peer: str, own: TrustDomain | None, bundles: BundleSet | None) -> RuleMeaning:
    if rule.name == "host-name":
        return RuleMeaning("the server whose certificate verifies and has the name of the host")
    others = sorted(domain.name for domain in bundles.bundles if domain != own) if bundles and own else []
    admits = f"every {peer} whose certificate verifies"
    if not others:
        return RuleMeaning(f"{admits}{f', which is every {peer} of {own}' if own else ''}")
    fault = f"besides {own} it admits {', '.join(others)}, and every trust domain that is federated later"
    return RuleMeaning(admits, fault, "name the intended peers, unless all are intended")


def _describe_pattern(pattern: UriPattern, peer: str, own: TrustDomain | None, bundles: BundleSet | None) -> RuleMeaning:
    """Describe a URI pattern; with SPIFFE, by an example ID that it matches."""
    admits = f"every {peer} whose URI matches"
    if bundles is None:
        return RuleMeaning(admits)
    example = _find_example(pattern, own)
    if example is None:
        return RuleMeaning(admits, "no workload SPIFFE ID can match", _pattern_advice(pattern), is_void=True)
    scope = "" if pattern.names_trust_domain() else f" and is in {own}, our own trust domain"
    meaning = RuleMeaning(f"{admits}{scope}, for example {example}")
    return _with_bundle(meaning, parse_spiffe_id(example).trust_domain, bundles)


def _find_example(pattern: UriPattern, own: TrustDomain | None) -> str | None:
    """Return a workload ID that matches, None if there is none."""
    domain = own.name if own else _EXAMPLE_SEGMENT
    segments = pattern.text.rstrip("/").split("/")
    if segments[-1] == "**":
        whole = ["spiffe:", "", domain]
        segments = [*segments[:-1], *whole[len(segments) - 1 :], _EXAMPLE_SEGMENT]
    filled = [_EXAMPLE_SEGMENT if part == "*" else part for part in segments]
    if len(segments) > 2 and segments[2] == "*":
        filled[2] = domain
    if segments[0] == "*":
        filled[0] = "spiffe:"
    text = "/".join(filled)
    try:
        is_id = parse_spiffe_id(text).is_workload()
    except SpiffeIdError:
        return None
    return text if is_id and pattern.is_match(text) else None


def _pattern_advice(pattern: UriPattern) -> str:
    text = pattern.text.rstrip("/")
    if not text.startswith("spiffe://"):
        return "write the complete ID, starting with spiffe://"
    try:
        parse_trust_domain(text)
    except SpiffeIdError as error:
        return f"use valid SPIFFE ID characters, and no wildcard inside a segment: {error}"
    return f"write {text}/** for the whole trust domain"


def _with_bundle(meaning: RuleMeaning, domain: TrustDomain, bundles: BundleSet | None) -> RuleMeaning:
    if bundles is None or domain in bundles.bundles:
        return meaning
    why = bundles.disabled.get(domain, "the agent sends no bundle of it")
    advice = f"federate our entry with {domain} (spire-server entry update -federatesWith {domain}), or correct the name"
    return RuleMeaning(meaning.admits, f"no peer of {domain} can be verified: {why}", advice, is_void=True)
