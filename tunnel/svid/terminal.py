"""What a command says to whoever called it: the answer on standard output, remarks on standard error.

Knows which goes where and that a remark is one line, whatever it quotes; must not know what is said.
"""

from __future__ import annotations

import sys

from tunnel.log import one_line
from tunnel.svid.findings import Report


def say(text: str) -> None:
    """What was asked for."""
    sys.stdout.write(text)
    sys.stdout.flush()


def remark(line: str) -> None:
    """What one should know besides."""
    sys.stderr.write(f"tunnel: {one_line(line)}\n")


def show(report: Report, kept: str, *, is_json: bool) -> int:
    """All findings, and the exit code that says the same; `kept` is the last line when no rule is broken."""
    say(report.as_json() if is_json else report.as_text(kept))
    return 1 if report.broken else 0
