"""Bundles for JWT-SVIDs: which keys speak for which trust domain.

Knows which entries of a JWKS are meant (Trust Domain and Bundle, sections 4 and 6; JWT-SVID 6) and that a bundle is
authority for one trust domain and no other; must not know what a key is or how a signature is checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunnel.errors import IdentityError, IdentityFault, TokenError, TokenFault
from tunnel.spiffe.ids import SpiffeId, TrustDomain
from tunnel.spiffe.jwt import Token, parse_json, parse_key_id

USE = "jwt-svid"  # JWT-SVID 6.1
MAX_BUNDLE_BYTES = 4 * 1024 * 1024
_TYPES = ("EC", "RSA")  # what the algorithms of JWT-SVID 2.1 are made with

Jwk = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class JwtBundles:
    """Keys by trust domain and name; `disabled` are the bundles that could not be read, and why."""

    bundles: Mapping[TrustDomain, Mapping[str, Jwk]]
    disabled: Mapping[TrustDomain, str] = field(default_factory=dict)

    def find_key(self, token: Token, spiffe_id: SpiffeId) -> Jwk:
        """The key that the token names, from the bundle of its own subject's trust domain; raises TokenError."""
        trust_domain = spiffe_id.trust_domain
        bundle = self.bundles.get(trust_domain)
        if bundle is None:
            why = self.disabled.get(trust_domain, "no bundle for it")
            raise TokenError(TokenFault.UNKNOWN_TRUST_DOMAIN, f"{trust_domain}: {why}")
        key_id = parse_key_id(token)
        if key_id not in bundle:
            raise TokenError(
                TokenFault.UNKNOWN_KEY, f"the bundle of {trust_domain} has {len(bundle)} keys, none of them is {key_id[:200]!a}"
            )
        return bundle[key_id]


def parse_jwks(document: bytes) -> dict[str, Jwk]:
    """The keys for JWT-SVIDs in a bundle, by name; raises IdentityError.

    Entries for another use, of an unknown kind or without a name of their own are passed over. An agent of SPIRE leaves `use`
    out, so an entry without it counts.
    """
    if len(document) > MAX_BUNDLE_BYTES:
        raise IdentityError(IdentityFault.OVER_LIMIT, f"the bundle is over {MAX_BUNDLE_BYTES} bytes")
    try:
        found = parse_json(document)
    except ValueError as error:
        raise IdentityError(IdentityFault.BAD_BUNDLE, f"not JSON: {error}") from None
    entries = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise IdentityError(IdentityFault.BAD_BUNDLE, "no JWKS: it has no list of keys")
    return _by_name([entry for entry in entries if isinstance(entry, dict) and _is_meant(entry)])


def _is_meant(entry: Jwk) -> bool:
    return entry.get("use", USE) == USE and entry.get("kty") in _TYPES


def _by_name(entries: list[dict[str, Any]]) -> dict[str, Jwk]:
    """The keys that have a name (kid) of their own: of two with one name neither is the better one."""
    pairs = [(name, entry) for entry in entries if isinstance(name := entry.get("kid"), str) and name]
    counts = Counter(name for name, _entry in pairs)
    named: dict[str, Jwk] = {name: entry for name, entry in pairs if counts[name] == 1}
    if entries and not named:
        raise IdentityError(IdentityFault.BAD_BUNDLE, f"of {len(entries)} keys none has a name (kid) of its own")
    return named
