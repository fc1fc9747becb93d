"""Names to socket addresses, and the options that every connection has.

Knows getaddrinfo and TCP's knobs; must not know who listens or dials. Numeric addresses and `localhost` are answered at
once; what needs a resolver blocks, so only a thread or start-up may ask for it.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from dataclasses import dataclass
from typing import Any

from tunnel.errors import TargetError, TargetFault, describe_os_error
from tunnel.net.address import Address, UnixAddress, join_host_port

# Go's defaults, which ghostunnel's users have: 15 s idle, 15 s between probes, 9 probes.
_TCP_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 9),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
_MAPPED = "::ffff:"  # the C library writes an address of ::ffff:0:0/96 with dots (RFC 5952, section 5)
_FAULTS = {
    errno.ECONNREFUSED: TargetFault.REFUSED,
    errno.ENOENT: TargetFault.REFUSED,
    errno.EMFILE: TargetFault.EXHAUSTED,
    errno.ENFILE: TargetFault.EXHAUSTED,
    errno.ETIMEDOUT: TargetFault.TIMEOUT,
}


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """A socket's family and its address in that family."""

    family: int
    address: Any  # str or bytes for a Unix socket, a tuple of two or four for TCP: what the socket module takes

    def __str__(self) -> str:
        return describe(self.family, self.address)


def describe(family: int, address: Any) -> str:
    """`tcp:HOST:PORT` or `unix:PATH`; an unnamed Unix socket is `unix:@`, an IPv4-mapped address is the IPv4 address."""
    if family == socket.AF_UNIX:
        path = address.decode("utf-8", "surrogateescape") if isinstance(address, bytes) else address
        return f"unix:{path.replace(chr(0), '@', 1) or '@'}"
    host, port = address[:2]
    if family == socket.AF_INET6 and "." in host:  # a scope's name may have a dot too, and then no such prefix
        host = host.removeprefix(_MAPPED)
    return f"tcp:{join_host_port(host, port)}"


def unreached(endpoint: SocketAddress, code: int) -> TargetError:
    """What an errno of `connect` means."""
    return TargetError(_FAULTS.get(code, TargetFault.UNREACHABLE), f"{endpoint}: {os.strerror(code).lower()}")


def set_tcp_options(sock: socket.socket) -> None:
    """Keep-alive and no delay; on Linux what a listener has, its accepted connections inherit."""
    if sock.family != socket.AF_UNIX:
        for level, name, value in _TCP_OPTIONS:
            sock.setsockopt(level, name, value)


def port_number(port: str) -> int:
    """The number of a port that may be a service's name; raises TargetError."""
    if port.isascii() and port.isdigit():
        return int(port)
    try:
        return socket.getservbyname(port, "tcp")
    except OSError as error:
        raise TargetError(TargetFault.RESOLVE, f"no service {port!a} is known: a port's number is wanted") from error


def resolve_now(address: Address) -> tuple[SocketAddress, ...] | None:
    """The endpoints of an address that needs no resolver, else None."""
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
    if ip.version == 6 and "%" in address.host:  # a scope is an interface's name: the resolver knows its number
        return None
    return (SocketAddress(socket.AF_INET if ip.version == 4 else socket.AF_INET6, (str(ip), port)),)


def resolve(address: Address, *, passive: bool = False) -> tuple[SocketAddress, ...]:
    """The endpoints of an address, asking the resolver if need be, which blocks; raises TargetError."""
    now = resolve_now(address)
    if now is not None:
        return now
    assert not isinstance(address, UnixAddress)
    flags = socket.AI_PASSIVE if passive else 0
    try:
        port_number(address.port)  # of a service that it does not know the resolver has no word that helps
        found = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM, flags=flags)
    except TargetError as error:
        raise TargetError(error.reason, f"{address}: {error}") from error
    except (OSError, UnicodeError) as error:
        why = describe_os_error(error) if isinstance(error, OSError) else "no name of a host"
        raise TargetError(TargetFault.RESOLVE, f"{address}: {why}") from error
    return tuple(dict.fromkeys(SocketAddress(family, sockaddr) for family, _, _, _, sockaddr in found))
