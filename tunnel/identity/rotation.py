"""When an SVID should have been renewed, and when to ask for it again: arithmetic on Unix times."""

from __future__ import annotations

from tunnel.identity.credentials import X509Svid

_OVERDUE = 0.75  # of its life; an agent of SPIRE renews an SVID at half of it
_SHORTEST, _LONGEST = 1.0, 30.0  # seconds between attempts


def overdue_from(svid: X509Svid) -> float:
    """The moment from which the rotation of an SVID is overdue."""
    begin, end = svid.chain[0].not_before.timestamp(), svid.not_after.timestamp()
    return begin + _OVERDUE * (end - begin)


def next_attempt(svid: X509Svid, now: float) -> float:
    """The moment of the next attempt to get a new one.

    The first is when its rotation is overdue, the next ones each at half of the time that is left, one at its expiry, and then
    one every 30 seconds.
    """
    overdue, end = overdue_from(svid), svid.not_after.timestamp()
    if now < overdue:
        return overdue
    if now < end:
        return min(now + max((end - now) / 2, _SHORTEST), end)
    return now + _LONGEST
