"""How long something is still good, in words.

Knows the dates of certificates and a clock; must not know whose certificates they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tunnel.check.finding import Finding, ok, problem, warning
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.path import validity_of
from tunnel.time_format import describe_span, format_time

_LITTLE = 0.2  # of a life that is left: agents and ACME clients renew at half or two thirds of it
_CLOCK = "compare the clocks (timedatectl, chronyc tracking)"


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when every certificate of a chain is valid, and since when its leaf is."""

    start: datetime
    end: datetime
    born: datetime


def span_of_chain(chain: Sequence[Certificate]) -> Span:
    """The span of a chain, leaf first."""
    return Span(*validity_of(chain), chain[0].not_before)


def judge_dates(name: str, span: Span, now: datetime, renewal: str) -> Finding:
    """Whether `now` lies within a span, and not too near its end; `renewal` is what to look at then."""
    start, end = span.start, span.end
    if now < start:
        late = describe_span((start - now).total_seconds())
        return problem(
            name,
            f"not valid before {format_time(start)}, and here it is {format_time(now)}",
            f"this clock is {late} slow: {_CLOCK}",
        )
    if now > end:
        since = describe_span((now - end).total_seconds())
        return problem(name, f"expired {since} ago, at {format_time(end)}", f"{renewal}; or this clock is fast: {_CLOCK}")
    life, left = (end - span.born).total_seconds(), (end - now).total_seconds()
    seen = f"valid until {format_time(end)}, {describe_span(left)} of {describe_span(life)} left"
    return warning(name, seen, renewal) if left < life * _LITTLE else ok(name, seen)
