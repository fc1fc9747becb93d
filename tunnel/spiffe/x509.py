"""The rules of X509-SVID for single certificates: one function a rule, for our own and for a peer's alike.

Each check raises PeerDenied with the rule that is broken. The tables at the end are what a handshake checks and what
`svid verify` reports. SVIDs keep every rule of X509-SVID. A trust anchor is a name and a key (RFC 5280, 6.1.1 d), and an
intermediate follows RFC 5280, 6.1.4: real authorities are ordinary PKI, which breaks the standard's rules for signing
certificates. Those stricter rules are in SIGNING_RULES, which no handshake checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tunnel.errors import Denial, PeerDenied, SpiffeIdError, WireError, WireFault
from tunnel.spiffe.der import split_sequences
from tunnel.spiffe.ids import SpiffeId, TrustDomain, parse_spiffe_id

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

MIN_RSA_BITS = 2048  # what OpenSSL's security level 2 asks for
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_WEAK_HASHES = (hashes.MD5, hashes.SHA1)
_BOTH_SIDES = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
_TLS_PURPOSES = {*_BOTH_SIDES, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
_OURS = "ours, not the standard's"
# What the library raises for extensions that it cannot read.
_UNREADABLE = (ValueError, LookupError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, x509.InvalidVersion)

E = TypeVar("E", bound=x509.ExtensionType)


def parse_certificates(blob: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates that stand back to back in `blob`; raises WireError."""
    return tuple(parse_certificate(der) for der in split_sequences(blob))


def parse_certificate(der: bytes) -> x509.Certificate:
    """One certificate; raises WireError."""
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as error:
        raise WireError(WireFault.MALFORMED, f"not a certificate: {error}") from error


