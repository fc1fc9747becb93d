"""The processes that descend from this one, as /proc lists them.

If /proc belongs to another PID namespace, no process is found: its numbers would be those of other processes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from tunnel.lazy_dataclass import dataclass

_DEAD = ("Z", "X")


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """One process as /proc/PID/stat lists it; PID and start time together identify one process."""

    pid: int
    start: int  # ticks since boot
    parent: int
    session: int
    is_dead: bool  # and not yet reaped


def list_descendants(*, is_everywhere: bool = False) -> list[ProcessEntry]:
    """Return the living descendants in our session, or with `is_everywhere` in every session."""
    processes = list_processes()
    session = os.getsid(0)
    return [
        process
        for process in processes.values()
        if not process.is_dead
        and (is_everywhere or process.session == session)
        and _is_descendant(process, os.getpid(), processes)
    ]


def _is_descendant(process: ProcessEntry, ancestor: int, processes: Mapping[int, ProcessEntry]) -> bool:
    seen = {process.pid}  # the table is no snapshot: a PID that was reused may make a cycle
    while process.parent != ancestor:
        if process.parent in seen or process.parent not in processes:
            return False
        process = processes[process.parent]
        seen.add(process.pid)
    return True


def list_processes() -> dict[int, ProcessEntry]:
    """Return every visible process by PID."""
    if not is_our_proc():
        return {}
    found = (read_process(int(name)) for name in os.listdir("/proc") if name.isdecimal())
    return {process.pid: process for process in found if process is not None}


def is_our_proc() -> bool:
    """Whether /proc belongs to our PID namespace."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def read_process(pid: int) -> ProcessEntry | None:
    """Return one process; None if it does not exist any more."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read().decode("ascii", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # proc_pid_stat(5), from the third field on; a name may hold anything
    if len(fields) < 20:
        return None
    return ProcessEntry(pid, int(fields[19]), int(fields[1]), int(fields[3]), fields[0] in _DEAD)
