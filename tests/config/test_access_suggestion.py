"""A suggestion is a rule that admits the denied peer, in the notation of flags and of configuration files."""

from __future__ import annotations

import shlex
import tomllib

import pytest

from tunnel.authz.authorizer import Authorizer
from tunnel.authz.peer import Peer
from tunnel.commands.proxy.access import ALLOW, VERIFY
from tunnel.config.access import parse_rules
from tunnel.config.access_suggestion import AccessSuggestion, suggest_access
from tunnel.errors import Denial
from tunnel.spiffe.ids import parse_spiffe_id

ID = "spiffe://b.test/cron"
SPIFFE = Peer("", spiffe_id=parse_spiffe_id(ID), uris=(ID,))
NO_RULE = Denial.NO_RULE.value
NAMED = [
    (SPIFFE, f"--allow-id {ID}", f'{{ allow = "{ID}" }}'),
    (Peer("CN=x", common_name="it's me"), "--allow-cn 'it'\"'\"'s me'", """{ allow = { cn = "it's me" } }"""),
    (
        Peer("", common_name="caf\u00e9 \U0001f600"),
        "--allow-cn 'caf\u00e9 \U0001f600'",
        '{ allow = { cn = "caf\u00e9 \U0001f600" } }',
    ),
    (Peer("", dns_names=("web.test",)), "--allow-dns web.test", '{ allow = { dns = "web.test" } }'),
    (
        Peer(
            "",
            uris=("urn:*", "urn:x"),
        ),
        "--allow-uri urn:x",
        '{ allow = { uri = "urn:x" } }',
    ),
]


@pytest.mark.parametrize(("peer", "flag", "entry"), NAMED, ids=["id", "cn", "unicode", "dns", "uri"])
def test_the_suggested_rule_admits_the_peer(peer: Peer, flag: str, entry: str) -> None:
    assert suggest_access(peer, NO_RULE, is_server=True) == AccessSuggestion(flag, entry)
    name, value = shlex.split(flag)
    rule_flag = next(one for one in ALLOW.rules if f"--{one.flag.name}" == name)
    from_flag = rule_flag.make(rule_flag.flag.parse(value))
    entries = tomllib.loads(f"access = [{entry}]")["access"]
    (from_file,), mistakes = parse_rules(entries, is_server=True, is_spiffe=peer.spiffe_id is not None)
    assert not mistakes
    for rule in (from_flag, from_file):
        assert Authorizer((rule,), None).decide(peer).peer is peer


def test_a_client_verifies() -> None:
    assert suggest_access(SPIFFE, NO_RULE, is_server=False).flag == f"--verify-id {ID}"
    assert any(rule.flag.name == "verify-id" for rule in VERIFY.rules)


def test_a_rule_that_denies_needs_an_entry_before_it() -> None:
    found = suggest_access(SPIFFE, Denial.DENY_RULE.value, is_server=True)
    assert found == AccessSuggestion(entry=f'{{ allow = "{ID}" }}  # before the entry that denies the peer')


def test_a_trust_domain_that_is_not_accepted_is_named() -> None:
    found = suggest_access(SPIFFE, Denial.FOREIGN_TRUST_DOMAIN.value, is_server=True)
    assert found == AccessSuggestion(entry='trust-domains = ["b.test"]')


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (None, NO_RULE),
        (SPIFFE, Denial.EXPIRED.value),
        (SPIFFE, "timeout"),
        (Peer(""), NO_RULE),
        (Peer("", uris=("urn:a*",)), NO_RULE),
        (Peer("", common_name="a\x1b[2J"), NO_RULE),
        (Peer("", common_name="a" * 600), NO_RULE),
    ],
)
def test_without_a_rule_that_would_admit_the_peer_there_is_no_suggestion(peer: Peer | None, reason: str) -> None:
    assert suggest_access(peer, reason, is_server=True) == AccessSuggestion()
