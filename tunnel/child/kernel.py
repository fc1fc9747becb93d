"""Process attributes set by system calls: prctl(2), a forked child that ends with its parent, no core dumps."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

from tunnel.child.inherited import inherited

_SET_PDEATHSIG: Final = 1
_SET_DUMPABLE: Final = 4
_SET_NAME: Final = 15
_SET_CHILD_SUBREAPER: Final = 36
LAUNCH_FAILED: Final = 125  # exit code, as env(1) and timeout(1) use it: the wrapper failed, not the command

_libc = ctypes.CDLL(None, use_errno=True)  # loaded now: nothing may be loaded between a fork and an exec


def _prctl(option: int, value: int) -> None:
    """Set one attribute of this process, or of this thread; raises OSError."""
    if _libc.prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def name_process(name: str) -> None:
    """Set the name that ps(1) and top(1) show, of at most 15 bytes, if the kernel permits it."""
    text = ctypes.create_string_buffer(name.encode())
    with suppress(OSError):  # a seccomp filter
        _prctl(_SET_NAME, ctypes.addressof(text))


def become_subreaper() -> None:
    """Adopt orphaned descendants of this process (prctl(2)); process 1 does so anyway.

    If the kernel refuses, the processes that a command leaves behind are not found.
    """
    with suppress(OSError):
        _prctl(_SET_CHILD_SUBREAPER, 1)


def fork_child(work: Callable[[], NoReturn]) -> int:
    """Fork, and run `work` in the child with every signal blocked, so that no handler of ours runs there; return its PID.

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
                os._exit(LAUNCH_FAILED)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread of `parent` that started it ends; raises OSError."""
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before prctl was called
        os._exit(LAUNCH_FAILED)


def forbid_core_dumps() -> None:
    """Disable core dumps and tracing of this process (prctl(2)): its memory may hold keys.

    A program named in core_pattern ignores the limit, so both are set. Call `inherited` first: it reads a file in /proc/self
    that belongs to root afterwards.
    """
    limit_core(0)
    with suppress(OSError):  # a seccomp filter
        _prctl(_SET_DUMPABLE, 0)


@contextmanager
def inherited_core_limit() -> Iterator[None]:
    """Start processes with the core dump limit that this process inherited; its own core dumps stay disabled."""
    limit_core(inherited().core_limit)
    try:
        yield
    finally:
        limit_core(0)


def limit_core(soft: int) -> None:
    """Set the soft limit of core dumps; the hard limit stays, or no child could raise its own."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
