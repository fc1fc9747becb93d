"""Opening listening sockets: shared ports, stale Unix sockets, both IP families, socket activation."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from contextlib import suppress
from enum import Enum, auto
from functools import cache
from pathlib import Path
from typing import Any

from tunnel.errors import ConfigError, TargetError, describe_os_error
from tunnel.net.activation import ActivationSockets
from tunnel.net.address import LaunchdAddress, ListenAddress, SystemdAddress, TcpAddress, UnixAddress
from tunnel.net.holders import ListeningPorts
from tunnel.net.reuseport import select_by_hash
from tunnel.net.sockets import SocketAddress, format_address, port_number, resolve, set_tcp_options, use_no_pacing

_SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
_FIRST_FREE_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_MAX_BACKLOG = 65535
# The sticky bit has no meaning for a socket. It marks a file that a process of the same user may replace while we listen.
_IS_REPLACEABLE = stat.S_ISVTX
_UNIX_MODE = _IS_REPLACEABLE | 0o777  # before the umask
_STREAM = int(socket.SOCK_STREAM)
_PEER_CREDENTIALS = struct.Struct("@iII")  # struct ucred


class Successor(Enum):
    """Who accepts connections to the address of a listener after it has closed."""

    NONE = auto()  # new connections are refused
    MANAGER = auto()  # the service manager has the same socket: connections that wait stay there for the next process
    SAME_PATH = auto()  # a socket that has replaced the file: only connections that wait already are still ours
    SAME_PORT = auto()  # a socket that shares the port: the kernel gives us a part of the connections until we close


class Listener:
    """A listening socket, and the file to remove with it."""

    def __init__(
        self,
        sock: socket.socket,
        path: Path | None = None,
        *,
        inode: int = 0,
        is_inherited: bool = False,
        replaced_pid: int | None = None,
    ) -> None:
        self.socket = sock
        self._family = int(sock.family)
        self.replaced_pid = replaced_pid  # of the process that listened at the path before; 0 if unknown
        self._path = path
        self._inode = inode
        self._is_inherited = is_inherited

    def __str__(self) -> str:
        if self._path is not None:
            return f"unix:{self._path}"  # the socket itself may have a temporary name
        return format_address(self.socket.family, self.socket.getsockname())

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection; return a non-blocking socket and the address of its peer. Raises OSError.

        The method of the socket module converts family and type to enumerations and back.
        """
        descriptor, address = self.socket._accept()  # type: ignore[attr-defined]
        sock = socket.socket(self._family, _STREAM, 0, descriptor)
        sock.setblocking(False)
        return sock, address

    def find_successor(self, ports: ListeningPorts | None = None) -> Successor:
        """Return who accepts connections once this listener is closed; `ports` are those of this moment."""
        if self._is_inherited:
            return Successor.MANAGER
        if self._path is not None:
            return Successor.SAME_PATH if self._is_replaced(self._path) else Successor.NONE
        return Successor.SAME_PORT if (ports or ListeningPorts()).count_sharing(self.socket) else Successor.NONE

    def share(self) -> Listener:
        """Return a listener with the same socket; it does not remove the file unless it takes it. Raises ConfigError."""
        try:
            return Listener(self.socket.dup(), is_inherited=self._is_inherited)
        except OSError as error:
            raise ConfigError(f"cannot listen on {self}: {describe_os_error(error)}") from error

    def take_file(self, other: Listener) -> None:
        """Own the file of the listener with which this one shares the socket."""
        self._path, self._inode, other._path = other._path, other._inode, None

    def close(self) -> None:
        """Stop listening; remove the file of a Unix socket if it is still ours."""
        self.socket.close()
        if self._path is not None:
            with suppress(OSError):
                if self._path.stat().st_ino == self._inode:
                    self._path.unlink()

    def _is_replaced(self, path: Path) -> bool:
        try:
            found = os.lstat(path)
        except OSError:
            return False
        return found.st_ino != self._inode and stat.S_ISSOCK(found.st_mode)


