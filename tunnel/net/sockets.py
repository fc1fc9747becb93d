"""Resolution of addresses to socket addresses, and the TCP options of every connection.

`resolve_now` never blocks; `resolve` may, so call it at start or in a thread.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from contextlib import suppress
from functools import lru_cache
from typing import Any

from tunnel.errors import TargetError, TargetFault, describe_os_error
from tunnel.ip_address import join_host_port
from tunnel.lazy_dataclass import dataclass
from tunnel.net.address import Address, UnixAddress

# The defaults of Go, and so of ghostunnel: 15 s idle, 15 s between probes, 9 probes.
_TCP_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 9),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
_PACED, _UNPACED = b"bbr", b"reno"  # every kernel has reno, and every user may select it
_NAME_BYTES = 16  # TCP_CA_NAME_MAX
_MAPPED = "::ffff:"  # the C library writes an address of ::ffff:0:0/96 with dots (RFC 5952, section 5)
_FAULTS = {
    errno.ECONNREFUSED: TargetFault.REFUSED,
    errno.ENOENT: TargetFault.REFUSED,
    errno.EMFILE: TargetFault.EXHAUSTED,
    errno.ENFILE: TargetFault.EXHAUSTED,
    errno.ETIMEDOUT: TargetFault.TIMEOUT,
}


_UNIX = int(socket.AF_UNIX)
_CACHED_ADDRESSES = 256  # of targets, as text
_read_family = socket.SocketType.family.__get__  # the property of socket.socket makes an enumeration of it: a microsecond

_NOT_FOUND = (socket.EAI_NONAME, socket.EAI_NODATA)
MAX_ADDRESSES = 64  # of one name


class NameNotFound(TargetError):
    """A name server has answered that the name does not exist: an earlier answer is no longer valid."""


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """An address family and an address of it."""

    family: int
    address: Any  # as the socket module has it: str or bytes for a Unix socket, a tuple of two or four for TCP

    def __str__(self) -> str:
        return _format_target(self.family, self.address)


def format_address(family: int, address: Any) -> str:
    """Return `tcp:HOST:PORT` or `unix:PATH`; an unnamed Unix socket is `unix:@`, an IPv4-mapped address becomes IPv4."""
    if family == socket.AF_UNIX:
        path = address.decode("utf-8", "surrogateescape") if isinstance(address, bytes) else address
        return f"unix:{path.replace(chr(0), '@', 1) or '@'}"
    host, port = address[:2]
    if family == socket.AF_INET6 and "." in host:  # a scope's name may have a dot too, and then no such prefix
        host = host.removeprefix(_MAPPED)
    return f"tcp:{join_host_port(host, port)}"


_format_target = lru_cache(_CACHED_ADDRESSES)(format_address)


def connect_error(endpoint: SocketAddress, code: int) -> TargetError:
    """Return the error for an errno of `connect`."""
    return TargetError(_FAULTS.get(code, TargetFault.UNREACHABLE), f"{endpoint}: {os.strerror(code).lower()}")


def set_tcp_options(sock: socket.socket) -> None:
    """Set keep-alive and TCP_NODELAY; on Linux, accepted connections inherit them from the listener."""
    if not is_unix(sock):
        for level, name, value in _TCP_OPTIONS:
            sock.setsockopt(level, name, value)


def use_no_pacing(sock: socket.socket, endpoint: SocketAddress) -> None:
    """Use a congestion control without pacing over loopback; connections of a listener that is bound to it inherit it.

    If the default is BBR, the kernel sets a timer for each 64 KB, which costs 10 % of a bulk transfer. Loopback loses nothing.
    """
    if endpoint.family == socket.AF_UNIX or not (endpoint.address[0] == "::1" or endpoint.address[0].startswith("127.")):
        return
    with suppress(OSError):
        if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _NAME_BYTES).startswith(_PACED):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _UNPACED)


def family_of(sock: socket.socket) -> int:
    """Return the address family of a socket."""
    return int(_read_family(sock))


def is_unix(sock: socket.socket) -> bool:
    """Whether it is a Unix socket."""
    return bool(_read_family(sock) == _UNIX)


def has_input(sock: socket.socket) -> bool:
    """Whether a non-blocking socket has input to read."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def port_number(port: str) -> int:
    """Return the number of a port, which may be the name of a service; raises TargetError."""
    if port.isascii() and port.isdigit():
        return int(port)
    try:
        return socket.getservbyname(port, "tcp")
    except OSError as error:
        raise TargetError(TargetFault.RESOLVE, f"unknown service {port!a}; expected a port number") from error


def resolve_now(address: Address) -> tuple[SocketAddress, ...] | None:
    """Return the endpoints of an address that needs no resolver, else None."""
    if isinstance(address, UnixAddress):
        path = "\0" + address.path[1:] if address.path.startswith("@") else address.path
        return (SocketAddress(socket.AF_UNIX, path),)
    if not (address.port.isascii() and address.port.isdigit()):
        return None
    port = int(address.port)
    if address.host == "localhost":
        return (SocketAddress(socket.AF_INET, ("127.0.0.1", port)), SocketAddress(socket.AF_INET6, ("::1", port)))
    try:
        ip = ipaddress.ip_address(address.host or "127.0.0.1")
    except ValueError:
        return None
    if ip.version == 6 and "%" in address.host:  # the resolver translates the scope, an interface name, to its number
        return None
    return (SocketAddress(socket.AF_INET if ip.version == 4 else socket.AF_INET6, (str(ip), port)),)


def resolve(address: Address, *, passive: bool = False) -> tuple[SocketAddress, ...]:
    """Return the endpoints of an address, from the resolver if necessary, which blocks; raises TargetError."""
    now = resolve_now(address)
    if now is not None:
        return now
    assert not isinstance(address, UnixAddress)
    flags = socket.AI_PASSIVE if passive else 0
    try:
        port_number(address.port)  # for an unknown service, the error of the resolver is unclear
        found = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM, flags=flags)
    except TargetError as error:
        raise TargetError(error.reason, f"{address}: {error}") from error
    except (OSError, UnicodeError) as error:
        why = describe_os_error(error) if isinstance(error, OSError) else "invalid host name"
        kind = NameNotFound if isinstance(error, socket.gaierror) and error.errno in _NOT_FOUND else TargetError
        raise kind(TargetFault.RESOLVE, f"{address}: {why}") from error
    return tuple(dict.fromkeys(SocketAddress(family, sockaddr) for family, _, _, _, sockaddr in found))[:MAX_ADDRESSES]
