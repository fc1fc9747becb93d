"""One finding of a check, and its text and JSON forms.

Details may quote files, servers and certificates: escape them, so that no control character reaches a terminal.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Sequence
from enum import Enum
from typing import TypeVar

from tunnel.lazy_dataclass import dataclass
from tunnel.log import one_line

T = TypeVar("T")


class Verdict(Enum):
    """The result of one check; the value is the one in JSON."""

    OK = "ok"
    WARNING = "warning"  # works, but may be unintended
    PROBLEM = "problem"  # does not work
    SKIPPED = "skipped"  # not checked


_MAX_TEXT = 4096  # characters
_MARKS = {Verdict.OK: "ok", Verdict.WARNING: "??", Verdict.PROBLEM: "!!", Verdict.SKIPPED: "--"}
_COUNTED = ((Verdict.PROBLEM, "problem"), (Verdict.WARNING, "warning"))


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: `name` is stable, `detail` is for people; the other texts are "" if there is none."""

    name: str
    verdict: Verdict
    detail: str
    advice: str = ""
    section: str = ""  # of the standard with the rule
    reason: str = ""  # the enumerated reason of an error


Steps = Generator[Finding, None, T]  # a check yields its findings, and returns the result that later checks need


def ok(name: str, detail: str) -> Finding:
    """Return a finding without a problem."""
    return Finding(name, Verdict.OK, detail)


def warning(name: str, detail: str, advice: str) -> Finding:
    """Return a finding about something that works, but may be unintended."""
    return Finding(name, Verdict.WARNING, detail, advice)


def problem(name: str, detail: str, advice: str) -> Finding:
    """Return a finding that prevents a start or a connection."""
    return Finding(name, Verdict.PROBLEM, detail, advice)


def skipped(name: str, reason: str) -> Finding:
    """Return a finding that was not checked."""
    return Finding(name, Verdict.SKIPPED, reason)


def has_no_problem(findings: Sequence[Finding]) -> bool:
    """Whether no finding is a problem."""
    return all(finding.verdict is not Verdict.PROBLEM for finding in findings)


def encode_line(finding: Finding) -> str:
    """Return `MARK  NAME: DETAIL (SECTION) -> ADVICE`."""
    section = f" ({finding.section})" if finding.section else ""
    advice = f" -> {finding.advice}" if finding.advice else ""
    return escape_text(f"{_MARKS[finding.verdict]}  {finding.name}: {finding.detail}{section}{advice}")


def encode_summary(findings: Sequence[Finding]) -> str:
    """Return the number of problems and warnings."""
    counts = Counter(finding.verdict for finding in findings)
    parts = [f"{count} {name}{'s' * (count > 1)}" for verdict, name in _COUNTED if (count := counts[verdict])]
    return ", ".join(parts) or "no problems"


def encode_findings(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """Return the findings for JSON: `name`, `verdict`, `detail`; and `advice`, `section`, `reason` if there is one."""
    rows = []
    for one in findings:
        row = {"name": one.name, "verdict": one.verdict.value, "detail": escape_text(one.detail)}
        optional = {"advice": escape_text(one.advice), "section": one.section, "reason": one.reason}
        rows.append(row | {key: text for key, text in optional.items() if text})
    return rows


def encode_report(command: str, findings: Sequence[Finding]) -> str:
    """Return the JSON document of `tunnel check`."""
    return json.dumps({"command": command, "ok": has_no_problem(findings), "findings": encode_findings(findings)}, indent=2)


def escape_text(text: str) -> str:
    """Return one line of ASCII."""
    return one_line(text[:_MAX_TEXT]).encode("ascii", "backslashreplace").decode()
