"""Each rule is told in words, and one that can admit nobody is found out."""

from __future__ import annotations

import pytest

from tests.support.cert_factory import authority
from tunnel.authz.pattern import parse_pattern
from tunnel.authz.rules import AnyRule, CommonNameRule, DnsRule, IdRule, Rule, TrustDomainRule, UriRule
from tunnel.check.rules import read_rule
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id

OWN, PARTNER, BROKEN = TrustDomain("a.test"), TrustDomain("b.test"), TrustDomain("broken.test")
BUNDLE = TrustBundle(OWN, (authority().certificate,))
ALONE = BundleSet({OWN: BUNDLE})
FEDERATED = BundleSet({OWN: BUNDLE, PARTNER: BUNDLE}, {BROKEN: "it cannot be read"})


def uri(text: str) -> Rule:
    return UriRule(parse_pattern(text))


@pytest.mark.parametrize(
    ("rule", "whom"),
    [
        (IdRule(parse_spiffe_id("spiffe://a.test/w")), "that very client"),
        (TrustDomainRule(PARTNER), "every client of it"),
        (uri("spiffe://b.test/ns/*/sa/web"), "spiffe://b.test/ns/x/sa/web for instance"),
        (uri("spiffe://b.test/**"), "spiffe://b.test/x for instance"),
        (uri("spiffe://*/web"), "is of a.test, our own trust domain, spiffe://a.test/web for instance"),
        (uri("**"), "is of a.test, our own trust domain, spiffe://a.test/x for instance"),
        (uri("spiffe://**"), "spiffe://a.test/x for instance"),
        (uri("*//a.test/x/"), "spiffe://a.test/x for instance"),
        (CommonNameRule("web"), "every client of a.test, our own trust domain, whose certificate has this common name"),
        (DnsRule("web"), "this DNS name"),
    ],
    ids=str,
)
def test_a_rule_that_works_says_whom_it_admits(rule: Rule, whom: str) -> None:
    reading = read_rule(rule, "client", OWN, FEDERATED)
    assert not reading.fault
    assert whom in reading.whom


@pytest.mark.parametrize(
    ("rule", "fault", "advice"),
    [
        (IdRule(parse_spiffe_id("spiffe://c.test/w")), "the agent gives us no bundle of it", "federate with c.test"),
        (TrustDomainRule(BROKEN), "it cannot be read", "federate with broken.test"),
        (uri("spiffe://c.test/**"), "nobody of c.test can be verified", "-federatesWith c.test"),
        (uri("spiffe://a.test"), "no SPIFFE ID of a workload", "write spiffe://a.test/**"),
        (uri("spiffe://A.test/**"), "no SPIFFE ID of a workload", "in these letters"),
        (uri("spiffe://a.test/a b"), "no SPIFFE ID of a workload", "in these letters"),
        (uri("https://a.test/w"), "no SPIFFE ID of a workload", "write the whole ID"),
        (uri("/ns/prod/**"), "no SPIFFE ID of a workload", "write the whole ID"),
    ],
    ids=str,
)
def test_a_rule_that_admits_nobody_says_why(rule: Rule, fault: str, advice: str) -> None:
    reading = read_rule(rule, "client", OWN, FEDERATED)
    assert reading.is_dead
    assert fault in reading.fault
    assert advice in reading.advice


def test_everyone_is_fine_alone_and_a_surprise_when_federated() -> None:
    assert not read_rule(AnyRule(), "server", OWN, ALONE).fault
    reading = read_rule(AnyRule(), "server", OWN, FEDERATED)
    assert "besides a.test that is everyone of b.test" in reading.fault
    assert not reading.is_dead


def test_without_bundles_nothing_is_held_against_a_rule() -> None:
    for rule in (IdRule(parse_spiffe_id("spiffe://c.test/w")), uri("https://a.test/w"), AnyRule(), AnyRule("host-name")):
        assert not read_rule(rule, "server", None, None).fault
