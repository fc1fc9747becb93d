"""A public key and a signature algorithm, with Go's numbers.

Knows the key types and algorithms of crypto/x509; must not know whether they are strong enough.
"""

from __future__ import annotations

from base64 import b64encode

from tunnel.errors import WireError, WireFault
from tunnel.pkix import der
from tunnel.pkix.der import DerValue

Oid = tuple[int, ...]

_RSA_ENCRYPTION: Oid = (1, 2, 840, 113549, 1, 1, 1)
_DSA: Oid = (1, 2, 840, 10040, 4, 1)
_EC: Oid = (1, 2, 840, 10045, 2, 1)
_ED25519: Oid = (1, 3, 101, 112)
_PSS: Oid = (1, 2, 840, 113549, 1, 1, 10)
_PKCS1, _ECDSA, _NIST_DSA = (1, 2, 840, 113549, 1, 1), (1, 2, 840, 10045, 4), (2, 16, 840, 1, 101, 3, 4, 3)
_SIGNATURES: dict[Oid, int] = {
    (*_PKCS1, 2): 1,
    (*_PKCS1, 4): 2,
    (*_PKCS1, 5): 3,
    (1, 3, 14, 3, 2, 29): 3,  # ISO's own name for SHA-1 with RSA
    (*_PKCS1, 11): 4,
    (*_PKCS1, 12): 5,
    (*_PKCS1, 13): 6,
    (1, 2, 840, 10040, 4, 3): 7,
    (*_NIST_DSA, 2): 8,
    (*_ECDSA, 1): 9,
    (*_ECDSA, 3, 2): 10,
    (*_ECDSA, 3, 3): 11,
    (*_ECDSA, 3, 4): 12,
    _ED25519: 16,
}
# The parameters of RSASSA-PSS where digest, mask and salt belong together: the last number of the digest's name, the salt.
_PSS_DIGESTS = {(1, 32): 13, (2, 48): 14, (3, 64): 15}
_SHA2, _MGF1 = (2, 16, 840, 1, 101, 3, 4, 2), (*_PKCS1, 8)
_CURVES: dict[Oid, int] = {
    (1, 3, 132, 0, 33): 28,
    (1, 2, 840, 10045, 3, 1, 7): 32,
    (1, 3, 132, 0, 34): 48,
    (1, 3, 132, 0, 35): 66,
}  # how many bytes a coordinate has
_MAX_KEY = 1100  # bytes: RSA of 8192 bits, the most that Go's crypto/tls takes; Python refuses to write very long numbers


def signature_algorithm(value: DerValue) -> int:
    """Go's number for an AlgorithmIdentifier; 0 for one that it does not know."""
    oid, parameters = _algorithm(value)
    if oid == _PSS:
        return _pss(parameters[0]) if parameters else 0
    return 0 if oid == _ED25519 and parameters else _SIGNATURES.get(oid, 0)


def encode_key(info: DerValue) -> dict[str, object]:
    """The fields PublicKeyAlgorithm and PublicKey of a SubjectPublicKeyInfo."""
    parts = tuple(der.read_values(der.expect(info, der.SEQUENCE).body))
    if len(parts) != 2 or len(info.whole) > _MAX_KEY:
        raise WireError(WireFault.MALFORMED, "a public key that is not an algorithm and some bits, or too long")
    oid, parameters = _algorithm(parts[0])
    bits, unused = der.as_bits(parts[1])
    if unused:
        raise WireError(WireFault.MALFORMED, "a public key that is not whole bytes")
    if oid == _RSA_ENCRYPTION:
        return {"PublicKeyAlgorithm": 1, "PublicKey": _rsa(bits)}
    if oid == _EC:
        return {"PublicKeyAlgorithm": 3, "PublicKey": _point(parameters, bits)}
    if oid == _ED25519:
        return {"PublicKeyAlgorithm": 4, "PublicKey": b64encode(bits).decode("ascii")}
    return {"PublicKeyAlgorithm": 2 if oid == _DSA else 0, "PublicKey": None}


def _algorithm(value: DerValue) -> tuple[Oid, tuple[DerValue, ...]]:
    parts = tuple(der.read_values(der.expect(value, der.SEQUENCE).body))
    if not 1 <= len(parts) <= 2:
        raise WireError(WireFault.MALFORMED, f"an algorithm of {len(parts)} parts")
    return der.as_oid(parts[0]), parts[1:]


def _rsa(bits: bytes) -> dict[str, int]:
    numbers = [der.as_integer(value) for value in der.read_sequence(bits)]
    if len(numbers) != 2 or min(numbers) <= 0:
        raise WireError(WireFault.MALFORMED, "an RSA key that is not two positive numbers")
    return {"N": numbers[0], "E": numbers[1]}


def _point(parameters: tuple[DerValue, ...], bits: bytes) -> dict[str, object]:
    size = _CURVES.get(der.as_oid(parameters[0])) if parameters else None
    if size is None or len(bits) != 1 + 2 * size or bits[0] != 4:
        raise WireError(WireFault.MALFORMED, "an ECDSA key of another curve than NIST's, or a compressed one")
    return {"Curve": {}, "X": int.from_bytes(bits[1 : 1 + size], "big"), "Y": int.from_bytes(bits[1 + size :], "big")}


def _pss(parameters: DerValue) -> int:
    """The number of an RSASSA-PSS whose digest, mask and salt belong together (RFC 4055, 3.1)."""
    try:
        fields = {value.tag: value.body for value in der.read_values(der.expect(parameters, der.SEQUENCE).body)}
        digest, _ = _algorithm(der.read_value(fields.get(0xA0, b""), der.SEQUENCE))
        mask, mask_digest = _algorithm(der.read_value(fields.get(0xA1, b""), der.SEQUENCE))
        salt = der.as_integer(der.read_value(fields.get(0xA2, b""), der.INTEGER))
        is_whole = mask == _MGF1 and len(mask_digest) == 1 and _algorithm(mask_digest[0])[0] == digest
    except WireError:
        return 0
    return _PSS_DIGESTS.get((digest[-1], salt), 0) if is_whole and digest[:-1] == _SHA2 and 0xA3 not in fields else 0
