"""Exec late without having forked early: a fresh interpreter is the child that waits.

Knows how that interpreter is started and what it is told; must not know why a command is run. A process with threads cannot
fork a child that still has something to do before it becomes the command, for a copy of a lock that another thread held is
never released. It can start another program, so the child is this interpreter anew, which needs a tenth of a second.
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


class SpawnedLauncher(Launcher):
    """A Launcher that may be made at any time, once for each start of a command; by the main thread.

    Not by another one: a thread that had nothing to do would end, and the command with it.
    """

    def _make_child(self, orders: int, answers: int, given: InheritedState) -> int:
        assert threading.current_thread() is threading.main_thread(), "the command would end with this thread"
        numbers = [*map(str, (os.getpid(), orders, answers, given.core_limit)), _encode(given.ignored), _encode(given.blocked)]
        for descriptor in (orders, answers):
            os.set_inheritable(descriptor, True)
        argv = isolated_argv("tunnel.child.spawned:wait_as_told", *numbers, has_site=False)
        # Blocked: no signal shall find an interpreter.
        return os.posix_spawn(sys.executable, argv, os.environ, setsigmask=signal.valid_signals())


def wait_as_told() -> NoReturn:
    """What the fresh interpreter does, to the end of it."""
    words = sys.argv[1:]
    parent, orders, answers, core_limit = map(int, words[:4])
    for descriptor in (orders, answers):
        os.set_inheritable(descriptor, False)  # they are not the command's
    wait_for_exec_request(parent, orders, answers, (), InheritedState(_decode(words[4]), _decode(words[5]), {}, core_limit))


def _encode(numbers: Collection[int]) -> str:
    return ",".join(map(str, sorted(numbers)))


def _decode(text: str) -> frozenset[int]:
    return frozenset(int(number) for number in text.split(",") if number)
