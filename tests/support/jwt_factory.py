"""A factory of JWT-SVIDs: valid by default, and every header and claim can be overridden."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tunnel.spiffe.jwt import encode_part, encode_token

NOW = 1795309700.0  # within the life of the captured tokens
ABSENT = object()  # of a header or a claim
_CURVES: dict[str, tuple[ec.EllipticCurve, str]] = {
    "ES256": (ec.SECP256R1(), "P-256"),
    "ES384": (ec.SECP384R1(), "P-384"),
    "ES512": (ec.SECP521R1(), "P-521"),
}


@cache
def signing_key(algorithm: str = "ES256", number: int = 0) -> Any:
    """A key for an algorithm; the same one for the same number."""
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm][0])
    return rsa.generate_private_key(65537, 2048)


def jwk(name: str = "k1", algorithm: str = "ES256", number: int = 0, **changes: Any) -> dict[str, Any]:
    """The public key as a JWK."""
    key = signing_key(algorithm, number)
    if algorithm in _CURVES:
        numbers, size = key.public_key().public_numbers(), (key.key_size + 7) // 8
        values = {"kty": "EC", "crv": _CURVES[algorithm][1]}
        values |= {"x": encode_part(numbers.x.to_bytes(size, "big")), "y": encode_part(numbers.y.to_bytes(size, "big"))}
    else:
        numbers = key.public_key().public_numbers()
        values = {"kty": "RSA", "n": encode_part(numbers.n.to_bytes(256, "big")), "e": "AQAB"}
    return {name: value for name, value in {"kid": name, "use": "jwt-svid", **values, **changes}.items() if value is not ABSENT}


def jwks(*keys: dict[str, Any]) -> bytes:
    """A bundle."""
    return json.dumps({"keys": list(keys) or [jwk()]}).encode()


def token(*, key: str = "ES256", number: int = 0, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A valid token, except for the given parts."""
    says = {"sub": "spiffe://a.test/w", "aud": ["db"], "exp": int(NOW) + 60, "iat": int(NOW) - 60, **claims}
    heads = {"alg": key, "kid": "k1", "typ": "JWT", **(header or {})}
    present = [{name: value for name, value in part.items() if value is not ABSENT} for part in (heads, says)]
    return encode_token(present[0], present[1], lambda data: _sign(key, number, data))


def _sign(algorithm: str, number: int, data: bytes) -> bytes:
    key, digest = signing_key(algorithm, number), getattr(hashes, f"SHA{algorithm[2:]}")()
    if algorithm.startswith("ES"):
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
        size = (key.key_size + 7) // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    if algorithm.startswith("PS"):
        signed: bytes = key.sign(data, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        return signed
    plain: bytes = key.sign(data, padding.PKCS1v15(), digest)
    return plain
