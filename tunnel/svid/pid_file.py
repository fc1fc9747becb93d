"""A signal to the process whose number stands in a file.

Knows the traps of such files: one that is missing, half written, about a process long gone, or about another one that has its
number now. Must not know why the signal is sent.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from tunnel.child.family import look_up
from tunnel.config.svid_model import PidFileSignal
from tunnel.errors import words_of

_MOST_BYTES = 64  # some programs put more lines behind the number
_LARGEST_PID = 2**22  # PID_MAX_LIMIT of Linux
_SLACK = 600.0  # seconds by which a clock may have been set since the file was written, shortly after a boot for instance


@dataclass(frozen=True, slots=True)
class Told:
    """Whether somebody was told; `may_come` when it is worth trying again soon."""

    is_done: bool
    text: str
    may_come: bool = False


def signal_by_pid_file(way: PidFileSignal) -> Told:
    """Send the signal, unless the file gives reason to think that it would reach somebody else."""
    try:
        content, written = _read(way.path)
    except FileNotFoundError:
        return Told(False, f"pid file {way.path} is not there", may_come=True)
    except OSError as error:
        return Told(False, f"cannot read pid file {way.path}: {words_of(error)}")
    pid = _parse_pid(content)
    if pid is None:
        return Told(False, f"pid file {way.path} does not begin with the number of a process", may_come=not content)
    if pid <= 1 or pid == os.getpid():
        return Told(False, f"pid file {way.path} says {pid}, which is never signalled")
    if (started := _start_of(pid)) is not None and started > written + _SLACK:
        return Told(False, f"pid file {way.path} is much older than process {pid}, so that is another one", may_come=True)
    try:
        os.kill(pid, way.number)
    except ProcessLookupError:
        return Told(False, f"pid file {way.path} says {pid}, and there is no such process", may_come=True)
    except PermissionError:
        return Told(False, f"process {pid} of pid file {way.path} may not be signalled by this user")
    return Told(True, f"sent {way.number.name} to process {pid}")


def _read(path: str) -> tuple[str, float]:
    """The beginning of the file, and when it was written."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe of that name would keep us waiting
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return "?", status.st_mtime
        return os.read(descriptor, _MOST_BYTES).decode("ascii", "replace"), status.st_mtime
    finally:
        os.close(descriptor)


def _parse_pid(content: str) -> int | None:
    """The number in the first line, if that is all there is in it."""
    first = content.partition("\n")[0].strip(" \t\r")
    if not re.fullmatch(r"[0-9]{1,10}", first) or int(first) > _LARGEST_PID:
        return None
    return int(first)


def _start_of(pid: int) -> float | None:
    """When a process has started, in seconds since the epoch; None when the kernel does not say."""
    found = look_up(pid)
    try:
        booted = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text("ascii"), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return int(booted[1]) + found.start / os.sysconf("SC_CLK_TCK") if booted and found else None
