"""The report of a check: lines for people, one document for programs.

Knows the two forms; must not know what was looked at. Texts may quote files, servers and certificates: no sign in them
moves a terminal's cursor.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from tunnel.check.finding import Finding, Verdict
from tunnel.log import one_line

_MAX_TEXT = 4096  # characters: more is nothing that a person reads
_MARKS = {Verdict.OK: "ok", Verdict.WARNING: "??", Verdict.PROBLEM: "!!", Verdict.SKIPPED: "--"}
_COUNTED = ((Verdict.PROBLEM, "problem"), (Verdict.WARNING, "warning"))


def line_of(finding: Finding) -> str:
    """`ok  NAME: what was seen`, with `-> what to do` where there is something."""
    advice = f" -> {finding.advice}" if finding.advice else ""
    return _harmless(f"{_MARKS[finding.verdict]}  {finding.name}: {finding.seen}{advice}")


def summary_of(findings: Sequence[Finding]) -> str:
    """How many things are wrong."""
    counts = Counter(finding.verdict for finding in findings)
    words = [f"{count} {word}{'s' * (count > 1)}" for verdict, word in _COUNTED if (count := counts[verdict])]
    return ", ".join(words) or "nothing is wrong"


def encode_json(command: str, findings: Sequence[Finding]) -> str:
    """One document: `command`, `ok`, and `findings` with `name`, `verdict`, `seen` and `advice` each."""
    rows = [
        {"name": one.name, "verdict": one.verdict.value, "seen": _harmless(one.seen), "advice": _harmless(one.advice)}
        for one in findings
    ]
    return json.dumps({"command": command, "ok": is_well(findings), "findings": rows}, indent=2)


def is_well(findings: Sequence[Finding]) -> bool:
    """Whether a start would succeed, as far as was seen."""
    return all(finding.verdict is not Verdict.PROBLEM for finding in findings)


def _harmless(text: str) -> str:
    """One line of ASCII, whatever was quoted in it."""
    return one_line(text[:_MAX_TEXT]).encode("ascii", "backslashreplace").decode()
