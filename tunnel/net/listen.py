"""Opening listening sockets: shared ports, stale Unix sockets, both IP families, socket activation."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from functools import cache
from pathlib import Path

from tunnel.errors import ConfigError, TargetError, describe_os_error
from tunnel.net.activation import ActivationSockets
from tunnel.net.address import LaunchdAddress, ListenAddress, SystemdAddress, TcpAddress, UnixAddress
from tunnel.net.sockets import SocketAddress, format_address, resolve, set_tcp_options

_SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
_MAX_BACKLOG = 65535


class Listener:
    """A listening socket, and the file to remove with it."""

    def __init__(self, sock: socket.socket, path: Path | None) -> None:
        self.socket = sock
        self._path = path
        self._inode = path.stat().st_ino if path else 0

    def __str__(self) -> str:
        return format_address(self.socket.family, self.socket.getsockname())

    def close(self) -> None:
        """Stop listening; remove the file of a Unix socket if it is still ours."""
        self.socket.close()
        if self._path is not None:
            with suppress(OSError):
                if self._path.stat().st_ino == self._inode:
                    self._path.unlink()


def open_listener(address: ListenAddress, inherited: ActivationSockets | None = None) -> Listener:
    """Open a listening, non-blocking socket; for `systemd:` take it from `inherited`. Raises ConfigError."""
    try:
        match address:
            case UnixAddress():
                return _open_unix(address)
            case TcpAddress():
                return Listener(_listen(bind_tcp(address)), None)
            case SystemdAddress():
                return _open_inherited(address, inherited or ActivationSockets())
            case LaunchdAddress():
                raise ConfigError(f"cannot listen on {address}: launchd exists on macOS only; expected systemd:NAME")
    except TargetError as error:
        raise ConfigError(f"cannot listen on {error}") from error
    except OSError as error:
        why = describe_os_error(error)
        raise ConfigError(f"cannot listen on {address}: {why}") from error


def _open_inherited(address: SystemdAddress, inherited: ActivationSockets) -> Listener:
    """Take a socket of the manager, which also owns the file of a Unix socket."""
    sock = inherited.take(address.name)
    set_tcp_options(sock)
    return Listener(sock, None)


def bind_tcp(address: TcpAddress) -> socket.socket:
    """Return a bound socket that does not listen yet; raises OSError and TargetError."""
    if not address.host:
        return _bind_any(address.port)
    found = resolve(address, passive=True)
    # Prefer the IPv4 address, as Go does: `localhost` is 127.0.0.1 only.
    return _bind(next((endpoint for endpoint in found if endpoint.family == socket.AF_INET), found[0]))


def _bind_any(port: str) -> socket.socket:
    """Bind to every address, of both families if the kernel has IPv6."""
    number = resolve(TcpAddress("", port), passive=True)[0].address[1]
    try:
        return _bind(SocketAddress(socket.AF_INET6, ("::", number)), is_dual=True)
    except OSError as error:
        if socket.has_ipv6 and error.errno not in _NO_IPV6:
            raise
        return _bind(SocketAddress(socket.AF_INET, ("0.0.0.0", number)))  # noqa: S104  # the meaning of an empty host


_NO_IPV6 = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}


def _bind(endpoint: SocketAddress, *, is_dual: bool = False) -> socket.socket:
    sock = socket.socket(endpoint.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if endpoint.family != socket.AF_UNIX:
            # Two processes may share a port: the new one starts before the old one stops.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if is_dual:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        set_tcp_options(sock)
        sock.bind(endpoint.address)
    except OSError:
        sock.close()
        raise
    return sock


def _listen(sock: socket.socket) -> socket.socket:
    try:
        sock.listen(_backlog())
    except OSError:
        sock.close()
        raise
    return sock


def _open_unix(address: UnixAddress) -> Listener:
    (endpoint,) = resolve(address)
    _backlog()  # read first: a client may connect as soon as the file exists
    if address.path.startswith("@"):
        return Listener(_listen(_bind(endpoint)), None)
    path = Path(address.path)
    remove_stale_socket(path)
    return Listener(_listen(_bind(endpoint)), path)


def remove_stale_socket(path: Path) -> None:
    """Remove a Unix socket that no process listens on; for any other file, bind fails."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except FileNotFoundError:
        return
    if is_stale_socket(str(path)):
        path.unlink()


def is_stale_socket(path: str) -> bool:
    """Whether no process listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED


@cache
def _backlog() -> int:
    """Return the largest backlog that the kernel allows; read once, so that two sockets open without delay in between."""
    try:
        return min(int(_SOMAXCONN.read_text()), _MAX_BACKLOG)
    except (OSError, ValueError):
        return socket.SOMAXCONN
