"""Certificates for a host name, as an authority issues them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from tunnel.acme.material import new_key
from tunnel.keystore.material import KeyMaterial
from tunnel.pkix.certificate import parse_certificate

NAME = "www.example.test"
NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def material(name: str = NAME, *, start: datetime = NOW, lasts: float = 90 * 86400) -> KeyMaterial:
    """A certificate that is valid for a number of seconds from a time, and its key."""
    key = new_key()
    certificate = (
        x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(seconds=lasts))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .sign(key, hashes.SHA256())
    )
    return KeyMaterial((parse_certificate(certificate.public_bytes(Encoding.DER)),), key)
