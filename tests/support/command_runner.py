"""Run one command to its end, and inspect what it leaves behind."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import LIMIT, bare_environment, tunnel_argv
from tests.support.requirements import program
from tests.support.workloads import CLIENT, Workloads


@dataclass(frozen=True)
class Done:
    """The result of a command."""

    code: int
    out: str
    err: str


def environment(workloads: Workloads, who: str = CLIENT, **more: str) -> dict[str, str]:
    """The environment of a workload: its Workload API, and a temporary directory of the test."""
    return {
        **bare_environment(),
        "SPIFFE_ENDPOINT_SOCKET": str(workloads.sockets[who]),
        "XDG_RUNTIME_DIR": "",
        "TMPDIR": str(workloads.directory),
        **more,
    }


def run_tool(environ: Mapping[str, str], *arguments: str, given: bytes | None = None, before: tuple[str, ...] = ()) -> Done:
    """Run `tunnel` with these arguments to its end."""
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
    """Whether the process runs and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def curl(*arguments: str, code: int = 0) -> str:
    """What curl prints; `code` is how it must end."""
    done = subprocess.run([program("curl"), "-sS", "--max-time", str(LIMIT), *arguments], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout
