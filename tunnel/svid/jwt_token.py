"""The refresher of a file with a token.

If no new token can be fetched the previous one stays, also when it has expired: an expired token gives its validation a clearer
error than a missing file.
"""

from __future__ import annotations

from tunnel.identity.tokens import JwtSvid
from tunnel.lazy_dataclass import dataclass
from tunnel.svid.event_log import Event
from tunnel.svid.file_refresher import ContentDescription, FileRefresher
from tunnel.time_format import describe_time

_MIN_DELAY = 0.5  # seconds between fetches, however short the lifetime of a token


@dataclass
class TokenRefresher(FileRefresher[JwtSvid]):
    """Refreshes a file with a token."""

    _expired: JwtSvid | None = None

    def refresh_delay(self, current: JwtSvid) -> float:
        """Return a little more than half of its lifetime; never more, also if our clock is behind the agent's."""
        remaining = current.expires_at - self.wall()
        issued_at = current.token.claims.get("iat")
        if isinstance(issued_at, int | float) and issued_at < current.expires_at:
            remaining = min(remaining, current.expires_at - issued_at)
        return renewal_delay(remaining)

    def describe(self, current: JwtSvid) -> ContentDescription:
        """Return its SPIFFE ID, audience and expiry; never the token."""
        end = describe_time(current.expires_at)
        return ContentDescription(
            f"token of {current.spiffe_id} for {', '.join(current.audience)} written, valid until {end}",
            {"spiffe_id": str(current.spiffe_id), "audience": list(current.audience), "expires_at": end},
        )

    def describe_failure(self, error: str) -> str:
        """Return the error, and that the previous token stays."""
        return f"cannot refresh the token: {error}; keeping the previous token, retrying"

    def report_expiry(self, current: JwtSvid) -> None:
        """Report each expired token once."""
        if self._expired is not current and self.wall() >= current.expires_at:
            self._expired = current
            end = describe_time(current.expires_at)
            self.write_event(Event.EXPIRED, f"the token in the file expired at {end}; retrying", expires_at=end)


def renewal_delay(remaining: float) -> float:
    """Return the seconds until the next fetch: a little more than half of the remaining lifetime.

    At exactly half, a SPIRE agent may still return its cached token.
    """
    return max(remaining / 2 + min(1.0, remaining / 10), _MIN_DELAY)
