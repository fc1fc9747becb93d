"""The findings on a certificate or token, rule by rule, and the report on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tunnel.check.finding import Finding, Verdict, encode_findings, encode_line, escape_text
from tunnel.errors import PeerDenied, TokenError
from tunnel.lazy_dataclass import dataclass, field


@dataclass(frozen=True, slots=True)
class RuleReport:
    """All findings, and facts on the certificate or token."""

    findings: tuple[Finding, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def broken(self) -> Finding | None:
        """Return the first broken rule."""
        return next((finding for finding in self.findings if finding.verdict is Verdict.PROBLEM), None)

    def encode_text(self, conclusion: str) -> str:
        """Return the lines for people; `conclusion` is the last line if no rule is broken."""
        lines = [encode_line(finding) for finding in self.findings]
        broken = self.broken
        last = conclusion if broken is None else f"not valid: {broken.name}: {broken.detail}"
        return "\n".join([*lines, escape_text(last)]) + "\n"

    def encode_json(self) -> str:
        """Return one JSON object in one line."""
        found = {"valid": self.broken is None, **self.facts, "findings": encode_findings(self.findings)}
        return json.dumps(found) + "\n"


class RuleChecker:
    """Checks rules in order and collects the findings."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def check(
        self,
        rule: str,
        section: str,
        description: str,
        check: Callable[[], object],
        *,
        needs: Iterable[str] = (),
        otherwise: Verdict = Verdict.PROBLEM,
    ) -> bool:
        """Check a rule and return whether it is met; skip it if a rule that it needs is not met."""
        missing = next((name for name in needs if not self.is_met(name)), None)
        if missing is not None:
            self.add(rule, section, Verdict.SKIPPED, f"{description}: not checked because rule {missing} is not met")
            return False
        try:
            check()
        except (PeerDenied, TokenError) as error:
            text = str(error).removeprefix(f"{error.reason.value}: ")
            self.add(rule, section, otherwise, text, error.reason.value)
            return False
        self.add(rule, section, Verdict.OK, description)
        return True

    def add(self, rule: str, section: str, verdict: Verdict, detail: str, reason: str = "") -> None:
        """Add a finding made elsewhere."""
        self.findings.append(Finding(rule, verdict, detail, section=section, reason=reason))

    def is_met(self, rule: str) -> bool:
        """Whether a rule was checked and is met."""
        return any(finding.name == rule and finding.verdict is Verdict.OK for finding in self.findings)
