"""Warnings about access rules: those that match or decide nothing, and those that match more or less than it seems."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.authz.authorizer import Authorizer, RuleEffect
from tunnel.authz.pattern import parse_pattern
from tunnel.authz.peer import Peer
from tunnel.authz.pins import SpkiPin
from tunnel.authz.rules import (
    AllRule,
    AnyRule,
    CommonNameRule,
    DenyRule,
    Fact,
    IdRule,
    KeyRule,
    Rule,
    SourceRule,
    TrustDomainRule,
    UriRule,
)
from tunnel.config.access_warnings import list_warnings
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id

EVERYONE = "admits every valid SVID of our own trust domain and of every federated trust domain"
OWN_ONLY = "names no trust domain: it matches peers of our own only"
ROTATES = "matches until the next rotation of the peer's SVID, which changes its key"
KEY = KeyRule(SpkiPin("sha256", bytes(32)))
PARTNER = TrustDomainRule(TrustDomain("b.test"))
SHADOWED = "never decides: an earlier rule matches the same peers"
WEB = IdRule(parse_spiffe_id("spiffe://a.test/web"))
CANARY = IdRule(parse_spiffe_id("spiffe://a.test/web/canary"))
WEBS = UriRule(parse_pattern("spiffe://a.test/web/**"))
CN = CommonNameRule("x")
LOCAL = SourceRule((ip_network("127.0.0.0/8"),))


@pytest.mark.parametrize(
    ("rules", "warnings"),
    [
        ((PARTNER,), []),
        ((AnyRule(),), [((0,), EVERYONE)]),
        ((UriRule(parse_pattern("https://x/**")),), [((0,), "cannot match a SPIFFE ID")]),
        ((CommonNameRule("x"), PARTNER), [((0,), OWN_ONLY)]),
        ((KEY,), [((0,), ROTATES)]),
        ((AllRule((PARTNER, KEY)),), [((0,), ROTATES)]),
        ((DenyRule(KEY), DenyRule(CommonNameRule("x")), PARTNER), []),
        ((DenyRule(PARTNER),), [((), "no rule admits a peer: every peer is refused")]),
        ((DenyRule(AnyRule()), PARTNER), [((1,), "never decides: an earlier rule matches every peer")]),
        ((WEB, WEB), [((1,), SHADOWED)]),
        ((WEBS, DenyRule(CANARY)), [((1,), SHADOWED)]),
        ((DenyRule(CANARY), WEBS), []),
        ((PARTNER, AllRule((IdRule(parse_spiffe_id("spiffe://b.test/x")), LOCAL))), [((1,), SHADOWED)]),
        ((CN, DenyRule(CN)), [((0,), OWN_ONLY)]),  # the second rule decides on peers of other trust domains
        ((DenyRule(CN), CN), [((1,), OWN_ONLY), ((1,), SHADOWED)]),
        ((AllRule((WEB, LOCAL)), DenyRule(AllRule((WEB, LOCAL)))), []),  # the second rule matches clients of unknown address
    ],
)
def test_a_rule_with_an_effect_that_may_surprise_has_a_warning(rules: tuple[Rule, ...], warnings: list[object]) -> None:
    assert list_warnings(rules, has_policy=False, is_spiffe=True) == warnings


def test_with_a_policy_a_list_may_only_deny_and_without_spiffe_a_rule_needs_no_trust_domain() -> None:
    assert list_warnings((DenyRule(PARTNER),), has_policy=True, is_spiffe=True) == []
    assert list_warnings((CommonNameRule("x"), KEY), has_policy=False, is_spiffe=False) == []


def test_a_rule_of_a_trust_domain_that_is_not_accepted_never_matches() -> None:
    def warnings(*rules: Rule) -> list[object]:
        accepted = [TrustDomain("a.test")]
        return list(list_warnings(rules, has_policy=False, is_spiffe=True, trust_domains=accepted))

    never = "never matches: trust-domains does not have the trust domain of this rule"
    assert warnings(WEB, PARTNER) == [((1,), never)]
    assert warnings(AllRule((PARTNER, LOCAL)), DenyRule(PARTNER), WEB) == [((0,), never), ((1,), never)]


IDS = [parse_spiffe_id(f"spiffe://{domain}.test/{path}") for domain in ("a", "b") for path in ("web", "web/canary")]
PARTS: list[Fact] = [
    *map(IdRule, IDS),
    *(TrustDomainRule(TrustDomain(name)) for name in ("a.test", "b.test")),
    *(UriRule(parse_pattern(text)) for text in ("spiffe://a.test/**", "spiffe://*/web", "spiffe://b.test/web/*")),
    CommonNameRule("x"),
    LOCAL,
]
CONDITIONS = st.sampled_from(PARTS) | st.builds(AllRule, st.lists(st.sampled_from(PARTS), min_size=2, max_size=3).map(tuple))
RULES = st.lists(CONDITIONS | st.builds(DenyRule, CONDITIONS) | st.just(AnyRule()), min_size=1, max_size=6)
PEERS = [Peer(f"CN={name}", one, common_name=name, uris=(str(one),)) for one in IDS for name in ("x", "y")]
SOURCES = [None, ip_address("127.0.0.1"), ip_address("10.0.0.1")]


@given(RULES, st.booleans())
def test_a_rule_that_is_said_never_to_decide_never_does(rules: list[Rule], is_spiffe: bool) -> None:
    found = list_warnings(rules, has_policy=False, is_spiffe=is_spiffe)
    unused = {path[0] for path, text in found if text.startswith("never decides")}
    authorizer = Authorizer(tuple(rules), TrustDomain("a.test") if is_spiffe else None)
    for peer in PEERS:
        for source in SOURCES:
            judged = list(authorizer.judge(peer, source))
            is_decided = judged[-1][1] in (RuleEffect.ADMITS, RuleEffect.DENIES)
            assert not is_decided or len(judged) - 1 not in unused


def test_only_the_first_patterns_of_a_list_are_compared_with_each_id() -> None:
    patterns = [UriRule(parse_pattern(f"spiffe://a.test/{number}/*")) for number in range(100)]
    rules = [IdRule(parse_spiffe_id(f"spiffe://a.test/{number}/x")) for number in (0, 99)]
    assert list_warnings([*patterns, *rules], has_policy=False, is_spiffe=True) == [((100,), SHADOWED)]
