"""What a command leaves behind: processes that descend from us, whoever started them.

Knows /proc and how a process is waited for; must not know the command. A daemon that has left our session on purpose
(setsid(2)) is left alone. Where /proc shows another PID namespace than ours nobody is found, since its numbers would be other
processes'.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from tunnel.child.handle import open_pidfd, send_signal
from tunnel.child.kernel import SET_CHILD_SUBREAPER, prctl

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.2  # seconds between two looks
_WAIT_LIMIT = 5.0  # seconds after SIGKILL: what is in the kernel's hands then, or another user's, does not hold us up
_DEAD = ("Z", "X")


@dataclass(frozen=True, slots=True)
class Descendant:
    """One process as /proc/PID/stat has it; number and start together are one process and no other."""

    pid: int
    start: int  # ticks since the machine was started
    parent: int
    session: int
    is_dead: bool  # and not yet reaped


def become_subreaper() -> None:
    """Have orphans that descend from us become our children (prctl(2)); process 1 is that anyway.

    Where the kernel refuses it, what a command leaves behind is not found.
    """
    with suppress(OSError):
        prctl(SET_CHILD_SUBREAPER, 1)


def reap_orphans(own: Collection[int]) -> list[int]:
    """Reap the dead children that are not our `own`, whose exit status somebody waits for; which they were."""
    reaped: list[int] = []
    with suppress(ChildProcessError):  # there is no child at all
        while (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if dead.si_pid in own:  # the kernel would show this one for ever, and the others behind it never
                reaper = [child.pid for child in _relatives().values() if child.parent == os.getpid() and child.is_dead]
                return reaped + [pid for pid in reaper if pid not in own and _reap(pid)]
            if _reap(dead.si_pid):
                reaped.append(dead.si_pid)
    return reaped


def end_descendants(grace: float, own: Collection[int] = (), *, is_everywhere: bool = False) -> Iterator[float]:
    """End what descends from us: SIGTERM, SIGKILL after `grace` seconds; yields how long to wait until it is to go on.

    Only what has remained in our session, unless `is_everywhere`. Our `own` children are neither signalled nor reaped. The end
    comes when nobody is left, or a few seconds after SIGKILL.
    """
    told: set[tuple[int, int]] = set()
    kill_at = monotonic() + grace
    pause = _FIRST_PAUSE
    while True:
        reap_orphans(own)
        found = [one for one in descendants(is_everywhere=is_everywhere) if one.pid not in own]
        now = monotonic()
        if not found or now > kill_at + _WAIT_LIMIT:
            return
        for relative in found:
            if now >= kill_at:
                _signal(relative, signal.SIGKILL)
            elif (relative.pid, relative.start) not in told:
                told.add((relative.pid, relative.start))
                _signal(relative, signal.SIGTERM, signal.SIGCONT)  # one that is stopped would not hear the first
        yield min(pause, max(kill_at - now, _FIRST_PAUSE))
        pause = min(2 * pause, _LONGEST_PAUSE)


def descendants(*, is_everywhere: bool = False) -> list[Descendant]:
    """The living processes that descend from us and are in our session, or `is_everywhere`."""
    relatives = _relatives()
    session = os.getsid(0)
    return [
        one
        for one in relatives.values()
        if not one.is_dead and (is_everywhere or one.session == session) and _descends(one, os.getpid(), relatives)
    ]


def _descends(one: Descendant, ancestor: int, relatives: Mapping[int, Descendant]) -> bool:
    seen = {one.pid}  # the table is no snapshot: a number that was given anew may close a circle
    while one.parent != ancestor:
        if one.parent in seen or one.parent not in relatives:
            return False
        one = relatives[one.parent]
        seen.add(one.pid)
    return True


def _relatives() -> dict[int, Descendant]:
    """Every process that can be seen, by its number."""
    if not is_our_proc():
        return {}
    found = (look_up(int(name)) for name in os.listdir("/proc") if name.isdecimal())
    return {one.pid: one for one in found if one is not None}


def is_our_proc() -> bool:
    """Whether /proc numbers processes as we do; it may be that of another PID namespace."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def look_up(pid: int) -> Descendant | None:
    """A process; None if it has gone meanwhile."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read().decode("ascii", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # proc_pid_stat(5), from the third field on; a name may hold anything
    if len(fields) < 20:
        return None
    return Descendant(pid, int(fields[19]), int(fields[1]), int(fields[3]), fields[0] in _DEAD)


def _signal(relative: Descendant, *numbers: int) -> None:
    """Signal this very process, and not one that has got its number since; not at all if it may not be signalled."""
    pidfd = open_pidfd(relative.pid)
    try:
        with suppress(OSError):
            now = look_up(relative.pid)
            if now is not None and now.start == relative.start:
                for number in numbers:
                    send_signal(relative.pid, pidfd, number)
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _reap(pid: int) -> bool:
    """Take one dead child's status; False if somebody else has."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
    except ChildProcessError:
        return False
