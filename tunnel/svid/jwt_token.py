"""A token that is kept fresh in a file.

Knows when a token is renewed and what is told of one; must not know gRPC, flags or files. While no new one can be had the old
one stays: as long as it is valid it is the best there is, and afterwards an expired token says more to whoever reads it than
no file would.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.identity.tokens import JwtSvid
from tunnel.spiffe.jwt import moment
from tunnel.svid.event_log import Event
from tunnel.svid.file_refresher import Description, FileRefresher

_SHORTEST = 0.5  # seconds between renewals, however short a token lives


@dataclass
class TokenRefresher(FileRefresher[JwtSvid]):
    """One file with a token."""

    _expired: JwtSvid | None = None

    def delay(self, current: JwtSvid) -> float:
        """Until a little after half of its life; never longer, also while our clock is behind that of the agent."""
        remaining = current.expires_at - self.wall()
        issued_at = current.token.claims.get("iat")
        if isinstance(issued_at, int | float) and issued_at < current.expires_at:
            remaining = min(remaining, current.expires_at - issued_at)
        return renewal_delay(remaining)

    def describe(self, current: JwtSvid) -> Description:
        """Whose it is, for whom and until when; not the token."""
        end = moment(current.expires_at)
        return Description(
            f"token of {current.spiffe_id} for {', '.join(current.audience)} written, valid until {end}",
            {"spiffe_id": str(current.spiffe_id), "audience": list(current.audience), "expires_at": end},
        )

    def complain(self, trouble: str) -> str:
        """No new one, and why."""
        return f"no fresh token: {trouble}; the old one stays, trying again"

    def note_age(self, current: JwtSvid) -> None:
        """Once for each token that has ended in its file."""
        if self._expired is not current and self.wall() >= current.expires_at:
            self._expired = current
            end = moment(current.expires_at)
            self.tell(Event.EXPIRED, f"the token in the file ended at {end}; trying again", expires_at=end)


def renewal_delay(remaining: float) -> float:
    """Seconds until the next token is fetched: a little after half of what is left.

    At exactly half an agent of SPIRE may still hand out the token that it has.
    """
    return max(remaining / 2 + min(1.0, remaining / 10), _SHORTEST)
