"""The two time formats of certificates, UTCTime and GeneralizedTime (RFC 5280, 4.1.2.5)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from tunnel.errors import WireError, WireFault
from tunnel.pkix import der
from tunnel.pkix.der import DerValue

# As in Go: UTCTime may have no seconds, and both may have an offset instead of Z.
_FORMS = {
    der.UTC_TIME: re.compile(rb"(\d{10})(\d\d)?(?:Z|([+-]\d{4}))"),
    der.GENERALIZED_TIME: re.compile(rb"(\d{12})(\d\d)(?:Z|([+-]\d{4}))"),
}


def parse_time(value: DerValue) -> datetime:
    """Parse a time, in UTC; raises WireError. The year 0 becomes 1, the first year of `datetime`."""
    form = _FORMS.get(value.tag)
    match = form.fullmatch(value.body) if form else None
    if match is None:
        raise WireError(WireFault.MALFORMED, "a date in an unknown format")
    minute, second, offset = (part.decode("ascii") if part else "" for part in match.groups())
    if value.tag == der.UTC_TIME:
        minute = ("20" if minute < "5" else "19") + minute
    try:
        return _parse_minute(minute, second or "00") - _parse_offset(offset)
    except (ValueError, OverflowError) as error:
        raise WireError(WireFault.MALFORMED, "an invalid date") from error


def _parse_minute(minute: str, second: str) -> datetime:
    year, *others = int(minute[:4]), *(int(minute[at : at + 2]) for at in range(4, 12, 2))
    return datetime(max(year, 1), *others, int(second), tzinfo=UTC)  # type: ignore[arg-type, misc]


def _parse_offset(offset: str) -> timedelta:
    if not offset:
        return timedelta()
    hours, minutes = int(offset[1:3]), int(offset[3:])
    if hours > 23 or minutes > 59:
        raise ValueError(offset)
    return (-1 if offset[0] == "-" else 1) * timedelta(hours=hours, minutes=minutes)
