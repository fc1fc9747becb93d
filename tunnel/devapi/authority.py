"""A throw-away certificate authority of one trust domain, whose certificates look like SPIRE's.

Knows the certificates that SPIRE 1.15 issues, as captured; must not know who asks for them, what time it is, or any file.
One difference is known: names are UTF8String here and PrintableString there, which no verifier tells apart.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tunnel.spiffe.ids import SpiffeId, TrustDomain

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

SAME_SUBJECT = x509.Name(
    [x509.NameAttribute(NameOID.COUNTRY_NAME, "US"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIFFE")]
)
_KEY_MAKERS: dict[str, Callable[[], PrivateKey]] = {
    "ec-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ec-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}
_BACKDATE = timedelta(seconds=10)  # SPIRE's allowance for clocks that are late
_MAX_COMMON_NAME = 64  # RFC 5280, appendix A, ub-common-name
_CA_USAGE = ("key_cert_sign", "crl_sign")
_LEAF_USAGE = ("digital_signature", "key_encipherment", "key_agreement")


@dataclass(frozen=True)
class IssuedSvid:
    """An X.509-SVID with its key."""

    spiffe_id: SpiffeId
    chain: tuple[x509.Certificate, ...]  # the leaf first, then the intermediates
    private_key: PrivateKey = field(repr=False)

    @property
    def chain_der(self) -> bytes:
        """The certificates back to back, as the Workload API has them."""
        return encode_certificates(self.chain)

    @property
    def chain_pem(self) -> bytes:
        """The certificates as PEM."""
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.chain)

    @property
    def key_der(self) -> bytes:
        """The key as PKCS#8, unencrypted."""
        return self.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    @property
    def key_pem(self) -> bytes:
        """The key as PKCS#8 in PEM, unencrypted."""
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True)
class _Signer:
    """One generation of the authority: what the bundle holds, and what signs."""

    anchor: x509.Certificate
    intermediates: tuple[x509.Certificate, ...]  # carried by every SVID
    key: PrivateKey = field(repr=False)

    @property
    def certificate(self) -> x509.Certificate:
        return self.intermediates[0] if self.intermediates else self.anchor


class Authority:
    """Signs for one trust domain; a change of authority is `prepare`, `activate`, `drop_old`."""

    def __init__(
        self,
        trust_domain: TrustDomain,
        *,
        now: datetime,
        ttl: timedelta,
        has_intermediate: bool = False,
        subject: x509.Name | None = None,
        key_type: str = "ec-p256",
    ) -> None:
        """`subject` names every anchor; without it each has SPIRE's look, a serial number in its name."""
        self.trust_domain = trust_domain
        self._ttl = ttl
        self._has_intermediate = has_intermediate
        self._subject = subject
        self._key_type = key_type
        self._old: tuple[_Signer, ...] = ()
        self._current = self._make_signer(now)
        self._prepared: _Signer | None = None

    @property
    def bundle(self) -> tuple[x509.Certificate, ...]:
        """Everything that peers shall trust, the oldest first: not yet dropped, current, prepared."""
        prepared = (self._prepared,) if self._prepared else ()
        return tuple(signer.anchor for signer in (*self._old, self._current, *prepared))

    def issue(
        self,
        spiffe_id: SpiffeId,
        *,
        now: datetime,
        ttl: timedelta,
        key_type: str = "ec-p256",
        dns_names: tuple[str, ...] = (),
    ) -> IssuedSvid:
        """An SVID signed by the current authority, which it does not outlive."""
        signer = self._current
        key = _KEY_MAKERS[key_type]()
        names = [*map(x509.DNSName, dns_names), x509.UniformResourceIdentifier(str(spiffe_id))]
        builder = (
            _builder(_leaf_name(dns_names), signer.certificate.subject, key, now)
            .serial_number(_serial())
            .not_valid_after(min(now + ttl, signer.certificate.not_valid_after_utc))
            .add_extension(_key_usage(_LEAF_USAGE), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        leaf = _sign(builder, key, signer.key, names)
        return IssuedSvid(spiffe_id, (leaf, *signer.intermediates), key)

    def prepare(self, now: datetime) -> None:
        """Put the next authority into the bundle; it signs nothing yet."""
        self._prepared = self._make_signer(now)

    def activate(self) -> None:
        """Let the prepared authority sign; the one before stays in the bundle."""
        assert self._prepared is not None, "prepare comes before activate"
        self._old = (*self._old, self._current)
        self._current, self._prepared = self._prepared, None

    def drop_old(self) -> None:
        """Take the authorities that sign no more out of the bundle."""
        self._old = ()

    def _make_signer(self, now: datetime) -> _Signer:
        key = _KEY_MAKERS[self._key_type]()
        serial = _serial()
        name = self._subject or _authority_name(serial)
        builder = _authority_builder(name, name, key, now, now + self._ttl).serial_number(serial)
        # An upstream root knows nothing of SPIFFE, so it names no trust domain, as in the captured chains.
        names = [] if self._has_intermediate else [self._trust_domain_name()]
        anchor = _sign(builder, key, key, names)
        root = _Signer(anchor, (), key)
        return self._make_intermediate(root, now) if self._has_intermediate else root

    def _make_intermediate(self, root: _Signer, now: datetime) -> _Signer:
        key = _KEY_MAKERS[self._key_type]()
        end = root.anchor.not_valid_after_utc
        builder = _authority_builder(_authority_name(_serial()), root.anchor.subject, key, now, end).serial_number(_serial())
        certificate = _sign(builder, key, root.key, [self._trust_domain_name()])
        return _Signer(root.anchor, (certificate,), key)

    def _trust_domain_name(self) -> x509.GeneralName:
        return x509.UniformResourceIdentifier(str(SpiffeId(self.trust_domain, "")))


def encode_certificates(certificates: Sequence[x509.Certificate]) -> bytes:
    """Certificates back to back in DER."""
    return b"".join(certificate.public_bytes(Encoding.DER) for certificate in certificates)


def _serial() -> int:
    return secrets.randbelow(2**128 - 1) + 1


def _authority_name(serial: int) -> x509.Name:
    return x509.Name([*SAME_SUBJECT, x509.NameAttribute(NameOID.SERIAL_NUMBER, str(serial))])


def _leaf_name(dns_names: tuple[str, ...]) -> x509.Name:
    country = x509.NameAttribute(NameOID.COUNTRY_NAME, "US")
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIRE")
    common = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in dns_names[:1] if len(name) <= _MAX_COMMON_NAME]
    return x509.Name([country, organization, *common])


def _builder(subject: x509.Name, issuer: x509.Name, key: PrivateKey, now: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .not_valid_before(now - _BACKDATE)
    )


def _authority_builder(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        _builder(subject, issuer, key, now)
        .not_valid_after(end)
        .add_extension(_key_usage(_CA_USAGE), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )


def _sign(
    builder: x509.CertificateBuilder,
    key: PrivateKey,
    issuer_key: PrivateKey,
    names: Sequence[x509.GeneralName],
) -> x509.Certificate:
    """Add what comes last in a certificate of SPIRE: key identifiers and names; then sign."""
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    if key is not issuer_key:  # a self-signed authority of SPIRE names no other key
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, _hash_for(issuer_key))


def _hash_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | None:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    return hashes.SHA384() if key.key_size == 384 else hashes.SHA256()


def _key_usage(bits: Sequence[str]) -> x509.KeyUsage:
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
