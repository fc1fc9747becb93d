"""Moments in the two notations that are used here: RFC 3339 for machines, and in words for people.

Knows dates; must not know what happens at them.
"""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"))


def time_of(seconds: float) -> str:
    """A moment in seconds since the epoch as RFC 3339 has it, in UTC."""
    return format_time(datetime.fromtimestamp(seconds, UTC))


def format_time(moment: datetime) -> str:
    """The same of a date in UTC."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def describe_distance(moment: datetime, now: datetime) -> str:
    """How far away a moment is: `in 59 minutes`, `3 days ago`."""
    seconds = int((moment - now).total_seconds())
    size, unit = next(((size, unit) for size, unit in _UNITS if abs(seconds) >= 2 * size), (1, "second"))
    count = abs(seconds) // size
    words = f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{words} ago" if seconds < 0 else f"in {words}"
