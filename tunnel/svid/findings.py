"""What was looked at, and what was found: rule by rule, for people or for machines.

Knows how a rule is named and told; must not know any rule. Whatever was read from a certificate or a token is made harmless
before a terminal sees it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tunnel.errors import PeerDenied, TokenError
from tunnel.log import one_line


class Verdict(Enum):
    """What was found of one rule."""

    KEPT = "kept"
    BROKEN = "broken"
    WARNING = "warning"  # broken, and no proxy refuses for it
    NOT_ASKED = "not-asked"


_MARKS = {Verdict.KEPT: "ok", Verdict.BROKEN: "NO", Verdict.WARNING: "!", Verdict.NOT_ASKED: "-"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule, and whether it is kept; `detail` says what was seen, `reason` is one word for a machine."""

    rule: str
    section: str
    verdict: Verdict
    detail: str
    reason: str = ""

    def as_line(self) -> str:
        """For people."""
        section = f" ({self.section})" if self.section else ""
        return f"{_MARKS[self.verdict]:<3} {self.rule:<20} {one_line(self.detail)}{section}"

    def as_object(self) -> dict[str, str]:
        """For machines."""
        found = {"rule": self.rule, "section": self.section, "verdict": self.verdict.value, "detail": self.detail}
        return {**found, "reason": self.reason} if self.reason else found


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, and what was learned by the way."""

    findings: tuple[Finding, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def broken(self) -> Finding | None:
        """The first rule that is broken."""
        return next((finding for finding in self.findings if finding.verdict is Verdict.BROKEN), None)

    def as_text(self, kept: str) -> str:
        """Lines for people; `kept` is the last one when no rule is broken."""
        lines = [finding.as_line() for finding in self.findings]
        broken = self.broken
        last = kept if broken is None else f"not valid: {broken.rule}: {broken.detail}"
        return "\n".join([*lines, one_line(last)]) + "\n"

    def as_json(self) -> str:
        """One object in one line."""
        found = {"valid": self.broken is None, **self.facts, "rules": [finding.as_object() for finding in self.findings]}
        return json.dumps(found) + "\n"


class Examiner:
    """Asks rules one after the other and keeps what was found."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def ask(
        self,
        rule: str,
        section: str,
        words: str,
        check: Callable[[], object],
        *,
        needs: Iterable[str] = (),
        otherwise: Verdict = Verdict.BROKEN,
    ) -> bool:
        """Whether a rule is kept, after asking it; one that means nothing without another is not asked when that is broken."""
        missing = next((name for name in needs if not self.is_kept(name)), None)
        if missing is not None:
            self.add(rule, section, Verdict.NOT_ASKED, f"{words}: not looked at, since {missing} is not kept")
            return False
        try:
            check()
        except (PeerDenied, TokenError) as error:
            text = str(error).removeprefix(f"{error.reason.value}: ")
            self.add(rule, section, otherwise, text, error.reason.value)
            return False
        self.add(rule, section, Verdict.KEPT, words)
        return True

    def add(self, rule: str, section: str, verdict: Verdict, detail: str, reason: str = "") -> None:
        """What was found in another way."""
        self.findings.append(Finding(rule, section, verdict, detail, reason))

    def is_kept(self, rule: str) -> bool:
        """Whether a rule was asked and is kept."""
        return any(finding.rule == rule and finding.verdict is Verdict.KEPT for finding in self.findings)
