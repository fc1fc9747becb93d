"""`tunnel check server` and `tunnel check client`: say what stands in the way of a start, and start nothing.

Knows where the report goes and the exit code; must not know what is looked at.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping

from tunnel.config import check
from tunnel.config.grammar import Arguments, Command
from tunnel.log import one_line


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Print the report; 0 when a start would succeed as far as was seen, else 1."""
    line = check.build(command, arguments)
    from tunnel.check.case import Case
    from tunnel.check.diagnosis import diagnose
    from tunnel.check.report import encode_json, is_well, line_of, summary_of

    case = Case(line, environ, arguments[check.TIMEOUT], check.origin_of(arguments), _say)
    findings = []
    for finding in diagnose(case):
        findings.append(finding)
        if not arguments[check.JSON]:
            _print(line_of(finding))  # each at once: the next may take its time
    _print(encode_json(command.name, findings) if arguments[check.JSON] else summary_of(findings))
    return 0 if is_well(findings) else 1


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _say(line: str) -> None:
    """Tell somebody at a terminal why nothing happens."""
    if sys.stderr.isatty():
        sys.stderr.write(one_line(line) + "\n")
