"""Which processes listen on a TCP port of this machine.

Reads the kernel's tables of sockets (proc_net(5)) and the descriptors in /proc. Only root sees those of other users' processes,
and under Landlock nobody sees those of another process. Whatever cannot be read is left out: nothing here raises.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from tunnel.ip_address import IpAddress, unmap_ipv4

Processes = tuple[tuple[int, str], ...]  # PID and name of each that holds one socket
Holders = Mapping[int, Processes]  # by the inode of the socket

_PROC = Path("/proc")
_LISTENING = "0A"  # TCP_LISTEN
_SYN_RECEIVED = "03"  # TCP_SYN_RECV: beside their listener before Linux 4.4
_MOST = 3


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """One row of the kernel's tables."""

    host: IpAddress
    user: int
    inode: int


@dataclass(frozen=True, slots=True)
class Sharing:
    """Other sockets that take connections meant for one of ours."""

    who: str  # `pid 812 (tunnel)`
    is_same_address: bool  # else theirs covers ours, or ours theirs


def holders_of(port: int, proc: Path = _PROC) -> str:
    """`pid 812 (redis-server)`, "" when nobody listens, `a process of another user or container` when it cannot be told who."""
    inodes = {found.inode for found in _listening(port, proc)}
    return _describe(find_holders(inodes, proc).values()) or "a process of another user or container" if inodes else ""


def find_holders_of_ports(ports: Iterable[int], proc: Path = _PROC) -> Holders:
    """The processes that listen on any of these ports now; for later, when they may not be seen any more."""
    return find_holders({found.inode for port in ports for found in _listening(port, proc)}, proc)


def find_sharing(ours: socket.socket, known: Holders, proc: Path = _PROC) -> Sharing | None:
    """Who else listens where this bound socket does, by SO_REUSEPORT; `known` are holders that were found before.

    The kernel lets sockets of one user share a port, so that those of other users listen elsewhere.
    """
    with suppress(OSError, ValueError):  # it has been closed meanwhile
        host, port = ours.getsockname()[:2]
        here, inode = unmap_ipv4(ipaddress.ip_address(host.partition("%")[0])), os.fstat(ours.fileno()).st_ino
        others = [found for found in _listening(port, proc) if found.inode != inode and found.user == os.geteuid()]
        others = [found for found in others if _overlaps(here, found.host)]
        if others:
            inodes = {found.inode for found in others}
            seen = {**find_holders(inodes - known.keys(), proc), **{one: known[one] for one in inodes & known.keys()}}
            who = _describe(seen.values()) or f"another process of user {os.geteuid()}"
            return Sharing(who, any(found.host == here for found in others))
    return None


def find_holders(inodes: set[int], proc: Path = _PROC) -> Holders:
    """The processes that have these sockets among their descriptors, as far as they can be seen."""
    found: dict[int, Processes] = {}
    for pid, name, inode in _owners(inodes, proc) if inodes else ():
        found[inode] = (*found.get(inode, ()), (pid, name))
    return found


def _describe(found: Iterable[Processes]) -> str:
    processes = sorted({process for several in found for process in several})
    return ", ".join(_name(pid, name) for pid, name in processes[:_MOST])


def _name(pid: int, name: str) -> str:
    return f"pid {pid} ({name}), this process itself" if pid == os.getpid() else f"pid {pid} ({name})"


def _overlaps(ours: IpAddress, theirs: IpAddress) -> bool:
    """Whether one takes connections to the other; `::` is taken for both families, as it is by default."""
    if ours == theirs:
        return True
    return any(
        one.is_unspecified and (one.version == 6 or other.version == 4) for one, other in ((ours, theirs), (theirs, ours))
    )


def _listening(port: int, proc: Path) -> Iterator[ListeningSocket]:
    """The listening sockets come first in the tables, and hundreds of thousands of others may follow: they are not read."""
    for table in ("self/net/tcp", "self/net/tcp6"):
        with suppress(OSError, ValueError, IndexError), (proc / table).open() as rows:
            next(rows, None)  # the heading
            for fields in takewhile(lambda row: row[3] in (_LISTENING, _SYN_RECEIVED), map(str.split, rows)):
                host, _, number = fields[1].rpartition(":")
                if fields[3] == _LISTENING and int(number, 16) == port:
                    yield ListeningSocket(_parse_host(host), int(fields[7]), int(fields[9]))


def _parse_host(digits: str) -> IpAddress:
    """An address in the tables: words of 32 bits in the machine's order."""
    words = (int(digits[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(digits), 8))
    return unmap_ipv4(ipaddress.ip_address(b"".join(words)))


def _owners(inodes: set[int], proc: Path) -> Iterator[tuple[int, str, int]]:
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    for folder in proc.glob("[0-9]*"):
        with suppress(OSError):  # it is another user's, or has ended
            links = {_link(folder / "fd" / name) for name in os.listdir(folder / "fd")}
            for link in links & wanted.keys():
                yield int(folder.name), (folder / "comm").read_text(errors="replace").strip(), wanted[link]


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
