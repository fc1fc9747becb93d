"""Runs `tunnel check` in this process, from a command line to its findings."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunnel.check.diagnosis import diagnose
from tunnel.check.finding import Finding, Verdict, encode_line
from tunnel.check.preflight import Preflight
from tunnel.cli.parser import parse_command_line
from tunnel.commands import check
from tunnel.commands.registry import load_commands

NOBODY = 65534


@dataclass(frozen=True)
class CheckReport:
    """The findings of one check."""

    findings: tuple[Finding, ...]

    def all(self, name: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.name == name]

    def the(self, name: str) -> Finding:
        """The only finding with this name."""
        (found,) = self.all(name)
        return found

    def wrong(self) -> list[str]:
        """The names of the findings that are problems."""
        return [finding.name for finding in self.findings if finding.verdict is Verdict.PROBLEM]


def run_check(*line: str, environ: Mapping[str, str] | None = None, **fields: Any) -> CheckReport:
    """Check a command line: `server ...` or `client ...`."""
    parsed = parse_command_line(["check", *line], load_commands(), environ or {})
    meant, origin = check.build(parsed.command, parsed.arguments), check.origin_of(parsed.arguments)
    return CheckReport(tuple(diagnose(Preflight(meant, environ or {}, parsed.arguments[check.WAIT], origin, **fields))))


def encode_with_verdict(finding: Finding) -> str:
    """Return the verdict and the line of a finding."""
    return f"{finding.verdict.value} {encode_line(finding)}"


@contextmanager
def another_user() -> Iterator[None]:
    """Run as user nobody if we are root, whom file modes do not restrict."""
    if os.geteuid() != 0:
        yield
        return
    gid, groups = os.getegid(), os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


@contextmanager
def listening(path: Path | str, backlog: int = 5) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(backlog)
        yield listener


def leave_behind(path: Path) -> None:
    """A socket's file whose listener has gone."""
    with listening(path):
        pass
