"""Selection and validation of the content of JWT responses (Workload API, sections 5 and 6).

The signature of a token is not verified here: the token is for another process, and the agent is trusted. Only selected tokens
are parsed. A bundle that cannot be parsed is skipped: then only tokens of its trust domain are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from tunnel.errors import IdentityError, IdentityFault, SpiffeIdError, TokenError
from tunnel.identity.update import check_hint
from tunnel.lazy_dataclass import dataclass, field
from tunnel.spiffe.ids import SpiffeId, TrustDomain, parse_trust_domain
from tunnel.spiffe.jwks import Jwk, JwtBundles, parse_jwks
from tunnel.spiffe.jwt import Token, parse_audience, parse_expiry, parse_issued, parse_subject, parse_token
from tunnel.spiffe.messages import BundlesResponse, JwtSvidEntry
from tunnel.spiffe.selection import Selection, describe_offers
from tunnel.time_format import describe_time

_ANY = Selection()


@dataclass(frozen=True, slots=True)
class JwtSvid:
    """A JWT-SVID: a token and its claims; times are Unix times."""

    spiffe_id: SpiffeId
    hint: str
    audience: tuple[str, ...]
    issued_at: float | None
    expires_at: float
    token: Token = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """The selected JWT-SVID, the number of offered ones, and why earlier matching ones were skipped."""

    svid: JwtSvid
    offered: int
    skipped: tuple[str, ...] = ()


def accept_token(
    entries: Sequence[JwtSvidEntry], audience: Iterable[str], now: datetime, selection: Selection = _ANY
) -> TokenAnswer:
    """Return the first valid JWT-SVID that matches `selection`: unexpired and for the whole audience.

    Other entries are not parsed. Raises IdentityError if the response is empty, if no entry matches, or, if no matching entry
    is valid, for the first of them.
    """
    if not entries:
        raise IdentityError(IdentityFault.NO_SVID, "the response contains no JWT-SVID")
    failures: list[IdentityError] = []
    for entry in entries:
        if selection.is_met_by(entry.offer):
            try:
                svid = _accept(entry, frozenset(audience), now)
                return TokenAnswer(svid, len(entries), tuple(f"{error.reason.value}: {error}" for error in failures))
            except IdentityError as error:
                failures.append(error)
    if failures:
        raise failures[0]
    offered = describe_offers(entry.offer for entry in entries)
    raise IdentityError(IdentityFault.NO_SVID, f"the Workload API does not offer {selection}, only {offered}")


def accept_jwt_bundles(response: BundlesResponse) -> JwtBundles:
    """Return the bundles of a response; a bundle that cannot be parsed disables its trust domain only."""
    bundles: dict[TrustDomain, dict[str, Jwk]] = {}
    disabled: dict[TrustDomain, str] = {}
    for name, document in response.bundles.items():
        try:
            trust_domain = parse_trust_domain(name)
        except SpiffeIdError:
            continue  # no trust domain's bundle
        try:
            if trust_domain in bundles or trust_domain in disabled:  # by SPIFFE ID and by name: neither takes precedence
                raise IdentityError(IdentityFault.BAD_BUNDLE, f"two bundles for {trust_domain}")
            bundles[trust_domain] = parse_jwks(document)
        except IdentityError as error:
            bundles.pop(trust_domain, None)
            disabled[trust_domain] = str(error)
    return JwtBundles(bundles, disabled)


def _accept(entry: JwtSvidEntry, audience: frozenset[str], now: datetime) -> JwtSvid:
    if not entry.spiffe_id or not entry.svid:
        missing = "spiffe_id" if not entry.spiffe_id else "svid"
        raise IdentityError(IdentityFault.INCOMPLETE, f"JWT-SVID: missing {missing}")
    check_hint(entry.offer)
    try:
        token = parse_token(entry.svid)
        svid = JwtSvid(parse_subject(token), entry.hint, parse_audience(token), parse_issued(token), parse_expiry(token), token)
    except TokenError as error:
        raise IdentityError(IdentityFault.UNVERIFIED, f"JWT-SVID {entry.spiffe_id!a}: {error}") from error
    if str(svid.spiffe_id) != entry.spiffe_id:
        raise IdentityError(IdentityFault.WRONG_ID, f"JWT-SVID {entry.spiffe_id!a}: its token is for {svid.spiffe_id}")
    if not audience <= set(svid.audience):
        raise IdentityError(IdentityFault.UNVERIFIED, f"JWT-SVID {entry.spiffe_id!a}: not valid for the whole audience")
    if svid.expires_at <= now.timestamp():
        expired = f"expired at {describe_time(svid.expires_at)} by the local clock, before it was received"
        raise IdentityError(IdentityFault.UNVERIFIED, f"JWT-SVID {entry.spiffe_id!a}: {expired}")
    return svid
