"""What the first process of a container owes the others: whoever ends and has nobody left to ask is reaped.

Knows that no exit status may be taken from a task that waits for it; must not know whose processes these are.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from tunnel.child.probe import SignalProbe
from tunnel.child.process_tree import reap_orphans


class Reaper:
    """The reaper, and our own children, which it leaves alone."""

    def __init__(self, probe: SignalProbe | None = None) -> None:
        self._probe = probe
        self._own: set[int] = set()
        self._unknown = 0  # children of ours that are being started or run, under numbers that we have not been told

    async def run_as_first(self) -> None:
        """Reap until cancelled, if we are process 1: orphans come to nobody else."""
        if os.getpid() != 1:
            return
        with trio.open_signal_receiver(signal.SIGCHLD) as signals:
            self._reap()
            async for _number in signals:
                self._reap()

    @contextmanager
    def spare(self, pid: int | None = None) -> Iterator[None]:
        """While one child of ours runs; without its number nobody is reaped meanwhile, and all are afterwards."""
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
