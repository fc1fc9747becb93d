"""Who listens on a port of this machine.

Knows the kernel's tables of sockets (proc_net(5)) and whose descriptors show in /proc; must not know why it is asked. Of
other users' processes only root sees the descriptors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_LISTENING = "0A"  # TCP_LISTEN
_MOST = 3


def holders_of(port: int, proc: Path = Path("/proc")) -> str:
    """`pid 812 (redis-server)`, "" when nobody listens, `a process of another user` when it cannot be told who."""
    inodes = set(_listening_inodes(port, proc))
    if not inodes:
        return ""
    found = sorted(_owners(inodes, proc))
    return ", ".join(f"pid {pid} ({name})" for pid, name in found[:_MOST]) or "a process of another user or container"


def _listening_inodes(port: int, proc: Path) -> Iterator[str]:
    for table in ("net/tcp", "net/tcp6"):
        with suppress(OSError):
            for line in (proc / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _owners(inodes: set[str], proc: Path) -> Iterator[tuple[int, str]]:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for folder in proc.glob("[0-9]*"):
        with suppress(OSError):  # it is another user's, or has ended
            if any(_link(folder / "fd" / name) in wanted for name in os.listdir(folder / "fd")):
                yield int(folder.name), (folder / "comm").read_text().strip()


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
