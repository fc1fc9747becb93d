"""The certificate of a challenge is the one of RFC 8737, byte for byte."""

from __future__ import annotations

import hashlib
import subprocess
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ObjectIdentifier

from tunnel.acme.material import make_challenge
from tunnel.pkix.strength import read_public_key

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
AUTHORIZATION = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ"
CERTIFICATE = x509.load_der_x509_certificate(make_challenge("www.example.test", AUTHORIZATION, NOW).chain[0].der)


def test_it_names_the_domain_and_nothing_else() -> None:
    names = CERTIFICATE.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName("www.example.test")]


def test_it_carries_the_digest_of_the_key_authorization_in_a_critical_extension() -> None:
    extension = CERTIFICATE.extensions.get_extension_for_oid(ObjectIdentifier("1.3.6.1.5.5.7.1.31"))
    assert extension.critical
    assert isinstance(extension.value, x509.UnrecognizedExtension)
    assert extension.value.value == b"\x04\x20" + hashlib.sha256(AUTHORIZATION.encode()).digest()


def test_it_is_signed_by_itself_and_good_now() -> None:
    CERTIFICATE.verify_directly_issued_by(CERTIFICATE)
    assert CERTIFICATE.not_valid_before_utc < NOW < CERTIFICATE.not_valid_after_utc


def test_every_challenge_has_a_key_of_its_own() -> None:
    first, second = (make_challenge("a.test", AUTHORIZATION, NOW) for _ in range(2))
    assert first.private_key.public_key() != second.private_key.public_key()
    assert read_public_key(first.chain[0].key_info) == first.private_key.public_key()


def test_openssl_reads_it() -> None:
    asn1 = ["openssl", "asn1parse", "-inform", "DER"]
    try:
        parsed = subprocess.run(asn1, input=CERTIFICATE.public_bytes(Encoding.DER), capture_output=True, timeout=60, check=True)
    except FileNotFoundError:
        pytest.skip("no program openssl")
    lines = parsed.stdout.decode().splitlines()
    (at,) = [number for number, line in enumerate(lines) if "1.3.6.1.5.5.7.1.31" in line]
    assert "BOOLEAN" in lines[at + 1]
    digest = hashlib.sha256(AUTHORIZATION.encode()).hexdigest().upper()
    assert f"0420{digest}" in lines[at + 2]
