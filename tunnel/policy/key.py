"""The public key and the signature algorithm of a certificate, with the numbers of Go's `crypto/x509`."""

from __future__ import annotations

from tunnel.errors import WireError, WireFault
from tunnel.pkix import der
from tunnel.pkix.algorithms import Algorithm, parse_key_info, parse_pss

Oid = tuple[int, ...]

_PKCS1, _ECDSA, _NIST_DSA = (1, 2, 840, 113549, 1, 1), (1, 2, 840, 10045, 4), (2, 16, 840, 1, 101, 3, 4, 3)
_RSA_ENCRYPTION: Oid = (*_PKCS1, 1)
_PSS: Oid = (*_PKCS1, 10)
_DSA: Oid = (1, 2, 840, 10040, 4, 1)
_EC: Oid = (1, 2, 840, 10045, 2, 1)
_ED25519: Oid = (1, 3, 101, 112)
_SIGNATURES: dict[Oid, int] = {
    (*_PKCS1, 2): 1,
    (*_PKCS1, 4): 2,
    (*_PKCS1, 5): 3,
    (1, 3, 14, 3, 2, 29): 3,  # ISO's identifier of RSA with SHA-1
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
_SHA2 = (2, 16, 840, 1, 101, 3, 4, 2)
_PSS_SIGNATURES: dict[tuple[Oid, int | None], int] = {  # by digest and size of the salt
    ((*_SHA2, 1), 32): 13,
    ((*_SHA2, 2), 48): 14,
    ((*_SHA2, 3), 64): 15,
}
_CURVES: dict[Oid, int] = {
    (1, 3, 132, 0, 33): 28,
    (1, 2, 840, 10045, 3, 1, 7): 32,
    (1, 3, 132, 0, 34): 48,
    (1, 3, 132, 0, 35): 66,
}  # bytes of a coordinate
_MAX_KEY = 1100  # bytes: RSA of 8192 bits, the largest in Go's crypto/tls; Python refuses to print very long numbers


def signature_algorithm(algorithm: Algorithm) -> int:
    """Return Go's number of a signature algorithm, 0 for an unknown one."""
    oid = der.oid_of(algorithm.oid)
    if oid == _PSS:
        return _pss_number(algorithm.parameters)
    return 0 if oid == _ED25519 and algorithm.parameters else _SIGNATURES.get(oid, 0)


def encode_key(key_info: bytes) -> dict[str, object]:
    """Return the fields PublicKeyAlgorithm and PublicKey of a SubjectPublicKeyInfo; raises WireError."""
    if len(key_info) > _MAX_KEY:
        raise WireError(WireFault.TOO_LARGE, f"a public key of {len(key_info)} bytes; expected at most {_MAX_KEY}")
    algorithm, bits = parse_key_info(key_info)
    oid = der.oid_of(algorithm.oid)
    if oid == _RSA_ENCRYPTION:
        return {"PublicKeyAlgorithm": 1, "PublicKey": _encode_rsa(bits)}
    if oid == _EC:
        return {"PublicKeyAlgorithm": 3, "PublicKey": _encode_point(algorithm.parameters, bits)}
    if oid == _ED25519:
        return {"PublicKeyAlgorithm": 4, "PublicKey": bits}
    return {"PublicKeyAlgorithm": 2 if oid == _DSA else 0, "PublicKey": None}


def _encode_rsa(bits: bytes) -> dict[str, int]:
    numbers = [der.as_integer(value) for value in der.read_sequence(bits)]
    if len(numbers) != 2 or min(numbers) <= 0:
        raise WireError(WireFault.MALFORMED, "an RSA key that is not two positive integers")
    return {"N": numbers[0], "E": numbers[1]}


def _encode_point(curve: bytes, bits: bytes) -> dict[str, object]:
    size = _CURVES.get(der.as_oid(der.read_value(curve, der.OID)))
    if size is None or len(bits) != 1 + 2 * size or bits[0] != 4:
        raise WireError(WireFault.MALFORMED, "an ECDSA key that is not an uncompressed point of a NIST curve")
    return {"Curve": {}, "X": int.from_bytes(bits[1 : 1 + size], "big"), "Y": int.from_bytes(bits[1 + size :], "big")}


def _pss_number(parameters: bytes) -> int:
    """Return Go's number of an RSASSA-PSS, 0 unless the salt is as long as the digest."""
    try:
        pss = parse_pss(parameters)
        return 0 if pss.has_trailer else _PSS_SIGNATURES.get((der.oid_of(pss.digest), pss.salt_size), 0)
    except WireError:
        return 0
