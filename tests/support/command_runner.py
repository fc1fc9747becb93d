"""Commands of one piece of work: run one to its end, and look at what it leaves behind.

Knows the command line of `tunnel exec` and its like; must not know what is tested.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import LIMIT, bare_environment, tunnel_argv
from tests.support.workloads import CLIENT, Workloads


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def environment(workloads: Workloads, who: str = CLIENT, **more: str) -> dict[str, str]:
    """Where this workload finds its Workload API, and a place of the test's own for temporary files."""
    return {
        **bare_environment(),
        "SPIFFE_ENDPOINT_SOCKET": str(workloads.sockets[who]),
        "XDG_RUNTIME_DIR": "",
        "TMPDIR": str(workloads.directory),
        **more,
    }


def run_tool(environ: Mapping[str, str], *arguments: str, given: bytes | None = None, before: tuple[str, ...] = ()) -> Done:
    """`tunnel` with these arguments, to its end."""
    done = subprocess.run(
        [*before, *tunnel_argv(*arguments)],
        input=given or b"",
        capture_output=True,
        env=environ,
        timeout=LIMIT,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def is_alive(pid: int) -> bool:
    """Whether it runs, and is not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
