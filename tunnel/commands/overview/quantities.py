"""Numbers of the overview as people read them: bytes, rates, and times relative to the proxy's clock."""

from __future__ import annotations

from tunnel.time_format import describe_offset, describe_span

_UNITS = ("", "k", "M", "G", "T", "P", "E")  # powers of 1000
UNKNOWN = "-"


def describe_bytes(count: float) -> str:
    """A number of bytes: `512 B`, `1.5 kB`."""
    return f"{_scale(count)}B"


def describe_rate(rate: float | None) -> str:
    """A number per second: `0`, `0.5`, `12`, `1.5 k`; `-` if it is unknown."""
    if rate is None:
        return UNKNOWN
    return f"{rate:.1f}" if 0 < rate < 10 else _scale(rate).strip()


def describe_byte_rate(rate: float | None) -> str:
    """Bytes per second; `-` if unknown."""
    return UNKNOWN if rate is None else f"{_scale(rate)}B/s"


def describe_seconds(seconds: float | None) -> str:
    """A short duration: `0.61 ms`, `1.5 s`; `-` if unknown."""
    if seconds is None:
        return UNKNOWN
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def describe_moment(moment: float | None, now: float) -> str:
    """When something is: `in 54 minutes`, `3 days ago`; `-` if unknown."""
    return UNKNOWN if moment is None else describe_offset(moment - now)


def describe_age(moment: float | None, now: float) -> str:
    """How long ago something was: `6 minutes ago`; `-` if unknown."""
    return UNKNOWN if moment is None else f"{describe_span(max(now - moment, 0.0))} ago"


def _scale(count: float) -> str:
    power = 0
    while count >= 999.5 and power < len(_UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.1f} {_UNITS[power]}" if power and count < 10 else f"{count:.0f} {_UNITS[power]}"
