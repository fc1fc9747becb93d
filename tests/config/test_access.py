"""Access lists of a configuration file: the rules of each entry, every mistake with its path, and warnings."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.authz.pins import SpkiPin
from tunnel.authz.rules import Rule
from tunnel.config.access import CONDITION_NAMES, encode_rules, parse_rules

PIN = str(SpkiPin("sha256", hashlib.sha256(b"key").digest()))
WEB = "spiffe://example.org/web"


def parsed(*entries: object) -> tuple[Rule, ...]:
    rules, mistakes = parse_rules(list(entries), True, True)
    assert mistakes == []
    return rules


def mistakes_of(value: object, *, is_server: bool = True, is_spiffe: bool = True) -> list[tuple[tuple[str | int, ...], str]]:
    return parse_rules(value, is_server, is_spiffe)[1]


# An entry, and its rule as the log shows it.
ENTRIES: list[tuple[dict[str, object], str]] = [
    ({"allow": WEB}, f"id:{WEB}"),
    ({"deny": WEB}, f"deny:id:{WEB}"),
    ({"allow": f"{WEB}/**"}, f"uri:{WEB}/**"),
    ({"allow": "spiffe://example.org/*/db"}, "uri:spiffe://example.org/*/db"),
    ({"allow": "any"}, "any"),
    ({"deny": "any"}, "deny:any"),
    ({"allow": {"id": WEB}}, f"id:{WEB}"),
    ({"allow": {"trust-domain": "partner.test"}}, "trust-domain:partner.test"),
    ({"allow": {"trust-domain": "spiffe://partner.test"}}, "trust-domain:partner.test"),
    ({"allow": {"uri": "https://a.test/x"}}, "uri:https://a.test/x"),
    ({"allow": {"cn": "a b"}}, "cn:a b"),
    ({"allow": {"ou": "one"}}, "ou:one"),
    ({"allow": {"dns": "db.test"}}, "dns:db.test"),
    ({"allow": {"ip": "192.0.2.1"}}, "ip:192.0.2.1"),
    ({"allow": {"spki-pin": PIN}}, f"spki-pin:{PIN}"),
    ({"deny": {"source": "10.0.0.0/8"}}, "deny:source:10.0.0.0/8"),
    ({"deny": {"source": "::ffff:10.0.0.0/104"}}, "deny:source:10.0.0.0/8"),
    ({"deny": {"source": ["10.0.0.0/8", "2001:db8::/32"]}}, "deny:source:10.0.0.0/8,2001:db8::/32"),
    ({"allow": {"id": WEB, "source": "192.0.2.1"}}, f"id:{WEB}&source:192.0.2.1/32"),
    ({"deny": {"cn": "x", "trust-domain": "partner.test"}}, "deny:cn:x&trust-domain:partner.test"),
]


@pytest.mark.parametrize(("entry", "shown"), ENTRIES, ids=[shown for _, shown in ENTRIES])
def test_an_entry_is_a_rule(entry: dict[str, object], shown: str) -> None:
    assert [str(rule) for rule in parsed(entry)] == [shown]


def test_rules_keep_their_order() -> None:
    assert [str(rule) for rule in parsed(*(entry for entry, _ in ENTRIES))] == [shown for _, shown in ENTRIES]


def test_encoded_rules_are_parsed_to_the_same_rules() -> None:
    rules = parsed(*(entry for entry, _ in ENTRIES))
    assert parsed(*encode_rules(rules)) == rules
    assert encode_rules(parsed({"allow": {"id": WEB}}, {"deny": {"uri": f"{WEB}/*"}})) == [{"allow": WEB}, {"deny": f"{WEB}/*"}]


# A value, and the path and text of its mistake.
MISTAKES: list[tuple[object, tuple[str | int, ...], str]] = [
    ("web-tier", (), "invalid type; expected a list of rules"),
    ([], (), "no access rule; expected at least one { allow = ... } or { deny = ... }"),
    (["x"], (0,), "invalid type; expected { allow = ... } or { deny = ... }"),
    ([{}], (0,), "no rule; expected { allow = ... } or { deny = ... }"),
    ([{"allow": WEB, "deny": WEB}], (0,), "two rules in one entry; expected { allow = ... } or { deny = ... }"),
    ([{"alow": WEB}], (0, "alow"), 'unknown key "alow"; did you mean allow?'),
    ([{"permit": WEB}], (0, "permit"), 'unknown key "permit"; expected allow or deny'),
    ([{"allow": WEB, "id": WEB}], (0, "id"), 'unknown key "id"; expected allow or deny'),
    ([{"allow": 1}], (0, "allow"), "invalid type; expected any, a SPIFFE ID, a pattern, or a table of conditions"),
    ([{"allow": "spiffe://"}], (0, "allow"), 'invalid SPIFFE ID "spiffe://": missing trust domain'),
    ([{"allow": "web"}], (0, "allow"), 'invalid SPIFFE ID "web": missing scheme; expected spiffe://TRUST-DOMAIN/PATH'),
    (
        [{"allow": "spiffe://a.test"}],
        (0, "allow"),
        'invalid SPIFFE ID "spiffe://a.test": it names a trust domain, not a workload; expected an ID with a path',
    ),
    (
        [{"allow": f"{WEB}/x*"}],
        (0, "allow"),
        f"invalid URI pattern \"{WEB}/x*\": wildcard '*' can only appear between two separators",
    ),
    ([{"allow": {}}], (0, "allow"), f"no condition; expected at least one of {', '.join(CONDITION_NAMES)}"),
    ([{"allow": {"trustdomain": "x"}}], (0, "allow", "trustdomain"), 'unknown key "trustdomain"; did you mean trust-domain?'),
    (
        [{"allow": {"zzz": "x"}}],
        (0, "allow", "zzz"),
        'unknown key "zzz"; expected id, trust-domain, uri, cn, ou, dns, ip, spki-pin or source',
    ),
    ([{"allow": {"cn": 1}}], (0, "allow", "cn"), "invalid type; expected a string: a common name"),
    ([{"allow": {"cn": ""}}], (0, "allow", "cn"), 'invalid name "": empty'),
    ([{"allow": {"ip": "x"}}], (0, "allow", "ip"), 'invalid IP address "x"'),
    (
        [{"allow": {"spki-pin": "sha1:AA=="}}],
        (0, "allow", "spki-pin"),
        'invalid SPKI pin "sha1:AA==": unknown algorithm "sha1"; expected ALGORITHM:BASE64 with one of sha256, sha384, sha512',
    ),
    (
        [{"deny": {"source": "10.0.0.1/8"}}],
        (0, "deny", "source"),
        'invalid network "10.0.0.1/8"; expected CIDR notation without host bits, such as 10.0.0.0/8, or an IP address',
    ),
    ([{"deny": {"source": []}}], (0, "deny", "source"), "no network; expected a network such as 10.0.0.0/8, or a list of them"),
    ([{"deny": {"source": 4}}], (0, "deny", "source"), "no network; expected a network such as 10.0.0.0/8, or a list of them"),
    (
        [{"deny": {"source": ["::/0", 4]}}],
        (0, "deny", "source", 1),
        "invalid type; expected a network such as 10.0.0.0/8",
    ),
]


@pytest.mark.parametrize(("value", "path", "text"), MISTAKES)
def test_a_mistake_has_its_path_in_the_list(value: object, path: tuple[str | int, ...], text: str) -> None:
    assert mistakes_of(value) == [(path, text)]


def test_all_mistakes_are_reported_at_once() -> None:
    found = mistakes_of([{"allow": {"cn": "", "dsn": "x", "ip": "y"}}, {"allow": WEB}, {"deny": {"source": ["x", "y"]}}, 7])
    assert [path for path, _ in found] == [
        (0, "allow", "cn"),
        (0, "allow", "dsn"),
        (0, "allow", "ip"),
        (2, "deny", "source", 0),
        (2, "deny", "source", 1),
        (3,),
    ]


def test_without_the_workload_api_a_spiffe_id_proves_nothing() -> None:
    for effect in ("allow", "deny"):
        for value, what in ((WEB, "a SPIFFE ID"), ({"id": WEB}, "a SPIFFE ID"), ({"trust-domain": "x"}, "a trust domain")):
            [(_path, text)] = mistakes_of([{effect: value}], is_spiffe=False)
            assert text == (
                f"{what} needs the Workload API: other certificates prove no SPIFFE ID; "
                "expected { uri = ... } for the URI in an ordinary certificate"
            )
    assert mistakes_of([{"allow": {"uri": WEB}}, {"allow": f"{WEB}/**"}, {"allow": "any"}], is_spiffe=False) == []


def test_a_client_needs_the_workload_api_to_admit_any_server() -> None:
    [(path, text)] = mistakes_of([{"allow": "any"}], is_server=False, is_spiffe=False)
    assert (path, text) == ((0, "allow"), "any needs the Workload API: without it the server's host name is verified")
    assert mistakes_of([{"allow": "any"}], is_server=False) == []


def test_a_client_has_no_rule_on_the_source() -> None:
    [(path, text)] = mistakes_of([{"allow": {"id": WEB, "source": "::/0"}}], is_server=False)
    assert (path, text) == ((0, "allow", "source"), "for servers only: the rules of a client are about the server")


WORDS = st.sampled_from(["allow", "deny", "any", *CONDITION_NAMES, WEB, f"{WEB}/**", "10.0.0.0/8", PIN, "::1", ""]) | st.text()
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES | st.lists(st.dictionaries(WORDS, VALUES, max_size=2), max_size=4), st.booleans(), st.booleans())
def test_any_value_is_a_list_of_rules_or_has_mistakes(value: object, is_server: bool, is_spiffe: bool) -> None:
    rules, mistakes = parse_rules(value, is_server, is_spiffe)
    assert rules or mistakes
    if not mistakes:
        assert parse_rules(encode_rules(rules), is_server, is_spiffe) == (rules, [])
