"""Whom the rules admit, in words.

Knows what each rule means under our own trust domain and the bundles at hand; must not know any peer. A rule that can admit
nobody is wrong by itself when it is alone, and a slip worth a warning when it is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tunnel.authz.pattern import UriPattern
from tunnel.authz.rules import AnyRule, IdRule, PolicyRule, Rule, TrustDomainRule, UriRule
from tunnel.check.case import Case
from tunnel.check.finding import Finding, ok, problem, warning
from tunnel.errors import SpiffeIdError
from tunnel.identity.credentials import Credentials, SvidCredentials
from tunnel.spiffe.bundle import BundleSet
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id, parse_trust_domain

NAME = "rule"
_NAMES = {"cn": "common name", "ou": "organizational unit", "dns": "DNS name", "ip": "IP address"}
_ANY_SEGMENT = "x"


@dataclass(frozen=True, slots=True)
class RuleMeaning:
    """A rule in words, and what is wrong with it if something is."""

    whom: str
    fault: str = ""
    advice: str = ""
    is_dead: bool = False  # it can admit nobody


def describe_rules(case: Case, credentials: Credentials | None) -> Iterator[Finding]:
    """A line for each rule; without credentials, as far as the rules say it by themselves."""
    access = case.config.access
    if case.config.is_server and not access.is_mutual:
        advice = "leave --disable-authentication out, unless everyone is meant"
        yield warning(NAME, "no certificate is asked for: everyone who reaches the port may pass", advice)
        return
    if access.pins:
        yield ok(NAME, f"the {case.peer} with one of {len(access.pins)} pinned keys passes, whatever else its certificate says")
        return
    own, bundles = None, None
    if isinstance(credentials, SvidCredentials):
        own, bundles = credentials.svid.spiffe_id.trust_domain, credentials.bundles
    readings = [read_rule(rule, case.peer, own, bundles) for rule in access.rules]
    is_fatal = access.policy is None and all(reading.is_dead for reading in readings)
    for rule, reading in zip(access.rules, readings, strict=True):
        seen = f"{_flag(rule, case)}: {reading.whom}"
        if not reading.fault:
            yield ok(NAME, seen)
        elif reading.is_dead and is_fatal:
            yield problem(NAME, f"{seen}; {reading.fault}", reading.advice)
        else:
            yield warning(NAME, f"{seen}; {reading.fault}", reading.advice)
    if access.policy is not None:
        scope = f" of {own}" if own else ""
        yield ok(
            NAME,
            f"--{case.verb}-policy: {access.policy.query} is asked about every {case.peer}{scope} whom nothing else admits",
        )


def _flag(rule: Rule, case: Case) -> str:
    """The rule as it is written on the line."""
    if isinstance(rule, AnyRule):
        everyone = "--allow-all" if case.config.is_server else "--verify-any"
        return everyone if rule.name == "any" else rule.name
    kind, _, value = str(rule).partition(":")
    return f"--{case.verb}-{kind} {value}"


def read_rule(rule: Rule, peer: str, own: TrustDomain | None, bundles: BundleSet | None) -> RuleMeaning:
    """What a rule means; `own` is our trust domain, None where there is none or it is not known."""
    match rule:
        case IdRule():
            return _with_bundle(RuleMeaning(f"that very {peer}"), rule.spiffe_id.trust_domain, bundles)
        case TrustDomainRule():
            return _with_bundle(RuleMeaning(f"every {peer} of it"), rule.trust_domain, bundles)
        case UriRule():
            return _read_pattern(rule.pattern, peer, own, bundles)
        case AnyRule():
            return _read_any(rule, peer, own, bundles)
        case PolicyRule():
            return RuleMeaning("whom the policy admits")
        case _:
            scope = f" of {own}, our own trust domain," if own else ""
            return RuleMeaning(f"every {peer}{scope} whose certificate has this {_NAMES[str(rule).partition(':')[0]]}")


def _read_any(rule: AnyRule, peer: str, own: TrustDomain | None, bundles: BundleSet | None) -> RuleMeaning:
    if rule.name == "host-name":
        return RuleMeaning("the server whose certificate verifies and has the host's name")
    others = sorted(domain.name for domain in bundles.bundles if domain != own) if bundles and own else []
    whom = f"every {peer} whose certificate verifies"
    if not others:
        return RuleMeaning(f"{whom}{f', which is everyone of {own}' if own else ''}")
    fault = f"besides {own} that is everyone of {', '.join(others)}, and of what is federated later"
    return RuleMeaning(whom, fault, "name those that are meant, unless it is everyone")


def _read_pattern(pattern: UriPattern, peer: str, own: TrustDomain | None, bundles: BundleSet | None) -> RuleMeaning:
    """Under SPIFFE the pattern is tried on an ID of its own making: no ID, no match."""
    whom = f"every {peer} whose URI matches"
    if bundles is None:
        return RuleMeaning(whom)
    example = _example(pattern, own)
    if example is None:
        return RuleMeaning(whom, "no SPIFFE ID of a workload can match that", _pattern_advice(pattern), is_dead=True)
    scope = "" if pattern.names_trust_domain() else f" and is of {own}, our own trust domain"
    reading = RuleMeaning(f"{whom}{scope}, {example} for instance")
    return _with_bundle(reading, parse_spiffe_id(example).trust_domain, bundles)


def _example(pattern: UriPattern, own: TrustDomain | None) -> str | None:
    """A workload's ID that matches, None if there is none."""
    domain = own.name if own else _ANY_SEGMENT
    segments = pattern.text.rstrip("/").split("/")
    if segments[-1] == "**":
        whole = ["spiffe:", "", domain]
        segments = [*segments[:-1], *whole[len(segments) - 1 :], _ANY_SEGMENT]
    filled = [_ANY_SEGMENT if part == "*" else part for part in segments]
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
        return "write the whole ID, from spiffe:// on"
    try:
        parse_trust_domain(text)
    except SpiffeIdError as error:
        return f"an ID is written without wildcards inside a segment, and in these letters: {error}"
    return f"write {text}/** for everyone of that trust domain"


def _with_bundle(reading: RuleMeaning, domain: TrustDomain, bundles: BundleSet | None) -> RuleMeaning:
    if bundles is None or domain in bundles.bundles:
        return reading
    why = bundles.disabled.get(domain, "the agent gives us no bundle of it")
    advice = f"have our entry federate with {domain} (spire-server entry update -federatesWith {domain}), or mend the name"
    return RuleMeaning(reading.whom, f"nobody of {domain} can be verified: {why}", advice, is_dead=True)
