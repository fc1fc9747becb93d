"""What this process inherited (signals, environment, core dump limit), which a command inherits in turn.

Import nothing here that takes time: until `inherited` has run, a SIGHUP ends the process. Two dispositions are lost before
our code runs: the interpreter ignores SIGPIPE and SIGXFSZ, so a command gets the default of both.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Mapping
from functools import cache

from tunnel.cli.variables import MANAGER, SECRETS, SOCKETS

_LOST = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
_OURS = frozenset({*SOCKETS, *MANAGER, *SECRETS})
_SIGNALLED = 128  # added to the number of the signal, as shells report it


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
    """Return the inherited state; the first call comes before anything is changed, later calls return the same value."""
    return InheritedState(
        ignored=frozenset(int(n) for n in signal.valid_signals() - _LOST if signal.getsignal(n) == signal.SIG_IGN),
        blocked=frozenset(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        environ=_environment(),
        core_limit=resource.getrlimit(resource.RLIMIT_CORE)[0],
    )


def _environment() -> dict[str, str]:
    """Return the kernel's record of the environment, which never changes; the current environment if it cannot be read."""
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


def command_environment(extra: Mapping[str, str], given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a command: the inherited (or `given`) one without our own variables, plus `extra`."""
    environ = inherited().environ if given is None else given
    return {name: value for name, value in environ.items() if name not in _OURS} | dict(extra)


def restore_default(number: int) -> None:
    """Make this signal end the process, also if it is process 1, for which the kernel has no default (pid_namespaces(7))."""
    signal.signal(number, _end if os.getpid() == 1 else signal.SIG_DFL)


def _end(number: int, _frame: object) -> None:
    os._exit(_SIGNALLED + number)  # no cleanup, as if the kernel had ended the process
