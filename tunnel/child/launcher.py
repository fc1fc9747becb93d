"""Fork early, exec late: a command is started by a process that has never seen what we have become since.

Knows processes and what a command must find unchanged; must not know why it is run. By the time a command may start, this
process has threads, other signals, a higher limit of descriptors, and perhaps Landlock, which children inherit. So a child is
forked while there is nothing of that, and waits for the order. What it is given is what our own parent gave us: standard
streams (shared and never touched, never made non-blocking), other descriptors, working directory, umask, limits, process
group, terminal, ignored and blocked signals, save what `tunnel/child/inherited.py` says is lost.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NoReturn

from tunnel.child.core_dumps import limit_core
from tunnel.child.exec_protocol import (
    ABSENT,
    ExecFailure,
    ExecRequest,
    build_exec_request,
    code_of_end,
    describe_exec_failure,
    encode_exec_failure,
    encode_exec_request,
    read_exec_failure,
    read_exec_request,
)
from tunnel.child.fork import BROKEN, end_with_parent, fork_child
from tunnel.child.handle import ChildHandle
from tunnel.child.inherited import InheritedState, inherited
from tunnel.errors import CommandError, describe_os_error

_SHELL = b"/bin/sh"


class Launcher:
    """One child that waits, then runs one command; to be made by the main thread, while it is the only one.

    The child is killed when that thread ends, however it ends. The kernel forgets this for a command that is set-user-ID,
    set-group-ID or has capabilities of its own (prctl(2), PR_SET_PDEATHSIG), and it holds for the command alone, not for what
    that starts.
    """

    def __init__(self) -> None:
        given = inherited()
        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, the kernel would keep no exit status
        self._code: int | None = None
        self.ended_by: int | None = None  # the signal, if one has ended it
        self._is_started = False
        try:
            orders, self._orders = os.pipe()  # none of these is inherited by the command (PEP 446)
            self._answers, answers = os.pipe()
            self.pid = self._make_child(orders, answers, given)
            os.close(orders)
            os.close(answers)
        except OSError as error:
            raise CommandError(f"no process can be started for a command: {describe_os_error(error)}", BROKEN) from error
        self._child = ChildHandle(self.pid)

    def start(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        """Have the child become this command; raises CommandError if there is none such, and the child is gone then.

        Returns when it runs. A child that was killed before is taken for a command that was.
        """
        assert not self._is_started
        self._watch()
        self._is_started = True
        with suppress(BrokenPipeError):
            left = memoryview(encode_exec_request(build_exec_request(argv, environ)))
            while left:
                left = left[os.write(self._orders, left) :]
        failure = read_exec_failure(self._answers)
        self._close_pipes()
        if failure is not None:
            self._child.reap(waits=True)
            error = describe_exec_failure(argv[0], failure)
            self._code = error.exit_code
            raise error

    def fileno(self) -> int:
        """A descriptor that is readable once the command has ended; there is none before `start`."""
        return self._child.fileno()

    def send(self, number: int) -> None:
        """Send a signal to the command, if it is still there and ours to signal."""
        with suppress(OSError):  # it may have become another user's (sudo)
            self._child.send(number)

    def exit_code(self) -> int | None:
        """How the command ended: its own code, or 128 + N for signal N; None while it runs. Reaps it."""
        if self._code is None and (status := self._child.reap()) is not None:
            self._code = code_of_end(os.waitstatus_to_exitcode(status))
            self.ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        return self._code

    def abandon(self) -> None:
        """End a child that is still waiting; does nothing to a command."""
        if not self._is_started:
            self._is_started = True
            self._close_pipes()
            self.send(signal.SIGKILL)
            self._child.reap(waits=True)
            self.exit_code()

    def close(self) -> None:
        """Abandon, and give back the last descriptor."""
        self.abandon()
        self._child.close()

    def _watch(self) -> None:
        try:
            self._child.watch()
        except (OSError, RuntimeError) as error:
            raise CommandError(f"the end of a command cannot be waited for: {error}", BROKEN) from error

    def _close_pipes(self) -> None:
        os.close(self._orders)
        os.close(self._answers)

    def _make_child(self, orders: int, answers: int, given: InheritedState) -> int:
        return fork_child(partial(wait_for_exec_request, os.getpid(), orders, answers, (self._orders, self._answers), given))


# -- in the child


def wait_for_exec_request(parent: int, orders: int, answers: int, not_ours: tuple[int, ...], given: InheritedState) -> NoReturn:
    """Wait for the order and carry it out; end without running anything when the parent is gone or gives up."""
    end_with_parent(parent)
    for descriptor in not_ours:  # or we would never see the end of our own pipe
        os.close(descriptor)
    order = read_exec_request(orders)
    if order is None:
        os._exit(BROKEN)
    _restore(given)
    os.write(answers, encode_exec_failure(_execute(order)))
    os._exit(BROKEN)


def _restore(given: InheritedState) -> None:
    """Signals and the limit of core dumps as our parent gave them to us.

    What has come meanwhile is delivered now, and does what it does to a command.
    """
    limit_core(given.core_limit)
    for number in signal.valid_signals():
        wanted = signal.SIG_IGN if number in given.ignored else signal.SIG_DFL
        if signal.getsignal(number) != wanted:
            signal.signal(number, wanted)
    signal.pthread_sigmask(signal.SIG_SETMASK, given.blocked)


def _execute(order: ExecRequest) -> ExecFailure:
    """Become the first of the order's places that can be run, as execvp(3) does; says why there is none."""
    environ = dict(entry.split(b"=", 1) for entry in order.environ)
    failure = ExecFailure(errno.ENOENT, is_there=False)
    for place in order.places:
        try:
            try:
                os.execve(place, order.argv, environ)  # noqa: S606  # as asked
            except OSError as error:
                if error.errno != errno.ENOEXEC:
                    raise
                # A script without a first line that says whose it is: every shell takes it for its own.
                os.execve(_SHELL, (_SHELL, place, *order.argv[1:]), environ)  # noqa: S606
        except OSError as error:
            number = error.errno or 0
            is_there = number not in ABSENT or os.path.lexists(place)
            if is_there and not failure.is_there:
                failure = ExecFailure(number, is_there=True)
            if number not in (*ABSENT, errno.EACCES):
                break
    return failure
