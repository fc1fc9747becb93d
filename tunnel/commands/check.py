"""`tunnel check server` and `tunnel check client`: say what stands in the way of a start, and start nothing.

Knows where the report goes and the exit code; must not know what is looked at.
"""

from __future__ import annotations

from collections.abc import MutableMapping

from tunnel.commands.output import say_to_person, show
from tunnel.config import check
from tunnel.config.parser import Arguments, Command


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Print the report; 0 when a start would succeed as far as was seen, else 1."""
    line = check.build(command, arguments)
    from tunnel.check.case import Case
    from tunnel.check.diagnosis import diagnose
    from tunnel.check.report import encode_json, is_well, line_of, summary_of

    case = Case(line, environ, arguments[check.WAIT], check.origin_of(arguments), say_to_person)
    findings = []
    for finding in diagnose(case):
        findings.append(finding)
        if not arguments[check.JSON]:
            show(line_of(finding) + "\n")  # each at once: the next may take its time
    show((encode_json(command.name, findings) if arguments[check.JSON] else summary_of(findings)) + "\n")
    return 0 if is_well(findings) else 1
