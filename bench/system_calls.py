"""System calls of a process under strace."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from bench.processes import BenchError

_CALL = re.compile(r"(?:\d+ +)?(\w+)\(")  # not `<... resumed>`, `--- SIGTERM` or `+++ exited`


def parse_calls(lines: Iterable[str]) -> Counter[str]:
    """Count the system calls in the output of strace by name."""
    return Counter(match[1] for line in lines if (match := _CALL.match(line)))


def strace_command(output: Path) -> list[str]:
    """Return the beginning of a command line that writes every system call to a file."""
    if not shutil.which("strace"):
        raise BenchError("no strace in the PATH; on Debian: apt-get install strace")
    return ["strace", "-f", "-qq", "-s", "0", "-o", str(output)]
