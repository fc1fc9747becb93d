"""Keys and certificates for ACME: what is requested, when it is renewed, and the certificate of a challenge."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

from tunnel.errors import IdentityError, IdentityFault, PeerDenied
from tunnel.keystore.material import KeyMaterial
from tunnel.pkix.certificate import Certificate, parse_certificate
from tunnel.spiffe.x509 import PrivateKey

_ACME_IDENTIFIER = ObjectIdentifier("1.3.6.1.5.5.7.1.31")  # id-pe-acmeIdentifier
_OCTET_STRING = b"\x04\x20"  # DER: an OCTET STRING of 32 bytes
_SLACK, _LIFETIME = timedelta(days=1), timedelta(days=1)  # of a challenge: clocks differ, and the dates are not verified
_LEFT: Final = 3  # renewed when this part of the lifetime is left: one third


def new_key() -> ec.EllipticCurvePrivateKey:
    """A P-256 key: every ACME server accepts it, and it has the cheapest handshake."""
    return ec.generate_private_key(ec.SECP256R1())


def renew_due_at(chain: tuple[Certificate, ...]) -> datetime:
    """The time at which a third of the leaf's lifetime is left."""
    leaf = chain[0]
    return leaf.not_after - (leaf.not_after - leaf.not_before) / _LEFT


def check_name(material: KeyMaterial, domain: str) -> KeyMaterial:
    """The material if its leaf names the domain; raises IdentityError."""
    if domain not in _dns_names(material.chain[0]):
        raise IdentityError(IdentityFault.BAD_CERTIFICATE, f"the certificate does not name {domain}")
    return material


def encode_key(key: PrivateKey) -> bytes:
    """The key in PEM, unencrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def encode_material(material: KeyMaterial) -> bytes:
    """The key and then the certificates in PEM: one file, so that both are replaced together."""
    return encode_key(material.private_key) + b"".join(one.pem for one in material.chain)


def _dns_names(certificate: Certificate) -> list[str]:
    try:
        return [name.lower() for name in certificate.extensions.dns_names()]
    except PeerDenied:
        return []


# -- the challenge


def make_challenge(domain: str, key_authorization: str, now: datetime) -> KeyMaterial:
    """A self-signed certificate, with a new key, that answers one challenge for a domain (RFC 8737, section 3)."""
    key = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ACME challenge")])
    digest = hashlib.sha256(key_authorization.encode()).digest()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=False)
        .add_extension(x509.UnrecognizedExtension(_ACME_IDENTIFIER, _OCTET_STRING + digest), critical=True)
        .sign(key, hashes.SHA256())
    )
    return KeyMaterial((parse_certificate(certificate.public_bytes(Encoding.DER)),), key)
