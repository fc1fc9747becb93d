"""What a check has found: one line of the report.

Knows the verdicts; must not know what is looked at or how it is printed. A check is a generator: it yields findings, and
returns what later checks can go on from, or None when there is nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

T = TypeVar("T")


class Verdict(Enum):
    """What a finding means for a start; the value is its word in JSON."""

    OK = "ok"
    WARNING = "warning"  # works, and may surprise
    PROBLEM = "problem"  # will not work
    SKIPPED = "skipped"  # not looked at


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what was seen, and what to do about it."""

    name: str
    verdict: Verdict
    seen: str
    advice: str = ""


Steps = Generator[Finding, None, T]


def ok(name: str, seen: str) -> Finding:
    """It is as it should be."""
    return Finding(name, Verdict.OK, seen)


def warning(name: str, seen: str, advice: str) -> Finding:
    """It works, and may surprise."""
    return Finding(name, Verdict.WARNING, seen, advice)


def problem(name: str, seen: str, advice: str) -> Finding:
    """It will not work."""
    return Finding(name, Verdict.PROBLEM, seen, advice)


def skipped(name: str, why: str) -> Finding:
    """It was not looked at."""
    return Finding(name, Verdict.SKIPPED, why)
