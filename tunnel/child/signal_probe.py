"""The signal probe: finds out which signals that this process received were also sent to the command.

The command stays in our process group and cgroup (job control, service managers), so a signal to us may have been sent to the
command as well. siginfo_t does not show this. Two small processes (tunnel/child/signal_probe_process.py) do: one in our process
group, one in a process group of its own. A signal that the second received was sent to every process of the cgroup (systemd's
KillMode=control-group) or of the machine; one that only the first received was sent to the process group.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

from tunnel.child.kernel import LAUNCH_FAILED, end_with_parent, fork_child
from tunnel.errors import CommandError, describe_os_error
from tunnel.lazy_dataclass import dataclass

_PROGRAM = str(Path(__file__).with_name("signal_probe_process.py"))
_GROUP, _OUTSIDE = b"g", b"o"  # as in the program
_ANSWER_SIZE = 16 * 1024
_ANSWER_LIMIT = 3.0  # seconds; without an answer every signal is forwarded, and a busy machine takes time
_MAX_DESCRIPTORS = 1024  # closed if there is no /proc
# Seconds between the times at which the probe and this process receive the same signal. An older one was sent to the probe
# only: `kill -HUP -1` inside a container does not reach PID 1, `pkill -P` reaches children only.
_SKEW = 10.0

_FIRST_REALTIME: Final = int(signal.SIGRTMIN)


@dataclass(frozen=True, slots=True)
class ReceivedSignal:
    """One signal that this process received."""

    number: int
    at: float  # CLOCK_MONOTONIC; of several equal stops that count as one, the first
    is_from_terminal: bool = False  # sent to our process group by the terminal


class SignalProbe:
    """Two processes that record signals, started by the main thread while it is the only one; they end with that thread.

    A probe that cannot be started, or has ended, reports no signal: the caller then forwards every signal. Raises CommandError
    if no descriptors are left.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of the channel and of the signals read from it
        self._seen: list[tuple[bytes, int, float]] = []
        self._pid = 0
        self._outside_pid = 0
        try:
            self._channel, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise CommandError(f"cannot start the signal probe: {describe_os_error(error)}", LAUNCH_FAILED) from error
        self._channel.settimeout(_ANSWER_LIMIT)
        with other_end, suppress(OSError):
            self._pid = fork_child(partial(become_probe, os.getpid(), other_end.fileno()))

    @property
    def pids(self) -> set[int]:
        """Return the PIDs of the running processes; reaps those that ended."""
        with self._lock:
            if not self._is_alive():
                return set()
            if not self._outside_pid:
                self._query()
            return {self._pid, self._outside_pid} - {0}

    def was_sent_to(self, command: int, received: ReceivedSignal) -> bool:
        """Whether this signal was sent to process `command` too; call it after its sender has had the time to finish."""
        with self._lock:
            self._query()
            was_everywhere = self._take(_OUTSIDE, received)
            was_in_group = self._take(_GROUP, received) or received.is_from_terminal
        if was_everywhere:
            return _is_in_our_cgroup(command)
        return was_in_group and _is_in_our_group(command)

    def close(self) -> None:
        """End both processes, and reap them."""
        with self._lock, self._channel:
            try:
                self._channel.shutdown(socket.SHUT_WR)
                while self._channel.recv(_ANSWER_SIZE):
                    pass
            except OSError:
                self._kill()
            with suppress(ChildProcessError):
                if self._pid:
                    os.waitpid(self._pid, 0)
            self._pid = 0

    def _kill(self) -> None:
        """Kill the first process; the second ends with it."""
        with suppress(ProcessLookupError):
            if self._pid:
                os.kill(self._pid, signal.SIGKILL)

    def _is_alive(self) -> bool:
        if self._pid and os.waitpid(self._pid, os.WNOHANG)[0]:
            self._pid = 0
        return self._pid != 0

    def _query(self) -> None:
        """Read the signals that the two processes have received since the last query."""
        try:
            for process in {self._pid, self._outside_pid} - {0}:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)  # the process group may have been stopped
            self._channel.send(b"?")
            answer = self._channel.recv(_ANSWER_SIZE)
        except TimeoutError:  # it was stopped
            self._kill()
            return
        except OSError:
            return
        if answer:
            pid, *lines = answer.splitlines()
            self._outside_pid = int(pid)
            fields = (line.split() for line in lines if line)
            self._seen += [(place, int(number), float(at)) for place, number, at in fields]

    def _take(self, place: bytes, received: ReceivedSignal) -> bool:
        """Whether this signal was received there; its record is removed. Real-time signals are queued, so each counts."""
        found = [one for one in self._seen if one[:2] == (place, received.number)]
        used = found if received.number < _FIRST_REALTIME else found[:1]
        for one in used:
            self._seen.remove(one)
        oldest = received.at - _SKEW
        self._seen = [one for one in self._seen if one[2] >= oldest]
        return any(at >= oldest for _, _, at in used)


def _is_in_our_group(pid: int) -> bool:
    try:
        return os.getpgid(pid) == os.getpgrp()
    except OSError:  # it has ended
        return True


def _is_in_our_cgroup(pid: int) -> bool:
    """Whether it is in our cgroup or in one below, or if that cannot be read."""
    try:
        with open("/proc/self/cgroup", "rb") as own, open(f"/proc/{pid}/cgroup", "rb") as other:
            return is_same_cgroup(own.read(), other.read())
    except OSError:
        return True


def is_same_cgroup(own: bytes, other: bytes) -> bool:
    """Whether the process with the second /proc/PID/cgroup is in the cgroup of the first, or in one below it."""
    others = _cgroups(other)
    return all((others.get(name, path) + b"/").startswith(path.rstrip(b"/") + b"/") for name, path in _cgroups(own).items())


def _cgroups(text: bytes) -> dict[bytes, bytes]:
    """Return the cgroup path by hierarchy, of the two that service managers use."""
    lines = (line.split(b":", 2) for line in text.splitlines())
    return {name: path for _, name, path in lines if name in (b"", b"name=systemd")}


# -- in the child


def become_probe(parent: int, channel: int) -> NoReturn:
    """Execute the program with this descriptor and no other."""
    end_with_parent(parent)  # holds after the exec as well
    os.set_inheritable(channel, True)
    _keep_only(channel)
    environ = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}  # the interpreter may need it
    os.execve(sys.executable, [sys.executable, "-I", "-S", _PROGRAM, str(channel)], environ)  # noqa: S606


def _keep_only(descriptor: int) -> None:
    """Make an exec close every other descriptor, also the standard streams: their readers wait for EOF."""
    try:
        others = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        others = list(range(_MAX_DESCRIPTORS))
    for other in others:
        if other != descriptor:
            with suppress(OSError):
                os.set_inheritable(other, False)
