"""A signal to the process whose number stands in a file.

The file may be missing, half written, about a process that has ended, or about another one that has its number now. Time stamps
do not tell these apart, since a clock may have been set: what counts is what the process would do with the signal.
"""

from __future__ import annotations

import os
import re
import signal
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from tunnel.child.process_tree import is_our_proc
from tunnel.config.svid_model import PidFileSignal
from tunnel.errors import describe_os_error

_MOST_BYTES = 64  # some programs put more lines behind the number
_LARGEST_PID = 2**22  # PID_MAX_LIMIT of Linux
# What signals do by default (signal(7)); every other one ends the process.
_HARMLESS = (signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH)
_STOPPING = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_MASKS = ("SigCgt", "SigBlk", "SigIgn")
_DEAD = ("Z", "X")


@dataclass(frozen=True, slots=True)
class Told:
    """Whether somebody was told; `may_come` when it is worth trying again soon."""

    is_done: bool
    text: str
    may_come: bool = False


def signal_by_pid_file(way: PidFileSignal) -> Told:
    """Send the signal, unless the file gives reason to think that it would reach somebody else."""
    try:
        content = _read(way.path)
    except FileNotFoundError:
        return Told(False, f"pid file {way.path} is not there", may_come=True)
    except OSError as error:
        return Told(False, f"cannot read pid file {way.path}: {describe_os_error(error)}")
    pid = _parse_pid(content)
    if pid is None:
        return Told(False, f"pid file {way.path} does not begin with the number of a process", may_come=not content)
    if pid <= 1 or pid == os.getpid():
        return Told(False, f"pid file {way.path} says {pid}, which is never signalled")
    if objection := find_objection(_read_status(pid), way.number):
        return Told(False, f"process {pid} of pid file {way.path} {objection}", may_come=True)
    try:
        os.kill(pid, way.number)
    except ProcessLookupError:
        return Told(False, f"pid file {way.path} says {pid}, and there is no such process", may_come=True)
    except PermissionError:
        return Told(False, f"process {pid} of pid file {way.path} may not be signalled by this user")
    return Told(True, f"sent {way.number.name} to process {pid}")


def find_objection(status: Mapping[str, str], number: signal.Signals) -> str:
    """Why a process with this status (proc_pid_status(5)) is not the one that awaits the signal; "" when it may be.

    Nothing speaks against a process whose status cannot be read.
    """
    if not {"State", *_MASKS} <= status.keys():
        return ""
    if status["State"].startswith(_DEAD):
        return "has ended"
    if "VmSize" not in status:  # it has no memory of its own
        return "is a kernel thread"
    if number in _HARMLESS or any(int(status[name], 16) >> (number - 1) & 1 for name in _MASKS):
        return ""
    effect = "stopped" if number in _STOPPING else "ended"
    return f"would be {effect} by {number.name}, which it neither catches, blocks nor ignores"


def _read(path: str) -> str:
    """The beginning of the file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe of that name would keep us waiting
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return "?"
        return os.read(descriptor, _MOST_BYTES).decode("ascii", "replace")
    finally:
        os.close(descriptor)


def _parse_pid(content: str) -> int | None:
    """The number in the first line, if that is all there is in it."""
    first = content.partition("\n")[0].strip(" \t\r")
    if not re.fullmatch(r"[0-9]{1,10}", first) or int(first) > _LARGEST_PID:
        return None
    return int(first)


def _read_status(pid: int) -> Mapping[str, str]:
    """What the kernel says of a process, by name; nothing where it says nothing (hidepid) or numbers processes otherwise."""
    if not is_our_proc():
        return {}
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:
            return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    except OSError:
        return {}
