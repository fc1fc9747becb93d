"""Formats of times and durations: RFC 3339, and text for people."""

from __future__ import annotations

import time
from datetime import UTC, datetime

_NS = 1_000_000_000
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"))


def time_of(seconds: float) -> str:
    """Return a Unix time in RFC 3339 format, in UTC."""
    return format_time(datetime.fromtimestamp(seconds, UTC))


class UtcFormatter:
    """Formats Unix times in RFC 3339 with microseconds, in UTC; fast for times within one second."""

    def __init__(self) -> None:
        self._second = -1
        self._stamp = ""

    def __call__(self, seconds: float) -> str:
        second = int(seconds)
        if second != self._second:
            self._second, self._stamp = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._stamp}.{int((seconds - second) * 1e6):06d}Z"


def format_time(moment: datetime) -> str:
    """Return a UTC datetime in RFC 3339 format."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def describe_time(seconds: float) -> str:
    """Return a time in RFC 3339, or as a number of seconds if it is out of range."""
    try:
        return time_of(seconds)
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g} seconds after 1970"


def format_local_time(ns: int) -> str:
    """Return nanoseconds of Unix time in RFC 3339 format, in the local zone, as Go's RFC3339Nano."""
    second, fraction = divmod(ns, _NS)
    local = time.localtime(second)
    digits = f".{fraction:09d}".rstrip("0").rstrip(".")
    return time.strftime("%Y-%m-%dT%H:%M:%S", local) + digits + _format_zone(local.tm_gmtoff)


def _format_zone(offset: int) -> str:
    if offset == 0:
        return "Z"
    hours, minutes = divmod(abs(offset) // 60, 60)
    return f"{'-' if offset < 0 else '+'}{hours:02d}:{minutes:02d}"


def describe_span(seconds: float) -> str:
    """Return a duration in the largest unit of which there are at least two: `54 minutes`, `3 days`."""
    whole = int(seconds)
    size, unit = next(((size, unit) for size, unit in _UNITS if whole >= 2 * size), (1, "second"))
    count = whole // size
    return f"{count} {unit}{'' if count == 1 else 's'}"


def describe_distance(moment: datetime, now: datetime) -> str:
    """Return a time relative to `now`: `in 59 minutes`, `3 days ago`."""
    return describe_offset((moment - now).total_seconds())


def describe_offset(seconds: float) -> str:
    """Return a time that many seconds from now, in the past if negative: `in 59 minutes`, `3 days ago`."""
    whole = int(seconds)
    words = describe_span(abs(whole))
    return f"{words} ago" if whole < 0 else f"in {words}"
