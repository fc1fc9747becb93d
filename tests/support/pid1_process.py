"""Starts a command as process 1 of a PID namespace, like the entry point of a container."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.processes import Process, eventually
from tests.support.requirements import program


def in_namespace() -> tuple[str, ...]:
    """Return the prefix of a command that runs as process 1 with its own /proc; skips if that is not possible."""
    if os.getuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("only root can make a PID namespace")
        pytest.skip("only root can make a PID namespace")
    return (program("unshare"), "--pid", "--fork", "--kill-child", "--mount-proc")


class NamespaceProcess(Process):
    """Process 1, and the process that created its namespace."""

    @property
    def inner_pid(self) -> int:
        """The PID of process 1 outside of its namespace."""
        place = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        eventually(lambda: bool(place.read_text()), "the namespace's first process")
        return int(place.read_text())

    def children(self) -> list[int]:
        """The children of process 1, adopted ones included."""
        threads = Path(f"/proc/{self.inner_pid}/task").glob("*/children")
        return [int(word) for thread in threads for word in thread.read_text().split()]

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.inner_pid, number)

    def catches(self, number: signal.Signals) -> bool:
        """Whether process 1 has a handler for this signal; without one the kernel drops it."""
        status = Path(f"/proc/{self.inner_pid}/status").read_text()
        (mask,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(mask >> (number - 1) & 1)
