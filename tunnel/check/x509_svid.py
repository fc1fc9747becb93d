"""Checks whether a certificate is an X.509-SVID, rule by rule (`svid verify`).

The rules are those of the data plane. Never pool bundles: the leaf's own trust domain has one bundle, or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from tunnel.check.finding import Verdict
from tunnel.check.rule_report import RuleChecker, RuleReport
from tunnel.errors import Denial, PeerDenied
from tunnel.lazy_dataclass import dataclass
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.path import check_dates, check_issued_by, check_sent
from tunnel.pkix.strength import read_public_key
from tunnel.spiffe.bundle import BundleSet
from tunnel.spiffe.ids import SpiffeId
from tunnel.spiffe.x509 import (
    INTERMEDIATE_RULES,
    LEAF_RULES,
    NAME_RULES,
    SIGNING_RULES,
    CertificateRule,
    RuleInput,
    parse_leaf_id,
    read_extensions,
)
from tunnel.time_format import format_time
from tunnel.tls.verify import SpiffeVerifier

_PATH = "certification-path", "X509-SVID 5.1"


@dataclass(frozen=True, slots=True)
class PathTrust:
    """The bundles that verify the path, or the reason why there are none."""

    bundles: BundleSet | None
    source: str
    is_required: bool = True  # False: no bundle was configured, so its absence is no problem


def examine_certificate(path: Sequence[Certificate], now: datetime, trust: PathTrust, key: object = None) -> RuleReport:
    """Check every rule for the leaf, `path[0]`, and its intermediates; `key` is a public key that the leaf should have."""
    checker = RuleChecker()
    inputs = list[RuleInput]()
    checker.check("readable", "RFC 5280 4.2", "its extensions can be read", lambda: inputs.append(read_extensions(path[0])))
    for rule in (*LEAF_RULES, *NAME_RULES):
        _check_rule(checker, "", rule, inputs)
    spiffe_id = parse_leaf_id(path[0]) if checker.is_met("path") else None
    _check_dates(checker, "dates", path[0], now)
    if key is not None:
        _check_key(checker, path[0], key)
    _check_order(checker, path)
    for number, certificate in enumerate(path[1:], 2):
        _check_intermediate(checker, f"[{number}]", certificate, now, spiffe_id)
    _check_path(checker, path, now, trust)
    return RuleReport(tuple(checker.findings), _facts(path[0], spiffe_id))


def conclusion(report: RuleReport) -> str:
    """Return the last line of a report without a broken rule."""
    subject = f"{report.facts['spiffe_id']} until {report.facts['not_after']}"
    if any(finding.name == _PATH[0] and finding.verdict is Verdict.OK for finding in report.findings):
        return f"valid: {subject}"
    return f"meets the rules for an SVID: {subject}; certification path not checked"


def _check_rule(
    checker: RuleChecker, prefix: str, rule: CertificateRule, inputs: Sequence[RuleInput], otherwise: Verdict = Verdict.PROBLEM
) -> None:
    needs = [f"{prefix}readable", *([f"{prefix}{rule.requires}"] if rule.requires else ())]

    def check() -> None:
        rule.check(inputs[0])

    checker.check(f"{prefix}{rule.name}", rule.section, rule.summary, check, needs=needs, otherwise=otherwise)


def _check_dates(checker: RuleChecker, name: str, certificate: Certificate, now: datetime) -> None:
    description = f"the current time is within its validity period, until {format_time(certificate.not_after)}"
    checker.check(name, "RFC 5280 4.1.2.5", description, lambda: check_dates(certificate, now))


def _check_key(checker: RuleChecker, leaf: Certificate, key: object) -> None:
    try:
        fits = read_public_key(leaf.key_info) == key
    except PeerDenied:
        fits = False
    if fits:
        checker.add("key", "Workload API 5.2.1", Verdict.OK, "the private key belongs to the certificate")
    else:
        checker.add(
            "key", "Workload API 5.2.1", Verdict.PROBLEM, "the private key belongs to another certificate", "key-mismatch"
        )


def _check_order(checker: RuleChecker, path: Sequence[Certificate]) -> None:
    """Check that each certificate is signed by the next one, as TLS sends them."""

    def check() -> None:
        check_sent(path)
        for number, (one, signer) in enumerate(pairwise(path), 1):
            try:
                check_issued_by(one, signer)
            except PeerDenied:
                raise PeerDenied(Denial.BAD_PATH, f"certificate {number} is not signed by certificate {number + 1}") from None

    description = "single certificate" if len(path) == 1 else f"each of {len(path)} certificates is signed by the next"
    checker.check("order", "RFC 8446 4.4.2", description, check)


def _check_intermediate(
    checker: RuleChecker, prefix: str, certificate: Certificate, now: datetime, spiffe_id: SpiffeId | None
) -> None:
    inputs = list[RuleInput]()
    domain = spiffe_id.trust_domain if spiffe_id else None
    checker.check(
        f"{prefix}readable",
        "RFC 5280 4.2",
        "its extensions can be read",
        lambda: inputs.append(read_extensions(certificate, domain)),
    )
    for rule in (*INTERMEDIATE_RULES, *SIGNING_RULES):
        if rule.needs_trust_domain and domain is None:
            detail = f"{rule.summary}: not checked because the leaf has no trust domain"
            checker.add(f"{prefix}{rule.name}", rule.section, Verdict.SKIPPED, detail)
        else:
            _check_rule(checker, prefix, rule, inputs, Verdict.WARNING if rule in SIGNING_RULES else Verdict.PROBLEM)
    _check_dates(checker, f"{prefix}dates", certificate, now)


def _check_path(checker: RuleChecker, path: Sequence[Certificate], now: datetime, trust: PathTrust) -> None:
    name, section = _PATH
    bundles = trust.bundles
    if bundles is None:
        verdict = Verdict.PROBLEM if trust.is_required else Verdict.SKIPPED
        checker.add(name, section, verdict, f"not checked: {trust.source}", "no-bundle" if trust.is_required else "")
        return
    needs = ["readable", *(rule.name for rule in (*LEAF_RULES, *NAME_RULES))]
    description = f"it ends at the bundle of its own trust domain, {trust.source}"
    checker.check(name, section, description, lambda: SpiffeVerifier(bundles).verify(path, now), needs=needs)


def _facts(leaf: Certificate, spiffe_id: SpiffeId | None) -> dict[str, Any]:
    return {
        "spiffe_id": str(spiffe_id) if spiffe_id else None,
        "not_before": format_time(leaf.not_before),
        "not_after": format_time(leaf.not_after),
        "serial_number": f"{leaf.serial_number:x}",
    }
