"""A child process: signals for it, and notification of its end, with a pidfd if there is one.

pidfd_open(2) is absent before Linux 5.3 (ENOSYS), and older seccomp profiles of container runtimes refuse it, or only
pidfd_send_signal(2) (EPERM). Without it kill(2) is safe for a child that has not been reaped: its PID is not reused.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress


class ChildHandle:
    """A child that is reaped here and nowhere else."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None  # of waitpid(2), once it is reaped
        self._pidfd = open_pidfd(pid)
        self._ended = -1  # without a pidfd: a pipe whose other end a thread closes
        self._lock = threading.Lock()

    def watch(self) -> None:
        """Prepare `fileno`; start a thread if there is no pidfd. Raises OSError."""
        if self._pidfd is not None or self._ended >= 0:
            return
        self._ended, other = os.pipe()
        threading.Thread(target=_await_end, args=(self.pid, other), name=f"child {self.pid}", daemon=True).start()

    def fileno(self) -> int:
        """Return a descriptor that is readable once the child has ended."""
        return self._ended if self._pidfd is None else self._pidfd

    def send(self, number: int) -> None:
        """Send a signal; raises OSError if that is not permitted. Does nothing once the child is reaped."""
        with self._lock:
            if self.status is None:
                send_signal(self.pid, self._pidfd, number)

    def reap(self, *, waits: bool = False) -> int | None:
        """Return the status of a child that has ended, or None."""
        if waits:
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            if self.status is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self.status = status if pid else None
        return self.status

    def close(self) -> None:
        """Close the descriptor; the child is not affected."""
        with self._lock:
            for descriptor in (self._pidfd, self._ended):
                if descriptor is not None and descriptor >= 0:
                    os.close(descriptor)
            self._pidfd, self._ended = None, -1


def open_pidfd(pid: int) -> int | None:
    """Return a pidfd; None if there is no such process, or no support in the kernel, seccomp filter or interpreter."""
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):
        return None


def send_signal(pid: int, pidfd: int | None, number: int) -> None:
    """Send a signal by the pidfd if that works, else by kill(2); raises OSError."""
    if pidfd is not None:
        try:
            signal.pidfd_send_signal(pidfd, number)
            return
        except ProcessLookupError:  # kill(2) might reach another process with the same PID
            raise
        except (OSError, AttributeError):  # a seccomp filter may refuse only this call
            pass
    os.kill(pid, number)


def _await_end(pid: int, writer: int) -> None:
    """Close the descriptor when the child has ended; do not reap it."""
    with suppress(ChildProcessError):  # it is reaped already
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    os.close(writer)
