"""JWT-SVIDs as texts: what a token says, and the rules that it keeps whoever has signed it.

Knows compact serialization and sections 2, 3 and 5 of JWT-SVID; must not know keys, signatures or where a token came from.
What a token says is only a claim until its signature has been checked. The token itself stays out of every repr and error:
whoever has it is its subject.
"""

from __future__ import annotations

import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunnel.errors import SpiffeIdError, TokenError, TokenFault
from tunnel.spiffe.ids import SpiffeId, parse_spiffe_id
from tunnel.time_format import time_of

ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")  # JWT-SVID 2.1
MAX_TOKEN_BYTES = 64 * 1024  # far above any that an HTTP server would take in a header
_HEADERS = ("alg", "kid", "typ")  # JWT-SVID 2: no other, registered or private
_TYPES = ("JWT", "JOSE")  # JWT-SVID 2.3
_PART = re.compile(r"[A-Za-z0-9_-]*")
_SHOWN = 200  # characters of a value that an error quotes


@dataclass(frozen=True, slots=True)
class Token:
    """A token that has been taken apart, and not yet believed."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    text: str = field(repr=False)

    @property
    def signed(self) -> bytes:
        """What the signature is made over (RFC 7515, section 5.2)."""
        return self.text.rpartition(".")[0].encode()

    @property
    def signature(self) -> bytes:
        """The signature, empty for a token that has none."""
        return _decode(self.text.rpartition(".")[2])


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads a token, and when: seconds since the epoch."""

    audience: str
    now: float


@dataclass(frozen=True, slots=True)
class TokenRule:
    """One rule: its name, where it stands, and the function that raises TokenError for a token that breaks it."""

    name: str
    section: str
    words: str
    check: Callable[[Token, Reader], object]


def parse_token(text: str) -> Token:
    """A token in compact serialization (JWT-SVID 5.1); raises TokenError. Nothing in it has been checked yet."""
    if len(text) > MAX_TOKEN_BYTES:
        raise TokenError(TokenFault.TOO_LARGE, f"the token has {len(text)} characters, at most {MAX_TOKEN_BYTES} are read")
    parts = text.split(".")
    if len(parts) != 3:
        raise TokenError(TokenFault.MALFORMED, f"{len(parts) - 1} dots where a token has two: header.claims.signature")
    _decode(parts[2])
    return Token(_parse_object(parts[0], "header"), _parse_object(parts[1], "claims"), text)


