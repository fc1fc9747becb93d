"""From an answer of the Workload API to the token and the bundles that can be used (Workload API, sections 5 and 6).

We are not the one for whom a token is meant, so its signature is not checked: the agent is trusted with that. A token that is
not wanted is not looked at. A bundle that cannot be read is left out by itself: its trust domain is then trusted by nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tunnel.errors import IdentityError, IdentityFault, SpiffeIdError, TokenError
from tunnel.identity.update import check_hint
from tunnel.spiffe.ids import SpiffeId, TrustDomain, parse_trust_domain
from tunnel.spiffe.jwks import Jwk, JwtBundles, parse_jwks
from tunnel.spiffe.jwt import Token, moment, parse_audience, parse_expiry, parse_issued, parse_subject, parse_token
from tunnel.spiffe.messages import BundlesResponse, JwtSvidEntry
from tunnel.spiffe.selection import Selection, describe_offers

_ANY = Selection()


@dataclass(frozen=True, slots=True)
class JwtSvid:
    """One token with what it says; times are seconds since the epoch."""

    spiffe_id: SpiffeId
    hint: str
    audience: tuple[str, ...]
    issued_at: float | None
    expires_at: float
    token: Token = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """The wanted token, how many the agent offers, and those before it that cannot be used, and why."""

    svid: JwtSvid
    offered: int
    left_out: tuple[str, ...] = ()


def accept_token(
    entries: Sequence[JwtSvidEntry], audience: Iterable[str], now: datetime, selection: Selection = _ANY
) -> TokenAnswer:
    """The wanted token of an answer, fresh and for the whole audience: the first good one of those that `selection` means.

    No other is looked at. Raises IdentityError when the answer is empty, when it does not offer what is wanted, or with what is
    wrong with the first one when none is good.
    """
    if not entries:
        raise IdentityError(IdentityFault.NO_SVID, "the answer holds no JWT-SVID")
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
    raise IdentityError(IdentityFault.NO_SVID, f"it does not offer {selection}, only {offered}")


def accept_jwt_bundles(response: BundlesResponse) -> JwtBundles:
    """The bundles that an answer holds, each trust domain's by itself."""
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


def _accept(entry: JwtSvidEntry, audience: frozenset[str], now: datetime) -> JwtSvid:
    if not entry.spiffe_id or not entry.svid:
        missing = "spiffe_id" if not entry.spiffe_id else "svid"
        raise IdentityError(IdentityFault.INCOMPLETE, f"a JWT-SVID lacks {missing}")
    check_hint(entry.offer)
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
