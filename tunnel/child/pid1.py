"""Process 1, which the entry point of a container is.

Knows that a signal does nothing to it by default (pid_namespaces(7)): the kernel drops what nobody has asked for. Must not
know who wants to be ended.
"""

from __future__ import annotations

import os
import signal

_SIGNALLED = 128  # and the number of the signal: how a shell tells that one has ended a command


def restore_default(number: int) -> None:
    """Have this signal end the process, also process 1."""
    signal.signal(number, _end if os.getpid() == 1 else signal.SIG_DFL)


def _end(number: int, _frame: object) -> None:
    os._exit(_SIGNALLED + number)  # no more is done than by a signal that the kernel obeys
