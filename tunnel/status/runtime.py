"""Memory, tasks, threads and garbage collector of the process: the values behind ghostunnel's `runtime` metrics."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping

import trio

from tunnel.status.durations import SHORT, DurationMetric

_STATM = "/proc/self/statm"


class Runtime:
    """Reads the process; between `watch` and `unwatch`, every run of the garbage collector is timed."""

    def __init__(self, *, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self.pauses = DurationMetric(SHORT)
        self._clock = clock
        self._began = 0

    def watch(self) -> None:
        """Time the collector from now on; it runs in one thread at a time."""
        gc.callbacks.append(self._collecting)

    def unwatch(self) -> None:
        """Stop timing the collector."""
        gc.callbacks.remove(self._collecting)

    def _collecting(self, phase: str, _info: Mapping[str, int]) -> None:
        if phase == "start":
            self._began = self._clock()
        elif self._began:
            self.pauses.update(self._clock() - self._began)

    def resident_bytes(self) -> int | None:
        """Resident memory; None if /proc cannot be read."""
        try:
            with open(_STATM, "rb") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return None

    def blocks(self) -> int:
        """Memory blocks allocated by the interpreter."""
        return sys.getallocatedblocks()

    def tasks(self) -> int:
        """Threads, and also trio's tasks if called from a trio run."""
        threads = threading.active_count()
        if not trio.lowlevel.in_trio_run():
            return threads
        return threads + trio.lowlevel.current_statistics().tasks_living

    def collections(self) -> int:
        """Runs of the collector since the start of the interpreter."""
        return sum(generation["collections"] for generation in gc.get_stats())
