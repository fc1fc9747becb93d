"""Compilation and evaluation of policies by the engine."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("regopy")

from tests.support.policy_engine import ask_engine
from tunnel.policy.evaluator import InvalidPolicy
from tunnel.policy.rego_v0 import to_v1

INPUT: dict[str, Any] = {
    "certificate": {
        "Subject": {"CommonName": "client", "OrganizationalUnit": ["ops", "dev"]},
        "DNSNames": ["a.example", "b.example"],
        "URIs": [{"Scheme": "spiffe", "Host": "a.test", "Path": "/foo/x"}],
        "EmailAddresses": None,
        "KeyUsage": 1,
        "SerialNumber": 2**159 + 1,
        "NotAfter": "2026-11-22T12:00:00+00:00",
    }
}
DATA = {"units": ["dev"], "users": {"client": {"ok": True}}}


def answer(rules: str, query: str = "data.policy.allow", given: Any = INPUT) -> Any:
    modules, term = [["policy.rego", to_v1(f"package policy\n{rules}\n")]], json.dumps(given)
    first, second = ask_engine(modules, json.dumps(DATA), query, term, term)
    assert second == first, "the second answer owes nothing to the first"
    return first.get("allowed", first)


@pytest.mark.parametrize(
    "rules",
    [
        'default allow = false\nallow { input.certificate.Subject.CommonName == "client" }',
        'import input\nallow { input.certificate.Subject.CommonName == "client" }',
        'import input.certificate as c\nallow { c.Subject.CommonName == "client" }',
        'import input.certificate\nallow { certificate.Subject.OrganizationalUnit[_] == "dev" }',
        'default allow := false\nallow if input.certificate.Subject.CommonName == "client"',
        "import rego.v1\nallow if { some unit in input.certificate.Subject.OrganizationalUnit; unit in data.units }",
        'allow if { every name in input.certificate.DNSNames { endswith(name, ".example") } }',
        'names[x] { x := input.certificate.DNSNames[_] }\nallow { names[_] == "b.example" }',
        'deny contains m if { input.certificate.KeyUsage == 2; m := "x" }\nallow if count(deny) == 0',
        "allow { data.users[input.certificate.Subject.CommonName].ok }",
        "allow { not deny }\ndeny { input.certificate.KeyUsage == 2 }",
        "allow { input.certificate.EmailAddresses == null }",
        f"allow {{ input.certificate.SerialNumber == {2**159 + 1} }}",
        'allow { uri := input.certificate.URIs[_]; startswith(uri.Path, "/foo/") }',
        'allow { regex.match("^spiffe$", input.certificate.URIs[0].Scheme) }',
        "allow { time.parse_rfc3339_ns(input.certificate.NotAfter) == 1795348800000000000 }",
        'is_ops(c) { c.Subject.OrganizationalUnit[_] == "ops" }\nallow { is_ops(input.certificate) }',
        'allow { print("this goes nowhere") }',
    ],
)
def test_typical_policies_admit(rules: str) -> None:
    assert answer(rules) is True


@pytest.mark.parametrize(
    ("rules", "query"),
    [
        ("allow { input.nothing }", "data.policy.allow"),
        ("allow { true }", "data.policy.absent"),
        ("allow { true }", "data.other.allow"),
        ("allow = false", "data.policy.allow"),
        ("allow = 1", "data.policy.allow"),
        ('allow = "true"', "data.policy.allow"),
        ("allow = [true]", "data.policy.allow"),
        ("allow = null", "data.policy.allow"),
        ("allow { true }", "x = data.policy.allow"),
        ("allow { true }", "data.policy.allow = true"),  # two expressions for this engine, one for OPA
        ("allow { true }", "x := data.policy.allow"),
        ("allow { true }", "data.policy.allow; data.policy.allow"),
        ("allow { true }", "data.policy"),
        ("allow { true }", "[true, true][_]"),
        ("allow[x] { x := true }", "data.policy.allow[_]; 1 == 1"),
        (f"allow {{ input.certificate.SerialNumber == {2**159} }}", "data.policy.allow"),
        ('allow { time.parse_rfc3339_ns("nonsense") > 0 }', "data.policy.allow"),
    ],
)
def test_any_result_but_one_true_without_bindings_denies(rules: str, query: str) -> None:
    assert answer(rules, query) is False


@pytest.mark.parametrize("query", ["data.policy.allow", "data.policy.allow == true", "1 == 1", 'data["policy"].allow'])
def test_any_query_that_is_true_admits(query: str) -> None:
    assert answer("allow { true }", query) is True


@pytest.mark.parametrize(
    "text", ["client\0", "client\n", "\\u0063lient", 'client", "x": "', "clienT", "\ud83d\ude00", "Client`"]
)
def test_the_text_of_a_certificate_is_compared_whole(text: str) -> None:
    given = {"a": text, "b": "client"}
    assert answer("allow { input.a == input.b }", given=given) is False
    assert answer("allow { input.a == input.b }", given=given | {"b": text}) is True


def test_two_values_for_one_rule_are_an_error() -> None:
    assert "different values" in answer("allow = true { true }\nallow = false { true }")["error"]


@pytest.mark.parametrize(
    ("rules", "query", "words"),
    [
        ("allow {", "data.policy.allow", "^policy.rego:2: "),
        ("allow { true }\n\nother { } }", "data.policy.allow", "^policy.rego:4: "),
        ("allow { true }", "data.policy.[", "^query: "),
        ("allow { true }", "foo(1)", "undefined function foo"),
        ("allow { true }", "x", "unsafe variable"),
        ("\nallow { not usr }", "data.policy.allow", "^policy.rego:3: unsafe variable"),
        ('allow { not usr == "mallory" }', "data.policy.allow", "unsafe variable"),
        ("allow { true }\nother { not usr }", "data.policy.allow", "^policy.rego:3: .*unsafe variable"),
        ("allow { some i; not i == 1 }", "data.policy.allow", "unsafe variable"),
        ("allow { foobar(1) }", "data.policy.allow", "^policy.rego:2: undefined function foobar"),
        ('allow { re_match("a", "a") }', "data.policy.allow", "undefined function re_match"),
        (
            'allow { not net.cidr_contains("10.0.0.0/8", "10.0.0.1") }',
            "data.policy.allow",
            "does not have .* net.cidr_contains",
        ),
        ('allow { http.send({"url": "http://a.test"}) }', "data.policy.allow", "does not have .* http.send"),
        ("allow { allow }", "data.policy.allow", "refers to itself"),
        ("allow { a }\na { b }\nb { a }", "data.policy.allow", "refers to itself"),
        ('allow { startswith(input.certificate.DNSNames[_], "a") }', "data.policy.allow", "the engine cannot compile it"),
    ],
)
def test_an_unsafe_policy_is_refused(rules: str, query: str, words: str) -> None:
    with pytest.raises(InvalidPolicy, match=words) as caught:
        answer(rules, query)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [{"policy": {"allow": True}}, {"policy": {"allow": {}}}, {"policy": 1}, {"policy": {"names": ["x"]}}]
)
def test_data_with_the_path_of_a_rule_is_refused(data: Any) -> None:
    module = "package policy\ndefault allow = false\nnames contains x if x := input.n"
    with pytest.raises(InvalidPolicy, match="both a rule and data for"):
        ask_engine([["policy.rego", module]], json.dumps(data), "data.policy.allow")


def test_data_may_stand_beside_rules() -> None:
    modules = [["p.rego", "package policy\nallow = data.policy.is_open"]]
    assert ask_engine(modules, '{"policy": {"is_open": true}}', "data.policy.allow", "{}") == [{"allowed": True}]


def test_a_policy_can_read_the_environment_of_its_process() -> None:
    assert answer("allow { opa.runtime().env.PATH }") is True  # which is why the process empties its own
