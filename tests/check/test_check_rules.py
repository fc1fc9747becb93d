"""The description of each access rule, and the rules that can admit no peer."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from tests.support.cert_factory import authority
from tunnel.authz.pattern import parse_pattern
from tunnel.authz.pins import SpkiPin
from tunnel.authz.rules import (
    AllRule,
    AnyRule,
    CommonNameRule,
    DenyRule,
    DnsRule,
    IdRule,
    KeyRule,
    Rule,
    SourceRule,
    TrustDomainRule,
    UriRule,
)
from tunnel.check.rules import describe_rule
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id

OWN, PARTNER, BROKEN = TrustDomain("a.test"), TrustDomain("b.test"), TrustDomain("broken.test")
BUNDLE = TrustBundle(OWN, (authority().certificate,))
ALONE = BundleSet({OWN: BUNDLE})
NETWORK = SourceRule((ip_network("10.0.0.0/8"),))
FEDERATED = BundleSet({OWN: BUNDLE, PARTNER: BUNDLE}, {BROKEN: "it cannot be read"})


def uri(text: str) -> Rule:
    return UriRule(parse_pattern(text))


@pytest.mark.parametrize(
    ("rule", "admits"),
    [
        (IdRule(parse_spiffe_id("spiffe://a.test/w")), "this client"),
        (TrustDomainRule(PARTNER), "every client of this trust domain"),
        (uri("spiffe://b.test/ns/*/sa/web"), "for example spiffe://b.test/ns/x/sa/web"),
        (uri("spiffe://b.test/**"), "for example spiffe://b.test/x"),
        (uri("spiffe://*/web"), "is in a.test, our own trust domain, for example spiffe://a.test/web"),
        (uri("**"), "is in a.test, our own trust domain, for example spiffe://a.test/x"),
        (uri("spiffe://**"), "for example spiffe://a.test/x"),
        (uri("*//a.test/x/"), "for example spiffe://a.test/x"),
        (CommonNameRule("web"), "every client of a.test, our own trust domain, whose certificate has this common name"),
        (DnsRule("web"), "this DNS name"),
        (KeyRule(SpkiPin("sha256", bytes(32))), "this public key"),
        (NETWORK, "every client of a.test, our own trust domain, that connects from these networks"),
        (AllRule((TrustDomainRule(PARTNER), NETWORK)), "of this trust domain; every client that connects from these networks"),
        (DenyRule(CommonNameRule("web")), "refuses every client whose certificate has this common name"),
    ],
    ids=str,
)
def test_a_rule_that_works_says_which_peers_it_admits(rule: Rule, admits: str) -> None:
    meaning = describe_rule(rule, "client", OWN, FEDERATED)
    assert not meaning.fault
    assert admits in meaning.admits


@pytest.mark.parametrize(
    ("rule", "fault", "advice"),
    [
        (IdRule(parse_spiffe_id("spiffe://c.test/w")), "the agent sends no bundle of it", "federate our entry with c.test"),
        (TrustDomainRule(BROKEN), "it cannot be read", "federate our entry with broken.test"),
        (AllRule((NETWORK, TrustDomainRule(BROKEN))), "it cannot be read", "federate our entry with broken.test"),
        (uri("spiffe://c.test/**"), "no peer of c.test can be verified", "-federatesWith c.test"),
        (uri("spiffe://a.test"), "no workload SPIFFE ID", "write spiffe://a.test/**"),
        (uri("spiffe://A.test/**"), "no workload SPIFFE ID", "use valid SPIFFE ID characters"),
        (uri("spiffe://a.test/a b"), "no workload SPIFFE ID", "use valid SPIFFE ID characters"),
        (uri("https://a.test/w"), "no workload SPIFFE ID", "write the complete ID"),
        (uri("/ns/prod/**"), "no workload SPIFFE ID", "write the complete ID"),
    ],
    ids=str,
)
def test_a_rule_that_admits_nobody_says_why(rule: Rule, fault: str, advice: str) -> None:
    meaning = describe_rule(rule, "client", OWN, FEDERATED)
    assert meaning.is_void
    assert fault in meaning.fault
    assert advice in meaning.advice


def test_everyone_is_fine_alone_and_a_surprise_when_federated() -> None:
    assert not describe_rule(AnyRule(), "server", OWN, ALONE).fault
    meaning = describe_rule(AnyRule(), "server", OWN, FEDERATED)
    assert "besides a.test it admits b.test" in meaning.fault
    assert not meaning.is_void


def test_without_bundles_nothing_is_held_against_a_rule() -> None:
    for rule in (IdRule(parse_spiffe_id("spiffe://c.test/w")), uri("https://a.test/w"), AnyRule(), AnyRule("host-name")):
        assert not describe_rule(rule, "server", None, None).fault
