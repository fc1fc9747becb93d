"""Signals the process whose PID is in a file.

The file may be missing, half written, or hold the PID of a process that has ended or of another one that reuses it. Time stamps
do not distinguish these, because the clock may have been set. So a process is signalled only if the signal would not end it.
"""

from __future__ import annotations

import os
import re
import signal
import stat
from collections.abc import Mapping

from tunnel.child.process_tree import is_our_proc
from tunnel.config.svid_model import PidFileSignal
from tunnel.errors import describe_os_error
from tunnel.lazy_dataclass import dataclass

_MOST_BYTES = 64  # some programs write more lines after the PID
_LARGEST_PID = 2**22  # PID_MAX_LIMIT of Linux
# Default actions (signal(7)); every other signal ends the process.
_HARMLESS = (signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH)
_STOPPING = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_MASKS = ("SigCgt", "SigBlk", "SigIgn")
_DEAD = ("Z", "X")


@dataclass(frozen=True, slots=True)
class ReloadOutcome:
    """Whether a reload was delivered, and why not; `is_transient` if a retry soon may succeed."""

    is_done: bool
    text: str
    is_transient: bool = False


def signal_by_pid_file(reload: PidFileSignal) -> ReloadOutcome:
    """Send the signal, unless the PID seems to belong to another process."""
    try:
        content = _read(reload.path)
    except FileNotFoundError:
        return ReloadOutcome(False, f"PID file {reload.path} does not exist", is_transient=True)
    except OSError as error:
        return ReloadOutcome(False, f"cannot read PID file {reload.path}: {describe_os_error(error)}")
    pid = _parse_pid(content)
    if pid is None:
        return ReloadOutcome(False, f"PID file {reload.path} does not start with a PID", is_transient=not content)
    if pid <= 1 or pid == os.getpid():
        return ReloadOutcome(False, f"PID file {reload.path} names process {pid}, which is never signalled")
    if objection := find_objection(_read_status(pid), reload.number):
        return ReloadOutcome(False, f"process {pid} of PID file {reload.path} {objection}", is_transient=True)
    try:
        os.kill(pid, reload.number)
    except ProcessLookupError:
        return ReloadOutcome(False, f"PID file {reload.path} names process {pid}, which does not exist", is_transient=True)
    except PermissionError:
        return ReloadOutcome(False, f"process {pid} of PID file {reload.path}: no permission to signal it")
    return ReloadOutcome(True, f"sent {reload.number.name} to process {pid}")


def find_objection(status: Mapping[str, str], number: signal.Signals) -> str:
    """Return why a process with this status (proc_pid_status(5)) must not be signalled; "" if it may be.

    A process whose status cannot be read may be signalled.
    """
    if not {"State", *_MASKS} <= status.keys():
        return ""
    if status["State"].startswith(_DEAD):
        return "has ended"
    if "VmSize" not in status:  # no address space
        return "is a kernel thread"
    if number in _HARMLESS or any(int(status[name], 16) >> (number - 1) & 1 for name in _MASKS):
        return ""
    effect = "stopped" if number in _STOPPING else "ended"
    return f"would be {effect} by {number.name}, which it neither catches, blocks nor ignores"


def _read(path: str) -> str:
    """Return the first bytes of the file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a FIFO would block
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return "?"
        return os.read(descriptor, _MOST_BYTES).decode("ascii", "replace")
    finally:
        os.close(descriptor)


def _parse_pid(content: str) -> int | None:
    """Return the number in the first line, if the line holds nothing else."""
    first = content.partition("\n")[0].strip(" \t\r")
    if not re.fullmatch(r"[0-9]{1,10}", first) or int(first) > _LARGEST_PID:
        return None
    return int(first)


def _read_status(pid: int) -> Mapping[str, str]:
    """Return the fields of /proc/PID/status; none if hidden (hidepid) or if /proc belongs to another PID namespace."""
    if not is_our_proc():
        return {}
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:
            return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    except OSError:
        return {}
