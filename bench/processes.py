"""Child processes pinned to a core, and what a tree of processes has used.

Knows /proc and process clocks; must not know what any process is for. Whatever is started here is stopped by its own
process id when its block is left, however it is left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

STOP_SECONDS = 15.0
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2  # linux/posix-timers.h: the scheduler's own count, nanoseconds, all threads, ended ones too


class BenchError(Exception):
    """Why there is nothing to print: one line for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds of CPU that some processes have used."""

    total: float
    user_ticks: int
    system_ticks: int

    def since(self, earlier: Usage) -> tuple[float, float]:
        """User and system seconds after `earlier`; the sum is exact, the split as good as the kernel's ticks."""
        total = self.total - earlier.total
        user = self.user_ticks - earlier.user_ticks
        system = self.system_ticks - earlier.system_ticks
        share = user / (user + system) if user + system else 1.0
        return total * share, total * (1 - share)


NOTHING = Usage(0.0, 0, 0)


def read_usage(root: int) -> Usage:
    """What the tree under the process `root` has used since it began."""
    total, user, system = 0.0, 0, 0
    for pid in process_tree(root):
        with contextlib.suppress(OSError):  # a child may end between the two looks
            fields = _stat_fields(pid)
            total += time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)  # what clock_getcpuclockid(3) answers
            user += int(fields[11])
            system += int(fields[12])
    return Usage(total, user, system)


def read_core(core: int) -> float:
    """Seconds for which a core was not idle, whoever used it."""
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_SECOND


def read_memory(root: int) -> int:
    """KiB of memory that the tree under `root` answers for: pages shared with others count in proportion (Pss)."""
    total = 0
    for pid in process_tree(root):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def process_tree(root: int) -> list[int]:
    """`root` and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat_fields(int(entry.name))[1]), []).append(int(entry.name))
    tree = [root]
    for pid in tree:  # grows while it is walked
        tree.extend(children.get(pid, []))
    return tree


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: the second may hold blanks and brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@contextlib.contextmanager
def running(
    argv: Sequence[str],
    *,
    core: int,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.PIPE,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process on one core from its first instruction on, so that threads of its own inherit the core."""
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *argv],  # it execs: the process id stays
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        cwd=directory,
    )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number, wait_limit in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, None)):
        if process.poll() is None:
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait_limit)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
