"""Tokens verified on this machine: every algorithm of the standard, and forgeries."""

from __future__ import annotations

import hmac
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from tests.support.jwt_factory import ABSENT, NOW, jwk, signing_key, token
from tunnel.check.finding import Verdict
from tunnel.check.jwt_signature import require_library
from tunnel.check.jwt_svid import conclusion, examine_by_workload_api, examine_token
from tunnel.check.rule_report import RuleReport
from tunnel.errors import ConfigError, TokenError, TokenFault
from tunnel.spiffe.ids import TrustDomain
from tunnel.spiffe.jwks import Jwk, JwtBundles
from tunnel.spiffe.jwt import ALGORITHMS, Validation, encode_token
from tunnel.spiffe.messages import ValidateResponse

VALIDATION = Validation("db", NOW)
HOME = TrustDomain("a.test")


def examine(text: str, *keys: Jwk, domain: str = "a.test") -> RuleReport:
    return examine_token(text, VALIDATION, JwtBundles({TrustDomain(domain): {key["kid"]: key for key in keys or (jwk(),)}}))


def broken(report: RuleReport) -> list[str]:
    return [finding.name for finding in report.findings if finding.verdict is Verdict.PROBLEM]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_of_the_standard_proves_a_token(algorithm: str) -> None:
    text = token(key=algorithm)
    report = examine(text, jwk(algorithm=algorithm))
    assert broken(report) == []
    assert report.facts["spiffe_id"] == "spiffe://a.test/w"
    assert conclusion(report, "db").startswith("valid: spiffe://a.test/w for 'db' until 2026-")
    assert broken(examine(text, jwk(algorithm=algorithm, number=1))) == ["signature"]


def of_public_key_as_secret() -> str:
    """The classic: HMAC with the public key as its secret."""
    public = signing_key().public_key()
    secret = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    claims = {"sub": "spiffe://a.test/w", "aud": "db", "exp": NOW + 60}
    return encode_token({"alg": "HS256", "kid": "k1"}, claims, lambda data: hmac.digest(secret, data, "sha256"))


def spliced() -> str:
    mine, other = token().split("."), token(sub="spiffe://a.test/root").split(".")
    return ".".join((mine[0], other[1], mine[2]))


FORGED: dict[str, tuple[Callable[[], str], list[Jwk], list[str]]] = {
    "alg none without signature": (lambda: token(header={"alg": "none"}).rpartition(".")[0] + ".", [jwk()], ["alg"]),
    "HMAC with the public key": (of_public_key_as_secret, [jwk()], ["alg"]),
    "another subject": (spliced, [jwk()], ["signature"]),
    "no signature": (lambda: token().rpartition(".")[0] + ".", [jwk()], ["signature"]),
    "half a signature": (lambda: token()[:-42], [jwk()], ["signature"]),
    "a key that is not in the bundle": (lambda: token(header={"kid": "k9"}), [jwk()], ["key"]),
    "alg of another curve": (lambda: token(key="ES384"), [jwk()], ["signature"]),
    "RSA alg with a key of ECDSA": (lambda: token(key="RS256"), [jwk()], ["signature"]),
    "PS where the key says RS": (lambda: token(key="PS256"), [jwk(algorithm="RS256", alg="RS256")], ["signature"]),
    "a key off its curve": (token, [{**jwk(), "y": "AAAA"}], ["signature"]),
    "a key without numbers": (token, [jwk(x=ABSENT)], ["signature"]),
    "a small RSA key": (
        lambda: token(key="RS256"),
        [{"kid": "k1", "kty": "RSA", "n": "w" * 171, "e": "AQAB"}],
        ["signature"],
    ),
}


@pytest.mark.parametrize(("make", "keys", "rules"), FORGED.values(), ids=FORGED)
def test_a_forged_token_is_refused(make: Callable[[], str], keys: list[Jwk], rules: list[str]) -> None:
    report = examine(make(), *keys)
    assert broken(report) == rules
    assert "spiffe_id" not in report.facts


def test_a_trust_domain_signs_for_itself_only() -> None:
    """A key of b.test signs a token in the name of a.test; both bundles are known."""
    forged = token(number=1)
    bundles = JwtBundles({HOME: {"k1": jwk()}, TrustDomain("b.test"): {"k1": jwk(number=1)}})
    assert broken(examine_token(forged, VALIDATION, bundles)) == ["signature"]
    elsewhere = examine_token(forged, VALIDATION, JwtBundles({TrustDomain("b.test"): {"k1": jwk(number=1)}}))
    assert broken(elsewhere) == ["key"]
    assert [finding.name for finding in elsewhere.findings if finding.verdict is Verdict.SKIPPED] == ["signature"]


def test_every_rule_is_reported_and_the_first_broken_one_is_named() -> None:
    report = examine(token(aud="web", exp=NOW - 1))
    assert broken(report) == ["aud", "exp"]
    *lines, last = report.encode_text("").splitlines()
    assert len(lines) == 11
    assert last == "not valid: aud: the audience is 'web'; expected 'db'"
    found = json.loads(report.encode_json())
    assert (found["valid"], len(found["findings"])) == (False, 11)
    assert found["findings"][6] | {"detail": ""} == {
        "name": "aud",
        "section": "JWT-SVID 3.2",
        "verdict": "problem",
        "reason": "wrong-audience",
        "detail": "",
    }


@pytest.mark.parametrize("claims", [{"sub": "spiffe://a.test/\x1b[2Jw"}, {"aud": "\x1b[2J\n\u202e"}, {"exp": "\x1b]0;x\x07"}])
def test_hostile_text_does_nothing_to_a_terminal(claims: dict[str, Any]) -> None:
    text = examine(token(**claims)).encode_text("")
    assert text.replace("\n", "").isprintable()
    assert len(text.splitlines()) == 12


def test_what_the_workload_api_refuses_is_explained_here() -> None:
    def refuse(audience: str, text: str) -> ValidateResponse:
        raise TokenError(TokenFault.REFUSED, "the agent's words")

    report = examine_by_workload_api(token(aud="web"), VALIDATION, refuse)
    assert broken(report) == ["workload-api", "aud"]
    assert broken(examine_by_workload_api("x", VALIDATION, refuse)) == ["workload-api", "form"]
    report = examine_by_workload_api(
        "x", VALIDATION, lambda audience, text: ValidateResponse("spiffe://a.test/w", {"exp": NOW + 60})
    )
    assert broken(report) == []
    assert conclusion(report, "db").startswith("valid: spiffe://a.test/w for 'db' until")


def test_without_the_library_the_refusal_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(ConfigError, match=r"pip install 'spiffe-tunnel\[jwt\]'"):
        require_library()
