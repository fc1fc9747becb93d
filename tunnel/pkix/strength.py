"""The required strength of keys and signatures, and the check of a signature.

The same rules apply to every certificate of a path. The signature of a trust anchor is not verified, so only its key counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

from tunnel.errors import Denial, PeerDenied, WireError
from tunnel.pkix import der
from tunnel.pkix.algorithms import EC, RSA, RSASSA_PSS, Algorithm, parse_key_info, parse_pss
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.extensions import describe_oid

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
Digest = hashes.SHA256 | hashes.SHA384 | hashes.SHA512

MIN_RSA_BITS = 2048  # OpenSSL's security level 2
MAX_RSA_BITS = 8192  # as in Go's crypto/tls: verification with a larger key costs too much
_MAX_EXPONENT_BITS = 32
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_CACHED_KEYS = 256

_NULL = b"\x05\x00"
_DIGESTS: Mapping[bytes, Digest] = {
    bytes.fromhex("608648016503040201"): hashes.SHA256(),
    bytes.fromhex("608648016503040202"): hashes.SHA384(),
    bytes.fromhex("608648016503040203"): hashes.SHA512(),
}
_PKCS1: Mapping[bytes, Digest] = {
    bytes.fromhex("2a864886f70d01010b"): hashes.SHA256(),
    bytes.fromhex("2a864886f70d01010c"): hashes.SHA384(),
    bytes.fromhex("2a864886f70d01010d"): hashes.SHA512(),
}
_ECDSA: Mapping[bytes, Digest] = {
    bytes.fromhex("2a8648ce3d040302"): hashes.SHA256(),
    bytes.fromhex("2a8648ce3d040303"): hashes.SHA384(),
    bytes.fromhex("2a8648ce3d040304"): hashes.SHA512(),
}
_EXPECTED_SIGNATURE = "expected SHA-256, SHA-384 or SHA-512 with RSA or ECDSA, or EdDSA"
_EDWARDS = (b"\x2b\x65\x70", b"\x2b\x65\x71")  # Ed25519, Ed448
_WEAK = {
    bytes.fromhex("2a864886f70d010104"): "MD5",
    bytes.fromhex("2a864886f70d010105"): "SHA-1",
    bytes.fromhex("2b0e03021d"): "SHA-1",
    bytes.fromhex("2a864886f70d01010e"): "SHA-224",
    bytes.fromhex("2a8648ce3d0401"): "SHA-1",
    bytes.fromhex("2a8648ce3d040301"): "SHA-224",
    bytes.fromhex("2a8648ce380403"): "SHA-1",
}

_Check = Callable[[PublicKey, bytes, bytes], None]  # key, signature, signed data


class Signed(Protocol):
    """A certificate or a revocation list: the signed data, with the signature and its algorithm."""

    @property
    def algorithm(self) -> Algorithm: ...

    @property
    def tbs(self) -> bytes: ...

    @property
    def signature(self) -> bytes: ...


def check_key_cost(certificate: Certificate) -> None:
    """Check that the key has a bounded cost: no large RSA key, no curve with explicit parameters; raises PeerDenied."""
    algorithm, bits = _split_key(certificate)
    if algorithm.oid == EC and algorithm.parameters[:1] != bytes([der.OID]):  # RFC 5480, 2.1.1
        raise PeerDenied(Denial.WEAK_KEY, "an elliptic curve with explicit parameters; expected a named curve")
    if algorithm.oid not in (RSA, RSASSA_PSS):
        return
    try:
        modulus, exponent = (value.body.lstrip(b"\0") for value in der.read_sequence(bits))
    except (WireError, ValueError) as error:
        raise PeerDenied(Denial.WEAK_KEY, "an RSA key that is not two integers") from error
    if 8 * len(modulus) > MAX_RSA_BITS or 8 * len(exponent) > _MAX_EXPONENT_BITS:
        limit = f"expected at most {MAX_RSA_BITS} and {_MAX_EXPONENT_BITS}"
        seen = f"an RSA key of {8 * len(modulus)} bits, with an exponent of {8 * len(exponent)}"
        raise PeerDenied(Denial.WEAK_KEY, f"{seen}; {limit}")


def check_key_strength(certificate: Certificate) -> None:
    """Check that the key is RSA of 2048 to 8192 bits, P-256, P-384, P-521, Ed25519 or Ed448; raises PeerDenied."""
    check_key_cost(certificate)
    load_public_key(certificate.key_info)


@lru_cache(_CACHED_KEYS)
def load_public_key(key_info: bytes) -> PublicKey:
    """Load a key of sufficient strength; raises PeerDenied."""
    key = read_public_key(key_info)
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return key
    raise PeerDenied(Denial.WEAK_KEY, f"{describe_public_key(key)} is too weak")


def read_public_key(key_info: bytes) -> PublicKeyTypes:
    """Load a key of any strength; raises PeerDenied."""
    try:
        return openssl.keys.load_der_public_key(key_info)  # the public module loads SSH and inspect too: 8 ms and 1.7 MiB
    except (ValueError, UnsupportedAlgorithm) as error:  # a point that is not on its curve, or an unknown algorithm
        raise PeerDenied(Denial.WEAK_KEY, f"the public key is invalid: {error}") from error


def is_for_pss_only(certificate: Certificate) -> bool:
    """Whether the key is an RSA key for RSASSA-PSS only (RFC 4055, 1.2)."""
    return _split_key(certificate)[0].oid == RSASSA_PSS


def describe_public_key(key: PublicKeyTypes) -> str:
    """`RSAPublicKey 1024`, for a message."""
    return f"{type(key).__name__.lstrip('_')} {getattr(key, 'key_size', '')}".strip()


def check_signature_strength(certificate: Certificate) -> None:
    """Check that the signature is RSA or ECDSA with SHA-256, SHA-384 or SHA-512, Ed25519 or Ed448; raises PeerDenied."""
    check_algorithm_strength(certificate.algorithm)


def check_algorithm_strength(algorithm: Algorithm) -> None:
    """Check that a signature algorithm is one of those that `check_signature_strength` accepts; raises PeerDenied."""
    _find_check(algorithm)


def check_signature(signed: Signed, issuer: Certificate) -> None:
    """Check that the issuer's key has signed the data; raises PeerDenied, with UNKNOWN_AUTHORITY if it has not."""
    check = _find_check(signed.algorithm)
    try:
        check(load_public_key(issuer.key_info), signed.signature, signed.tbs)
    except (InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError, AttributeError) as error:
        raise PeerDenied(Denial.UNKNOWN_AUTHORITY, "the signature does not verify with the key of the issuer") from error


