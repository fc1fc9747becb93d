"""The user ID of the process at the other end of a local connection: SO_PEERCRED, sock_diag(7), /proc/net/tcp.

An unknown user is None and must be refused: the kernel shows a connection that the peer has already closed as user 0, which
must not count as root. The user is the one that created the socket, also after the socket is passed to another process. Over
TCP, a user that our user namespace does not map is unknown.
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

# netlink(7), sock_diag(7), linux/inet_diag.h: ports and addresses in network byte order, other fields in host byte order.
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _NLMSG_DONE = 20, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 0x001, 0x300
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBxI")  # family, protocol, extensions, states; then the socket
_RESPONSE = struct.Struct("=BBBB")  # family, state, timer, retransmissions; then the socket
_SOCKET = struct.Struct("!HH16s16s12x")  # source and destination port, source and destination address; interface, cookie
_REST = struct.Struct("=IIIII")  # expiry, two queues, user, inode
_ANY_SOCKET = bytes(4) + b"\xff" * 8  # any interface, INET_DIAG_NOCOOKIE
_ALL_STATES = 0xFFFFFFFF
_MAX_RESPONSE = 8192
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_TABLES = {4: "/proc/net/tcp", 16: "/proc/net/tcp6"}  # proc_net(5), by the length of an address
_TABLE_READS = 2  # one read can miss a row while other rows are added or removed

_UID_MAP, _OVERFLOW_UID = "/proc/self/uid_map", "/proc/sys/kernel/overflowuid"
_ALL_USERS = 0xFFFFFFFF
_NOBODY = 65534  # the default of /proc/sys/kernel/overflowuid

_Endpoint = tuple[bytes, int]  # address, port


def owner_of_peer(sock: socket.socket, address: Any) -> int | None:
    """Return the user ID of the peer of an accepted connection; `address` is the peer's. None if it is unknown.

    Over TCP the user is known for a peer in our network namespace, whatever its address. Does not raise or block.
    """
    try:
        if sock.family == socket.AF_UNIX:
            _, user, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
            return int(user)
        peer, local = _endpoint(address), _endpoint(sock.getsockname())
        user = query_sock_diag(peer, local) if has_sock_diag() else search_tables(peer, local)
        sock.getpeername()  # fails after a reset: then another socket may already use the peer's port
        return None if user == overflow_user() else user
    except (OSError, ValueError, struct.error):  # no free descriptor, or an unexpected response
        return None


@cache
def overflow_user() -> int | None:
    """Return the ID that stands for users that our user namespace does not map (user_namespaces(7)); None if it maps all."""
    try:
        with open(_UID_MAP, encoding="ascii") as rows:
            if sum(int(row.split()[2]) for row in rows) >= _ALL_USERS:
                return None
        with open(_OVERFLOW_UID, encoding="ascii") as number:
            return int(number.read())
    except (FileNotFoundError, PermissionError):  # without /proc it is unknown whether all users are mapped
        return _NOBODY


def _endpoint(address: Any) -> _Endpoint:
    """Return an address and port; an IPv4-mapped IPv6 address becomes the IPv4 address."""
    host, port = address[:2]
    return ipaddress.ip_address(host).packed.removeprefix(IPV4_MAPPED_PREFIX), port


# -- sock_diag(7): a request for one socket


@cache
def has_sock_diag() -> bool:
    """Return whether the kernel answers; the module may be missing or denied. Raises OSError if there is no free descriptor."""
    request = _REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0)  # no states: matches no socket
    try:
        return _exchange(_NLM_F_REQUEST | _NLM_F_DUMP, request + bytes(_SOCKET.size))[0] == _NLMSG_DONE
    except OSError as error:
        if error.errno in _EXHAUSTED:
            raise
        return False


def query_sock_diag(peer: _Endpoint, local: _Endpoint) -> int | None:
    """Return the user of the socket with these two endpoints, in the time of one system call."""
    family = socket.AF_INET if len(peer[0]) == 4 else socket.AF_INET6
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _ALL_STATES)
    wanted = _SOCKET.pack(peer[1], local[1], peer[0], local[0])[: -len(_ANY_SOCKET)] + _ANY_SOCKET
    kind, body = _exchange(_NLM_F_REQUEST, request + wanted)
    if kind != _SOCK_DIAG_BY_FAMILY:
        return None
    found_family = _RESPONSE.unpack_from(body)[0]
    peer_port, local_port, *hosts = _SOCKET.unpack_from(body, _RESPONSE.size)
    *_, user, inode = _REST.unpack_from(body, _RESPONSE.size + _SOCKET.size)
    size = 4 if found_family == socket.AF_INET else 16
    peer_host, local_host = (host[:size].removeprefix(IPV4_MAPPED_PREFIX) for host in hosts)
    # If there is no such socket, the kernel returns the listener.
    is_match = ((peer_host, peer_port), (local_host, local_port)) == (
        peer,
        local,
    )
    return int(user) if is_match and inode else None


def _exchange(flags: int, request: bytes) -> tuple[int, bytes]:
    """Return type and body of the kernel's response, which is available as soon as the request is sent."""
    header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_SOCK_DIAG) as kernel:
        kernel.sendto(header + request, (0, 0))
        answer = kernel.recv(_MAX_RESPONSE)
    length, kind, *_ = _HEADER.unpack_from(answer)
    return kind, answer[_HEADER.size : length]


# -- /proc/net/tcp


def search_tables(peer: _Endpoint, local: _Endpoint) -> int | None:
    """Return the user found in /proc; the time grows with the number of sockets of the machine."""
    for _ in range(_TABLE_READS):
        for size, path in _TABLES.items():
            user = _find_row(path, f" {_hex(peer, size)} {_hex(local, size)} ") if size >= len(peer[0]) else None
            if user is not None:
                return user
    return None


def _find_row(path: str, ends: str) -> int | None:
    try:
        with open(path, encoding="ascii") as table:
            for row in table:
                if ends in row:
                    fields = row.split()
                    if int(fields[9]):  # the inode; 0 if no process has the socket any more
                        return int(fields[7])
    except FileNotFoundError:  # no IPv6
        pass
    return None


def _hex(end: _Endpoint, size: int) -> str:
    """Return an endpoint in the notation of the table for this address size: 32-bit words in host byte order."""
    host = end[0] if len(end[0]) == size else IPV4_MAPPED_PREFIX + end[0]
    words = (int.from_bytes(host[at : at + 4], sys.byteorder) for at in range(0, size, 4))
    return "".join(f"{word:08X}" for word in words) + f":{end[1]:04X}"
