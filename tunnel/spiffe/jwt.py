"""JWT-SVIDs: parsing, and every rule except the signature (JWT-SVID, sections 2, 3 and 5).

A token is a bearer secret: it must never be part of a `repr` or an error.
"""

from __future__ import annotations

import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any

from tunnel.errors import SpiffeIdError, TokenError, TokenFault
from tunnel.lazy_dataclass import dataclass, field
from tunnel.spiffe.ids import SpiffeId, parse_spiffe_id
from tunnel.time_format import describe_time

ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")  # JWT-SVID 2.1
MAX_TOKEN_BYTES = 64 * 1024  # far above any that an HTTP server would take in a header
_HEADERS = ("alg", "kid", "typ")  # JWT-SVID 2: no other, registered or private
_TYPES = ("JWT", "JOSE")  # JWT-SVID 2.3
_PART = re.compile(r"[A-Za-z0-9_-]*")
_SHOWN = 200  # characters of a value that an error quotes


@dataclass(frozen=True, slots=True)
class Token:
    """A parsed token; its header and claims are not verified."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    text: str = field(repr=False)

    @property
    def signed(self) -> bytes:
        """The signing input (RFC 7515, section 5.2)."""
        return self.text.rpartition(".")[0].encode()

    @property
    def signature(self) -> bytes:
        """The signature, empty for an unsigned token."""
        return _decode(self.text.rpartition(".")[2])


@dataclass(frozen=True, slots=True)
class Validation:
    """The audience that validates a token, and the time in seconds since the epoch."""

    audience: str
    now: float


@dataclass(frozen=True, slots=True)
class TokenRule:
    """A rule: its name, the section of the standard, and the function that raises TokenError for a token that breaks it."""

    name: str
    section: str
    summary: str
    check: Callable[[Token, Validation], object]


def parse_token(text: str) -> Token:
    """Parse a token in compact serialization (JWT-SVID 5.1); raises TokenError. Nothing is verified yet."""
    if len(text) > MAX_TOKEN_BYTES:
        raise TokenError(TokenFault.TOO_LARGE, f"the token has {len(text)} characters; expected at most {MAX_TOKEN_BYTES}")
    parts = text.split(".")
    if len(parts) != 3:
        raise TokenError(TokenFault.MALFORMED, f"the token has {len(parts) - 1} dots; expected header.claims.signature")
    _decode(parts[2])
    return Token(_parse_object(parts[0], "header"), _parse_object(parts[1], "claims"), text)


def encode_token(header: Mapping[str, Any], claims: Mapping[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """Encode a token in compact serialization, signed by `sign`."""
    signed = ".".join(encode_part(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    return f"{signed}.{encode_part(sign(signed.encode()))}"


def encode_part(data: bytes) -> str:
    """Encode bytes in base64url without padding (RFC 7515, section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def check_token(token: Token, validation: Validation) -> SpiffeId:
    """Check every rule except the signature, and return the SPIFFE ID; raises TokenError."""
    for rule in RULES:
        rule.check(token, validation)
    return parse_subject(token)


def parse_subject(token: Token) -> SpiffeId:
    """Return the SPIFFE ID in `sub`, that of a workload (JWT-SVID 3.1)."""
    subject = token.claims.get("sub")
    if not isinstance(subject, str):
        raise TokenError(TokenFault.SUBJECT, f"sub is {_seen(subject)}; expected a SPIFFE ID")
    try:
        spiffe_id = parse_spiffe_id(subject)
    except SpiffeIdError as error:
        raise TokenError(TokenFault.SUBJECT, f"sub: {error}") from error
    if not spiffe_id.is_workload():
        raise TokenError(TokenFault.SUBJECT, f"sub: {spiffe_id} names a trust domain, not a workload")
    return spiffe_id


def parse_audience(token: Token) -> tuple[str, ...]:
    """Return the audiences in `aud`, a string or a list of strings (JWT-SVID 3.2; RFC 7519, section 4.1.3)."""
    audience = token.claims.get("aud")
    several = [audience] if isinstance(audience, str) else audience
    if not isinstance(several, list) or not several or not all(isinstance(name, str) for name in several):
        raise TokenError(TokenFault.AUDIENCE, f"aud is {_seen(audience)}; expected a string or a list of strings")
    return tuple(several)


def parse_expiry(token: Token) -> float:
    """Return the expiry in `exp`, in seconds since the epoch (JWT-SVID 3.3)."""
    return _parse_time(token, "exp")


def parse_issued(token: Token) -> float | None:
    """Return the time of issue in `iat`, in seconds since the epoch, None if it is absent."""
    return _parse_time(token, "iat") if "iat" in token.claims else None


def parse_key_id(token: Token) -> str:
    """Return the key ID in `kid` (JWT-SVID 2.2, 6.1: every key of a bundle has one)."""
    key_id = token.header.get("kid")
    if not isinstance(key_id, str) or not key_id:
        raise TokenError(TokenFault.KEY_ID, f"kid is {_seen(key_id)}; expected a key ID")
    return key_id


def parse_json(data: bytes) -> Any:
    """Parse JSON without duplicate names in an object and without infinite numbers; raises ValueError."""
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError:  # its message quotes a byte
        raise ValueError("not UTF-8") from None
    except RecursionError:
        raise ValueError("values are nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):  # two parsers could each use a different one
        raise ValueError("duplicate name in an object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _parse_object(part: str, what: str) -> dict[str, Any]:
    try:
        found = parse_json(_decode(part))
    except ValueError as error:  # includes JSONDecodeError
        raise TokenError(TokenFault.MALFORMED, f"the {what} of the token cannot be parsed: {error}") from None
    if not isinstance(found, dict):
        raise TokenError(TokenFault.MALFORMED, f"the {what} of the token is {_seen(found)}; expected an object")
    return found


def _decode(part: str) -> bytes:
    """Decode a part of a token; only the canonical encoding is accepted (RFC 4648, section 3.5)."""
    if _PART.fullmatch(part) and len(part) % 4 != 1:
        data = urlsafe_b64decode(part + "=" * (-len(part) % 4))
        if encode_part(data) == part:
            return data
    raise TokenError(TokenFault.MALFORMED, "a part of the token is not base64url without padding")


def _parse_time(token: Token, claim: str) -> float:
    value = token.claims.get(claim)
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:  # an integer beyond the range of a double
        pass
    raise TokenError(TokenFault.EXPIRY, f"{claim} is {_seen(value)}; expected seconds since 1970")


def _seen(value: object) -> str:
    return "absent" if value is None else ascii(value)[:_SHOWN]


def _check_algorithm(token: Token, validation: Validation) -> None:
    algorithm = token.header.get("alg")
    if algorithm not in ALGORITHMS:
        raise TokenError(TokenFault.ALGORITHM, f"alg is {_seen(algorithm)}; expected one of {', '.join(ALGORITHMS)}")


def _check_type(token: Token, validation: Validation) -> None:
    if "typ" in token.header and token.header["typ"] not in _TYPES:
        raise TokenError(TokenFault.TYPE, f"typ is {_seen(token.header['typ'])}; expected JWT or JOSE")


def _check_headers(token: Token, validation: Validation) -> None:
    others = [name for name in token.header if name not in _HEADERS]
    if others:
        raise TokenError(TokenFault.HEADER, f"the header has {_seen(others[0])}; expected only {', '.join(_HEADERS)}")


def _check_audience(token: Token, validation: Validation) -> None:
    audience = parse_audience(token)
    if validation.audience not in audience:
        found = ", ".join(ascii(name) for name in audience)[:_SHOWN]
        raise TokenError(TokenFault.AUDIENCE, f"the audience is {found}; expected {validation.audience!a}")


def _check_expiry(token: Token, validation: Validation) -> None:
    end = parse_expiry(token)
    if validation.now >= end:  # RFC 7519, section 4.1.4: on or after
        raise TokenError(TokenFault.EXPIRED, f"the token expired at {describe_time(end)}")


def _check_beginning(token: Token, validation: Validation) -> None:
    if "nbf" in token.claims and validation.now < (begin := _parse_time(token, "nbf")):
        raise TokenError(TokenFault.NOT_YET_VALID, f"the token is not valid before {describe_time(begin)}")


RULES = (
    TokenRule("alg", "JWT-SVID 2.1", "alg is a signature by RSA or ECDSA", _check_algorithm),
    TokenRule("kid", "JWT-SVID 2.2", "kid names the key", lambda token, validation: parse_key_id(token)),
    TokenRule("typ", "JWT-SVID 2.3", "typ is JWT or JOSE, or absent", _check_type),
    TokenRule("header", "JWT-SVID 2", "the header has no other parameter", _check_headers),
    TokenRule("sub", "JWT-SVID 3.1", "sub is the SPIFFE ID of a workload", lambda token, validation: parse_subject(token)),
    TokenRule("aud", "JWT-SVID 3.2", "aud contains the expected audience", _check_audience),
    TokenRule("exp", "JWT-SVID 3.3", "exp is present and in the future", _check_expiry),
    TokenRule("nbf", "RFC 7519 4.1.5", "nbf is absent or in the past", _check_beginning),
)