@dataclass(frozen=True, slots=True)
class Reading:
    """A certificate whose extensions have been read once; `signs_for` is asked of authorities only."""

    certificate: x509.Certificate
    extensions: Mapping[type[x509.ExtensionType], x509.Extension[Any]]
    signs_for: TrustDomain | None = None

    def find(self, kind: type[E]) -> x509.Extension[E] | None:
        """The extension, or None."""
        return self.extensions.get(kind)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its name, where it stands, and the function that raises PeerDenied for whoever breaks it.

    `first` is the rule without which this one means nothing; `is_about_domain` when it needs the leaf's trust domain.
    """

    name: str
    section: str
    words: str
    check: Callable[[Reading], object]
    first: str = ""
    is_about_domain: bool = False


def read_extensions(certificate: x509.Certificate, signs_for: TrustDomain | None = None) -> Reading:
    """The certificate as the rules want it; the library reads extensions late, so what it cannot read shows here."""
    try:
        return Reading(certificate, {type(one.value): one for one in certificate.extensions}, signs_for)
    except _UNREADABLE as error:
        raise PeerDenied(Denial.UNREADABLE, f"extensions cannot be read: {error}") from error


def check_leaf(certificate: x509.Certificate) -> SpiffeId:
    """The SPIFFE ID of a certificate that keeps every rule of a leaf (X509-SVID 2, 3.1, 4)."""
    reading = read_extensions(certificate)
    _check_rules((*LEAF_RULES, *NAME_RULES), reading)
    return _parse_workload_id(reading)


def check_intermediate(certificate: x509.Certificate, trust_domain: TrustDomain) -> None:
    """A signing certificate that a peer sent may sign for `trust_domain` (RFC 5280, 6.1.4 k to n)."""
    _check_rules(INTERMEDIATE_RULES, read_extensions(certificate, trust_domain))


def check_anchor(certificate: x509.Certificate) -> None:
    """A certificate of a bundle can be a trust anchor: a name and a key (RFC 5280, 6.1.1 d).

    Extensions that the library cannot read are left to OpenSSL, which checks cA and keyCertSign by itself.
    """
    try:
        reading = read_extensions(certificate)
    except PeerDenied:
        check_key_strength(certificate)
    else:
        _check_rules(ANCHOR_RULES, reading)


def _check_rules(rules: Iterable[Rule], reading: Reading) -> None:
    for rule in rules:
        try:
            rule.check(reading)
        except PeerDenied as denied:
            raise PeerDenied(denied.reason, f"rule {rule.name}: {denied.seen}") from denied


def parse_leaf_id(certificate: x509.Certificate) -> SpiffeId:
    """The ID in the one URI SAN of a leaf (X509-SVID 2, 5.2: exactly one, and not the root path)."""
    return _parse_workload_id(read_extensions(certificate))


def _parse_workload_id(reading: Reading) -> SpiffeId:
    spiffe_id = _parse_only_id(reading)
    if not spiffe_id.is_workload():
        raise PeerDenied(Denial.ROOT_PATH, f"{spiffe_id} names a trust domain, not a workload")
    return spiffe_id


def _parse_only_id(reading: Reading) -> SpiffeId:
    try:
        return parse_spiffe_id(_only_uri(reading))
    except SpiffeIdError as error:
        raise PeerDenied(Denial.SPIFFE_ID, str(error)) from error


def _only_uri(reading: Reading) -> str:
    uris = _uri_names(reading)
    if len(uris) != 1:
        raise PeerDenied(Denial.URI_SAN, f"the certificate has {len(uris)} URI names where one is wanted")
    return uris[0]


def _check_leaf_is_no_authority(reading: Reading) -> None:
    constraints = reading.find(x509.BasicConstraints)
    if constraints is not None and constraints.value.ca:
        raise PeerDenied(Denial.LEAF_IS_CA, "the leaf certificate is marked as an authority")


def _critical_usage(reading: Reading) -> x509.KeyUsage:
    usage = reading.find(x509.KeyUsage)
    if usage is None or not usage.critical:
        raise PeerDenied(Denial.KEY_USAGE, "key usage is absent or not critical")
    return usage.value


def _check_digital_signature(reading: Reading) -> None:
    if not _critical_usage(reading).digital_signature:
        raise PeerDenied(Denial.KEY_USAGE, "the leaf's key usage lacks digitalSignature")


def _check_leaf_signs_nothing(reading: Reading) -> None:
    usage = _critical_usage(reading)
    if usage.key_cert_sign or usage.crl_sign:
        raise PeerDenied(Denial.KEY_USAGE, "the leaf's key usage has keyCertSign or cRLSign")


def _check_extended_key_usage(reading: Reading) -> None:
    usage = reading.find(x509.ExtendedKeyUsage)
    if usage is not None and not set(usage.value) >= _BOTH_SIDES:
        raise PeerDenied(Denial.EXTENDED_KEY_USAGE, "extended key usage lacks serverAuth or clientAuth")


def _check_is_authority(reading: Reading) -> None:
    constraints = reading.find(x509.BasicConstraints)
    if constraints is None or not constraints.value.ca:
        raise PeerDenied(Denial.NOT_CA, "a signing certificate needs basic constraints with cA TRUE")


def _check_may_be_authority(reading: Reading) -> None:
    constraints = reading.find(x509.BasicConstraints)
    if constraints is not None and not constraints.value.ca:
        raise PeerDenied(Denial.NOT_CA, "its basic constraints say cA FALSE")


def _check_signs_certificates(reading: Reading) -> None:
    usage = reading.find(x509.KeyUsage)
    if usage is not None and not usage.value.key_cert_sign:
        raise PeerDenied(Denial.KEY_USAGE, "its key usage lacks keyCertSign")


def _check_key_usage_of_signer(reading: Reading) -> None:
    if not _critical_usage(reading).key_cert_sign:
        raise PeerDenied(Denial.KEY_USAGE, "its key usage lacks keyCertSign")


def _check_trust_domain(reading: Reading) -> None:
    """Refuse the signing certificate of another trust domain: two domains may have one root, and then only its name tells."""
    for uri in _uri_names(reading):
        try:
            domain = parse_spiffe_id(uri).trust_domain
        except SpiffeIdError:
            continue  # a name in somebody's own PKI
        if domain != reading.signs_for:
            raise PeerDenied(Denial.AUTHORITY_ID, f"its SPIFFE ID is {uri!a}, and the leaf is of {reading.signs_for}")


def _check_authority_id(reading: Reading) -> None:
    uris = _uri_names(reading)
    if uris and uris != [f"spiffe://{reading.signs_for}"]:
        raise PeerDenied(Denial.AUTHORITY_ID, f"its URI name is {uris[0]!a}, expected spiffe://{reading.signs_for}")


def _check_tls_purpose(reading: Reading) -> None:
    usage = reading.find(x509.ExtendedKeyUsage)
    if usage is not None and not set(usage.value) & _TLS_PURPOSES:
        raise PeerDenied(Denial.EXTENDED_KEY_USAGE, "its extended key usage names no purpose of TLS")


def check_key_strength(certificate: x509.Certificate) -> None:
    """RSA of 2048 bits or more, P-256, P-384, P-521, Ed25519 or Ed448."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:  # a point off its curve, or an algorithm that is not known
        raise PeerDenied(Denial.WEAK_KEY, f"a key that cannot be used: {error}") from error
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return
    size = getattr(key, "key_size", "")
    raise PeerDenied(Denial.WEAK_KEY, f"{type(key).__name__.lstrip('_')} {size}".strip() + " is not strong enough")


