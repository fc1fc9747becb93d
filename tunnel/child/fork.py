"""A child process of this interpreter, forked while there is one thread."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Final, NoReturn

from tunnel.child.kernel import SET_PDEATHSIG, prctl

BROKEN: Final = 125  # exit code, as env(1) and timeout(1) use it: the wrapper failed, not the command


def fork_child(work: Callable[[], NoReturn]) -> int:
    """Fork, and have the child do `work` with every signal blocked, so that none runs a handler of ours; its PID.

    The child always ends by os._exit, whatever `work` raises. Raises OSError.
    """
    assert threading.active_count() == 1, "a fork copies one thread, and the locks of all"
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            try:
                work()
            finally:
                os._exit(BROKEN)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread of `parent` that has started it ends; raises OSError."""
    prctl(SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was told
        os._exit(BROKEN)
