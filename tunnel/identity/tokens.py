"""From an answer of the Workload API to tokens and bundles that can be used: whole, or not at all.

Knows what makes JWT-SVIDs and JWT bundles acceptable (Workload API, sections 5 and 6); must not know calls or time-outs. We
are not the one for whom a token is meant, so its signature is not our business: an agent is trusted with that. Only a bundle
that cannot be read is left out by itself: its trust domain is then trusted by nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tunnel.errors import IdentityError, IdentityFault, SpiffeIdError, TokenError
from tunnel.identity.update import MAX_BUNDLES, MAX_HINT_BYTES, MAX_SVIDS, without_repeated_hints
from tunnel.spiffe.ids import SpiffeId, TrustDomain, parse_trust_domain
from tunnel.spiffe.jwks import Jwk, JwtBundles, parse_jwks
from tunnel.spiffe.jwt import Token, moment, parse_audience, parse_expiry, parse_issued, parse_subject, parse_token
from tunnel.spiffe.messages import BundlesResponse, JwtSvidEntry
from tunnel.spiffe.selection import Selection


@dataclass(frozen=True, slots=True)
class JwtSvid:
    """One token with what it says; times are seconds since the epoch."""

    spiffe_id: SpiffeId
    hint: str
    audience: tuple[str, ...]
    issued_at: float | None
    expires_at: float
    token: Token = field(repr=False)


def accept_tokens(entries: Sequence[JwtSvidEntry], audience: Iterable[str], now: datetime) -> tuple[JwtSvid, ...]:
    """The tokens that an answer holds, each of them fresh and for the whole audience; raises IdentityError."""
    if not entries:
        raise IdentityError(IdentityFault.NO_SVID, "the answer holds no JWT-SVID")
    if len(entries) > MAX_SVIDS:
        raise IdentityError(IdentityFault.OVER_LIMIT, f"{len(entries)} JWT-SVIDs, at most {MAX_SVIDS} are taken")
    return tuple(_accept(entry, frozenset(audience), now) for entry in without_repeated_hints(entries))


def accept_jwt_bundles(response: BundlesResponse) -> JwtBundles:
    """The bundles that an answer holds, each trust domain's by itself; raises IdentityError."""
    if len(response.bundles) > MAX_BUNDLES:
        raise IdentityError(IdentityFault.OVER_LIMIT, f"{len(response.bundles)} bundles, at most {MAX_BUNDLES} are taken")
    bundles: dict[TrustDomain, dict[str, Jwk]] = {}
    disabled: dict[TrustDomain, str] = {}
    for name, document in response.bundles.items():
        try:
            trust_domain = parse_trust_domain(name)
        except SpiffeIdError:
            continue  # nobody's bundle
        try:
            if trust_domain in bundles or trust_domain in disabled:  # by its ID and by its bare name: neither is the better one
                raise IdentityError(IdentityFault.BAD_BUNDLE, f"two bundles of {trust_domain}")
            bundles[trust_domain] = parse_jwks(document)
        except IdentityError as error:
            bundles.pop(trust_domain, None)
            disabled[trust_domain] = str(error)
    return JwtBundles(bundles, disabled)


def select_token(svids: Iterable[JwtSvid], selection: Selection) -> JwtSvid | None:
    """The wanted token, or None when it is not offered; without a wish, the first."""
    offered = [svid for svid in svids if selection.spiffe_id in (None, svid.spiffe_id)]
    return next((svid for svid in offered if selection.hint in ("", svid.hint)), None)


def _accept(entry: JwtSvidEntry, audience: frozenset[str], now: datetime) -> JwtSvid:
    if not entry.spiffe_id or not entry.svid:
        missing = "spiffe_id" if not entry.spiffe_id else "svid"
        raise IdentityError(IdentityFault.INCOMPLETE, f"a JWT-SVID lacks {missing}")
    if len(entry.hint.encode()) > MAX_HINT_BYTES:
        raise IdentityError(IdentityFault.OVER_LIMIT, f"a hint is longer than {MAX_HINT_BYTES} bytes")
    try:
        token = parse_token(entry.svid)
        svid = JwtSvid(parse_subject(token), entry.hint, parse_audience(token), parse_issued(token), parse_expiry(token), token)
    except TokenError as error:
        raise IdentityError(IdentityFault.UNVERIFIED, f"JWT-SVID {entry.spiffe_id!a}: {error}") from error
    if str(svid.spiffe_id) != entry.spiffe_id:
        raise IdentityError(IdentityFault.WRONG_ID, f"JWT-SVID {entry.spiffe_id!a} comes with a token for {svid.spiffe_id}")
    if not audience <= set(svid.audience):
        raise IdentityError(IdentityFault.UNVERIFIED, f"JWT-SVID {entry.spiffe_id!a} is not for all of the audience")
    if svid.expires_at <= now.timestamp():
        raise IdentityError(
            IdentityFault.UNVERIFIED,
            f"JWT-SVID {entry.spiffe_id!a} ended at {moment(svid.expires_at)}, by our clock before it came",
        )
    return svid
