"""Whether a token proves a SPIFFE ID to an audience: on this machine, or by the Workload API's word.

Knows the order in which the rules of JWT-SVID are asked; must not know flags, or where bundles come from. A key is taken from
the bundle of the token's own trust domain and from no other.
"""

from __future__ import annotations

from collections.abc import Callable

from tunnel.errors import TokenError
from tunnel.spiffe.jwks import Jwk, JwtBundles
from tunnel.spiffe.jwt import RULES, Reader, Token, moment, parse_expiry, parse_subject, parse_token
from tunnel.spiffe.messages import ValidateResponse
from tunnel.svid.findings import Examiner, Report
from tunnel.svid.jose import check_signature

_FORM = "form", "JWT-SVID 5.1", "a JWS in compact serialization"


def examine_token(text: str, reader: Reader, bundles: JwtBundles) -> Report:
    """Every rule, the signature's too, asked on this machine."""
    examiner = Examiner()
    token = _ask_claims(examiner, text, reader)
    if token is None:
        return Report(tuple(examiner.findings))
    _ask_key(examiner, token, bundles)
    report = Report(tuple(examiner.findings), {"header": token.header, "claims": token.claims})
    if report.broken is not None:
        return report  # which names nobody: what the token says is not true
    return Report(report.findings, {"spiffe_id": str(parse_subject(token)), **report.facts})


def ask_workload_api(text: str, reader: Reader, validate: Callable[[str, str], ValidateResponse]) -> Report:
    """What the Workload API says of the token; of one that it refuses, also which rule seems to be the cause."""
    examiner = Examiner()
    said: list[ValidateResponse] = []
    words = "the Workload API takes the token for this audience, by its own bundles and clock"
    if examiner.ask("workload-api", "Workload API 6.2.3", words, lambda: said.append(validate(reader.audience, text))):
        return Report(tuple(examiner.findings), {"spiffe_id": said[0].spiffe_id, "claims": said[0].claims})
    _ask_claims(examiner, text, reader)
    return Report(tuple(examiner.findings))


def _ask_claims(examiner: Examiner, text: str, reader: Reader) -> Token | None:
    """The rules that need no key; None when there is nothing to ask them of."""
    parsed: list[Token] = []
    if not examiner.ask(*_FORM, lambda: parsed.append(parse_token(text))):
        return None
    for rule in RULES:
        examiner.ask(rule.name, rule.section, rule.words, lambda: rule.check(parsed[0], reader))  # noqa: B023 - called at once
    return parsed[0]


def _ask_key(examiner: Examiner, token: Token, bundles: JwtBundles) -> None:
    keys: list[Jwk] = []
    examiner.ask(
        "key",
        "JWT-SVID 6.2",
        "the key is in the bundle of the token's own trust domain",
        lambda: keys.append(bundles.find_key(token, parse_subject(token))),
        needs=("sub", "kid"),
    )
    examiner.ask(
        "signature",
        "JWT-SVID 4",
        "the signature is by that key",
        lambda: check_signature(token, keys[0]),
        needs=("alg", "key"),
    )


def conclusion(report: Report, audience: str) -> str:
    """What is known of a token that breaks no rule, in one line."""
    proven = f"valid: {report.facts['spiffe_id']} for {audience!a}"
    try:
        return f"{proven} until {moment(parse_expiry(Token({}, report.facts['claims'], '')))}"
    except TokenError:  # of an agent that takes a token without an end
        return proven