def _split_key(certificate: Certificate) -> tuple[Algorithm, bytes]:
    try:
        return parse_key_info(certificate.key_info)
    except WireError as error:
        raise PeerDenied(Denial.WEAK_KEY, f"the public key cannot be read: {error}") from error


def _find_check(algorithm: Algorithm) -> _Check:
    """Return the check for a signature algorithm. Parameters are absent or NULL (RFC 5754 has both)."""
    oid = algorithm.oid
    if oid == RSASSA_PSS:
        return _check_pss(_pss_digest(algorithm.parameters))
    if oid in _EDWARDS and not algorithm.parameters:
        return _check_edwards
    if algorithm.parameters in (b"", _NULL):
        if oid in _PKCS1:
            return _check_pkcs1(_PKCS1[oid])
        if oid in _ECDSA:
            return _check_ecdsa(_ECDSA[oid])
    seen = f"signed over {_WEAK[oid]}" if oid in _WEAK else f"signed by algorithm {describe_oid(oid)}"
    raise PeerDenied(Denial.WEAK_SIGNATURE, f"{seen}; {_EXPECTED_SIGNATURE}")


def _check_pkcs1(digest: Digest) -> _Check:
    def check(key: PublicKey, signature: bytes, data: bytes) -> None:
        if not isinstance(key, rsa.RSAPublicKey):
            raise TypeError("not an RSA key")
        key.verify(signature, data, padding.PKCS1v15(), digest)

    return check


def _check_pss(digest: Digest) -> _Check:
    def check(key: PublicKey, signature: bytes, data: bytes) -> None:
        if not isinstance(key, rsa.RSAPublicKey):
            raise TypeError("not an RSA key")
        key.verify(signature, data, padding.PSS(padding.MGF1(digest), padding.PSS.AUTO), digest)

    return check


def _check_ecdsa(digest: Digest) -> _Check:
    def check(key: PublicKey, signature: bytes, data: bytes) -> None:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise TypeError("not an ECDSA key")
        key.verify(signature, data, ec.ECDSA(digest))

    return check


def _check_edwards(key: PublicKey, signature: bytes, data: bytes) -> None:
    if not isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        raise TypeError("not an Edwards key")
    key.verify(signature, data)


def _pss_digest(parameters: bytes) -> Digest:
    try:
        oid = parse_pss(parameters).digest
    except WireError as error:
        raise PeerDenied(Denial.WEAK_SIGNATURE, f"signed by RSASSA-PSS with unsupported parameters: {error}") from error
    if oid not in _DIGESTS:
        raise PeerDenied(Denial.WEAK_SIGNATURE, f"signed by RSASSA-PSS with digest {describe_oid(oid)}; {_EXPECTED_SIGNATURE}")
    return _DIGESTS[oid]
