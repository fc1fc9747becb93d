"""Checks the signature of a token with PyJWT, an optional extra."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunnel.errors import ConfigError, TokenError, TokenFault
from tunnel.pkix.strength import MIN_RSA_BITS
from tunnel.spiffe.jwt import ALGORITHMS, Token

_SHOWN = 40  # characters of a quoted value
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}  # each for one curve (RFC 7518, section 3.4)


def require_library() -> None:
    """Raise ConfigError if PyJWT is not installed."""
    try:
        import jwt  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "checking a token on this machine needs the extra 'jwt': pip install 'spiffe-tunnel[jwt]'; "
            "without --local and --bundle, the Workload API checks it"
        ) from error


def check_signature(token: Token, key: Mapping[str, Any]) -> None:
    """Check that the token is signed by the key, with the algorithm of both; raises TokenError."""
    algorithm = token.header.get("alg")
    if algorithm not in ALGORITHMS:  # checked again: here it decides what the library does
        raise TokenError(TokenFault.ALGORITHM, "alg is not allowed by JWT-SVID")
    _check_kind(str(algorithm), key)
    import jwt

    try:
        public = jwt.PyJWK(dict(key), str(algorithm))
        _check_size(public.key)
        jwt.PyJWS().decode_complete(token.text, public, algorithms=[str(algorithm)])
    except jwt.exceptions.InvalidSignatureError:
        raise TokenError(TokenFault.SIGNATURE, "not signed by the key with this kid") from None
    except (jwt.exceptions.PyJWTError, ValueError, TypeError, KeyError):  # whose text may quote the key
        raise TokenError(TokenFault.SIGNATURE, "invalid key or signature") from None


def _check_kind(algorithm: str, key: Mapping[str, Any]) -> None:
    curve = _CURVES.get(algorithm)
    has = key.get("crv") if key.get("kty") == "EC" else key.get("kty")
    if has != (curve or "RSA"):
        raise TokenError(TokenFault.ALGORITHM, f"alg is {algorithm}, but the type of the key is {ascii(has)[:_SHOWN]}")
    if key.get("alg", algorithm) != algorithm:
        other = ascii(key.get("alg"))[:_SHOWN]
        raise TokenError(TokenFault.ALGORITHM, f"alg is {algorithm}, but the key is for {other}")


def _check_size(public: Any) -> None:
    if public.key_size < MIN_RSA_BITS and not hasattr(public, "curve"):
        raise TokenError(TokenFault.SIGNATURE, f"the key has {public.key_size} bits; expected at least {MIN_RSA_BITS}")
