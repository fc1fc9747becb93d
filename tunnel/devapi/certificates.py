"""Certificates and keys with the fields of those that SPIRE 1.15 issues.

One known difference: names are UTF8String here and PrintableString in SPIRE, which verifiers treat as equal.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

IssuedKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

# The name of every authority in older versions, without a serial number.
SAME_SUBJECT = x509.Name(
    [x509.NameAttribute(NameOID.COUNTRY_NAME, "US"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIFFE")]
)
_KEY_MAKERS: dict[str, Callable[[], IssuedKey]] = {
    "ec-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ec-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}
_BACKDATE = timedelta(seconds=10)  # SPIRE's tolerance for clock skew
_MAX_COMMON_NAME = 64  # RFC 5280, appendix A, ub-common-name
_PURPOSES = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


def make_key(key_type: str) -> IssuedKey:
    """Generate a key of a type of `--key-type`."""
    return _KEY_MAKERS[key_type]()


def make_serial() -> int:
    """Return a random 128-bit serial number that is not zero."""
    return secrets.randbelow(2**128 - 1) + 1


def authority_name(serial: int) -> x509.Name:
    """Return the subject of an authority, with a serial number."""
    return x509.Name([*SAME_SUBJECT, x509.NameAttribute(NameOID.SERIAL_NUMBER, str(serial))])


def leaf_name(dns_names: Sequence[str]) -> x509.Name:
    """Return the subject of an SVID; the common name is the first DNS name unless that is too long."""
    country = x509.NameAttribute(NameOID.COUNTRY_NAME, "US")
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIRE")
    common = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in dns_names[:1] if len(name) <= _MAX_COMMON_NAME]
    return x509.Name([country, organization, *common])


def start_certificate(subject: x509.Name, issuer: x509.Name, now: datetime, end: datetime) -> x509.CertificateBuilder:
    """Return a builder with the common fields, except key and serial number."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(end)
    )


def as_authority(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    """Add the extensions of an authority."""
    return builder.add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )


def as_leaf(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    """Add the extensions of a leaf."""
    return (
        builder.add_extension(_key_usage("digital_signature", "key_encipherment", "key_agreement"), critical=True)
        .add_extension(_PURPOSES, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )


def sign(
    builder: x509.CertificateBuilder, key: IssuedKey, issuer_key: IssuedKey, names: Sequence[x509.GeneralName]
) -> x509.Certificate:
    """Add the key, the key identifiers and the names, then sign."""
    builder = builder.public_key(key.public_key()).add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    if key is not issuer_key:  # a self-signed authority of SPIRE has no authority key identifier
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, _hash_for(issuer_key))


def encode_certificates(certificates: Sequence[x509.Certificate], encoding: Encoding = Encoding.DER) -> bytes:
    """Return the concatenated certificates."""
    return b"".join(certificate.public_bytes(encoding) for certificate in certificates)


def _hash_for(key: IssuedKey) -> hashes.SHA256 | hashes.SHA384 | None:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    return hashes.SHA384() if key.key_size == 384 else hashes.SHA256()


def _key_usage(*bits: str) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in bits for name in names})