def encode_token(header: Mapping[str, Any], claims: Mapping[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """A token in compact serialization, signed by `sign`."""
    signed = ".".join(encode_part(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    return f"{signed}.{encode_part(sign(signed.encode()))}"


def encode_part(data: bytes) -> str:
    """Bytes in the base64 of JOSE: for URLs, without padding (RFC 7515, section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def check_token(token: Token, reader: Reader) -> SpiffeId:
    """The SPIFFE ID that the token claims, when it keeps every rule but that of its signature; raises TokenError."""
    for rule in RULES:
        rule.check(token, reader)
    return parse_subject(token)


def parse_subject(token: Token) -> SpiffeId:
    """The SPIFFE ID of a workload, in `sub` (JWT-SVID 3.1)."""
    subject = token.claims.get("sub")
    if not isinstance(subject, str):
        raise TokenError(TokenFault.SUBJECT, f"sub is {_seen(subject)} where a SPIFFE ID is wanted")
    try:
        spiffe_id = parse_spiffe_id(subject)
    except SpiffeIdError as error:
        raise TokenError(TokenFault.SUBJECT, f"sub: {error}") from error
    if not spiffe_id.is_workload():
        raise TokenError(TokenFault.SUBJECT, f"sub: {spiffe_id} names a trust domain, not a workload")
    return spiffe_id


def parse_audience(token: Token) -> tuple[str, ...]:
    """Those whom the token is meant for, one text or several (JWT-SVID 3.2; RFC 7519, section 4.1.3)."""
    audience = token.claims.get("aud")
    several = [audience] if isinstance(audience, str) else audience
    if not isinstance(several, list) or not several or not all(isinstance(name, str) for name in several):
        raise TokenError(TokenFault.AUDIENCE, f"aud is {_seen(audience)} where one text or several are wanted")
    return tuple(several)


def parse_expiry(token: Token) -> float:
    """When the token ends, in seconds since the epoch (JWT-SVID 3.3)."""
    return _parse_time(token, "exp")


def parse_issued(token: Token) -> float | None:
    """When the token was made, if it says so."""
    return _parse_time(token, "iat") if "iat" in token.claims else None


def parse_key_id(token: Token) -> str:
    """Which key of the bundle has signed (JWT-SVID 2.2, 6.1: every key of a bundle has a name)."""
    key_id = token.header.get("kid")
    if not isinstance(key_id, str) or not key_id:
        raise TokenError(TokenFault.KEY_ID, f"kid is {_seen(key_id)} where the name of a key is wanted")
    return key_id


def moment(seconds: float) -> str:
    """A time as people read it, in UTC; whatever number it is."""
    try:
        return time_of(seconds)
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g} seconds after 1970"


def parse_json(data: bytes) -> Any:
    """A document of JSON in which no name stands twice in one object, and no number is infinite; raises ValueError."""
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError:  # its text quotes a byte
        raise ValueError("not UTF-8") from None
    except RecursionError:
        raise ValueError("values lie too deep in each other") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):  # of two readers each could take another one
        raise ValueError("a name stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _parse_object(part: str, what: str) -> dict[str, Any]:
    try:
        found = parse_json(_decode(part))
    except ValueError as error:  # of which UnicodeDecodeError and JSONDecodeError are kinds
        raise TokenError(TokenFault.MALFORMED, f"the {what} of the token cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise TokenError(TokenFault.MALFORMED, f"the {what} of the token is {_seen(found)} where an object is wanted")
    return found


def _decode(part: str) -> bytes:
    """The bytes of one part; of several spellings of one value only the right one is taken (RFC 4648, section 3.5)."""
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
    except OverflowError:  # a whole number that no double holds
        pass
    raise TokenError(TokenFault.EXPIRY, f"{claim} is {_seen(value)} where a time is wanted, seconds since 1970")


def _seen(value: object) -> str:
    return "absent" if value is None else ascii(value)[:_SHOWN]


def _check_algorithm(token: Token, reader: Reader) -> None:
    algorithm = token.header.get("alg")
    if algorithm not in ALGORITHMS:
        raise TokenError(TokenFault.ALGORITHM, f"alg is {_seen(algorithm)} where one of {', '.join(ALGORITHMS)} is wanted")


def _check_type(token: Token, reader: Reader) -> None:
    if "typ" in token.header and token.header["typ"] not in _TYPES:
        raise TokenError(TokenFault.TYPE, f"typ is {_seen(token.header['typ'])} where JWT or JOSE is wanted")


def _check_headers(token: Token, reader: Reader) -> None:
    others = [name for name in token.header if name not in _HEADERS]
    if others:
        raise TokenError(TokenFault.HEADER, f"the header has {_seen(others[0])}, and may have only {', '.join(_HEADERS)}")


def _check_audience(token: Token, reader: Reader) -> None:
    audience = parse_audience(token)
    if reader.audience not in audience:
        meant = ", ".join(ascii(name) for name in audience)[:_SHOWN]
        raise TokenError(TokenFault.AUDIENCE, f"the token is meant for {meant}, not for {reader.audience!a}")


def _check_expiry(token: Token, reader: Reader) -> None:
    end = parse_expiry(token)
    if reader.now >= end:  # RFC 7519, section 4.1.4: on or after
        raise TokenError(TokenFault.EXPIRED, f"the token ended at {moment(end)}")


def _check_beginning(token: Token, reader: Reader) -> None:
    if "nbf" in token.claims and reader.now < (begin := _parse_time(token, "nbf")):
        raise TokenError(TokenFault.NOT_YET_VALID, f"the token begins at {moment(begin)}")


RULES = (
    TokenRule("alg", "JWT-SVID 2.1", "alg is a signature by RSA or ECDSA", _check_algorithm),
    TokenRule("kid", "JWT-SVID 2.2", "kid names the key", lambda token, reader: parse_key_id(token)),
    TokenRule("typ", "JWT-SVID 2.3", "typ is JWT or JOSE, or absent", _check_type),
    TokenRule("header", "JWT-SVID 2", "the header has nothing besides", _check_headers),
    TokenRule("sub", "JWT-SVID 3.1", "sub is the SPIFFE ID of a workload", lambda token, reader: parse_subject(token)),
    TokenRule("aud", "JWT-SVID 3.2", "aud has the audience that asks", _check_audience),
    TokenRule("exp", "JWT-SVID 3.3", "exp is there and lies ahead", _check_expiry),
    TokenRule("nbf", "RFC 7519 4.1.5", "nbf is past, or absent", _check_beginning),
)
