"""An access list: the first rule that matches decides, a deny holds for every trust domain, and no match is a denial."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
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
    Condition,
    DenyRule,
    Fact,
    IdRule,
    KeyRule,
    PolicyRule,
    Rule,
    SourceRule,
    TrustDomainRule,
    UriRule,
)
from tunnel.errors import Denial, PeerDenied
from tunnel.ip_address import IpAddress
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id

OWN, PARTNER = TrustDomain("a.test"), TrustDomain("b.test")
KEY = b"a public key in DER"
PIN = SpkiPin("sha256", hashlib.sha256(KEY).digest())
INSIDE, OUTSIDE, INSIDE_6 = ip_address("10.1.2.3"), ip_address("192.0.2.1"), ip_address("2001:db8::7")


def peer(uri: str, name: str = "") -> Peer:
    return Peer("", parse_spiffe_id(uri), uris=(uri,), common_name=name, public_key=KEY)


def pattern(text: str) -> UriRule:
    return UriRule(parse_pattern(text))


def networks(*texts: str) -> SourceRule:
    return SourceRule(tuple(ip_network(text) for text in texts))


WEB, CANARY, DB = (f"spiffe://a.test/{path}" for path in ("web/1", "web/canary", "db"))
THEIRS = "spiffe://b.test/w"
LIST: tuple[Rule, ...] = (
    DenyRule(IdRule(parse_spiffe_id(CANARY))),
    pattern("spiffe://a.test/web/**"),
    TrustDomainRule(PARTNER),
)


def refusal(authorizer: Authorizer, who: Peer, source: IpAddress | None = None) -> PeerDenied:
    with pytest.raises(PeerDenied) as refused:
        authorizer.decide(who, source)
    return refused.value


def is_admitted(rules: tuple[Rule, ...], who: Peer, source: IpAddress | None = None) -> bool:
    try:
        Authorizer(rules, OWN).decide(who, source)
    except PeerDenied:
        return False
    return True


def test_the_first_rule_that_matches_decides() -> None:
    authorizer = Authorizer(LIST, OWN)
    assert authorizer.decide(peer(WEB)).rule == "uri:spiffe://a.test/web/**"
    assert authorizer.decide(peer(THEIRS)).rule == "trust-domain:b.test"
    denied = refusal(authorizer, peer(CANARY))
    assert denied.reason is Denial.DENY_RULE
    assert str(denied) == f"denied-by-rule: unauthorized: rule deny:id:{CANARY}: {CANARY}"
    assert refusal(authorizer, peer(DB)).reason is Denial.NO_RULE
    assert Authorizer(LIST[1:] + LIST[:1], OWN).decide(peer(CANARY)).rule == "uri:spiffe://a.test/web/**", "order counts"


def test_a_list_of_denies_admits_nobody() -> None:
    assert refusal(Authorizer(LIST[:1], OWN), peer(WEB)).reason is Denial.NO_RULE


def test_a_deny_without_a_trust_domain_holds_for_every_trust_domain() -> None:
    for who in (peer(WEB, "old"), peer(THEIRS, "old")):
        assert refusal(Authorizer((DenyRule(CommonNameRule("old")), AnyRule()), OWN), who).reason is Denial.DENY_RULE
    assert refusal(Authorizer((CommonNameRule("old"),), OWN), peer(THEIRS, "old")).reason is Denial.NO_RULE


def test_a_policy_is_not_evaluated_after_a_deny_nor_for_a_foreign_peer() -> None:
    asked: list[Peer] = []
    policy = PolicyRule("data.x", lambda who: not asked.append(who))
    rules: tuple[Rule, ...] = (DenyRule(IdRule(parse_spiffe_id(CANARY))), policy)
    assert not is_admitted(rules, peer(CANARY))
    assert not is_admitted(rules, peer(THEIRS))
    assert asked == []
    assert is_admitted(rules, peer(DB))


# Trust domains that are accepted at all.


def test_a_trust_domain_that_is_not_accepted_is_refused_before_the_rules() -> None:
    authorizer = Authorizer((AnyRule(),), OWN, (OWN,))
    assert authorizer.decide(peer(WEB)).rule == "any"
    denied = refusal(authorizer, peer(THEIRS))
    assert denied.reason is Denial.FOREIGN_TRUST_DOMAIN
    assert str(denied) == f"trust-domain-not-accepted: unauthorized: {THEIRS}; accepted trust domains: a.test"
    assert refusal(authorizer, Peer("CN=no id")).reason is Denial.FOREIGN_TRUST_DOMAIN
    assert str(refusal(Authorizer((AnyRule(),), OWN, ()), peer(WEB))).endswith("accepted trust domains: none")


# Conditions on the connection and on the key.


@pytest.mark.parametrize(
    ("rule", "source", "matches"),
    [
        (networks("10.0.0.0/8"), INSIDE, True),
        (networks("10.0.0.0/8"), OUTSIDE, False),
        (networks("10.0.0.0/8"), ip_address("::ffff:10.1.2.3"), True),
        (networks("10.0.0.0/8"), INSIDE_6, False),
        (networks("10.0.0.0/8", "2001:db8::/32"), INSIDE_6, True),
        (networks("::/0"), INSIDE, False),
        (networks("192.0.2.1/32"), OUTSIDE, True),
    ],
    ids=str,
)
def test_a_source_rule_matches_by_the_address_of_the_client(rule: SourceRule, source: IpAddress, matches: bool) -> None:
    assert is_admitted((rule,), peer(WEB), source) is matches
    assert is_admitted((DenyRule(rule), AnyRule()), peer(WEB), source) is not matches


def test_a_client_of_unknown_source_is_not_admitted_by_a_source_rule_and_is_denied_by_one() -> None:
    rule = networks("10.0.0.0/8")
    assert not is_admitted((rule,), peer(WEB))
    assert not is_admitted((DenyRule(rule), AnyRule()), peer(WEB))
    pair = AllRule((CommonNameRule("old"), rule))
    assert not is_admitted((DenyRule(pair), AnyRule()), peer(WEB, "old"))
    assert is_admitted((DenyRule(pair), AnyRule()), peer(WEB, "new"))


def test_conditions_of_one_rule_are_joined_by_and() -> None:
    rule = AllRule((IdRule(parse_spiffe_id(THEIRS)), networks("10.0.0.0/8")))
    assert is_admitted((rule,), peer(THEIRS), INSIDE)
    assert not is_admitted((rule,), peer(THEIRS), OUTSIDE)
    assert not is_admitted((rule,), peer(WEB), INSIDE)
    assert str(rule) == f"id:{THEIRS}&source:10.0.0.0/8"


def test_one_condition_that_names_a_trust_domain_is_enough_for_the_rule() -> None:
    assert is_admitted((AllRule((TrustDomainRule(PARTNER), CommonNameRule("x"))),), peer(THEIRS, "x"))
    assert not is_admitted((AllRule((CommonNameRule("x"), networks("10.0.0.0/8"))),), peer(THEIRS, "x"), INSIDE)


def test_a_key_rule_matches_the_digest_of_the_public_key() -> None:
    assert is_admitted((KeyRule(PIN),), peer(WEB))
    assert not is_admitted((KeyRule(SpkiPin("sha256", bytes(32))),), peer(WEB))
    assert not is_admitted((KeyRule(PIN),), peer(THEIRS)), "it names no trust domain"
    assert not is_admitted((DenyRule(KeyRule(PIN)), AnyRule()), peer(THEIRS))
    assert str(DenyRule(KeyRule(PIN))) == f"deny:spki-pin:{PIN}"


def test_only_a_list_with_a_source_rule_needs_the_source() -> None:
    source = networks("10.0.0.0/8")
    for rule in (source, DenyRule(source), AllRule((AnyRule(), source))):
        assert Authorizer((AnyRule(), rule), OWN).needs_source()
    assert not Authorizer((*LIST, AllRule((AnyRule(), KeyRule(PIN)))), OWN).needs_source()


def test_the_judgement_ends_with_the_rule_that_decides() -> None:
    rules: tuple[Rule, ...] = (CommonNameRule("x"), DenyRule(CommonNameRule("y")), TrustDomainRule(PARTNER), AnyRule())
    effects = [effect for _rule, effect in Authorizer(rules, OWN).judge(peer(THEIRS, "x"), None)]
    assert effects == [RuleEffect.OWN_ONLY, RuleEffect.NO_MATCH, RuleEffect.ADMITS]
    effects = [effect for _rule, effect in Authorizer(rules, OWN).judge(peer(WEB, "y"), None)]
    assert effects == [RuleEffect.NO_MATCH, RuleEffect.DENIES]


# Any list decides as a plain loop over predicates does.

IDS = (WEB, CANARY, THEIRS)
SOURCES = (None, INSIDE, OUTSIDE)
# A condition, a test whether it matches (with the answer about an unknown source), and whether it names a trust domain.
Sample = tuple[Condition, Callable[[Peer, IpAddress | None, bool], bool], bool]
FACTS: tuple[tuple[Fact, Callable[[Peer, IpAddress | None, bool], bool], bool], ...] = (
    *((IdRule(parse_spiffe_id(uri)), lambda who, _at, _unknown, uri=uri: str(who.spiffe_id) == uri, True) for uri in IDS),
    (TrustDomainRule(PARTNER), lambda who, _at, _unknown: "//b.test/" in str(who.spiffe_id), True),
    (pattern("spiffe://a.test/web/*"), lambda who, _at, _unknown: "//a.test/web/" in str(who.spiffe_id), True),
    (pattern("spiffe://*/w"), lambda who, _at, _unknown: str(who.spiffe_id).endswith("/w"), False),
    (CommonNameRule("x"), lambda who, _at, _unknown: who.common_name == "x", False),
    (networks("10.0.0.0/8"), lambda _who, at, unknown: unknown if at is None else str(at).startswith("10."), False),
    (AnyRule(), lambda _who, _at, _unknown: True, True),
)


def joined(one: tuple[Fact, ...], tests: list[Callable[[Peer, IpAddress | None, bool], bool]], is_named: bool) -> Sample:
    return AllRule(one), lambda who, at, unknown: all(test(who, at, unknown) for test in tests), is_named


def samples() -> st.SearchStrategy[Sample]:
    pairs = st.lists(st.sampled_from(FACTS), min_size=2, max_size=3).map(
        lambda facts: joined(tuple(fact[0] for fact in facts), [fact[1] for fact in facts], any(fact[2] for fact in facts))
    )
    return st.one_of(st.sampled_from(FACTS), pairs)


@given(
    st.lists(st.tuples(st.booleans(), samples()), max_size=6),
    st.sampled_from(IDS),
    st.sampled_from(["x", "y"]),
    st.sampled_from(SOURCES),
)
def test_any_list_decides_by_the_first_match(
    entries: list[tuple[bool, Sample]], uri: str, name: str, source: IpAddress | None
) -> None:
    who, expected = peer(uri, name), False
    for is_deny, (_, is_match, is_named) in entries:
        if is_match(who, source, is_deny) and (is_deny or is_named or uri.startswith("spiffe://a.test/")):
            expected = not is_deny
            break
    rules: tuple[Rule, ...] = tuple(DenyRule(sample[0]) if is_deny else sample[0] for is_deny, sample in entries)
    assert is_admitted(rules, who, source) is expected
