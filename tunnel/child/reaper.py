"""Reaps orphaned processes, and ends the descendants that a command leaves behind.

A daemon that left our session (setsid(2)) is not ended. The exit status of a child that another task waits for is never taken.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING

from tunnel.child.handle import open_pidfd, send_signal
from tunnel.child.process_tree import ProcessEntry, list_descendants, list_processes, read_process

if TYPE_CHECKING:
    from tunnel.child.signal_probe import SignalProbe

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.2  # seconds between two searches
_WAIT_LIMIT = 5.0  # seconds after SIGKILL: a process in the kernel or of another user does not delay us longer


def reap_orphans(own: Collection[int]) -> list[int]:
    """Reap the ended children except our `own`, whose exit status a task waits for; return their PIDs."""
    reaped: list[int] = []
    with suppress(ChildProcessError):  # there is no child at all
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in own:  # waitid would return this one each time, and never the others
                orphans = [child.pid for child in list_processes().values() if child.parent == os.getpid() and child.is_dead]
                return reaped + [pid for pid in orphans if pid not in own and _reap(pid)]
            if _reap(ended.si_pid):
                reaped.append(ended.si_pid)
    return reaped


def end_descendants(grace: float, own: Collection[int] = (), *, is_everywhere: bool = False) -> Iterator[float]:
    """End our descendants: SIGTERM, then SIGKILL after `grace` seconds; yields the seconds to wait before the next step.

    Only those in our session, unless `is_everywhere`. Our `own` children are neither signalled nor reaped. Stops when no
    descendant is left, or a few seconds after SIGKILL.
    """
    terminated: set[tuple[int, int]] = set()
    kill_at = monotonic() + grace
    pause = _FIRST_PAUSE
    while True:
        reap_orphans(own)
        found = [process for process in list_descendants(is_everywhere=is_everywhere) if process.pid not in own]
        now = monotonic()
        if not found or now > kill_at + _WAIT_LIMIT:
            return
        for process in found:
            if now >= kill_at:
                _signal(process, signal.SIGKILL)
            elif (process.pid, process.start) not in terminated:
                terminated.add((process.pid, process.start))
                _signal(process, signal.SIGTERM, signal.SIGCONT)  # a stopped process takes SIGTERM only once it continues
        yield min(pause, max(kill_at - now, _FIRST_PAUSE))
        pause = min(2 * pause, _LONGEST_PAUSE)


class Reaper:
    """Reaps orphans while this process is process 1 of a container; children of our own are left to their tasks."""

    def __init__(self, probe: SignalProbe | None = None) -> None:
        self._probe = probe
        self._own: set[int] = set()
        self._unknown = 0  # running children of ours whose PID is not known here

    async def run(self) -> None:
        """Reap until cancelled if we are process 1; other processes get no orphans."""
        if os.getpid() != 1:
            return
        import trio

        with trio.open_signal_receiver(signal.SIGCHLD) as signals:
            self._reap()
            async for _number in signals:
                self._reap()

    @contextmanager
    def exclude(self, pid: int | None = None) -> Iterator[None]:
        """Do not reap this child inside the context; without a PID (not known yet), reap no process until its end."""
        if pid is None:
            self._unknown += 1
        else:
            self._own.add(pid)
        try:
            yield
        finally:
            if pid is None:
                self._unknown -= 1
            else:
                self._own.discard(pid)
            if os.getpid() == 1:
                self._reap()

    def _reap(self) -> None:
        if not self._unknown:
            reap_orphans(self._own if self._probe is None else self._own | self._probe.pids)


def _signal(process: ProcessEntry, *numbers: int) -> None:
    """Signal this process, unless its PID was reused since or the signal is not permitted."""
    pidfd = open_pidfd(process.pid)
    try:
        with suppress(OSError):
            now = read_process(process.pid)
            if now is not None and now.start == process.start:
                for number in numbers:
                    send_signal(process.pid, pidfd, number)
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _reap(pid: int) -> bool:
    """Reap one ended child; False if another task has reaped it."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
    except ChildProcessError:
        return False