def check_signature_strength(certificate: x509.Certificate) -> None:
    """Not signed over MD5 or SHA-1."""
    try:
        digest = certificate.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PeerDenied(Denial.WEAK_SIGNATURE, "a signature algorithm that is not known") from error
    if isinstance(digest, _WEAK_HASHES):
        raise PeerDenied(Denial.WEAK_SIGNATURE, f"a certificate is signed over {digest.name}")


def check_dates(certificate: x509.Certificate, now: datetime) -> None:
    """`now` (with a time zone) lies within the dates of the certificate (RFC 5280, 4.1.2.5: both ends included)."""
    if now > certificate.not_valid_after_utc:
        raise PeerDenied(Denial.EXPIRED, f"a certificate ended at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}")
    if now < certificate.not_valid_before_utc:
        raise PeerDenied(Denial.NOT_YET_VALID, f"a certificate begins at {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}")


def _uri_names(reading: Reading) -> list[str]:
    names = reading.find(x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.UniformResourceIdentifier) if names is not None else []


def find_extension(certificate: x509.Certificate, kind: type[E]) -> x509.Extension[E] | None:
    """One extension of a certificate, or None; raises PeerDenied when they cannot be read."""
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None
    except _UNREADABLE as error:
        raise PeerDenied(Denial.UNREADABLE, f"extensions cannot be read: {error}") from error


_CRITICAL_USAGE = Rule("key-usage", "X509-SVID 4.3", "key usage is there and marked critical", _critical_usage)
_PURPOSES = Rule(
    "extended-key-usage",
    "X509-SVID 4.4",
    "extended key usage is absent, or names both serverAuth and clientAuth",
    _check_extended_key_usage,
)
_KEY_STRENGTH = Rule(
    "key-strength",
    _OURS,
    "the key is RSA of 2048 bits or more, P-256, P-384, P-521, Ed25519 or Ed448",
    lambda reading: check_key_strength(reading.certificate),
)
_SIGNATURE_STRENGTH = Rule(
    "signature-strength",
    _OURS,
    "it is not signed over MD5 or SHA-1",
    lambda reading: check_signature_strength(reading.certificate),
)
# In the order in which they are asked: the cheap ones first.
LEAF_RULES = (
    Rule("no-authority", "X509-SVID 4.1", "cA is false, or basic constraints are absent", _check_leaf_is_no_authority),
    _CRITICAL_USAGE,
    Rule("digital-signature", "X509-SVID 4.3", "key usage has digitalSignature", _check_digital_signature, "key-usage"),
    Rule(
        "signs-nothing",
        "X509-SVID 4.3",
        "key usage has neither keyCertSign nor cRLSign",
        _check_leaf_signs_nothing,
        "key-usage",
    ),
    _PURPOSES,
    _KEY_STRENGTH,
    _SIGNATURE_STRENGTH,
)
# The steps of `parse_leaf_id`, each of which holds the one before.
NAME_RULES = (
    Rule("one-uri", "X509-SVID 2", "there is exactly one URI among its names", _only_uri),
    Rule("spiffe-id", "SPIFFE-ID 2", "the URI is a SPIFFE ID", _parse_only_id, "one-uri"),
    Rule("path", "X509-SVID 3.1", "the ID has a path: it names a workload", _parse_workload_id, "spiffe-id"),
)
_SIGNS_CERTIFICATES = Rule(
    "signs-certificates", "RFC 5280 6.1.4 n", "key usage is absent, or has keyCertSign", _check_signs_certificates
)
ANCHOR_RULES = (
    Rule("authority", "RFC 5280 6.1.1 d", "basic constraints are absent, or cA is true", _check_may_be_authority),
    _SIGNS_CERTIFICATES,
    _KEY_STRENGTH,
)
INTERMEDIATE_RULES = (
    Rule("authority", "RFC 5280 6.1.4 k", "cA is true", _check_is_authority),
    _SIGNS_CERTIFICATES,
    Rule(
        "trust-domain",
        _OURS,
        "it has no SPIFFE ID, or one of the leaf's trust domain",
        _check_trust_domain,
        is_about_domain=True,
    ),
    Rule("purpose", _OURS, "extended key usage is absent, or names a purpose of TLS", _check_tls_purpose),
    _KEY_STRENGTH,
    _SIGNATURE_STRENGTH,
)
# What X509-SVID asks of signing certificates beyond that: reported as warnings.
SIGNING_RULES = (
    Rule("signer-key-usage", "X509-SVID 4.3", "key usage is critical and has keyCertSign", _check_key_usage_of_signer),
    Rule(
        "signer-id",
        "X509-SVID 3.2",
        "it has no URI name, or the ID of the leaf's trust domain",
        _check_authority_id,
        is_about_domain=True,
    ),
    Rule("signer-purposes", "X509-SVID 4.4", _PURPOSES.words, _check_extended_key_usage),
)
