"""Which other processes a signal of ours was sent to: the signal probe.

The command stays in our process group and cgroup (job control, service managers), so a signal that reaches us may have reached
the command as well. siginfo_t does not tell. Two small processes do (tunnel/child/probing.py): one is in our process group, one
in a process group of its own. A signal that the second has was sent to every process of the cgroup (systemd's
KillMode=control-group) or of the machine; one that only the first has was sent to the process group.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

from tunnel.child.fork import BROKEN, end_with_parent, fork_child
from tunnel.errors import CommandError, describe_os_error

_PROGRAM = str(Path(__file__).with_name("probing.py"))
_GROUP, _OUTSIDE = b"g", b"o"  # as the program has them
_ANSWER_SIZE = 16 * 1024
_ANSWER_LIMIT = 1.0  # seconds
_MOST_DESCRIPTORS = 1024  # that are looked at where there is no /proc
# Seconds between the time at which the probe takes a signal and the time at which we take the same one. What is older was sent
# to the probe and not to us: `kill -HUP -1` inside a container does not reach PID 1, `pkill -P` reaches children only.
_SKEW = 10.0

_FIRST_REALTIME: Final = int(signal.SIGRTMIN)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One signal that this process has taken."""

    number: int
    at: float  # CLOCK_MONOTONIC; of several equal ones that are one stop, the first
    is_from_terminal: bool = False  # so it was sent to our process group


class SignalProbe:
    """To be made by the main thread while it is the only one; its processes end when that thread does.

    A probe that cannot be started, or is gone, has no signal: the caller then sends every signal on. Raises CommandError when
    there are no descriptors left.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of the channel and of what was read from it
        self._seen: list[tuple[bytes, int, float]] = []
        self._pid = 0
        self._outside_pid = 0
        try:
            self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise CommandError(f"no command can be watched over: {describe_os_error(error)}", BROKEN) from error
        self._channel.settimeout(_ANSWER_LIMIT)
        with theirs, suppress(OSError):
            self._pid = fork_child(partial(become_probe, os.getpid(), theirs.fileno()))

    @property
    def pids(self) -> set[int]:
        """The living processes; reaps what has ended."""
        with self._lock:
            if not self._is_alive():
                return set()
            if not self._outside_pid:
                self._ask()
            return {self._pid, self._outside_pid} - {0}

    def has_had(self, command: int, arrival: Arrival) -> bool:
        """Whether this signal was sent to process `command` too; to be called when its sender has had the time to finish."""
        with self._lock:
            self._ask()
            was_everywhere = self._take(_OUTSIDE, arrival)
            was_in_group = self._take(_GROUP, arrival) or arrival.is_from_terminal
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
        """The second process ends with the first."""
        with suppress(ProcessLookupError):
            if self._pid:
                os.kill(self._pid, signal.SIGKILL)

    def _is_alive(self) -> bool:
        if self._pid and os.waitpid(self._pid, os.WNOHANG)[0]:
            self._pid = 0
        return self._pid != 0

    def _ask(self) -> None:
        """Read what has arrived there since the last question."""
        try:
            for process in {self._pid, self._outside_pid} - {0}:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)  # somebody may have stopped the process group
            self._channel.send(b"?")
            answer = self._channel.recv(_ANSWER_SIZE)
        except TimeoutError:  # somebody has stopped it
            self._kill()
            return
        except OSError:
            return
        if answer:
            pid, *lines = answer.splitlines()
            self._outside_pid = int(pid)
            fields = (line.split() for line in lines if line)
            self._seen += [(place, int(number), float(at)) for place, number, at in fields]

    def _take(self, place: bytes, arrival: Arrival) -> bool:
        """Whether this signal has arrived there; it is forgotten then. Real-time signals are queued, so each counts."""
        found = [one for one in self._seen if one[:2] == (place, arrival.number)]
        used = found if arrival.number < _FIRST_REALTIME else found[:1]
        for one in used:
            self._seen.remove(one)
        oldest = arrival.at - _SKEW
        self._seen = [one for one in self._seen if one[2] >= oldest]
        return any(at >= oldest for _, _, at in used)


def _is_in_our_group(pid: int) -> bool:
    try:
        return os.getpgid(pid) == os.getpgrp()
    except OSError:  # it has ended
        return True


def _is_in_our_cgroup(pid: int) -> bool:
    """Or in one below; also where that cannot be read."""
    try:
        with open("/proc/self/cgroup", "rb") as ours, open(f"/proc/{pid}/cgroup", "rb") as theirs:
            return is_same_cgroup(ours.read(), theirs.read())
    except OSError:
        return True


def is_same_cgroup(ours: bytes, theirs: bytes) -> bool:
    """Of two texts of /proc/PID/cgroup, whether the second process is in a cgroup of the first, or in one below it."""
    own, other = _cgroups(ours), _cgroups(theirs)
    return all((other.get(head, path) + b"/").startswith(path.rstrip(b"/") + b"/") for head, path in own.items())


def _cgroups(text: bytes) -> dict[bytes, bytes]:
    """The path by hierarchy, of the two in which a service manager keeps processes."""
    lines = (line.split(b":", 2) for line in text.splitlines())
    return {name: path for _, name, path in lines if name in (b"", b"name=systemd")}


# -- in the child


def become_probe(parent: int, channel: int) -> NoReturn:
    """Run the program with this descriptor and no other."""
    end_with_parent(parent)  # holds after the exec as well
    os.set_inheritable(channel, True)
    _keep_only(channel)
    environ = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}  # the interpreter may need it
    os.execve(sys.executable, [sys.executable, "-I", "-S", _PROGRAM, str(channel)], environ)  # noqa: S606


def _keep_only(descriptor: int) -> None:
    """Have an exec close every other one that it would keep, the standard streams too: who reads them must see their end."""
    try:
        others = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        others = list(range(_MOST_DESCRIPTORS))
    for other in others:
        if other != descriptor:
            with suppress(OSError):
                os.set_inheritable(other, False)
