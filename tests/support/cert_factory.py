"""A factory of certificates: valid by default, and every field can be overridden."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from tunnel.pkix.certificate import Certificate, parse_certificate

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
START, END = NOW - timedelta(hours=1), NOW + timedelta(hours=1)

SERVER_ONLY = (ExtendedKeyUsageOID.SERVER_AUTH,)
CLIENT_ONLY = (ExtendedKeyUsageOID.CLIENT_AUTH,)
BOTH_SIDES = SERVER_ONLY + CLIENT_ONLY

_USAGES = (
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
_MAKERS: dict[str, Callable[[], Any]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "p224": lambda: ec.generate_private_key(ec.SECP224R1()),
    "k256": lambda: ec.generate_private_key(ec.SECP256K1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa4096": lambda: rsa.generate_private_key(65537, 4096),
}
# In DER: sha256WithRSAEncryption, and what to put in its place; their lengths are equal.
_SHA256_WITH_RSA = bytes.fromhex("2a864886f70d01010b")
_RSA_SIGNATURES = {"sha1": (bytes.fromhex("2a864886f70d010105"), hashes.SHA1())}


@cache
def key_of(kind: str, number: int = 0) -> Any:
    """A key of a type; cached by number, because some take seconds to generate."""
    return _MAKERS[kind]()


@dataclass(frozen=True)
class MadeCertificate:
    """A certificate and its key."""

    built: x509.Certificate
    key: Any

    @property
    def certificate(self) -> Certificate:
        """The certificate parsed by our parser."""
        return parse_certificate(self.der)

    @property
    def der(self) -> bytes:
        return self.built.public_bytes(Encoding.DER)

    @property
    def key_pem(self) -> bytes:
        pem: bytes = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return pem

    @property
    def key_der(self) -> bytes:
        return self.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def name(text: str) -> x509.Name:
    """A subject with one common name, or an empty one."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def make_certificate(
    uris: Sequence[str] = (),
    *,
    subject: str = "",
    issuer: MadeCertificate | None = None,
    key: Any = None,
    is_ca: bool | None = False,  # None: no basicConstraints
    path_length: int | None = None,
    usage: Sequence[str] | None = (),  # None: no keyUsage
    is_usage_critical: bool = True,
    purposes: Sequence[ObjectIdentifier] | None = None,
    dns_names: Sequence[str] = (),
    start: datetime = START,
    end: datetime = END,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    has_key_ids: bool = True,
) -> MadeCertificate:
    """A certificate with these fields; self-signed without an issuer."""
    key = key or _MAKERS["p256"]()
    signer = issuer or MadeCertificate(None, key)  # type: ignore[arg-type]
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(issuer.built.subject if issuer else name(subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    names = [*map(x509.DNSName, dns_names), *map(x509.UniformResourceIdentifier, uris)]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not subject)
    if is_ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(is_ca, path_length), critical=True)
    if usage is not None:
        bits = x509.KeyUsage(**{bit: bit in usage for bit in _USAGES})
        builder = builder.add_extension(bits, critical=is_usage_critical)
    if purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if has_key_ids:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
        builder = builder.add_extension(issued_by, critical=False)
    for extension, is_critical in extra:
        builder = builder.add_extension(extension, critical=is_critical)
    is_edwards = isinstance(signer.key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return MadeCertificate(builder.sign(signer.key, None if is_edwards else hashes.SHA256()), key)


def leaf(uri: str = "spiffe://a.test/w", **fields: Any) -> MadeCertificate:
    """A valid leaf, except for the given fields."""
    fields.setdefault("uris", (uri,))
    fields.setdefault("usage", ("digital_signature",))
    fields.setdefault("purposes", BOTH_SIDES)
    return make_certificate(**fields)


def authority(domain: str = "a.test", **fields: Any) -> MadeCertificate:
    """A valid authority of a trust domain, except for the given fields."""
    fields.setdefault("uris", (f"spiffe://{domain}",))
    fields.setdefault("usage", ("key_cert_sign", "crl_sign"))
    fields.setdefault("is_ca", True)
    fields.setdefault("subject", f"authority of {domain}")
    return make_certificate(**fields)


def signed_over(made: MadeCertificate, digest: str, issuer_key: rsa.RSAPrivateKey) -> MadeCertificate:
    """The same certificate, signed again with RSA and a digest that the library refuses."""
    oid, algorithm = _RSA_SIGNATURES[digest]
    return _resigned(made, _SHA256_WITH_RSA, oid, lambda tbs: issuer_key.sign(tbs, padding.PKCS1v15(), algorithm))


def rewritten(made: MadeCertificate, old: bytes, new: bytes, issuer_key: ed25519.Ed25519PrivateKey) -> MadeCertificate:
    """The same certificate with replaced bytes of equal length, signed again."""
    return _resigned(made, old, new, issuer_key.sign)


def _resigned(made: MadeCertificate, old: bytes, new: bytes, sign: Callable[[bytes], bytes]) -> MadeCertificate:
    assert len(old) == len(new)
    tbs = made.built.tbs_certificate_bytes
    assert old in tbs
    changed = tbs.replace(old, new)
    der = made.der.replace(tbs, changed).replace(made.built.signature, sign(changed))
    if old == _SHA256_WITH_RSA:  # named once more beside the signature
        der = der.replace(old, new)
    return MadeCertificate(x509.load_der_x509_certificate(der), made.key)
