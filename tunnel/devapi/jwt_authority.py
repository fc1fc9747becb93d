"""A temporary JWT authority of one trust domain, with rotation in three steps.

Keys are ECDSA P-256, the default of SPIRE.
"""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from tunnel.errors import TokenError, TokenFault
from tunnel.lazy_dataclass import dataclass, field
from tunnel.spiffe.ids import SpiffeId
from tunnel.spiffe.jwks import USE
from tunnel.spiffe.jwt import Token, encode_part, encode_token, parse_key_id

_ALGORITHM = "ES256"
_HALF = 32  # bytes of each of the two numbers of a signature (RFC 7518, section 3.4)
_NAME_LETTERS = string.ascii_letters + string.digits
_NAME_LENGTH = 32


@dataclass(frozen=True)
class _Key:
    """A key with its key ID."""

    name: str
    private: ec.EllipticCurvePrivateKey = field(repr=False)

    def describe(self) -> dict[str, str]:
        """Return the public key as a JWK (RFC 7518, section 6.2.1)."""
        numbers = self.private.public_key().public_numbers()
        x, y = (encode_part(number.to_bytes(_HALF, "big")) for number in (numbers.x, numbers.y))
        return {"kty": "EC", "use": USE, "kid": self.name, "crv": "P-256", "x": x, "y": y}

    def sign(self, data: bytes) -> bytes:
        """Return a signature in JOSE form: r and s concatenated."""
        r, s = decode_dss_signature(self.private.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(_HALF, "big") + s.to_bytes(_HALF, "big")


class JwtAuthority:
    """Signs tokens for one trust domain; a rotation is `prepare`, `activate`, `drop_old`."""

    def __init__(self) -> None:
        self._old: tuple[_Key, ...] = ()
        self._current = _make_key()
        self._prepared: _Key | None = None

    @property
    def bundle(self) -> bytes:
        """The JWKS with all trusted keys, oldest first."""
        return json.dumps({"keys": [key.describe() for key in self._keys()]}, indent=4).encode()

    def issue(self, spiffe_id: SpiffeId, audience: Sequence[str], *, now: datetime, ttl: timedelta) -> str:
        """Issue a token signed by the current key."""
        issued = int(now.timestamp())
        header = {"alg": _ALGORITHM, "kid": self._current.name, "typ": "JWT"}
        claims = {
            "aud": list(audience),
            "exp": issued + int(ttl.total_seconds()),
            "iat": issued,
            "sub": str(spiffe_id),
        }
        return encode_token(header, claims, self._current.sign)

    def check_signature(self, token: Token) -> None:
        """Verify that a key of the bundle signed the token; raises TokenError."""
        name = parse_key_id(token)
        key = next((key for key in self._keys() if key.name == name), None)
        if key is None:
            raise TokenError(TokenFault.UNKNOWN_KEY, f"unknown key ID {name!a}")
        if token.header.get("alg") != _ALGORITHM:
            raise TokenError(TokenFault.ALGORITHM, f"algorithm does not match the key; expected {_ALGORITHM}")
        signature = token.signature
        if len(signature) != 2 * _HALF:
            raise TokenError(TokenFault.SIGNATURE, f"signature of {len(signature)} bytes; expected {2 * _HALF}")
        r, s = (int.from_bytes(half, "big") for half in (signature[:_HALF], signature[_HALF:]))
        try:
            key.private.public_key().verify(encode_dss_signature(r, s), token.signed, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise TokenError(TokenFault.SIGNATURE, "the signature does not match the key") from None

    def prepare(self) -> None:
        """Add the next key to the bundle; it does not sign yet."""
        self._prepared = _make_key()

    def activate(self) -> None:
        """Sign with the prepared key; the previous one stays in the bundle."""
        assert self._prepared is not None, "prepare comes before activate"
        self._old = (*self._old, self._current)
        self._current, self._prepared = self._prepared, None

    def drop_old(self) -> None:
        """Remove the old keys from the bundle."""
        self._old = ()

    def _keys(self) -> tuple[_Key, ...]:
        return (*self._old, self._current, *((self._prepared,) if self._prepared else ()))


def _make_key() -> _Key:
    name = "".join(secrets.choice(_NAME_LETTERS) for _ in range(_NAME_LENGTH))
    return _Key(name, ec.generate_private_key(ec.SECP256R1()))
