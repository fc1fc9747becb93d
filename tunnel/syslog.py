"""The log's way to the syslog daemon of this machine.

Knows the local form of RFC 3164 and the daemon's sockets; must not know what a line says. The C library's syslog(3) waits when
the daemon does not read: this one never does. The daemon may be restarted at any time, and is found again.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Sequence

from tunnel.errors import ConfigError, describe_os_error

PATHS = ("/dev/log", "/var/run/syslog")
_DAEMON, _INFO = 3, 6  # RFC 3164, 4.1.1: one facility and one priority for everything, as ghostunnel has it
_PRIORITY = _DAEMON * 8 + _INFO
_KINDS = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
_NO_ROOM = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM}
_NOT_HERE = {errno.ENOENT, errno.EPROTOTYPE}  # says less than whatever another path or kind said


class SyslogSink:
    """A `tunnel.log.Sink`: each line a message, to the first daemon that listens."""

    def __init__(self, tag: str, pid: int, paths: Sequence[str] = PATHS) -> None:
        self._name = f"{tag}[{pid}]"
        self._paths = paths
        self._socket: socket.socket | None = None
        self._rest = b""  # what a stream has not taken yet of the line at hand

    def connect(self) -> None:
        """Find the daemon, unless that has been done; raises OSError."""
        if self._socket is None:
            self._socket = _connect(self._paths)

    def write(self, data: bytes, start: int) -> int:
        """Send one line; no room is also while no daemon is there."""
        end = data.find(b"\n", start) + 1 or len(data)
        try:
            self.connect()
            return end if self._send(data[start:end]) else start
        except OSError as error:
            if error.errno == errno.EMSGSIZE:  # will never fit
                return end
            if error.errno not in _NO_ROOM:
                self.close()
            return start

    def close(self) -> None:
        """Leave the daemon; the next line looks for it again, and is sent from its beginning."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._rest = None, b""

    def _send(self, line: bytes) -> bool:
        """Whether the whole line has gone."""
        sock = self._socket
        assert sock is not None
        if sock.type == socket.SOCK_DGRAM:
            sock.send(self._frame(line).rstrip(b"\n"))
            return True
        self._rest = self._rest or self._frame(line)
        self._rest = self._rest[sock.send(self._rest) :]
        return not self._rest

    def _frame(self, line: bytes) -> bytes:
        return f"<{_PRIORITY}>{time.strftime('%b %e %H:%M:%S')} {self._name}: ".encode("ascii", "backslashreplace") + line


def open_syslog(tag: str, pid: int, paths: Sequence[str] = PATHS) -> SyslogSink:
    """A way to the daemon, which must be there now; raises ConfigError."""
    sink = SyslogSink(tag, pid, paths)
    try:
        sink.connect()
    except OSError as error:
        where = " or ".join(paths)
        why = describe_os_error(error)
        raise ConfigError(f"unable to set up logger: no syslog daemon answers at {where}: {why}") from error
    return sink


def _connect(paths: Sequence[str]) -> socket.socket:
    """A non-blocking socket to the first daemon found; datagrams, which most daemons take, before streams."""
    failure = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for kind in _KINDS:
        for path in paths:
            sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
            try:
                sock.connect(path)
            except OSError as error:
                sock.close()
                failure = failure if error.errno in _NOT_HERE else error
            else:
                return sock
    raise failure
