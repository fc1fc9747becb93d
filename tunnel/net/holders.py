"""The processes that listen on a TCP port of this machine, from /proc (proc_net(5)).

Only root can read the descriptors of other users' processes, and under Landlock no process can read those of another one.
Unreadable entries are skipped: no function here raises.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import takewhile
from pathlib import Path

from tunnel.ip_address import IpAddress, unmap_ipv4
from tunnel.lazy_dataclass import dataclass

Processes = tuple[tuple[int, str], ...]  # PID and name of each process that holds one socket
Holders = Mapping[int, Processes]  # by inode of the socket

WORKER_NAME = "tunnel-worker"  # of a process, in /proc/PID/comm

_PROC = Path("/proc")
_LISTENING = "0A"  # TCP_LISTEN
_SYN_RECEIVED = "03"  # TCP_SYN_RECV: listed with the listeners before Linux 4.4
_MOST = 3


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """One row of /proc/net/tcp or tcp6."""

    host: IpAddress
    user: int
    inode: int


@dataclass(frozen=True, slots=True)
class SharedPort:
    """Other listening sockets that accept connections to the address of ours."""

    holders: str  # `pid 812 (tunnel)`
    is_same_address: bool  # otherwise one of the addresses is a wildcard


def describe_holders(port: int, proc: Path = _PROC) -> str:
    """Return the listening processes, "" for none: `pid 812 (redis-server)`, `a process of another user or container`."""
    inodes = {found.inode for found in ListeningPorts(proc).at(port)}
    return _describe(find_holders(inodes, proc).values()) or "a process of another user or container" if inodes else ""


def find_holders_of_ports(ports: Iterable[int], proc: Path = _PROC) -> Holders:
    """Return the processes that listen on any of these ports, for use when Landlock hides them later."""
    listening = ListeningPorts(proc)
    return find_holders({found.inode for port in ports for found in listening.at(port)}, proc)


class ListeningPorts:
    """The listening TCP sockets of this machine; the tables are read once, at the first question, which takes milliseconds.

    The kernel lets only sockets of one user share a port, so sockets of other users share none with ours.
    """

    def __init__(self, proc: Path = _PROC) -> None:
        self._proc = proc

    def at(self, port: int) -> Sequence[ListeningSocket]:
        """Return the sockets that listen on a port."""
        return self._sockets.get(port, ())

    def find_shared_port(self, ours: socket.socket, known: Holders) -> SharedPort | None:
        """Return who else listens on the address of this bound socket, by SO_REUSEPORT; `known` are holders found earlier."""
        with suppress(OSError, ValueError):  # the socket was closed meanwhile
            here, others = self._find_sharing(ours)
            if others:
                inodes = {found.inode for found in others}
                seen = {**find_holders(inodes - known.keys(), self._proc), **{one: known[one] for one in inodes & known.keys()}}
                holders = _describe(seen.values()) or f"another process of user {os.geteuid()}"
                return SharedPort(holders, any(found.host == here for found in others))
        return None

    def count_sharing(self, ours: socket.socket) -> int:
        """Return how many other sockets of this user accept connections to the address of this bound one."""
        with suppress(OSError, ValueError):
            return len(self._find_sharing(ours)[1]) if ours.family != socket.AF_UNIX else 0
        return 0

    def _find_sharing(self, ours: socket.socket) -> tuple[IpAddress, list[ListeningSocket]]:
        """Return the address of a bound socket, and the other sockets that accept connections to it."""
        host, port = ours.getsockname()[:2]
        here, inode = unmap_ipv4(ipaddress.ip_address(host.partition("%")[0])), os.fstat(ours.fileno()).st_ino
        others = [found for found in self.at(port) if found.inode != inode and found.user == os.geteuid()]
        return here, [found for found in others if _overlaps(here, found.host)]

    @cached_property
    def _sockets(self) -> Mapping[int, Sequence[ListeningSocket]]:
        found: dict[int, list[ListeningSocket]] = {}
        for port, one in _read_listening(self._proc):
            found.setdefault(port, []).append(one)
        return found


def find_shared_port(ours: socket.socket, known: Holders, proc: Path = _PROC) -> SharedPort | None:
    """Return what `ListeningPorts.find_shared_port` does, of this moment."""
    return ListeningPorts(proc).find_shared_port(ours, known)


@dataclass(frozen=True, slots=True)
class _Holder:
    """A process that has one of the sockets."""

    pid: int
    parent: int
    name: str
    program: str


def find_holders(inodes: set[int], proc: Path = _PROC) -> Holders:
    """Return the visible processes that have these sockets among their descriptors; workers are left out."""
    found: dict[int, list[_Holder]] = {}
    for holder, inode in _holders(inodes, proc) if inodes else ():
        found.setdefault(inode, []).append(holder)
    return {
        inode: tuple((one.pid, one.name) for one in several if not _is_worker(one, several)) for inode, several in found.items()
    }


def _is_worker(process: _Holder, holders: Iterable[_Holder]) -> bool:
    """Return whether the parent has the socket too and is the same program: a service manager that passed it is not."""
    return any(
        (one.pid, one.program) == (process.parent, process.program) and process.name in (one.name, WORKER_NAME)
        for one in holders
    )


def _describe(found: Iterable[Processes]) -> str:
    processes = sorted({process for several in found for process in several})
    return ", ".join(_name(pid, name) for pid, name in processes[:_MOST])


def _name(pid: int, name: str) -> str:
    return f"pid {pid} ({name}), this process itself" if pid == os.getpid() else f"pid {pid} ({name})"


def _overlaps(ours: IpAddress, theirs: IpAddress) -> bool:
    """Return whether one address covers the other; `::` counts for both families, as it does by default."""
    if ours == theirs:
        return True
    return any(
        one.is_unspecified and (one.version == 6 or other.version == 4) for one, other in ((ours, theirs), (theirs, ours))
    )


def _read_listening(proc: Path) -> Iterator[tuple[int, ListeningSocket]]:
    """Yield listening sockets and their ports, which come first in the tables; the other rows can be many, and are not read."""
    for table in ("self/net/tcp", "self/net/tcp6"):
        with suppress(OSError, ValueError, IndexError), (proc / table).open() as rows:
            next(rows, None)  # the header
            for fields in takewhile(lambda row: row[3] in (_LISTENING, _SYN_RECEIVED), map(str.split, rows)):
                host, _, number = fields[1].rpartition(":")
                if fields[3] == _LISTENING:
                    yield int(number, 16), ListeningSocket(_parse_host(host), int(fields[7]), int(fields[9]))


def _parse_host(digits: str) -> IpAddress:
    """Parse an address of the tables: 32-bit words in host byte order."""
    words = (int(digits[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(digits), 8))
    return unmap_ipv4(ipaddress.ip_address(b"".join(words)))


def _holders(inodes: set[int], proc: Path) -> Iterator[tuple[_Holder, int]]:
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    for folder in proc.glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):  # a process of another user, or one that has ended
            links = {_link(folder / "fd" / name) for name in os.listdir(folder / "fd")}
            if shared := links & wanted.keys():
                holder = _read_holder(folder)
                yield from ((holder, wanted[link]) for link in shared)


def _read_holder(folder: Path) -> _Holder:
    """Read the name and the parent from the second and the fourth field of proc_pid_stat(5)."""
    names, _, fields = (folder / "stat").read_text(errors="replace").rpartition(")")
    return _Holder(int(folder.name), int(fields.split()[1]), names.partition("(")[2].strip(), _link(folder / "exe"))


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
