"""The JSON of a certificate for a policy is that of Go's encoding/json."""

from __future__ import annotations

import json
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.support import cert_factory
from tunnel.errors import Denial, PeerDenied
from tunnel.policy.certificate import encode_certificate

VECTORS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "certificates.json").read_text())
READ = [name for name, fields in VECTORS.items() if "refused" not in fields]
REFUSED = [name for name, fields in VECTORS.items() if "refused" in fields]


def der_of(name: str) -> bytes:
    return b64decode(VECTORS[name]["Raw"])


@pytest.mark.parametrize("name", READ)
def test_every_field_is_as_go_writes_it_but_for_the_end_of_times(name: str) -> None:
    made = json.loads(encode_certificate(der_of(name)))
    for field in ("NotBefore", "NotAfter"):
        assert made[field].endswith("+00:00")
        made[field] = made[field].replace("+00:00", "Z")
    assert made == VECTORS[name]


@pytest.mark.parametrize("name", REFUSED)
def test_what_go_refuses_is_refused(name: str) -> None:
    with pytest.raises(PeerDenied) as caught:
        encode_certificate(der_of(name))
    assert caught.value.reason is Denial.UNREADABLE


def test_the_vectors_hold_both() -> None:
    assert len(READ) > 50
    assert len(REFUSED) > 5


@pytest.mark.parametrize("name", ["places", "names", "pss-32", "usages"])
def test_whatever_the_bytes_are_there_is_json_or_a_refusal(name: str) -> None:
    good = der_of(name)
    for at in range(len(good)):
        for changed in (0x00, 0xFF, good[at] ^ 0x01, good[at] ^ 0x80, 0x30):
            with suppress(PeerDenied):
                json.loads(encode_certificate(good[:at] + bytes([changed]) + good[at + 1 :]))


def test_a_certificate_that_is_cut_short_is_refused_at_every_byte() -> None:
    good = der_of("names")
    for end in range(len(good)):
        with pytest.raises(PeerDenied):
            encode_certificate(good[:end])


def test_bytes_after_the_certificate_are_refused() -> None:
    with pytest.raises(PeerDenied, match="2 DER values; expected 1"):
        encode_certificate(der_of("p256") + b"\x05\x00")


@pytest.mark.parametrize("bits", [8192, 16384])
def test_a_key_is_written_up_to_the_size_that_go_takes(bits: int) -> None:
    key = rsa.RSAPublicNumbers(65537, 2 ** (bits - 1) + 1).public_key()
    name = cert_factory.name("large")
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key).serial_number(1)
    builder = builder.not_valid_before(cert_factory.START).not_valid_after(cert_factory.END)
    made = cert_factory.MadeCertificate(builder.sign(cert_factory.key_of("p256"), cert_factory.hashes.SHA256()), key)
    if bits == 8192:
        assert json.loads(encode_certificate(made.der))["PublicKey"]["N"] == 2**8191 + 1
    else:
        with pytest.raises(PeerDenied):
            encode_certificate(made.der)


def test_hostile_text_stays_data() -> None:
    text = 'a", "Admin": "yes\n\0\u2028${x}`'
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    key = cert_factory.key_of("p256")
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(2**150).not_valid_before(cert_factory.START).not_valid_after(cert_factory.END)
    made = encode_certificate(cert_factory.MadeCertificate(builder.sign(key, cert_factory.hashes.SHA256()), key).der)
    assert made.isascii()
    assert json.loads(made)["Subject"]["CommonName"] == text
    assert json.loads(made)["SerialNumber"] == 2**150
