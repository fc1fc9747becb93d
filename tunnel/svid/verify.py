"""Whether a certificate is an X.509-SVID, rule by rule.

Knows the order in which rules are asked and which mean nothing without another; must not know a rule itself: those are the
ones of the data plane, as a handshake asks them. Bundles are never pooled: the leaf's own trust domain has one, or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from tunnel.errors import Denial, PeerDenied
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
    Rule,
    RuleInput,
    parse_leaf_id,
    read_extensions,
)
from tunnel.svid.findings import Examiner, Report, Verdict
from tunnel.time_format import format_time
from tunnel.tls.verify import SpiffeVerifier

_PATH = "certification-path", "X509-SVID 5.1"


@dataclass(frozen=True, slots=True)
class Trust:
    """By what the path is checked: bundles, or the reason why there are none."""

    bundles: BundleSet | None
    source: str
    is_wanted: bool = True  # False: nobody asked for it, so its absence is no fault


def examine_certificate(path: Sequence[Certificate], now: datetime, trust: Trust, key: object = None) -> Report:
    """Every rule for the leaf, `path[0]`, and for what follows it; `key` is the public half of one that should fit."""
    examiner = Examiner()
    readings = list[RuleInput]()
    examiner.ask("readable", "RFC 5280 4.2", "its extensions can be read", lambda: readings.append(read_extensions(path[0])))
    for rule in (*LEAF_RULES, *NAME_RULES):
        _ask(examiner, "", rule, readings)
    spiffe_id = parse_leaf_id(path[0]) if examiner.is_kept("path") else None
    _ask_dates(examiner, "dates", path[0], now)
    if key is not None:
        _ask_fit(examiner, path[0], key)
    _await_request(examiner, path)
    for number, certificate in enumerate(path[1:], 2):
        _ask_intermediate(examiner, f"[{number}]", certificate, now, spiffe_id)
    _ask_path(examiner, path, now, trust)
    return Report(tuple(examiner.findings), _facts(path[0], spiffe_id))


def conclusion(report: Report) -> str:
    """What is known of a certificate that breaks no rule, in one line."""
    subject = f"{report.facts['spiffe_id']} until {report.facts['not_after']}"
    if any(finding.rule == _PATH[0] and finding.verdict is Verdict.KEPT for finding in report.findings):
        return f"valid: {subject}"
    return f"keeps the rules for an SVID: {subject}; who has signed it was not looked at"


def _ask(
    examiner: Examiner, prefix: str, rule: Rule, readings: Sequence[RuleInput], otherwise: Verdict = Verdict.BROKEN
) -> None:
    needs = [f"{prefix}readable", *([f"{prefix}{rule.first}"] if rule.first else ())]

    def check() -> None:
        rule.check(readings[0])

    examiner.ask(f"{prefix}{rule.name}", rule.section, rule.words, check, needs=needs, otherwise=otherwise)


def _ask_dates(examiner: Examiner, name: str, certificate: Certificate, now: datetime) -> None:
    words = f"now is within its dates, until {format_time(certificate.not_after)}"
    examiner.ask(name, "RFC 5280 4.1.2.5", words, lambda: check_dates(certificate, now))


def _ask_fit(examiner: Examiner, leaf: Certificate, key: object) -> None:
    try:
        fits = read_public_key(leaf.key_info) == key
    except PeerDenied:
        fits = False
    if fits:
        examiner.add("key", "Workload API 5.2.1", Verdict.KEPT, "the private key is the certificate's")
    else:
        examiner.add(
            "key", "Workload API 5.2.1", Verdict.BROKEN, "the private key is another certificate's", "key-does-not-fit"
        )


def _await_request(examiner: Examiner, path: Sequence[Certificate]) -> None:
    """Certificates stand in the order in which they sign, as TLS sends them."""

    def check() -> None:
        check_sent(path)
        for number, (one, signer) in enumerate(pairwise(path), 1):
            try:
                check_issued_by(one, signer)
            except PeerDenied:
                raise PeerDenied(Denial.BAD_PATH, f"certificate {number} is not signed by certificate {number + 1}") from None

    words = "it stands alone" if len(path) == 1 else f"of {len(path)} certificates each is signed by the next"
    examiner.ask("order", "RFC 8446 4.4.2", words, check)


def _ask_intermediate(
    examiner: Examiner, prefix: str, certificate: Certificate, now: datetime, spiffe_id: SpiffeId | None
) -> None:
    readings = list[RuleInput]()
    domain = spiffe_id.trust_domain if spiffe_id else None
    examiner.ask(
        f"{prefix}readable",
        "RFC 5280 4.2",
        "its extensions can be read",
        lambda: readings.append(read_extensions(certificate, domain)),
    )
    for rule in (*INTERMEDIATE_RULES, *SIGNING_RULES):
        if rule.is_about_domain and domain is None:
            words = f"{rule.words}: not looked at, since the leaf names none"
            examiner.add(f"{prefix}{rule.name}", rule.section, Verdict.NOT_ASKED, words)
        else:
            _ask(examiner, prefix, rule, readings, Verdict.WARNING if rule in SIGNING_RULES else Verdict.BROKEN)
    _ask_dates(examiner, f"{prefix}dates", certificate, now)


def _ask_path(examiner: Examiner, path: Sequence[Certificate], now: datetime, trust: Trust) -> None:
    name, section = _PATH
    bundles = trust.bundles
    if bundles is None:
        verdict = Verdict.BROKEN if trust.is_wanted else Verdict.NOT_ASKED
        examiner.add(name, section, verdict, f"not looked at: {trust.source}", "no-bundle" if trust.is_wanted else "")
        return
    needs = ["readable", *(rule.name for rule in (*LEAF_RULES, *NAME_RULES))]
    words = f"it leads to the bundle of its own trust domain, {trust.source}"
    examiner.ask(name, section, words, lambda: SpiffeVerifier(bundles).verify(path, now), needs=needs)


def _facts(leaf: Certificate, spiffe_id: SpiffeId | None) -> dict[str, Any]:
    return {
        "spiffe_id": str(spiffe_id) if spiffe_id else None,
        "not_before": format_time(leaf.not_before),
        "not_after": format_time(leaf.not_after),
        "serial_number": f"{leaf.serial_number:x}",
    }
