"""The peers that each access rule matches, with and without a trust domain."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tunnel.authz.authorizer import Admitted, Authorizer
from tunnel.authz.pattern import parse_pattern
from tunnel.authz.peer import Peer
from tunnel.authz.rules import (
    AnyRule,
    CommonNameRule,
    DnsRule,
    IdRule,
    IpRule,
    PolicyRule,
    Rule,
    TrustDomainRule,
    UnitRule,
    UriRule,
)
from tunnel.errors import Denial, PeerDenied
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id

OWN = TrustDomain("a.test")


def peer(uri: str) -> Peer:
    return Peer("CN=anyone", parse_spiffe_id(uri), uris=(uri,))


def uri_rule(pattern: str) -> UriRule:
    return UriRule(parse_pattern(pattern))


def id_rule(uri: str) -> IdRule:
    return IdRule(parse_spiffe_id(uri))


def is_admitted(authorizer: Authorizer, who: Peer) -> bool:
    try:
        authorizer.decide(who)
    except PeerDenied:
        return False
    return True


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
    assert {uri for uri in (OURS, THEIRS, DEEP) if is_admitted(Authorizer((rule,), OWN), peer(uri))} == admitted


CERTIFICATE = Peer(
    "CN=x y,OU=one+OU=two",
    common_name="x y",
    organizational_units=("one", "two"),
    dns_names=("db.test", "*.wild.test"),
    ip_addresses=(ip_address("192.0.2.1"), ip_address("::ffff:198.51.100.7"), ip_address("2001:db8::1")),
    uris=("https://a.test/x", "spiffe://a.test/w"),
)

# A rule about a certificate that follows ordinary PKI rules, and whether it admits the one above.
PKI_TABLE: list[tuple[Rule, bool]] = [
    (CommonNameRule("x y"), True),
    (CommonNameRule("X Y"), False),
    (CommonNameRule("x"), False),
    (UnitRule("one"), True),
    (UnitRule("two"), True),
    (UnitRule("One"), False),
    (UnitRule("one+two"), False),
    (DnsRule("db.test"), True),
    (DnsRule("DB.test"), False),
    (DnsRule("a.wild.test"), False),
    (DnsRule("*.wild.test"), True),
    (IpRule(ip_address("192.0.2.1")), True),
    (IpRule(ip_address("::ffff:192.0.2.1")), True),
    (IpRule(ip_address("198.51.100.7")), True),
    (IpRule(ip_address("2001:db8:0::1")), True),
    (IpRule(ip_address("192.0.2.2")), False),
    (uri_rule("https://a.test/*"), True),
    (uri_rule("spiffe://a.test/w"), True),
    (uri_rule("spiffe://*/w"), True),
    (uri_rule("https://b.test/*"), False),
    (id_rule("spiffe://a.test/w"), False),
    (TrustDomainRule(OWN), False),
    (PolicyRule("data.p.allow", lambda peer: peer.common_name == "x y"), True),
    (PolicyRule("data.p.allow", lambda peer: False), False),
    (AnyRule("host-name"), True),
]


@pytest.mark.parametrize(("rule", "admits"), PKI_TABLE, ids=[f"{rule}-{admits}" for rule, admits in PKI_TABLE])
def test_a_rule_looks_at_the_names_of_a_certificate(rule: Rule, admits: bool) -> None:
    assert is_admitted(Authorizer((rule,), None), CERTIFICATE) is admits


@pytest.mark.parametrize(
    "rule", [CommonNameRule("x"), UnitRule("o"), DnsRule("d"), IpRule(ip_address("::1")), PolicyRule("q", bool)]
)
def test_under_spiffe_a_rule_without_a_trust_domain_means_our_own(rule: Rule) -> None:
    fields = {"common_name": "x", "organizational_units": ("o",), "dns_names": ("d",), "ip_addresses": (ip_address("::1"),)}
    ours = Peer("", parse_spiffe_id(OURS), **fields)  # type: ignore[arg-type]
    theirs = Peer("", parse_spiffe_id(THEIRS), **fields)  # type: ignore[arg-type]
    assert is_admitted(Authorizer((rule,), OWN), ours)
    assert not is_admitted(Authorizer((rule,), OWN), theirs)


def test_only_an_admission_by_a_policy_is_not_cached() -> None:
    for rule, lasts in ((AnyRule(), True), (PolicyRule("q", bool), False)):
        assert Authorizer((rule,), None).decide(CERTIFICATE).is_cacheable is lasts
        assert Authorizer((rule,), None).is_slow() is not lasts


def test_a_refusal_keeps_the_text_of_ghostunnel() -> None:
    with pytest.raises(PeerDenied, match="unauthorized: invalid principal, or principal not allowed"):
        Authorizer((CommonNameRule("z"),), None).decide(CERTIFICATE)


@pytest.mark.parametrize(
    ("who", "word"),
    [
        (Peer("", parse_spiffe_id(OURS), uris=("https://other",)), OURS),
        (CERTIFICATE, "https://a.test/x"),
        (Peer("", dns_names=("d",), common_name="c"), "d"),
        (Peer("", ip_addresses=(ip_address("::1"),)), "::1"),
        (Peer("", common_name="a b\n[x]"), "a\\x20b\\x0a\\x5bx\\x5d"),
        (Peer(""), "unnamed"),
    ],
)
def test_a_peer_is_one_escaped_word_in_the_log(who: Peer, word: str) -> None:
    assert str(who) == word


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


def test_a_peer_without_a_matching_rule_is_denied() -> None:
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
