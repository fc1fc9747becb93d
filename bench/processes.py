"""Child processes pinned to a core, and the CPU time and memory of a process tree.

Each process is stopped by its process ID when its block is left, for any reason.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

STOP_SECONDS = 15.0
_MOST_DESCRIPTORS = 65536
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2  # linux/posix-timers.h: scheduler time in nanoseconds, of all threads, ended ones included


class BenchError(Exception):
    """The run has no result; the message is one line."""


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds of a set of processes."""

    total: float
    user_ticks: int
    system_ticks: int

    def since(self, earlier: Usage) -> tuple[float, float]:
        """Return user and system seconds since `earlier`; the sum is exact, the split has the resolution of clock ticks."""
        total = self.total - earlier.total
        user = self.user_ticks - earlier.user_ticks
        system = self.system_ticks - earlier.system_ticks
        share = user / (user + system) if user + system else 1.0
        return total * share, total * (1 - share)


NOTHING = Usage(0.0, 0, 0)


def read_usage(root: int) -> Usage:
    """Return the CPU time of the tree of the process `root` since its start."""
    total, user, system = 0.0, 0, 0
    for pid in process_tree(root):
        with contextlib.suppress(OSError):  # a child may end between the two calls
            fields = _stat_fields(pid)
            total += read_own_usage(pid)
            user += int(fields[11])
            system += int(fields[12])
    return Usage(total, user, system)


def read_own_usage(pid: int) -> float:
    """Return the CPU seconds of one process, without its children."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)  # the value of clock_getcpuclockid(3)


def is_sleeping(pid: int) -> bool:
    """Return whether the main thread of a process waits for an event."""
    return _stat_fields(pid)[0] == "S"


def read_core(core: int) -> float:
    """Return the seconds for which a core was not idle."""
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_SECOND


def read_memory(root: int) -> int:
    """Return the memory of the tree of `root` in KiB; shared pages count proportionally (Pss)."""
    total = 0
    for pid in process_tree(root):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def process_tree(root: int) -> list[int]:
    """Return `root` and all of its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat_fields(int(entry.name))[1]), []).append(int(entry.name))
    tree = [root]
    for pid in tree:  # grows during the iteration
        tree.extend(children.get(pid, []))
    return tree


def pin(root: int, cores: Sequence[int]) -> None:
    """Move all threads of the tree of `root` to these cores; hitch, for one, chooses a core itself."""
    for pid in process_tree(root):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # it may end between the two calls
                os.sched_setaffinity(int(task.name), cores)


def find_traced(tracer: int) -> int:
    """Return the child that a process traces, among others that may be short-lived, or the process itself if it traces none."""
    for pid in process_tree(tracer)[1:]:
        with contextlib.suppress(OSError):  # it may end between the two calls
            if f"\nTracerPid:\t{tracer}\n" in Path(f"/proc/{pid}/status").read_text():
                return pid
    return tracer


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on; the second may contain spaces and parentheses."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def raise_descriptor_limit() -> None:
    """Let this process and its children open as many descriptors as the system allows."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, _MOST_DESCRIPTORS), hard):
        with contextlib.suppress(ValueError, OSError):  # raising the hard limit needs privileges
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return


@contextlib.contextmanager
def running(
    argv: Sequence[str],
    *,
    cores: Sequence[int] = (),
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.PIPE,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process, on these cores from its first instruction if some are given, so that its threads inherit them."""
    pinned = ["taskset", "-c", ",".join(map(str, cores))] if cores else []  # it calls exec: the PID stays the same
    process = subprocess.Popen(
        [*pinned, *argv],
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
