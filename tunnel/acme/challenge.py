"""The certificate that proves to an ACME authority that a name is ours.

Knows RFC 8737; must not know who asks for it or how it is shown. By hand, since the library has left it to its users.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from tunnel.acme.material import new_key
from tunnel.keystore.material import KeyMaterial
from tunnel.pkix.certificate import parse_certificate

_ACME_IDENTIFIER = ObjectIdentifier("1.3.6.1.5.5.7.1.31")  # id-pe-acmeIdentifier
_OCTET_STRING = b"\x04\x20"  # DER: an OCTET STRING of 32 bytes
_SLACK, _LIFETIME = timedelta(days=1), timedelta(days=1)  # for clocks that differ; nobody looks at the dates


def make_challenge(domain: str, key_authorization: str, now: datetime) -> KeyMaterial:
    """A self-signed certificate for a domain that answers one challenge (RFC 8737, section 3), with a key of its own."""
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
