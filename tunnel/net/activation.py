"""Socket activation: listening sockets opened by a service manager (sd_listen_fds(3)).

The variables are read before the process opens any descriptor, and then removed: a child must not use them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from tunnel.cli.variables import SOCKETS
from tunnel.errors import ConfigError, describe_os_error

FIRST_DESCRIPTOR = 3  # sd_listen_fds(3): after standard input, output and error
_MAX_DIGITS = 10  # of a count: no process has more descriptors
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


class ActivationSockets:
    """The inherited descriptors by name; each can be taken by one listener at a time, and again after that has closed.

    They stay open, as they do in the service manager: a listener gets a duplicate.
    """

    def __init__(self, names: tuple[str, ...] = (), *, why_none: str = "no inherited sockets") -> None:
        self._names = names
        self._taken: dict[int, socket.socket] = {}
        self._why_none = why_none

    def take(self, name: str) -> socket.socket:
        """Return the listening socket with this name, in non-blocking mode; raises ConfigError."""
        if not self._names:
            raise ConfigError(f"systemd:{name}: {self._why_none}; expected a socket of a .socket unit")
        found = [fd for fd, known in enumerate(self._names, FIRST_DESCRIPTOR) if known == name]
        if len(found) != 1:
            names = ", ".join(ascii(known) for known in self._names)
            problem = f"{len(found)} sockets have this name" if found else "no socket has this name"
            raise ConfigError(f"systemd:{name}: {problem}; expected exactly one in {names}")
        (fd,) = found
        if fd in self._taken and self._taken[fd].fileno() >= 0:
            raise ConfigError(f"systemd:{name}: already used by another listener")
        self._taken[fd] = _duplicate(fd, name)
        return self._taken[fd]


def take_inherited(environ: MutableMapping[str, str], pid: int) -> ActivationSockets:
    """Return the sockets passed to this process, `pid`, and remove the variables."""
    meant_for, count, names, _ = (environ.pop(name, "") for name in SOCKETS)
    if not meant_for and not count:
        return ActivationSockets()
    if meant_for != str(pid):
        return ActivationSockets(why_none=f"inherited sockets are for process {meant_for!a}, not for {pid}")
    if not (count.isascii() and count.isdigit() and len(count) <= _MAX_DIGITS):
        return ActivationSockets(why_none=f"LISTEN_FDS {count!a} is not a number")
    try:
        for fd in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count)):
            os.set_inheritable(fd, False)
    except OSError:
        return ActivationSockets(why_none=f"LISTEN_FDS is {count}, but descriptor {fd} is not open")
    return ActivationSockets(_names(int(count), names))


def _names(count: int, text: str) -> tuple[str, ...]:
    """Return the name of each descriptor; the default is made of its number."""
    given = text.split(":")
    return tuple(
        given[index] if index < len(given) and given[index] else f"LISTEN_FD_{FIRST_DESCRIPTOR + index}"
        for index in range(count)
    )


def _duplicate(fd: int, name: str) -> socket.socket:
    try:
        copy = os.dup(fd)
    except OSError as error:
        raise ConfigError(f"systemd:{name}: descriptor {fd} cannot be used: {describe_os_error(error)}") from error
    try:
        sock = socket.socket(fileno=copy)  # detects family and type
    except OSError as error:
        os.close(copy)
        raise ConfigError(f"systemd:{name}: descriptor {fd} is not a socket") from error
    is_listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.family not in _FAMILIES or sock.type != socket.SOCK_STREAM or not is_listening:
        sock.close()
        raise ConfigError(
            f"systemd:{name}: descriptor {fd} is not a listening TCP or Unix stream socket; expected ListenStream=, Accept=no"
        )
    sock.setblocking(False)  # accept must not block; accepted sockets have flags of their own (accept4(2))
    return sock
