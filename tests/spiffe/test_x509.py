"""The rules of X509-SVID: one certificate per rule that breaks only this rule."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support import spire_captures
from tests.support.cert_factory import (
    CLIENT_ONLY,
    END,
    NOW,
    SERVER_ONLY,
    START,
    MadeCertificate,
    authority,
    key_of,
    leaf,
    make_certificate,
    rewritten,
    signed_over,
)
from tunnel.errors import Denial, PeerDenied, WireError
from tunnel.pkix.certificate import Certificate, parse_certificate, parse_certificates
from tunnel.pkix.der import split_sequences
from tunnel.pkix.path import check_dates
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.spiffe.messages import parse_x509_svid_response
from tunnel.spiffe.x509 import (
    SIGNING_RULES,
    check_anchor,
    check_intermediate,
    check_leaf,
    read_extensions,
)

HOME = TrustDomain("a.test")
Make = Callable[[], MadeCertificate]


def signed_with_sha1(make: Callable[..., MadeCertificate], **fields: Any) -> MadeCertificate:
    key = key_of("rsa2048")
    return signed_over(make(key=key, **fields), "sha1", key)


def of_unknown_key() -> MadeCertificate:
    """A leaf whose key is of a kind that no library knows: the OID of Ed25519 with another last number."""
    signer = key_of("ed25519")
    made = leaf(issuer=authority(key=signer), key=key_of("ed25519", 1))
    key = bytes.fromhex("2b6570") + bytes.fromhex("032100")
    return rewritten(made, key, key.replace(b"\x70", b"\x7a"), signer)


BAD_LEAVES: dict[str, tuple[Make, Denial]] = {
    "no SAN": (lambda: leaf(uris=()), Denial.URI_SAN),
    "DNS SAN only": (lambda: leaf(uris=(), dns_names=("a.test",)), Denial.URI_SAN),
    "two URI SANs": (lambda: leaf(uris=("spiffe://a.test/w", "spiffe://a.test/v")), Denial.URI_SAN),
    "two URI SANs, one of them not SPIFFE": (lambda: leaf(uris=("spiffe://a.test/w", "https://a.test/")), Denial.URI_SAN),
    "the same URI SAN twice": (lambda: leaf(uris=("spiffe://a.test/w",) * 2), Denial.URI_SAN),
    "https URI": (lambda: leaf("https://a.test/w"), Denial.SPIFFE_ID),
    "sparfe URI": (lambda: leaf("sparfe://a.test/w"), Denial.SPIFFE_ID),
    "upper case": (lambda: leaf("spiffe://A.test/w"), Denial.SPIFFE_ID),
    "slash at the end": (lambda: leaf("spiffe://a.test/w/"), Denial.SPIFFE_ID),
    "newline at the end": (lambda: leaf("spiffe://a.test/w\n"), Denial.SPIFFE_ID),
    "zero byte": (lambda: leaf("spiffe://a.test/w\0x"), Denial.SPIFFE_ID),
    "ID of 2049 bytes": (lambda: leaf("spiffe://a.test/" + "w" * 2033), Denial.SPIFFE_ID),
    "empty URI": (lambda: leaf(""), Denial.SPIFFE_ID),
    "no path": (lambda: leaf("spiffe://a.test"), Denial.ROOT_PATH),
    "authority": (lambda: leaf(is_ca=True), Denial.LEAF_IS_CA),
    "keyCertSign": (lambda: leaf(usage=("digital_signature", "key_cert_sign")), Denial.KEY_USAGE),
    "cRLSign": (lambda: leaf(usage=("digital_signature", "crl_sign")), Denial.KEY_USAGE),
    "no keyUsage": (lambda: leaf(usage=None), Denial.KEY_USAGE),
    "keyUsage not critical": (lambda: leaf(is_usage_critical=False), Denial.KEY_USAGE),
    "no digitalSignature": (lambda: leaf(usage=("key_encipherment", "key_agreement")), Denial.KEY_USAGE),
    "keyUsage without a bit": (lambda: leaf(usage=()), Denial.KEY_USAGE),
    "for servers only": (lambda: leaf(purposes=SERVER_ONLY), Denial.EXTENDED_KEY_USAGE),
    "for clients only": (lambda: leaf(purposes=CLIENT_ONLY), Denial.EXTENDED_KEY_USAGE),
    "for any purpose only": (
        lambda: leaf(purposes=(x509.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)),
        Denial.EXTENDED_KEY_USAGE,
    ),
    "RSA-1024": (lambda: leaf(key=key_of("rsa1024"), issuer=authority()), Denial.WEAK_KEY),
    "secp224r1": (lambda: leaf(key=key_of("p224"), issuer=authority()), Denial.WEAK_KEY),
    "secp256k1": (lambda: leaf(key=key_of("k256"), issuer=authority()), Denial.WEAK_KEY),
    "SHA-1": (lambda: signed_with_sha1(leaf), Denial.WEAK_SIGNATURE),
    "a key of a kind nobody knows": (of_unknown_key, Denial.WEAK_KEY),
    "extension that cannot be read": (
        lambda: leaf(extra=((x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.19"), b"\x05\x00"), False),), is_ca=None),
        Denial.UNREADABLE,
    ),
}

GOOD_LEAVES: dict[str, Make] = {
    "plain": leaf,
    "no basicConstraints": lambda: leaf(is_ca=None),
    "no extendedKeyUsage": lambda: leaf(purposes=None),
    "more purposes": lambda: leaf(purposes=(*SERVER_ONLY, *CLIENT_ONLY, x509.ExtendedKeyUsageOID.CODE_SIGNING)),
    "all that SPIRE allows": lambda: leaf(usage=("digital_signature", "key_encipherment", "key_agreement")),
    "DNS SANs": lambda: leaf(dns_names=("db.a.test", "localhost")),
    "a subject": lambda: leaf(subject="db"),
    "ID of 2048 bytes": lambda: leaf("spiffe://a.test/" + "w" * 2032),
    "P-384": lambda: leaf(key=key_of("p384")),
    "P-521": lambda: leaf(key=key_of("p521")),
    "Ed25519": lambda: leaf(key=key_of("ed25519")),
    "Ed448": lambda: leaf(key=key_of("ed448")),
    "RSA-2048": lambda: leaf(key=key_of("rsa2048")),
    "RSA-4096": lambda: leaf(key=key_of("rsa4096")),
}

# What neither an anchor nor an intermediate may be.
BAD_AUTHORITIES: dict[str, tuple[Make, Denial]] = {
    "cA is false": (lambda: authority(is_ca=False), Denial.NOT_CA),
    "no keyCertSign": (lambda: authority(usage=("crl_sign", "digital_signature")), Denial.KEY_USAGE),
    "no keyCertSign, not critical": (lambda: authority(usage=("crl_sign",), is_usage_critical=False), Denial.KEY_USAGE),
    "RSA-1024": (lambda: authority(key=key_of("rsa1024")), Denial.WEAK_KEY),
    "secp256k1": (lambda: authority(key=key_of("k256")), Denial.WEAK_KEY),
}
# Rules for what a peer sent only: a bundle's certificate is vouched for by whoever put it there.
BAD_INTERMEDIATES: dict[str, tuple[Make, Denial]] = {
    "no basicConstraints": (lambda: authority(is_ca=None), Denial.NOT_CA),
    "ID of another trust domain": (lambda: authority("b.test"), Denial.TRUST_DOMAIN),
    "ID with a path in another trust domain": (lambda: authority(uris=("spiffe://b.test/ca",)), Denial.TRUST_DOMAIN),
    "two IDs, one of another": (lambda: authority(uris=("spiffe://a.test", "spiffe://b.test")), Denial.TRUST_DOMAIN),
    "no purpose of TLS": (lambda: authority(purposes=(ExtendedKeyUsageOID.CODE_SIGNING,)), Denial.EXTENDED_KEY_USAGE),
    "SHA-1": (lambda: signed_with_sha1(authority), Denial.WEAK_SIGNATURE),
}
# Ordinary PKI: good enough to sign, and a warning where somebody asks for the rules of X509-SVID.
ORDINARY_AUTHORITIES: dict[str, tuple[Make, str]] = {
    "no keyUsage": (lambda: authority(usage=None), "signer-key-usage"),
    "keyUsage not critical": (lambda: authority(is_usage_critical=False), "signer-key-usage"),
    "ID with a path": (lambda: authority(uris=("spiffe://a.test/ca",)), "signer-id"),
    "ID with a slash at its end": (lambda: authority(uris=("spiffe://a.test/",)), "signer-id"),
    "a URI that is no ID": (lambda: authority(uris=("https://pki.a.test/ca",)), "signer-id"),
    "for servers only": (lambda: authority(purposes=SERVER_ONLY), "signer-purposes"),
    "for clients only": (lambda: authority(purposes=CLIENT_ONLY), "signer-purposes"),
    "any purpose": (lambda: authority(purposes=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)), "signer-purposes"),
}
GOOD_AUTHORITIES: dict[str, Make] = {
    "plain": authority,
    "no URI": lambda: authority(uris=()),
    "DNS name only": lambda: authority(uris=(), dns_names=("ca.a.test",)),
    "path length": lambda: authority(path_length=0),
    "keyCertSign only": lambda: authority(usage=("key_cert_sign",)),
    "both purposes": lambda: authority(purposes=SERVER_ONLY + CLIENT_ONLY),
    "RSA-4096": lambda: authority(key=key_of("rsa4096")),
}


def denial(check: Callable[[], object]) -> Denial:
    with pytest.raises(PeerDenied) as refused:
        check()
    assert str(refused.value).startswith(f"{refused.value.reason.value}: ")
    return refused.value.reason


@pytest.mark.parametrize(("make", "reason"), BAD_LEAVES.values(), ids=BAD_LEAVES)
def test_a_leaf_that_breaks_one_rule_is_refused_for_it(make: Make, reason: Denial) -> None:
    certificate = make().certificate
    assert denial(lambda: check_leaf(certificate)) is reason


@pytest.mark.parametrize("make", GOOD_LEAVES.values(), ids=GOOD_LEAVES)
def test_a_leaf_within_the_rules_has_its_id(make: Make) -> None:
    spiffe_id = check_leaf(make().certificate)
    assert spiffe_id.trust_domain == HOME
    assert spiffe_id.path.startswith("/w")


@pytest.mark.parametrize(("make", "reason"), BAD_AUTHORITIES.values(), ids=BAD_AUTHORITIES)
def test_an_authority_that_breaks_one_rule_is_refused_for_it(make: Make, reason: Denial) -> None:
    certificate = make().certificate
    assert denial(lambda: check_anchor(certificate)) is reason
    assert denial(lambda: check_intermediate(certificate, HOME)) is reason


@pytest.mark.parametrize(("make", "reason"), BAD_INTERMEDIATES.values(), ids=BAD_INTERMEDIATES)
def test_some_rules_are_for_intermediates_only(make: Make, reason: Denial) -> None:
    certificate = make().certificate
    assert denial(lambda: check_intermediate(certificate, HOME)) is reason
    check_anchor(certificate)


@pytest.mark.parametrize("make", GOOD_AUTHORITIES.values(), ids=GOOD_AUTHORITIES)
def test_an_authority_within_the_rules_may_sign(make: Make) -> None:
    certificate = make().certificate
    check_anchor(certificate)
    check_intermediate(certificate, HOME)
    assert warnings_of(certificate) == []


@pytest.mark.parametrize(("make", "rule"), ORDINARY_AUTHORITIES.values(), ids=ORDINARY_AUTHORITIES)
def test_an_ordinary_authority_may_sign_and_breaks_a_rule_of_the_standard(make: Make, rule: str) -> None:
    certificate = make().certificate
    check_anchor(certificate)
    check_intermediate(certificate, HOME)
    assert warnings_of(certificate) == [rule]


def warnings_of(certificate: Certificate) -> list[str]:
    reading, broken = read_extensions(certificate, HOME), []
    for rule in SIGNING_RULES:
        try:
            rule.check(reading)
        except PeerDenied:
            broken.append(rule.name)
    return broken


def test_an_anchor_without_any_extension_is_a_name_and_a_key() -> None:
    check_anchor(make_certificate(subject="root", is_ca=None, usage=None, has_key_ids=False).certificate)


def test_a_refusal_names_the_rule() -> None:
    with pytest.raises(PeerDenied, match=r"^issuer-is-not-ca: rule authority: its basic constraints have cA FALSE$"):
        check_anchor(authority(is_ca=False).certificate)
    with pytest.raises(PeerDenied, match=r"^wrong-uri-san-count: rule one-uri: "):
        check_leaf(leaf(uris=()).certificate)


@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        (START - timedelta(microseconds=1), Denial.NOT_YET_VALID),
        (START, None),
        (NOW, None),
        (END, None),
        (END + timedelta(microseconds=1), Denial.EXPIRED),
    ],
)
def test_both_ends_of_the_dates_are_included(moment: Any, reason: Denial | None) -> None:
    certificate = leaf().certificate
    if reason is None:
        check_dates(certificate, moment)
    else:
        assert denial(lambda: check_dates(certificate, moment)) is reason


def test_every_captured_certificate_is_within_the_rules() -> None:
    for name in spire_captures.of("FetchX509SVID"):
        for svid in parse_x509_svid_response(spire_captures.message(name)).svids:
            first, *intermediates = parse_certificates(svid.x509_svid)
            spiffe_id = check_leaf(first)
            assert spiffe_id == parse_spiffe_id(svid.spiffe_id)
            for certificate in intermediates:
                check_intermediate(certificate, spiffe_id.trust_domain)
            for certificate in parse_certificates(svid.bundle):
                check_anchor(certificate)


@pytest.mark.parametrize("cut", [1, 5, 100, -1])
def test_a_certificate_cut_short_is_a_wire_error(cut: int) -> None:
    der = leaf().der
    with pytest.raises(WireError):
        parse_certificate(der[:cut])
    with pytest.raises(WireError):
        parse_certificates(der + der[:cut])


@pytest.mark.parametrize("extra", [b"\0", b"\n", b"0\0"])
def test_bytes_after_a_certificate_are_a_wire_error(extra: bytes) -> None:
    with pytest.raises(WireError):
        parse_certificate(leaf().der + extra)
    with pytest.raises(WireError):
        parse_certificates(leaf().der + extra)


def test_a_sequence_that_is_no_certificate_is_a_wire_error() -> None:
    with pytest.raises(WireError):
        parse_certificates(bytes.fromhex("3003020105"))


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # the library takes such, still
@pytest.mark.parametrize("name", ["federated/svid/00", "same-subject-left/svid/00", "rsa/svid/00"])
def test_a_captured_certificate_with_a_changed_byte_is_parsed_or_refused(name: str) -> None:
    """Hostile certificates raise our own errors and no others, wherever the library finds the fault."""
    response = parse_x509_svid_response(spire_captures.message(name))
    for der in split_sequences(response.svids[0].x509_svid):
        for place in range(len(der)):
            for flip in (0x01, 0x20, 0x80, 0xFF):
                changed = bytearray(der)
                changed[place] ^= flip
                for check in (check_leaf, partial(check_intermediate, trust_domain=HOME), partial(check_dates, now=NOW)):
                    with suppress(WireError, PeerDenied):
                        check(parse_certificate(bytes(changed)))
