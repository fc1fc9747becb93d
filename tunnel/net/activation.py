"""Listening sockets that a service manager has opened for us (sd_listen_fds(3)).

Knows the three variables and which descriptors they name; must not know who will accept. The variables are read once, before
the process opens anything, and are gone afterwards: a child must not take them for its own.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from tunnel.cli.variables import SOCKETS
from tunnel.errors import ConfigError

FIRST_DESCRIPTOR = 3  # sd_listen_fds(3): behind standard input, output and error
_MAX_DIGITS = 10  # of a count: no process has more descriptors
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


class ActivationSockets:
    """The descriptors that were handed over, by name; each is given out once."""

    def __init__(self, names: tuple[str, ...] = (), *, why_none: str = "no sockets were handed over") -> None:
        self._names = names
        self._taken: set[int] = set()
        self._why_none = why_none

    def take(self, name: str) -> socket.socket:
        """The one listening socket of this name, now non-blocking; raises ConfigError."""
        if not self._names:
            raise ConfigError(f"systemd:{name}: {self._why_none}; is the process started by a .socket unit?")
        found = [fd for fd, known in enumerate(self._names, FIRST_DESCRIPTOR) if known == name]
        if len(found) != 1:
            what = f"{len(found)} sockets have this name, and one is wanted" if found else "no socket has this name"
            names = ", ".join(ascii(known) for known in self._names)
            raise ConfigError(f"systemd:{name}: {what}; handed over: {names}")
        (fd,) = found
        if fd in self._taken:
            raise ConfigError(f"systemd:{name}: this socket is in use already; another place to listen needs one of its own")
        sock = _adopt(fd, name)
        self._taken.add(fd)
        return sock


def take_inherited(environ: MutableMapping[str, str], pid: int) -> ActivationSockets:
    """What was handed over to the process `pid`, which is this one; the variables are gone afterwards."""
    meant_for, count, names, _ = (environ.pop(name, "") for name in SOCKETS)
    if not meant_for and not count:
        return ActivationSockets()
    if meant_for != str(pid):
        return ActivationSockets(why_none=f"sockets were handed over to process {meant_for!a}, and this is {pid}")
    if not (count.isascii() and count.isdigit() and len(count) <= _MAX_DIGITS):
        return ActivationSockets(why_none=f"LISTEN_FDS is {count!a}, and a number is wanted")
    try:
        for fd in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count)):
            os.set_inheritable(fd, False)
    except OSError:
        return ActivationSockets(why_none=f"LISTEN_FDS is {count}, and descriptor {fd} is not open")
    return ActivationSockets(_names(int(count), names))


def _names(count: int, text: str) -> tuple[str, ...]:
    """The name of each descriptor; a missing or empty one is made of its number."""
    given = text.split(":")
    return tuple(
        given[index] if index < len(given) and given[index] else f"LISTEN_FD_{FIRST_DESCRIPTOR + index}"
        for index in range(count)
    )


def _adopt(fd: int, name: str) -> socket.socket:
    try:
        sock = socket.socket(fileno=fd)  # finds out family and kind by itself
    except OSError as error:
        raise ConfigError(f"systemd:{name}: descriptor {fd} is no socket") from error
    is_listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.family not in _FAMILIES or sock.type != socket.SOCK_STREAM or not is_listening:
        sock.detach()
        raise ConfigError(
            f"systemd:{name}: descriptor {fd} is no listening TCP or Unix stream socket; use ListenStream= with Accept=no"
        )
    sock.setblocking(False)  # the accepting loop must never wait; what it accepts has flags of its own (accept4(2))
    return sock
