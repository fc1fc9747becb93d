"""What this process was given by whoever started it, and its command must be given in turn.

Knows what the interpreter and we change of it later; must not know who asks, nor import what takes time, since a SIGHUP ends
us until this has been read. Two dispositions are lost before any code of ours runs: the interpreter ignores SIGPIPE and
SIGXFSZ, and nothing tells what they were. The command gets the default of both.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Mapping
from functools import cache

_LOST = frozenset({signal.SIGPIPE, signal.SIGXFSZ})


class InheritedState:
    """Signals by number, the environment, the soft limit of core dumps; never changed."""

    __slots__ = ("blocked", "core_limit", "environ", "ignored")

    def __init__(self, ignored: frozenset[int], blocked: frozenset[int], environ: Mapping[str, str], core_limit: int) -> None:
        self.ignored = ignored  # by `nohup`, for instance
        self.blocked = blocked
        self.environ = environ  # before the interpreter, libraries and we have changed ours
        self.core_limit = core_limit


@cache
def inherited() -> InheritedState:
    """What was inherited; to be asked for the first time before anything is changed, and the same ever after."""
    return InheritedState(
        ignored=frozenset(int(n) for n in signal.valid_signals() - _LOST if signal.getsignal(n) == signal.SIG_IGN),
        blocked=frozenset(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        environ=_environment(),
        core_limit=resource.getrlimit(resource.RLIMIT_CORE)[0],
    )


def _environment() -> dict[str, str]:
    """The kernel's record of it, which nobody changes later; ours as it is now where that cannot be read."""
    try:
        descriptor = os.open("/proc/self/environ", os.O_RDONLY)
    except OSError:
        return dict(os.environ)
    with open(descriptor, "rb", buffering=0) as record:
        entries = record.read().split(b"\0")
    environ: dict[str, str] = {}
    for name, _, value in (entry.partition(b"=") for entry in entries if b"=" in entry):
        environ.setdefault(os.fsdecode(name), os.fsdecode(value))  # of two the first counts, as for getenv(3)
    return environ
