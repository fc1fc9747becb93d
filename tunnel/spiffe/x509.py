"""The rules of X509-SVID for single certificates: one function a rule, for our own and for a peer's alike.

Knows sections 2 to 4 of X509-SVID and which keys are strong enough; must not know how a path is built or who is admitted.
Each check raises PeerDenied with the rule that is broken.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

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


def check_leaf(certificate: x509.Certificate) -> SpiffeId:
    """The SPIFFE ID of a certificate that keeps every rule of a leaf (X509-SVID 2, 3.1, 4)."""
    check_leaf_is_no_authority(certificate)
    check_leaf_key_usage(certificate)
    check_extended_key_usage(certificate)
    check_key_strength(certificate)
    check_signature_strength(certificate)
    return parse_leaf_id(certificate)


def check_intermediate(certificate: x509.Certificate, trust_domain: TrustDomain) -> None:
    """A signing certificate that a peer sent keeps every rule (X509-SVID 3.2, 4)."""
    check_authority(certificate, trust_domain)
    check_extended_key_usage(certificate)
    check_signature_strength(certificate)


def check_authority(certificate: x509.Certificate, trust_domain: TrustDomain) -> None:
    """A certificate may sign for `trust_domain`; whoever put it into the bundle vouches for its own signature."""
    check_is_authority(certificate)
    check_authority_key_usage(certificate)
    check_authority_id(certificate, trust_domain)
    check_key_strength(certificate)


def parse_leaf_id(certificate: x509.Certificate) -> SpiffeId:
    """The ID in the one URI SAN of a leaf (X509-SVID 2, 5.2: exactly one, and not the root path)."""
    uris = _uri_names(certificate)
    if len(uris) != 1:
        raise PeerDenied(Denial.URI_SAN, f"the certificate has {len(uris)} URI names where one is wanted")
    spiffe_id = _parse_id(uris[0])
    if not spiffe_id.is_workload():
        raise PeerDenied(Denial.ROOT_PATH, f"{spiffe_id} names a trust domain, not a workload")
    return spiffe_id


def check_leaf_is_no_authority(certificate: x509.Certificate) -> None:
    """cA is false or basicConstraints is absent (X509-SVID 4.1)."""
    constraints = find_extension(certificate, x509.BasicConstraints)
    if constraints is not None and constraints.value.ca:
        raise PeerDenied(Denial.LEAF_IS_CA, "the leaf certificate is marked as an authority")


def check_leaf_key_usage(certificate: x509.Certificate) -> None:
    """Critical, with digitalSignature, without keyCertSign and cRLSign (X509-SVID 4.3)."""
    usage = _key_usage(certificate)
    if not usage.digital_signature:
        raise PeerDenied(Denial.KEY_USAGE, "the leaf's key usage lacks digitalSignature")
    if usage.key_cert_sign or usage.crl_sign:
        raise PeerDenied(Denial.KEY_USAGE, "the leaf's key usage has keyCertSign or cRLSign")


def check_extended_key_usage(certificate: x509.Certificate) -> None:
    """Absent, or with both serverAuth and clientAuth (X509-SVID 4.4)."""
    usage = find_extension(certificate, x509.ExtendedKeyUsage)
    if usage is not None and not set(usage.value) >= _BOTH_SIDES:
        raise PeerDenied(Denial.EXTENDED_KEY_USAGE, "extended key usage lacks serverAuth or clientAuth")


def check_is_authority(certificate: x509.Certificate) -> None:
    """cA is true (X509-SVID 4.1)."""
    constraints = find_extension(certificate, x509.BasicConstraints)
    if constraints is None or not constraints.value.ca:
        raise PeerDenied(Denial.NOT_CA, "a signing certificate is not marked as an authority")


def check_authority_key_usage(certificate: x509.Certificate) -> None:
    """Critical, with keyCertSign (X509-SVID 4.3)."""
    if not _key_usage(certificate).key_cert_sign:
        raise PeerDenied(Denial.KEY_USAGE, "a signing certificate's key usage lacks keyCertSign")


def check_authority_id(certificate: x509.Certificate, trust_domain: TrustDomain) -> None:
    """No URI SAN, or the trust domain's own ID (X509-SVID 3.2; real roots without one exist)."""
    uris = _uri_names(certificate)
    if uris and uris != [f"spiffe://{trust_domain}"]:
        raise PeerDenied(Denial.AUTHORITY_ID, f"a signing certificate is named {uris[0]!a}, not spiffe://{trust_domain}")


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


def _uri_names(certificate: x509.Certificate) -> list[str]:
    names = find_extension(certificate, x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.UniformResourceIdentifier) if names is not None else []


def _parse_id(uri: str) -> SpiffeId:
    try:
        return parse_spiffe_id(uri)
    except SpiffeIdError as error:
        raise PeerDenied(Denial.SPIFFE_ID, str(error)) from error


def _key_usage(certificate: x509.Certificate) -> x509.KeyUsage:
    usage = find_extension(certificate, x509.KeyUsage)
    if usage is None or not usage.critical:
        raise PeerDenied(Denial.KEY_USAGE, "key usage is absent or not critical")
    return usage.value


def find_extension(certificate: x509.Certificate, kind: type[E]) -> x509.Extension[E] | None:
    """The extension, or None; the library reads extensions late, so what it cannot read shows here."""
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None
    except (ValueError, LookupError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, x509.InvalidVersion) as error:
        raise PeerDenied(Denial.UNREADABLE, f"extensions cannot be read: {error}") from error
