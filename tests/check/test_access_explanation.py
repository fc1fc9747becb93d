"""The explanation of an access decision names the deciding rule, every rule before it, and what is not known."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.support.cert_factory import NOW, authority, leaf, make_certificate
from tests.support.configs import listener_config
from tunnel.authz.authorizer import RuleEffect
from tunnel.authz.pattern import parse_pattern
from tunnel.authz.pins import SpkiPin
from tunnel.authz.rules import (
    AllRule,
    AnyRule,
    CommonNameRule,
    DenyRule,
    DnsRule,
    IdRule,
    IpRule,
    KeyRule,
    Rule,
    SourceRule,
    TrustDomainRule,
    UnitRule,
    UriRule,
)
from tunnel.check.access import Decision, Explanation, Question, explain_access
from tunnel.config.model import Access, KeyFiles, ListenerConfig, PolicyFiles, WorkloadApi
from tunnel.errors import Denial
from tunnel.lazy_dataclass import replace
from tunnel.pkix.certificate import Certificate
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import SpiffeId, TrustDomain, parse_spiffe_id
from tunnel.spiffe.selection import Selection

WEB, CANARY, THEIRS = (parse_spiffe_id(f"spiffe://{name}") for name in ("a.test/web/1", "a.test/web/canary", "b.test/w"))
OWN, PARTNER = TrustDomain("a.test"), TrustDomain("b.test")
API = WorkloadApi(WorkloadEndpoint(path="/run/api.sock"))
FILES = KeyFiles("cert.pem", "key.pem")
INSIDE = SourceRule((ip_network("10.0.0.0/8"),))
NAMED = CommonNameRule("db")
LIST: tuple[Rule, ...] = (
    DenyRule(IdRule(CANARY)),
    UriRule(parse_pattern("spiffe://a.test/web/**")),
    TrustDomainRule(PARTNER),
)


def listener(*rules: Rule, source: Any = API, is_server: bool = True, **access: Any) -> ListenerConfig:
    return listener_config(source=source, is_server=is_server, access=Access(rules, **access))


def explain(config: ListenerConfig, who: SpiffeId | Certificate, now: datetime = NOW, **question: Any) -> Explanation:
    return explain_access(config, Question(who, now, **question))


def certificate(name: str = "db") -> Certificate:
    return leaf(str(WEB), issuer=authority(), subject=name, dns_names=("db.test",)).certificate


def test_the_rules_up_to_the_one_that_decides_are_shown_with_what_they_were_compared_with() -> None:
    found = explain(listener(*LIST), THEIRS)
    assert found.encode_text().splitlines() == [
        "peer=spiffe://b.test/w",
        "rule 1: deny:id:spiffe://a.test/web/canary: no match: the SPIFFE ID is spiffe://b.test/w",
        'rule 2: uri:spiffe://a.test/web/**: no match: the URIs are "spiffe://b.test/w"',
        "rule 3: trust-domain:b.test: admits: the SPIFFE ID is spiffe://b.test/w",
        "admitted: rule 3 admits the peer",
    ]
    assert found.decision is Decision.ADMITTED


def test_a_deny_and_a_list_without_a_match_have_their_reasons() -> None:
    denied = explain(listener(*LIST), CANARY)
    assert (denied.decision, denied.reason, len(denied.steps)) == (Decision.DENIED, Denial.DENY_RULE, 1)
    assert denied.encode_text().endswith("denied: rule 1 denies the peer reason=denied-by-rule\n")
    unmatched = explain(listener(*LIST), parse_spiffe_id("spiffe://a.test/db"))
    assert unmatched.encode_text().endswith("denied: no rule matches reason=no-matching-rule\n")
    assert explain(listener(), WEB).reason is Denial.NO_RULE


def test_a_trust_domain_that_is_not_accepted_is_denied_without_a_rule() -> None:
    found = explain(listener(AnyRule(), trust_domains=(OWN,)), THEIRS)
    assert (found.decision, found.reason, found.steps) == (Decision.DENIED, Denial.FOREIGN_TRUST_DOMAIN, ())


# Our own trust domain.


def test_a_rule_without_a_trust_domain_needs_our_own() -> None:
    rules = (UriRule(parse_pattern("spiffe://*/web/*")),)
    selected = replace(API, selection=Selection(spiffe_id=parse_spiffe_id("spiffe://a.test/us")))
    unknown = explain(listener(*rules), WEB)
    assert unknown.decision is Decision.UNDECIDED
    assert "expected --own-trust-domain NAME" in unknown.detail
    assert explain(listener(*rules), WEB, own=OWN).decision is Decision.ADMITTED
    assert explain(listener(*rules, source=selected), WEB).decision is Decision.ADMITTED
    foreign = explain(listener(*rules), WEB, own=PARTNER)
    assert foreign.decision is Decision.DENIED
    assert [step.effect for step in foreign.steps] == [RuleEffect.OWN_ONLY]


# An ID does not say what is in the certificate.


@pytest.mark.parametrize(
    ("rules", "decision"),
    [
        ((NAMED,), Decision.UNDECIDED),
        ((DenyRule(NAMED), *LIST), Decision.UNDECIDED),
        ((NAMED, *LIST), Decision.ADMITTED),
        ((DenyRule(NAMED),), Decision.DENIED),
        ((AllRule((IdRule(WEB), NAMED)),), Decision.UNDECIDED),
        ((AllRule((IdRule(THEIRS), NAMED)),), Decision.DENIED),
        ((AllRule((INSIDE, NAMED)),), Decision.DENIED),
        ((DnsRule("x"),), Decision.UNDECIDED),
        ((IpRule(ip_address("::1")),), Decision.UNDECIDED),
        ((UnitRule("x"),), Decision.UNDECIDED),
        ((KeyRule(SpkiPin("sha256", bytes(32))),), Decision.UNDECIDED),
    ],
)
def test_a_rule_on_the_certificate_is_not_decided_by_an_id(rules: tuple[Rule, ...], decision: Decision) -> None:
    found = explain(listener(*rules), WEB, own=OWN)
    assert found.decision is decision
    if decision is Decision.UNDECIDED:
        assert found.detail == "rule 1 depends on the certificate of the peer; expected CERT instead of ID"
        assert "not known from a SPIFFE ID alone" in found.steps[0].why


def test_a_certificate_is_judged_by_what_it_says() -> None:
    who = certificate()
    pin = KeyRule(SpkiPin("sha256", hashlib.sha256(who.key_info).digest()))
    found = explain(listener(UnitRule("x"), IpRule(ip_address("::1")), DnsRule("x"), CommonNameRule("x"), pin), who, own=OWN)
    assert [step.why for step in found.steps] == [
        "the organizational units are none",
        "the IP addresses are none",
        'the DNS names are "db.test"',
        'the common name is "db"',
        "the public key was compared",
    ]
    assert found.decision is Decision.ADMITTED
    assert "the certification path is not verified" in found.notes[0]


def test_of_many_names_a_few_are_shown() -> None:
    who = leaf(str(WEB), issuer=authority(), dns_names=[f"{number}.test" for number in range(9)]).certificate
    [step] = explain(listener(DnsRule("x")), who, own=OWN).steps
    assert step.why == 'the DNS names are "0.test", "1.test", "2.test", "3.test" and 5 more'


def test_a_certificate_that_is_no_svid_is_denied() -> None:
    found = explain(listener(AnyRule()), make_certificate(subject="db", usage=("digital_signature",)).certificate)
    assert (found.decision, found.reason, found.steps) == (Decision.DENIED, Denial.URI_SAN, ())


def test_an_expired_certificate_has_a_note() -> None:
    found = explain(listener(*LIST), certificate(), NOW + timedelta(days=9999))
    assert found.decision is Decision.ADMITTED
    assert "a listener refuses the certificate now: expired: the certificate expired at" in found.notes[1]


# The connection.


def test_the_source_decides_and_an_unknown_one_has_a_note() -> None:
    config = listener(DenyRule(INSIDE), *LIST)
    denied = explain(config, WEB, source=ip_address("10.1.2.3"))
    assert denied.steps[0].why == "the client's address is 10.1.2.3"
    assert (denied.decision, denied.notes) == (Decision.DENIED, ())
    assert explain(config, WEB, source=ip_address("192.0.2.1")).decision is Decision.ADMITTED
    unknown = explain(config, WEB)
    assert unknown.decision is Decision.DENIED
    assert "expected --source IP" in unknown.notes[0]


def test_conditions_of_one_rule_are_all_explained() -> None:
    [step] = explain(listener(AllRule((IdRule(WEB), INSIDE))), WEB, source=ip_address("10.1.2.3")).steps
    assert step.why == "the SPIFFE ID is spiffe://a.test/web/1; the client's address is 10.1.2.3"


# Other ways to admit peers.


def test_a_policy_is_not_evaluated() -> None:
    policy = PolicyFiles("policy.rego", "data.x")
    found = explain(listener(*LIST, policy=policy), parse_spiffe_id("spiffe://a.test/db"), own=OWN)
    assert (found.decision, found.detail) == (Decision.UNDECIDED, "a policy decides, which is not evaluated here")
    assert found.steps[-1].rule == "policy:data.x"
    assert found.steps[-1].why == "the policy is not evaluated"
    assert explain(listener(*LIST, policy=policy), WEB).decision is Decision.ADMITTED
    assert explain(listener(policy=policy), THEIRS, own=OWN).decision is Decision.DENIED, "a policy is for our own peers"


def test_pinned_keys_count_alone() -> None:
    who = certificate()
    pin = SpkiPin("sha256", hashlib.sha256(who.key_info).digest())
    config = listener(AnyRule("spki-pin"), source=FILES, pins=(pin,))
    assert explain(config, who).decision is Decision.ADMITTED
    assert explain(config, certificate()).reason is Denial.PIN
    assert explain(config, WEB).decision is Decision.UNDECIDED


def test_without_client_certificates_every_client_is_admitted() -> None:
    assert explain(listener(is_mutual=False), WEB).decision is Decision.ADMITTED


def test_an_ordinary_certificate_is_judged_without_a_spiffe_id() -> None:
    config = listener(IdRule(WEB), AnyRule("host-name"), source=FILES, is_server=False)
    found = explain(config, certificate())
    assert [step.why for step in found.steps] == ["no SPIFFE ID is proven", "it matches every peer"]
    assert found.notes[-1] == "the host name of the server is not verified here"
    assert explain(listener(UriRule(parse_pattern(str(WEB))), source=FILES), WEB).decision is Decision.ADMITTED


def test_the_json_has_the_same_facts() -> None:
    document = json.loads(explain(listener(*LIST), CANARY).encode_json())
    assert document == {
        "decision": "denied",
        "detail": "rule 1 denies the peer",
        "reason": "denied-by-rule",
        "peer": "spiffe://a.test/web/canary",
        "rules": [
            {
                "rule": "deny:id:spiffe://a.test/web/canary",
                "effect": "denies",
                "why": "the SPIFFE ID is spiffe://a.test/web/canary",
            }
        ],
        "notes": [],
    }
    assert json.loads(explain(listener(*LIST), WEB).encode_json())["reason"] is None


def test_text_from_a_certificate_cannot_forge_a_line() -> None:
    text = explain(listener(NAMED), certificate("x\nadmitted: rule 1\x1b[0m"), own=OWN).encode_text()
    assert [line for line in text.splitlines() if line.startswith("admitted")] == []
    assert text.isascii()
