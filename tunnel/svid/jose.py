"""The signature of a token, by PyJWT.

Knows that library and which key goes with which algorithm (RFC 7518, section 3); must not know claims or bundles. It is an
extra, so its absence is told when it is missed, and how to mend that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunnel.errors import ConfigError, TokenError, TokenFault
from tunnel.pkix.strength import MIN_RSA_BITS
from tunnel.spiffe.jwt import ALGORITHMS, Token

_SHOWN = 40  # characters of a value of a bundle
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}  # each for one curve (RFC 7518, section 3.4)


def require_library() -> None:
    """Raises ConfigError when PyJWT is not installed."""
    try:
        import jwt  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "to check a token on this machine the extra 'jwt' is needed: pip install 'spiffe-tunnel[jwt]'; "
            "without it leave out --local and --bundle, and the Workload API checks it"
        ) from error


def check_signature(token: Token, key: Mapping[str, Any]) -> None:
    """The token is signed by the key, in the way that both say; raises TokenError."""
    algorithm = token.header.get("alg")
    if algorithm not in ALGORITHMS:  # asked for again: here it decides what the library does
        raise TokenError(TokenFault.ALGORITHM, "alg is none that JWT-SVID allows")
    _check_kind(str(algorithm), key)
    import jwt

    try:
        public = jwt.PyJWK(dict(key), str(algorithm))
        _check_size(public.key)
        jwt.PyJWS().decode_complete(token.text, public, algorithms=[str(algorithm)])
    except jwt.exceptions.InvalidSignatureError:
        raise TokenError(TokenFault.SIGNATURE, "the signature is not by the key that is named") from None
    except (jwt.exceptions.PyJWTError, ValueError, TypeError, KeyError):  # whose text may quote the key
        raise TokenError(TokenFault.SIGNATURE, "key and signature cannot be used") from None


def _check_kind(algorithm: str, key: Mapping[str, Any]) -> None:
    curve = _CURVES.get(algorithm)
    has = key.get("crv") if key.get("kty") == "EC" else key.get("kty")
    if has != (curve or "RSA"):
        raise TokenError(TokenFault.ALGORITHM, f"alg is {algorithm}, and the key that is named is {ascii(has)[:_SHOWN]}")
    if key.get("alg", algorithm) != algorithm:
        other = ascii(key.get("alg"))[:_SHOWN]
        raise TokenError(TokenFault.ALGORITHM, f"alg is {algorithm}, and the key that is named is for {other}")


def _check_size(public: Any) -> None:
    if public.key_size < MIN_RSA_BITS and not hasattr(public, "curve"):
        raise TokenError(TokenFault.SIGNATURE, f"the key has {public.key_size} bits, at least {MIN_RSA_BITS} are wanted")
