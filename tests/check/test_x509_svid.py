"""Every rule of X509-SVID, with a certificate that breaks it and no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509

from tests.support.cert_factory import CLIENT_ONLY, NOW, MadeCertificate, authority, key_of, leaf
from tunnel.check.finding import Verdict
from tunnel.check.rule_report import RuleReport
from tunnel.check.x509_svid import PathTrust, conclusion, examine_certificate
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain

HOME = TrustDomain("a.test")
NO_TRUST = PathTrust(None, "no bundle is configured", is_required=False)
ROOT = authority()


def trust(*authorities: MadeCertificate, domain: TrustDomain = HOME) -> PathTrust:
    return PathTrust(BundleSet({domain: TrustBundle(domain, tuple(made.certificate for made in authorities))}), "of the test")


def names_of(report: RuleReport, verdict: Verdict) -> list[str]:
    return [finding.name for finding in report.findings if finding.verdict is verdict]


def examine(*path: MadeCertificate, by: PathTrust = NO_TRUST, key: object = None) -> RuleReport:
    return examine_certificate([made.certificate for made in path], NOW, by, key)


BREAKING: dict[str, tuple[Callable[[], MadeCertificate], list[str], list[str]]] = {
    "authority": (lambda: leaf(is_ca=True), ["no-authority"], []),
    "no key usage": (lambda: leaf(usage=None), ["key-usage"], ["digital-signature", "signs-nothing"]),
    "key usage not critical": (
        lambda: leaf(is_usage_critical=False),
        ["key-usage"],
        ["digital-signature", "signs-nothing"],
    ),
    "no digitalSignature": (lambda: leaf(usage=("key_agreement",)), ["digital-signature"], []),
    "keyCertSign": (lambda: leaf(usage=("digital_signature", "key_cert_sign")), ["signs-nothing"], []),
    "for servers only": (lambda: leaf(purposes=(x509.ExtendedKeyUsageOID.SERVER_AUTH,)), ["extended-key-usage"], []),
    "weak key": (lambda: leaf(key=key_of("rsa1024"), issuer=authority()), ["key-strength"], []),
    "no URI": (lambda: leaf(uris=()), ["one-uri"], ["spiffe-id", "path"]),
    "two URIs": (lambda: leaf(uris=("spiffe://a.test/w", "spiffe://a.test/v")), ["one-uri"], ["spiffe-id", "path"]),
    "https URI": (lambda: leaf("https://a.test/w"), ["spiffe-id"], ["path"]),
    "no path": (lambda: leaf("spiffe://a.test"), ["path"], []),
    "ended": (lambda: leaf(end=NOW - timedelta(minutes=1)), ["dates"], []),
    "several": (lambda: leaf(is_ca=True, usage=("key_cert_sign",), uris=()), ["no-authority", "digital-signature",
        "signs-nothing", "one-uri"], ["spiffe-id", "path"]),
}  # fmt: skip


@pytest.mark.parametrize(("make", "broken", "not_asked"), BREAKING.values(), ids=BREAKING)
def test_each_broken_rule_is_reported_and_its_dependents_are_skipped(
    make: Callable[[], MadeCertificate], broken: list[str], not_asked: list[str]
) -> None:
    report = examine(make())
    assert names_of(report, Verdict.PROBLEM) == broken
    assert names_of(report, Verdict.SKIPPED) == [*not_asked, "certification-path"]
    assert len(report.findings) == 15
    assert all(finding.section for finding in report.findings)


def test_a_valid_chain_meets_every_rule() -> None:
    middle = authority(issuer=ROOT)
    made = leaf(issuer=middle)
    report = examine(made, middle, by=trust(ROOT), key=made.key.public_key())
    assert names_of(report, Verdict.OK) == [finding.name for finding in report.findings]
    assert conclusion(report) == "valid: spiffe://a.test/w until 2026-11-22T13:00:00Z"
    found = json.loads(report.encode_json())
    assert (found["valid"], found["spiffe_id"]) == (True, "spiffe://a.test/w")


def test_without_a_bundle_the_path_is_skipped() -> None:
    report = examine(leaf(issuer=ROOT))
    assert names_of(report, Verdict.SKIPPED) == ["certification-path"]
    assert report.broken is None
    assert conclusion(report).endswith("certification path not checked")
    unavailable = examine(leaf(issuer=ROOT), by=PathTrust(None, "no answer"))
    assert names_of(unavailable, Verdict.PROBLEM) == ["certification-path"]


@pytest.mark.parametrize(
    ("by", "reason"),
    [
        (trust(authority()), "unknown-authority"),
        (trust(ROOT, domain=TrustDomain("b.test")), "unknown-trust-domain"),
        (trust(), "unknown-authority"),
    ],
)
def test_a_path_to_an_unknown_authority_is_reported(by: PathTrust, reason: str) -> None:
    report = examine(leaf(issuer=ROOT), by=by)
    assert names_of(report, Verdict.PROBLEM) == ["certification-path"]
    assert report.findings[-1].reason == reason


def test_intermediates_are_asked_by_number_and_their_order_counts() -> None:
    middle = authority(issuer=ROOT)
    made = leaf(issuer=middle)
    bad = authority("b.test", issuer=ROOT, usage=("crl_sign",))
    report = examine(made, middle, bad, by=trust(ROOT))
    assert names_of(report, Verdict.PROBLEM) == ["order", "[3]signs-certificates", "[3]trust-domain"]
    assert "certificate 2 is not signed by certificate 3" in report.encode_text("")
    nameless = examine(leaf(uris=(), issuer=middle), middle)
    anonymous = ["spiffe-id", "path", "[2]trust-domain", "[2]signer-id", "certification-path"]
    assert names_of(nameless, Verdict.SKIPPED) == anonymous


def test_an_ordinary_intermediate_is_valid_with_a_warning_for_each_rule_of_the_standard() -> None:
    middle = authority(issuer=ROOT, usage=None, uris=("https://pki.a.test/issuing",), purposes=CLIENT_ONLY)
    report = examine(leaf(issuer=middle), middle, by=trust(ROOT))
    assert report.broken is None
    assert names_of(report, Verdict.WARNING) == ["[2]signer-key-usage", "[2]signer-id", "[2]signer-purposes"]
    assert "\n??  [2]signer-key-usage" in report.encode_text("kept")
    assert json.loads(report.encode_json())["valid"] is True


def test_a_key_of_another_certificate_is_reported() -> None:
    made = leaf(issuer=ROOT)
    assert names_of(examine(made, key=key_of("p256", 7).public_key()), Verdict.PROBLEM) == ["key"]


def test_an_unreadable_certificate_is_reported_and_other_rules_are_skipped() -> None:
    bad = leaf(is_ca=None, extra=((x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.19"), b"\x05\x00"), False),))
    report = examine(bad, by=trust(ROOT))
    assert names_of(report, Verdict.PROBLEM) == ["readable"]
    assert names_of(report, Verdict.OK) == ["dates", "order"]


def test_hostile_names_are_escaped() -> None:
    text = examine(leaf("spiffe://a.test/\x1b[2J\nok  everything")).encode_text("")
    assert text.replace("\n", "").isprintable()
    assert len(text.splitlines()) == 16
