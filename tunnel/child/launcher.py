"""Starts a command from a child that was forked early, so that the command inherits what this process inherited.

When a command may start, this process has threads, other signal dispositions, a higher limit of descriptors, and perhaps
Landlock, all of which children inherit. So a child is forked before that and waits for the exec request. The command gets the
inherited standard streams (shared, never set to non-blocking), other descriptors, working directory, umask, limits, process
group, terminal, and ignored and blocked signals, except those that tunnel/child/inherited.py names as lost.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NoReturn

from tunnel.child.exec_protocol import (
    ABSENT,
    ExecFailure,
    ExecRequest,
    build_exec_request,
    describe_exec_failure,
    encode_exec_failure,
    encode_exec_request,
    read_exec_failure,
    read_exec_request,
    shell_exit_code,
)
from tunnel.child.handle import ChildHandle
from tunnel.child.inherited import InheritedState, inherited
from tunnel.child.kernel import LAUNCH_FAILED, end_with_parent, fork_child, limit_core
from tunnel.errors import CommandError, describe_os_error

_SHELL = b"/bin/sh"


class Launcher:
    """One child that waits, then executes one command; create it on the main thread, while it is the only one.

    The kernel kills the child when that thread ends, for whatever reason. It does not do so for a command that is set-user-ID,
    set-group-ID or has capabilities of its own (prctl(2), PR_SET_PDEATHSIG), nor for processes that the command starts.
    """

    def __init__(self) -> None:
        given = inherited()
        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if ignored, the kernel keeps no exit status
        self._code: int | None = None
        self.ended_by: int | None = None  # the signal that ended it, if any
        self._is_started = False
        try:
            requests, self._requests = os.pipe()  # none of these is inherited by the command (PEP 446)
            self._failures, failures = os.pipe()
            self.pid = self._make_child(requests, failures, given)
            os.close(requests)
            os.close(failures)
        except OSError as error:
            raise CommandError(f"cannot start a process for the command: {describe_os_error(error)}", LAUNCH_FAILED) from error
        self._child = ChildHandle(self.pid)

    def start(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        """Execute this command in the child, and return when it runs; raises CommandError if it cannot be run.

        The child has ended after an error. A child that was killed before counts as a command that was killed.
        """
        assert not self._is_started
        self._watch()
        self._is_started = True
        with suppress(BrokenPipeError):
            left = memoryview(encode_exec_request(build_exec_request(argv, environ)))
            while left:
                left = left[os.write(self._requests, left) :]
        failure = read_exec_failure(self._failures)
        self._close_pipes()
        if failure is not None:
            self._child.reap(waits=True)
            error = describe_exec_failure(argv[0], failure)
            self._code = error.exit_code
            raise error

    def fileno(self) -> int:
        """Return a descriptor that is readable once the command has ended; there is none before `start`."""
        return self._child.fileno()

    def send(self, number: int) -> None:
        """Send a signal to the command, if it runs and this is permitted."""
        with suppress(OSError):  # it may have become another user's (sudo)
            self._child.send(number)

    def exit_code(self) -> int | None:
        """Return the exit code of the command, or 128 + N for signal N; None while it runs. Reaps it."""
        if self._code is None and (status := self._child.reap()) is not None:
            self._code = shell_exit_code(os.waitstatus_to_exitcode(status))
            self.ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        return self._code

    def abandon(self) -> None:
        """Kill a child that still waits; do nothing to a command."""
        if not self._is_started:
            self._is_started = True
            self.send(signal.SIGKILL)  # before the pipes are closed, which would end it with another exit code
            self._close_pipes()
            self._child.reap(waits=True)
            self.exit_code()

    def close(self) -> None:
        """Abandon, and close the last descriptor."""
        self.abandon()
        self._child.close()

    def _watch(self) -> None:
        try:
            self._child.watch()
        except (OSError, RuntimeError) as error:
            raise CommandError(f"cannot wait for the end of the command: {error}", LAUNCH_FAILED) from error

    def _close_pipes(self) -> None:
        os.close(self._requests)
        os.close(self._failures)

    def _make_child(self, requests: int, failures: int, given: InheritedState) -> int:
        return fork_child(
            partial(wait_for_exec_request, os.getpid(), requests, failures, (self._requests, self._failures), given)
        )


# -- in the child


def wait_for_exec_request(
    parent: int, requests: int, failures: int, parent_ends: tuple[int, ...], given: InheritedState
) -> NoReturn:
    """Wait for the request and execute it; exit without a command if the parent ends or closes the pipe."""
    end_with_parent(parent)
    for descriptor in parent_ends:  # otherwise the pipe would never reach EOF here
        os.close(descriptor)
    request = read_exec_request(requests)
    if request is None:
        os._exit(LAUNCH_FAILED)
    _restore(given)
    os.write(failures, encode_exec_failure(_execute(request)))
    os._exit(LAUNCH_FAILED)


def _restore(given: InheritedState) -> None:
    """Restore the inherited signals and the limit of core dumps.

    Pending signals are delivered now, with the actions that the command would inherit.
    """
    limit_core(given.core_limit)
    for number in signal.valid_signals():
        wanted = signal.SIG_IGN if number in given.ignored else signal.SIG_DFL
        if signal.getsignal(number) != wanted:
            signal.signal(number, wanted)
    signal.pthread_sigmask(signal.SIG_SETMASK, given.blocked)


def _execute(request: ExecRequest) -> ExecFailure:
    """Execute the first path of the request that can be run, as execvp(3) does; return why there is none."""
    environ = dict(entry.split(b"=", 1) for entry in request.environ)
    failure = ExecFailure(errno.ENOENT, exists=False)
    for path in request.paths:
        try:
            try:
                os.execve(path, request.argv, environ)  # noqa: S606  # as asked
            except OSError as error:
                if error.errno != errno.ENOEXEC:
                    raise
                # A script without an interpreter line: run it with the shell, as shells do.
                os.execve(_SHELL, (_SHELL, path, *request.argv[1:]), environ)  # noqa: S606
        except OSError as error:
            number = error.errno or 0
            exists = number not in ABSENT or os.path.lexists(path)
            if exists and not failure.exists:
                failure = ExecFailure(number, exists=True)
            if number not in (*ABSENT, errno.EACCES):
                break
    return failure
