"""A log sink for the local syslog daemon (RFC 3164).

Unlike syslog(3) it never blocks when the daemon does not read, and it reconnects when the daemon restarts.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Sequence

from tunnel.errors import ConfigError, describe_os_error

PATHS = ("/dev/log", "/var/run/syslog")
_DAEMON, _INFO = 3, 6  # RFC 3164, 4.1.1; one facility and one severity for all lines, as in ghostunnel
_PRIORITY = _DAEMON * 8 + _INFO
_SOCKET_TYPES = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
_FULL = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM}
_ABSENT = {errno.ENOENT, errno.EPROTOTYPE}  # less informative than the error of another path or type


class SyslogSink:
    """A `tunnel.log_output.Sink` that sends each line as one message."""

    def __init__(self, tag: str, pid: int, paths: Sequence[str] = PATHS) -> None:
        self._name = f"{tag}[{pid}]"
        self._paths = paths
        self._socket: socket.socket | None = None
        self._rest = b""  # unsent part of the current message on a stream
        self.lost = 0
        self.problem = ""
        self.is_failing = False

    def connect(self) -> None:
        """Connect unless connected; raises OSError."""
        if self._socket is None:
            self._socket = _connect(self._paths)

    def write(self, data: bytes, start: int) -> int:
        """Send one line; a missing daemon counts as a full sink."""
        end = data.find(b"\n", start) + 1 or len(data)
        try:
            self.connect()
            return end if self._send(data[start:end]) else start
        except OSError as error:
            if error.errno == errno.EMSGSIZE:  # larger than a datagram can be
                self.lost, self.problem = self.lost + 1, describe_os_error(error)
                return end
            if error.errno not in _FULL:
                self.close()
            return start

    def close(self) -> None:
        """Disconnect; the next line reconnects and is sent from its start."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._rest = None, b""

    def _send(self, line: bytes) -> bool:
        """Send a line, or the rest of it; return whether it is complete."""
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
    """Return a connected sink; raises ConfigError if there is no daemon."""
    sink = SyslogSink(tag, pid, paths)
    try:
        sink.connect()
    except OSError as error:
        problem = f"no syslog daemon at {' or '.join(paths)}: {describe_os_error(error)}"
        raise ConfigError(f"unable to set up logger: {problem}") from error
    return sink


def _connect(paths: Sequence[str]) -> socket.socket:
    """Return a non-blocking socket to the first daemon found; datagram sockets, which most daemons use, come first."""
    failure = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for kind in _SOCKET_TYPES:
        for path in paths:
            sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
            try:
                sock.connect(path)
            except OSError as error:
                sock.close()
                failure = failure if error.errno in _ABSENT else error
            else:
                return sock
    raise failure
