"""How long something is still good, in words.

Knows the dates of certificates and a clock; must not know whose certificates they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from tunnel.check.finding import Finding, ok, problem, warning
from tunnel.tls.path import span_of

_LITTLE = 0.2  # of a life that is left: agents and ACME clients renew at half or two thirds of it
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_CLOCK = "compare the clocks (timedatectl, chronyc tracking)"


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when every certificate of a chain is valid, and since when its leaf is."""

    start: datetime
    end: datetime
    born: datetime


def span_of_chain(chain: Sequence[x509.Certificate]) -> Span:
    """The span of a chain, leaf first."""
    return Span(*span_of(chain), chain[0].not_valid_before_utc)


def judge_dates(name: str, span: Span, now: datetime, renewal: str) -> Finding:
    """Whether `now` lies within a span, and not too near its end; `renewal` is what to look at then."""
    start, end = span.start, span.end
    if now < start:
        late = words_of_span((start - now).total_seconds())
        return problem(
            name, f"not valid before {stamp(start)}, and here it is {stamp(now)}", f"this clock is {late} slow: {_CLOCK}"
        )
    if now > end:
        since = words_of_span((now - end).total_seconds())
        return problem(name, f"expired {since} ago, at {stamp(end)}", f"{renewal}; or this clock is fast: {_CLOCK}")
    life, left = (end - span.born).total_seconds(), (end - now).total_seconds()
    seen = f"valid until {stamp(end)}, {words_of_span(left)} of {words_of_span(life)} left"
    return warning(name, seen, renewal) if left < life * _LITTLE else ok(name, seen)


def stamp(moment: datetime) -> str:
    """A moment in UTC, as the log has it."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def words_of_span(seconds: float) -> str:
    """`3d`, `54m`: the largest unit of which there are two, or the smallest."""
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= 2 * size), _UNITS[-1])
    return f"{int(seconds // size)}{unit}"
