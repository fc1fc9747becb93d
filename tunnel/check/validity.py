"""Checks the validity period of a certificate chain."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from tunnel.check.finding import Finding, ok, problem, warning
from tunnel.lazy_dataclass import dataclass
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.path import validity_of as validity_dates
from tunnel.time_format import describe_span, format_time

_EXPIRING = 0.2  # of the lifetime; agents and ACME clients renew at a half or two thirds of it
COMPARE_CLOCKS: Final = "compare the clocks (timedatectl, chronyc tracking)"


@dataclass(frozen=True, slots=True)
class ValidityPeriod:
    """The time in which every certificate of a chain is valid, and the start of its leaf's lifetime."""

    start: datetime
    end: datetime
    issued: datetime


def validity_of(chain: Sequence[Certificate]) -> ValidityPeriod:
    """Return the validity period of a chain, leaf first."""
    return ValidityPeriod(*validity_dates(chain), chain[0].not_before)


def check_validity(name: str, period: ValidityPeriod, now: datetime, advice: str) -> Finding:
    """Return whether `now` is within the period, with a warning near its end; `advice` is how to renew."""
    start, end = period.start, period.end
    if now < start:
        late = describe_span((start - now).total_seconds())
        return problem(
            name,
            f"not valid before {format_time(start)}; current time is {format_time(now)}",
            f"this clock is {late} slow: {COMPARE_CLOCKS}",
        )
    if now > end:
        since = describe_span((now - end).total_seconds())
        return problem(
            name, f"expired {since} ago, at {format_time(end)}", f"{advice}; or this clock is fast: {COMPARE_CLOCKS}"
        )
    lifetime, left = (end - period.issued).total_seconds(), (end - now).total_seconds()
    detail = f"valid until {format_time(end)}, {describe_span(left)} of {describe_span(lifetime)} left"
    return warning(name, detail, advice) if left < lifetime * _EXPIRING else ok(name, detail)
