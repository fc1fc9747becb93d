"""JWT bundles: the keys of JWT-SVIDs by trust domain (Trust Domain and Bundle, sections 4 and 6; JWT-SVID 6).

A bundle is valid for one trust domain only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from tunnel.errors import IdentityError, IdentityFault, TokenError, TokenFault
from tunnel.lazy_dataclass import dataclass, field
from tunnel.spiffe.ids import SpiffeId, TrustDomain
from tunnel.spiffe.jwt import Token, parse_json, parse_key_id

USE = "jwt-svid"  # JWT-SVID 6.1
MAX_BUNDLE_BYTES = 4 * 1024 * 1024
_TYPES = ("EC", "RSA")  # the key types of the algorithms in JWT-SVID 2.1

Jwk = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class JwtBundles:
    """Keys by trust domain and key ID; `disabled` has the bundles that could not be parsed, with the error."""

    bundles: Mapping[TrustDomain, Mapping[str, Jwk]]
    disabled: Mapping[TrustDomain, str] = field(default_factory=dict)

    def find_key(self, token: Token, spiffe_id: SpiffeId) -> Jwk:
        """Return the key of a token from the bundle of the trust domain of its subject; raises TokenError."""
        trust_domain = spiffe_id.trust_domain
        bundle = self.bundles.get(trust_domain)
        if bundle is None:
            reason = self.disabled.get(trust_domain, "no bundle for it")
            raise TokenError(TokenFault.UNKNOWN_TRUST_DOMAIN, f"{trust_domain}: {reason}")
        key_id = parse_key_id(token)
        if key_id not in bundle:
            raise TokenError(
                TokenFault.UNKNOWN_KEY,
                f"none of the {len(bundle)} keys in the bundle of {trust_domain} has the ID {key_id[:200]!a}",
            )
        return bundle[key_id]


def parse_jwks(document: bytes) -> dict[str, Jwk]:
    """Parse the JWT-SVID keys of a bundle, by key ID; raises IdentityError.

    Entries with another use, an unknown type or without a unique key ID are ignored. SPIRE agents omit `use`, so an entry
    without it counts.
    """
    if len(document) > MAX_BUNDLE_BYTES:
        raise IdentityError(IdentityFault.OVER_LIMIT, f"the bundle has more than {MAX_BUNDLE_BYTES} bytes")
    try:
        found = parse_json(document)
    except ValueError as error:
        raise IdentityError(IdentityFault.BAD_BUNDLE, f"not JSON: {error}") from None
    entries = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise IdentityError(IdentityFault.BAD_BUNDLE, "not a JWKS: missing list of keys")
    return _by_key_id([entry for entry in entries if isinstance(entry, dict) and _is_jwt_svid_key(entry)])


def _is_jwt_svid_key(entry: Jwk) -> bool:
    return entry.get("use", USE) == USE and entry.get("kty") in _TYPES


def _by_key_id(entries: list[dict[str, Any]]) -> dict[str, Jwk]:
    """Return the keys with a unique key ID (kid); of two with the same one neither is used."""
    pairs = [(name, entry) for entry in entries if isinstance(name := entry.get("kid"), str) and name]
    counts = Counter(name for name, _entry in pairs)
    named: dict[str, Jwk] = {name: entry for name, entry in pairs if counts[name] == 1}
    if entries and not named:
        raise IdentityError(IdentityFault.BAD_BUNDLE, f"none of the {len(entries)} keys has a unique key ID (kid)")
    return named
