"""Checks whether a token is a JWT-SVID for an audience, on this machine or by the Workload API (`svid jwt verify`).

A key is taken from the bundle of the token's own trust domain and from no other.
"""

from __future__ import annotations

from collections.abc import Callable

from tunnel.check.jwt_signature import check_signature
from tunnel.check.rule_report import RuleChecker, RuleReport
from tunnel.errors import TokenError
from tunnel.spiffe.jwks import Jwk, JwtBundles
from tunnel.spiffe.jwt import RULES, Token, Validation, parse_expiry, parse_subject, parse_token
from tunnel.spiffe.messages import ValidateResponse
from tunnel.time_format import describe_time

_FORM = "form", "JWT-SVID 5.1", "a JWS in compact serialization"


def examine_token(text: str, validation: Validation, bundles: JwtBundles) -> RuleReport:
    """Check every rule, including the signature, on this machine."""
    checker = RuleChecker()
    token = _check_claims(checker, text, validation)
    if token is None:
        return RuleReport(tuple(checker.findings))
    _check_key(checker, token, bundles)
    report = RuleReport(tuple(checker.findings), {"header": token.header, "claims": token.claims})
    if report.broken is not None:
        return report  # without a SPIFFE ID: the token proves none
    return RuleReport(report.findings, {"spiffe_id": str(parse_subject(token)), **report.facts})


def examine_by_workload_api(text: str, validation: Validation, validate: Callable[[str, str], ValidateResponse]) -> RuleReport:
    """Have the Workload API validate the token; if it refuses the token, check the rules that may be the cause."""
    checker = RuleChecker()
    responses: list[ValidateResponse] = []
    description = "the Workload API accepts the token for this audience, by its own bundles and clock"
    if checker.check(
        "workload-api", "Workload API 6.2.3", description, lambda: responses.append(validate(validation.audience, text))
    ):
        return RuleReport(tuple(checker.findings), {"spiffe_id": responses[0].spiffe_id, "claims": responses[0].claims})
    _check_claims(checker, text, validation)
    return RuleReport(tuple(checker.findings))


def _check_claims(checker: RuleChecker, text: str, validation: Validation) -> Token | None:
    """Check the rules that need no key; return None if the token cannot be parsed."""
    parsed: list[Token] = []
    if not checker.check(*_FORM, lambda: parsed.append(parse_token(text))):
        return None
    for rule in RULES:
        checker.check(rule.name, rule.section, rule.summary, lambda: rule.check(parsed[0], validation))  # noqa: B023 - called at once
    return parsed[0]


def _check_key(checker: RuleChecker, token: Token, bundles: JwtBundles) -> None:
    keys: list[Jwk] = []
    checker.check(
        "key",
        "JWT-SVID 6.2",
        "the key is in the bundle of the token's own trust domain",
        lambda: keys.append(bundles.find_key(token, parse_subject(token))),
        needs=("sub", "kid"),
    )
    checker.check(
        "signature",
        "JWT-SVID 4",
        "the signature is by that key",
        lambda: check_signature(token, keys[0]),
        needs=("alg", "key"),
    )


def conclusion(report: RuleReport, audience: str) -> str:
    """Return the last line of a report without a broken rule."""
    proven = f"valid: {report.facts['spiffe_id']} for {audience!a}"
    try:
        return f"{proven} until {describe_time(parse_expiry(Token({}, report.facts['claims'], '')))}"
    except TokenError:  # the agent accepts a token without an expiry
        return proven
