"""Whose process is at the other end of a local connection.

Knows SO_PEERCRED, sock_diag(7) and the kernel's tables of TCP; must not know who is welcome. Whatever cannot be told is None,
and None is nobody: a caller that has closed already is shown as user 0, and must not pass for root. The user is the one who
made the socket; handed to another process it stays his. Of TCP, a user whom our namespace cannot tell from others is nobody.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from functools import cache
from typing import Any

from tunnel.ip_address import IPV4_MAPPED_PREFIX

_UCRED = struct.Struct("=iII")  # unix(7): process, user, group

# netlink(7), sock_diag(7), linux/inet_diag.h: ports and addresses in network order, everything else in the machine's.
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _NLMSG_DONE = 20, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 0x001, 0x300
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_QUESTION = struct.Struct("=BBBxI")  # family, protocol, extensions, states; then the socket
_ANSWER = struct.Struct("=BBBB")  # family, state, timer, retransmissions; then the socket
_SOCKET = struct.Struct("!HH16s16s12x")  # its port, the other port, its address, the other address; interface and cookie
_REST = struct.Struct("=IIIII")  # expiry, two queues, user, inode
_ANY_SOCKET = bytes(4) + b"\xff" * 8  # no interface, INET_DIAG_NOCOOKIE
_ALL_STATES = 0xFFFFFFFF
_ROOM = 8192
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_TABLES = {4: "/proc/net/tcp", 16: "/proc/net/tcp6"}  # proc_net(5), by the length of an address
_READINGS = 2  # a row can be missed while others come and go

_UID_MAP, _OVERFLOW_UID = "/proc/self/uid_map", "/proc/sys/kernel/overflowuid"
_ALL_USERS = 0xFFFFFFFF
_NOBODY = 65534  # what the kernel says by default for whom it cannot name

CloseReason = tuple[bytes, int]  # address, port


def owner_of_peer(sock: socket.socket, address: Any) -> int | None:
    """The user ID behind an accepted connection, whose peer has this `address`; None if that is not known, or no longer.

    Of TCP it is known for a peer in our own network namespace, whatever its address. Neither raises nor waits.
    """
    try:
        if sock.family == socket.AF_UNIX:
            _, user, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
            return int(user)
        theirs, ours = _end(address), _end(sock.getsockname())
        user = ask_kernel(theirs, ours) if can_ask_kernel() else look_up(theirs, ours)
        sock.getpeername()  # it fails after a reset, and then the port over there may be another socket's by now
        return None if user == blurred_user() else user
    except (OSError, ValueError, struct.error):  # no descriptor is left, or an answer is not what it should be
        return None


@cache
def blurred_user() -> int | None:
    """The user ID that stands for every user whom our user namespace does not map (user_namespaces(7)); None if all are."""
    try:
        with open(_UID_MAP, encoding="ascii") as rows:
            if sum(int(row.split()[2]) for row in rows) >= _ALL_USERS:
                return None
        with open(_OVERFLOW_UID, encoding="ascii") as number:
            return int(number.read())
    except (FileNotFoundError, PermissionError):  # without /proc nothing says that all are mapped
        return _NOBODY


def _end(address: Any) -> CloseReason:
    """An end of TCP; an IPv4 address in IPv6's clothes is the IPv4 address."""
    host, port = address[:2]
    return ipaddress.ip_address(host).packed.removeprefix(IPV4_MAPPED_PREFIX), port


# -- the kernel asked for one socket


@cache
def can_ask_kernel() -> bool:
    """Whether it answers at all: the module may be missing, or forbidden. Raises OSError when there is no descriptor left."""
    question = _QUESTION.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0)  # every socket that is in none of the states
    try:
        return _exchange(_NLM_F_REQUEST | _NLM_F_DUMP, question + bytes(_SOCKET.size))[0] == _NLMSG_DONE
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        return False


def ask_kernel(theirs: CloseReason, ours: CloseReason) -> int | None:
    """The owner of the socket with these two ends, in the time of one system call."""
    family = socket.AF_INET if len(theirs[0]) == 4 else socket.AF_INET6
    question = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, _ALL_STATES)
    wanted = _SOCKET.pack(theirs[1], ours[1], theirs[0], ours[0])[: -len(_ANY_SOCKET)] + _ANY_SOCKET
    kind, body = _exchange(_NLM_F_REQUEST, question + wanted)
    if kind != _SOCK_DIAG_BY_FAMILY:
        return None
    found_family = _ANSWER.unpack_from(body)[0]
    their_port, our_port, *hosts = _SOCKET.unpack_from(body, _ANSWER.size)
    *_, user, inode = _REST.unpack_from(body, _ANSWER.size + _SOCKET.size)
    size = 4 if found_family == socket.AF_INET else 16
    their_host, our_host = (host[:size].removeprefix(IPV4_MAPPED_PREFIX) for host in hosts)
    is_it = ((their_host, their_port), (our_host, our_port)) == (theirs, ours)  # for want of it, it shows who listens there
    return int(user) if is_it and inode else None


def _exchange(flags: int, question: bytes) -> tuple[int, bytes]:
    """The type and the body of the kernel's answer, which is there when the question has been sent."""
    header = _HEADER.pack(_HEADER.size + len(question), _SOCK_DIAG_BY_FAMILY, flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_SOCK_DIAG) as kernel:
        kernel.sendto(header + question, (0, 0))
        answer = kernel.recv(_ROOM)
    length, kind, *_ = _HEADER.unpack_from(answer)
    return kind, answer[_HEADER.size : length]


# -- the kernel's tables, read through


def look_up(theirs: CloseReason, ours: CloseReason) -> int | None:
    """The owner by the tables: as slow as there are sockets on the machine."""
    for _ in range(_READINGS):
        for size, path in _TABLES.items():
            user = _find_row(path, f" {_hex(theirs, size)} {_hex(ours, size)} ") if size >= len(theirs[0]) else None
            if user is not None:
                return user
    return None


def _find_row(path: str, ends: str) -> int | None:
    try:
        with open(path, encoding="ascii") as table:
            for row in table:
                if ends in row:
                    fields = row.split()
                    if int(fields[9]):  # the inode: without one it is nobody's any more
                        return int(fields[7])
    except FileNotFoundError:  # there is no IPv6
        pass
    return None


def _hex(end: CloseReason, size: int) -> str:
    """An end as the table for addresses of this size has it: words in the machine's order."""
    host = end[0] if len(end[0]) == size else IPV4_MAPPED_PREFIX + end[0]
    words = (int.from_bytes(host[at : at + 4], sys.byteorder) for at in range(0, size, 4))
    return "".join(f"{word:08X}" for word in words) + f":{end[1]:04X}"
