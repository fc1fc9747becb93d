"""The certificates have the fields of SPIRE's, and a rotation of the authority breaks no verification."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key
from cryptography.x509.oid import NameOID

from tunnel.config.dev_model import KEY_TYPES
from tunnel.devapi.authority import Authority, IssuedSvid
from tunnel.devapi.certificates import SAME_SUBJECT
from tunnel.pkix.der import split_sequences
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.spiffe.messages import parse_x509_svid_response

Certificates = tuple[x509.Certificate, ...]
SVID_LIFE = timedelta(hours=20000)  # in the captured scenes
CA_LIFE = timedelta(days=7300)


def load(blob: bytes) -> Certificates:
    return tuple(map(x509.load_der_x509_certificate, split_sequences(blob)))


def name_look(name: x509.Name) -> list[tuple[x509.ObjectIdentifier, str]]:
    """A name in order; random serial numbers are replaced by a constant."""
    return [(item.oid, "" if item.oid == NameOID.SERIAL_NUMBER else str(item.value)) for item in name]


def extension_look(
    extension: x509.Extension[x509.ExtensionType], certificate: x509.Certificate, issuer: x509.Certificate
) -> object:
    if isinstance(extension.value, x509.SubjectKeyIdentifier):
        return extension.value == x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())
    if isinstance(extension.value, x509.AuthorityKeyIdentifier):
        return extension.value == x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return extension.value


def look(certificate: x509.Certificate, issuer: x509.Certificate) -> dict[str, object]:
    """Every field of a certificate except keys, serial numbers and dates."""
    certificate.verify_directly_issued_by(issuer)
    return {
        "version": certificate.version,
        "subject": name_look(certificate.subject),
        "issuer": name_look(certificate.issuer),
        "life": certificate.not_valid_after_utc - certificate.not_valid_before_utc,
        "signature": certificate.signature_algorithm_oid,
        "key": (certificate.public_key_algorithm_oid, getattr(certificate.public_key(), "key_size", None)),
        "extensions": [(item.oid, item.critical, extension_look(item, certificate, issuer)) for item in certificate.extensions],
        "serial is long": certificate.serial_number.bit_length() > 64,
    }


def path_look(chain: Certificates, anchor: x509.Certificate) -> list[dict[str, object]]:
    """The fields of a leaf, its intermediates and its anchor."""
    path = [*chain, anchor]
    return [look(certificate, issuer) for certificate, issuer in zip(path, [*path[1:], anchor], strict=True)]


@pytest.fixture
def authority(now: datetime) -> Authority:
    return Authority(TrustDomain("a.test"), now=now, ttl=CA_LIFE)


def issue(authority: Authority, now: datetime, **options: object) -> IssuedSvid:
    spiffe_id = parse_spiffe_id(f"spiffe://{authority.trust_domain}/one")
    return authority.issue(spiffe_id, now=now, ttl=SVID_LIFE, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scene", "key_type", "dns_names"),
    [
        ("one", "ec-p256", ()),
        ("federated", "ec-p256", ("db.a.test", "localhost")),
        ("rsa", "rsa-2048", ()),
        ("p384", "ec-p384", ()),
    ],
)
def test_certificates_have_the_fields_of_the_captured_ones(
    scene: str, key_type: str, dns_names: tuple[str, ...], now: datetime, captured: Callable[[str], bytes]
) -> None:
    entry = parse_x509_svid_response(captured(f"{scene}/svid/00")).svids[0]
    theirs = path_look(load(entry.x509_svid), load(entry.bundle)[0])
    spiffe_id = parse_spiffe_id(entry.spiffe_id)
    authority = Authority(spiffe_id.trust_domain, now=now, ttl=CA_LIFE)
    svid = authority.issue(spiffe_id, now=now, ttl=SVID_LIFE, key_type=key_type, dns_names=dns_names)
    assert path_look(svid.chain, authority.bundle[0]) == theirs


def test_a_chain_with_an_intermediate_has_the_fields_of_the_captured_one(
    now: datetime, captured: Callable[[str], bytes]
) -> None:
    entry = parse_x509_svid_response(captured("same-subject-left/svid/00")).svids[0]
    root = load(entry.bundle)[0]
    theirs = path_look(load(entry.x509_svid), root)
    spiffe_id = parse_spiffe_id(entry.spiffe_id)
    authority = Authority(spiffe_id.trust_domain, now=now, ttl=CA_LIFE, has_intermediate=True, subject=root.subject)
    ours = path_look(authority.issue(spiffe_id, now=now, ttl=SVID_LIFE).chain, authority.bundle[0])
    assert ours[:2] == theirs[:2]
    # The captured root is its operator's; only what a verifier looks at is the same.
    assert (ours[2]["subject"], ours[2]["issuer"]) == (theirs[2]["subject"], theirs[2]["issuer"])
    assert not any(isinstance(item.value, x509.SubjectAlternativeName) for item in authority.bundle[0].extensions)


def test_a_self_signed_authority_has_its_serial_number_in_its_name(authority: Authority) -> None:
    (anchor,) = authority.bundle
    (number,) = anchor.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    assert number.value == str(anchor.serial_number)


def test_two_trust_domains_can_have_authorities_with_one_name(now: datetime) -> None:
    left, right = (Authority(TrustDomain(name), now=now, ttl=CA_LIFE, subject=SAME_SUBJECT) for name in ("a.test", "b.test"))
    assert left.bundle[0].subject == right.bundle[0].subject
    assert left.bundle[0].public_key() != right.bundle[0].public_key()


def test_an_svid_does_not_outlive_its_authority(now: datetime) -> None:
    authority = Authority(TrustDomain("a.test"), now=now, ttl=timedelta(minutes=1))
    assert issue(authority, now).chain[0].not_valid_after_utc == now + timedelta(minutes=1)


def test_certificates_are_backdated_for_clock_skew(authority: Authority, now: datetime) -> None:
    for certificate in (*issue(authority, now).chain, *authority.bundle):
        assert certificate.not_valid_before_utc == now - timedelta(seconds=10)


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_every_key_type_signs_and_is_signed(key_type: str, now: datetime) -> None:
    authority = Authority(TrustDomain("a.test"), now=now, ttl=CA_LIFE, key_type=key_type)
    svid = issue(authority, now, key_type=key_type)
    svid.chain[0].verify_directly_issued_by(authority.bundle[0])
    assert svid.private_key.public_key() == svid.chain[0].public_key()


def test_an_svid_in_der_and_pem_is_the_same(now: datetime) -> None:
    svid = issue(Authority(TrustDomain("a.test"), now=now, ttl=CA_LIFE, has_intermediate=True), now)
    assert load(svid.chain_der) == svid.chain == tuple(x509.load_pem_x509_certificates(svid.chain_pem))
    keys = (load_der_private_key(svid.key_der, None), load_pem_private_key(svid.key_pem, None))
    assert [key.public_key() for key in keys] == [svid.private_key.public_key()] * 2


def test_a_private_key_is_not_in_the_repr(authority: Authority, now: datetime) -> None:
    assert "key" not in repr(issue(authority, now)).lower()


def test_a_dns_name_too_long_for_a_common_name_is_not_in_the_subject(authority: Authority, now: datetime) -> None:
    name = ".".join(["a" * 60, "test"])
    leaf = issue(authority, now, dns_names=(name,)).chain[0]
    assert not leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [name]


@pytest.mark.parametrize("has_intermediate", [False, True])
def test_an_authority_rotation_never_leaves_an_svid_without_its_anchor(has_intermediate: bool, now: datetime) -> None:
    authority = Authority(TrustDomain("a.test"), now=now, ttl=CA_LIFE, has_intermediate=has_intermediate)
    (first,) = authority.bundle

    def anchor() -> x509.Certificate:
        top = issue(authority, now).chain[-1]
        return next(anchor for anchor in authority.bundle if anchor.subject == top.issuer)

    authority.prepare(now)
    assert authority.bundle[:-1] == (first,)
    second = authority.bundle[-1]
    assert anchor() == first, "a prepared authority does not sign yet"
    authority.activate()
    assert list(authority.bundle) == [first, second], "the one before stays for an overlap"
    assert anchor() == second
    authority.drop_old()
    assert list(authority.bundle) == [second]
    assert anchor() == second
