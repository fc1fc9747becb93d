"""What this process was given by whoever started it, and its command must be given in turn.

Knows what the interpreter and we change of it later; must not know who asks, nor import what takes time, since a SIGHUP ends
us until this has been read. Two dispositions are lost before any code of ours runs: the interpreter ignores SIGPIPE and
SIGXFSZ, and nothing tells what they were. The command gets the default of both.
"""

from __future__ import annotations

import os
import signal
from functools import cache

_LOST = frozenset({signal.SIGPIPE, signal.SIGXFSZ})


class Inherited:
    """Signals by number, variables by name; never changed."""

    __slots__ = ("blocked", "ignored", "variables")

    def __init__(self, ignored: frozenset[int], blocked: frozenset[int], variables: frozenset[bytes]) -> None:
        self.ignored = ignored  # by `nohup`, for instance
        self.blocked = blocked
        self.variables = variables  # before the interpreter and libraries have added theirs


@cache
def inherited() -> Inherited:
    """What was inherited; to be asked for the first time before anything is changed, and the same ever after."""
    return Inherited(
        ignored=frozenset(int(n) for n in signal.valid_signals() - _LOST if signal.getsignal(n) == signal.SIG_IGN),
        blocked=frozenset(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        variables=frozenset(entry.partition(b"=")[0] for entry in _environment().split(b"\0")),
    )


def _environment() -> bytes:
    """The kernel's record of it, which nobody changes later; nothing where that cannot be read."""
    try:
        descriptor = os.open("/proc/self/environ", os.O_RDONLY)
    except OSError:
        return b""
    with open(descriptor, "rb", buffering=0) as record:
        return record.read()
