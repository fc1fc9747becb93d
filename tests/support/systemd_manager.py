"""A service manager for a test: a real systemd as process 1 of namespaces, with the given units only.

It shares no process, mount, network or control group with the machine.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tests.support.processes import LIMIT, Process, eventually
from tests.support.requirements import program

SYSTEMD = Path("/lib/systemd/systemd")
_CLONE_NEWNET = 0x40000000

# What units depend on by default; here they mean nothing and pull in nothing.
_STUBS = (
    "sysinit",
    "basic",
    "sockets",
    "timers",
    "paths",
    "slices",
    "multi-user",
    "network",
    "network-online",
    "shutdown",
    "umount",
)

T = TypeVar("T")

# "$1" has what it is given: units/, etc/, sockets/, tunnel/; its control group is "$2", in a hierarchy mounted at "$1/groups".
_GROUP = """set -e
mount --make-rprivate /
mount -t cgroup -o none,name=systemd cgroup "$1/groups"
mkdir "$1/groups/$2"
echo $$ > "$1/groups/$2/cgroup.procs"
exec unshare --cgroup --pid --ipc --uts --net --fork --kill-child=KILL bash -c "$3" boot "$1"
"""
_BOOT = """set -e
mount -t proc proc /proc
umount "$1/groups"
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t tmpfs tmpfs /sys/fs/cgroup
mkdir /sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /opt
mkdir -p /run/systemd/system /run/spire /opt/tunnel
mount -t overlay -o "lowerdir=$1/etc:/etc" overlay /etc
mount --bind "$1/sockets" /run/spire
mount --bind "$1/tunnel" /opt/tunnel
mount --bind "$1/units" /etc/systemd/system
mount --bind "$1/empty" /lib/systemd/system-generators
# The machine's own units would run as root on its own files: systemd-tmpfiles empties /tmp, systemd-sysctl sets the kernel.
mount --bind "$1/stubs" /lib/systemd/system
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=1777 tmpfs /var/tmp
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -o remount,bind,ro /
ip link set lo up
export container=test
exec "$SYSTEMD" --system --unit=first.target --show-status=no --log-target=console
"""
_CLEAR = """mount --make-rprivate /
mount -t cgroup -o none,name=systemd cgroup "$1/groups"
exec find "$1/groups/$2" -depth -type d -exec rmdir {} +
"""


class Manager(Process):
    """The outer process; units are in units/ of the directory before it starts."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._group = directory, f"tunnel-test-{os.getpid()}"
        for name in ("empty", "groups", "etc", "sockets", "stubs", "tunnel"):
            (directory / name).mkdir(exist_ok=True)
        for name in _STUBS:
            (directory / "stubs" / f"{name}.target").write_text(f"[Unit]\nDescription={name}\nDefaultDependencies=no\n")
        (directory / "units" / "first.target").write_text("[Unit]\nDescription=nothing yet\nDefaultDependencies=no\n")
        environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD": str(SYSTEMD)}
        unshare = [program("unshare"), "--mount", "bash", "-c", _GROUP, "hold", str(directory), self._group, _BOOT]
        super().__init__(unshare, environ=environ, is_merged=True)
        eventually(lambda: self._is_up(), "systemd is up")

    @property
    def first_pid(self) -> int:
        """Process 1 of it, as this machine numbers it."""
        (child,) = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(child)

    def ask(self, *arguments: str) -> str:
        """What `systemctl` answers; it has to succeed."""
        done = self._systemctl(*arguments)
        assert done.returncode == 0, f"systemctl {arguments}: {done.stdout}{done.stderr}\n{self._log()}"
        return done.stdout.strip()

    def is_refused(self, *arguments: str) -> bool:
        """Whether `systemctl` fails."""
        return self._systemctl(*arguments).returncode != 0

    def _log(self) -> str:
        path = Path(f"/proc/{self.first_pid}/root/run/log")
        return path.read_text() if path.exists() else self.transcript()

    def property(self, unit: str, name: str) -> str:
        return self.ask("show", "--value", f"--property={name}", unit)

    def in_network(self, act: Callable[[], T]) -> T:
        """Do it, on a thread, where the units have their network; a socket made there stays there."""

        def work() -> T:
            with open(f"/proc/{self.first_pid}/ns/net") as network:
                assert ctypes.CDLL(None).setns(network.fileno(), _CLONE_NEWNET) == 0
            return act()

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(work).result(LIMIT)

    def close(self) -> None:
        """End it and all its units, and take its control groups away."""
        with suppress(OSError, ValueError):
            os.kill(self.first_pid, signal.SIGKILL)
        super().close()
        clear = [program("unshare"), "--mount", "bash", "-c", _CLEAR, "clear", str(self._directory), self._group]
        eventually(lambda: subprocess.run(clear, capture_output=True, timeout=LIMIT).returncode == 0, "its groups are empty")

    def _is_up(self) -> bool:
        assert self.is_running, self.transcript()
        with suppress(ValueError):
            return self._systemctl("is-active", "first.target").returncode == 0
        return False

    def _systemctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        enter = [program("nsenter"), f"--target={self.first_pid}", "--mount", "--pid", "--ipc", "--net", "--cgroup"]
        return subprocess.run(
            [*enter, "systemctl", *arguments], capture_output=True, text=True, timeout=LIMIT, env={"PATH": "/usr/bin:/bin"}
        )
