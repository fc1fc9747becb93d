"""A launcher whose waiting child is a fresh interpreter, for a process that already has threads.

A process with threads cannot fork a child that still runs Python before its exec: a lock that another thread held is never
released in the copy. It can start another program, so the child is a new interpreter, which takes about 0.1 s to start.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Collection
from typing import NoReturn

from tunnel.child.inherited import InheritedState
from tunnel.child.launcher import Launcher, wait_for_exec_request
from tunnel.interpreter import isolated_argv


class SpawnLauncher(Launcher):
    """A Launcher that may be created at any time, once for each start of a command, on the main thread.

    The command ends with the thread that created it, and trio ends idle threads.
    """

    def _make_child(self, requests: int, failures: int, given: InheritedState) -> int:
        assert threading.current_thread() is threading.main_thread(), "the command would end with this thread"
        numbers = [
            *map(str, (os.getpid(), requests, failures, given.core_limit)),
            _encode(given.ignored),
            _encode(given.blocked),
        ]
        for descriptor in (requests, failures):
            os.set_inheritable(descriptor, True)
        argv = isolated_argv("tunnel.child.spawn_launcher:run_child", *numbers, has_site=False)
        # Blocked: a signal must not end the interpreter before the exec.
        return os.posix_spawn(sys.executable, argv, os.environ, setsigmask=signal.valid_signals())


def run_child() -> NoReturn:
    """Run the fresh interpreter: wait for the exec request and execute it."""
    arguments = sys.argv[1:]
    parent, requests, failures, core_limit = map(int, arguments[:4])
    for descriptor in (requests, failures):
        os.set_inheritable(descriptor, False)  # the command must not inherit them
    given = InheritedState(_decode(arguments[4]), _decode(arguments[5]), {}, core_limit)
    wait_for_exec_request(parent, requests, failures, (), given)


def _encode(numbers: Collection[int]) -> str:
    return ",".join(map(str, sorted(numbers)))


def _decode(text: str) -> frozenset[int]:
    return frozenset(int(number) for number in text.split(",") if number)