def open_listener(address: ListenAddress, inherited: ActivationSockets | None = None) -> Listener:
    """Open a listening, non-blocking socket; for `systemd:` take it from `inherited`. Raises ConfigError."""
    try:
        match address:
            case UnixAddress():
                return _open_unix(address)
            case TcpAddress():
                return Listener(_listen_on_port(bind_tcp(address)))
            case SystemdAddress():
                return _open_inherited(address, inherited or ActivationSockets())
            case LaunchdAddress():
                raise ConfigError(f"cannot listen on {address}: launchd exists on macOS only; expected systemd:NAME")
    except TargetError as error:
        raise ConfigError(f"cannot listen on {error}") from error
    except OSError as error:
        raise ConfigError(f"cannot listen on {address}: {describe_os_error(error)}{_advise(address, error)}") from error


def _advise(address: ListenAddress, error: OSError) -> str:
    """Return what a privileged port needs, "" for other errors."""
    if error.errno != errno.EACCES or not isinstance(address, TcpAddress):
        return ""
    first = first_free_port()
    is_privileged = port_number(address.port) < first
    return f": ports below {first} need CAP_NET_BIND_SERVICE, or socket activation (systemd:NAME)" if is_privileged else ""


def first_free_port() -> int:
    """Return the first port that a user without privileges can bind."""
    try:
        return int(_FIRST_FREE_PORT.read_text())
    except (OSError, ValueError):
        return 1024


def _open_inherited(address: SystemdAddress, inherited: ActivationSockets) -> Listener:
    """Take a socket of the manager, which also owns the file of a Unix socket."""
    sock = inherited.take(address.name)
    set_tcp_options(sock)
    use_no_pacing(sock, SocketAddress(sock.family, sock.getsockname()))
    return Listener(sock, is_inherited=True)


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
        if endpoint.family == socket.AF_UNIX:
            os.fchmod(sock.fileno(), _UNIX_MODE)  # bind gives this mode to the file
        else:
            # Two processes may share a port: the new one starts before the old one stops.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if is_dual:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        set_tcp_options(sock)
        use_no_pacing(sock, endpoint)
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


def _listen_on_port(sock: socket.socket) -> socket.socket:
    _listen(sock)
    with suppress(OSError):  # a process that has handed over, or was killed meanwhile, leaves its program to the group
        select_by_hash(sock)
    return sock


def _open_unix(address: UnixAddress) -> Listener:
    (endpoint,) = resolve(address)
    _backlog()  # read first: a client may connect as soon as the file exists
    if address.path.startswith("@"):
        return Listener(_listen(_bind(endpoint)))
    path = Path(address.path)
    pid = find_replaceable(path)
    if pid is not None:
        return _replace_unix(path, pid)
    remove_stale_socket(path)
    sock = _listen(_bind(endpoint))
    return Listener(sock, path, inode=path.stat().st_ino)


def _replace_unix(path: Path, pid: int) -> Listener:
    """Listen under a temporary name first, then rename the file: a client finds one of the two listeners at any moment."""
    temporary = path.with_name(f".{os.getpid()}")  # short: the length of the address of a Unix socket is limited
    temporary.unlink(missing_ok=True)
    (endpoint,) = resolve(UnixAddress(str(temporary)))
    sock = _listen(_bind(endpoint))
    try:
        inode = temporary.stat().st_ino
        temporary.rename(path)
    except OSError:
        sock.close()
        temporary.unlink(missing_ok=True)
        raise
    return Listener(sock, path, inode=inode, replaced_pid=pid)


def find_replaceable(path: Path) -> int | None:
    """Return the PID of another process of this program and user that listens on a Unix socket; 0 if it is unknown."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISSOCK(found.st_mode) or not found.st_mode & _IS_REPLACEABLE or found.st_uid != os.geteuid():
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        code = probe.connect_ex(str(path))
        if code != 0:
            return 0 if code == errno.EAGAIN else None  # its queue is full
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    pid: int = _PEER_CREDENTIALS.unpack(credentials)[0]
    return pid if pid != os.getpid() else None  # two listeners of one process at one path are a mistake


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
