"""What each rule admits, seen from our own trust domain."""

from __future__ import annotations

import pytest

from tunnel.authz.authorizer import Authorizer
from tunnel.authz.pattern import parse_pattern
from tunnel.authz.peer import Admitted, Peer
from tunnel.authz.rules import AnyRule, IdRule, Rule, TrustDomainRule, UriRule
from tunnel.errors import Denial, PeerDenied
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id

OWN = TrustDomain("a.test")


def peer(uri: str) -> Peer:
    return Peer(parse_spiffe_id(uri), "CN=anyone")


def uri_rule(pattern: str) -> UriRule:
    return UriRule(parse_pattern(pattern))


def id_rule(uri: str) -> IdRule:
    return IdRule(parse_spiffe_id(uri))


OURS, THEIRS, DEEP = "spiffe://a.test/w", "spiffe://b.test/w", "spiffe://a.test/ns/prod/sa/db"

# A rule, and which of the peers it admits.
TABLE: list[tuple[Rule, set[str]]] = [
    (id_rule(OURS), {OURS}),
    (id_rule(THEIRS), {THEIRS}),
    (id_rule("spiffe://a.test/W"), set()),
    (id_rule("spiffe://a.test"), set()),
    (TrustDomainRule(TrustDomain("a.test")), {OURS, DEEP}),
    (TrustDomainRule(TrustDomain("b.test")), {THEIRS}),
    (TrustDomainRule(TrustDomain("test")), set()),
    (uri_rule("spiffe://a.test/**"), {OURS, DEEP}),
    (uri_rule("spiffe://a.test/*"), {OURS}),
    (uri_rule("spiffe://b.test/*"), {THEIRS}),
    # A wildcard in the trust domain's place stands for our own.
    (uri_rule("spiffe://*/w"), {OURS}),
    (uri_rule("spiffe://*/**"), {OURS, DEEP}),
    (uri_rule("spiffe://**"), {OURS, DEEP}),
    (uri_rule("spiffe:/**"), {OURS, DEEP}),
    (uri_rule("*//b.test/w"), set()),
    (uri_rule("*/*/b.test/w"), set()),
    (uri_rule("**"), {OURS, DEEP}),
    (uri_rule("https://a.test/**"), set()),
    (AnyRule(), {OURS, THEIRS, DEEP}),
]


@pytest.mark.parametrize(("rule", "admitted"), TABLE, ids=[str(rule) for rule, _ in TABLE])
def test_a_rule_admits_exactly(rule: Rule, admitted: set[str]) -> None:
    assert {uri for uri in (OURS, THEIRS, DEEP) if rule.admits(peer(uri), OWN)} == admitted


def test_no_rule_no_admission() -> None:
    with pytest.raises(PeerDenied) as refused:
        Authorizer((), OWN).decide(peer(OURS))
    assert refused.value.reason is Denial.NO_RULE
    assert OURS in str(refused.value)


def test_rules_are_joined_by_or_and_the_first_that_admits_is_named() -> None:
    authorizer = Authorizer((id_rule(THEIRS), uri_rule("spiffe://a.test/*"), AnyRule()), OWN)
    assert authorizer.decide(peer(THEIRS)) == Admitted(peer(THEIRS), f"id:{THEIRS}")
    assert authorizer.decide(peer(OURS)).rule == "uri:spiffe://a.test/*"
    assert authorizer.decide(peer(DEEP)).rule == "any"


def test_a_peer_whom_no_rule_admits_is_refused() -> None:
    authorizer = Authorizer((id_rule(OURS), TrustDomainRule(TrustDomain("c.test"))), OWN)
    for uri in (THEIRS, DEEP):
        with pytest.raises(PeerDenied) as refused:
            authorizer.decide(peer(uri))
        assert refused.value.reason is Denial.NO_RULE


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (id_rule(OURS), "id:spiffe://a.test/w"),
        (TrustDomainRule(OWN), "trust-domain:a.test"),
        (uri_rule("spiffe://*/w"), "uri:spiffe://*/w"),
        (AnyRule(), "any"),
    ],
)
def test_a_rule_is_named_in_the_log_as_it_is_written(rule: Rule, text: str) -> None:
    assert str(rule) == text
