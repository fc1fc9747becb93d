"""A relay from a command to the service manager: notifications (sd_notify(3)) of the command come from our own process.

By default (NotifyAccess=main) systemd takes them from the main process of a service only, which is ours and not the command.
"""

from __future__ import annotations

import array
import os
import socket
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tunnel.errors import ConfigError, describe_os_error
from tunnel.net.notify import parse_notify_address

_MAX_DATAGRAM = 64 * 1024  # systemd takes 4096 bytes
_MAX_DESCRIPTORS = 253  # of one message: SCM_MAX_FD, linux/net/scm.h
_ANCILLARY = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
_INCOMPLETE = socket.MSG_TRUNC | socket.MSG_CTRUNC
_SEND_LIMIT = struct.pack("@ll", 5, 0)  # struct timeval: how long a manager without room holds up one notification
_END_LIMIT = 6.0  # seconds for what was sent before the end
_OF_MAIN_PROCESS = (b"MAINPID=", b"MAINPIDFD=", b"MAINPIDFDID=")


class NotifyRelay:
    """Forwards datagrams, with the descriptors in them, from `socket_path` to the manager; `start` starts its thread."""

    def __init__(self, environ: Mapping[str, str], pid: int, directory: Path) -> None:
        """`environ` is that of the process `pid`, which is this one, and must have a NOTIFY_SOCKET; raises ConfigError."""
        self._environ, self._pid = environ, pid
        self._manager = parse_notify_address(environ.get("NOTIFY_SOCKET", ""))
        self.place = str(directory)
        self.socket_path = str(directory / "notify")
        self._ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_LIMIT)
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)
        self._is_ending = False
        try:
            self._ours.bind(self.socket_path)
        except OSError as error:
            self._close_sockets()
            raise ConfigError(f"cannot open {self.socket_path}: {describe_os_error(error)}") from error

    def variables(self, command: int) -> dict[str, str]:
        """What the command, the process `command`, is told: the watchdog watches it where it watches us."""
        found = {name: self._environ[name] for name in ("WATCHDOG_PID", "WATCHDOG_USEC") if name in self._environ}
        if found.get("WATCHDOG_PID") == str(self._pid):
            found["WATCHDOG_PID"] = str(command)
        return {"NOTIFY_SOCKET": self.socket_path, **found}

    def start(self) -> None:
        """Begin to forward; not before Landlock is set up, which binds the threads that come later."""
        self._thread.start()

    def close(self) -> None:
        """Forward what has been sent by now, and end."""
        self._is_ending = True
        with suppress(OSError):
            self._ours.shutdown(socket.SHUT_RD)  # what is in the queue is still received, then the end
        if self._thread.is_alive():
            self._thread.join(_END_LIMIT)
        if not self._thread.is_alive():  # else it ends with the process
            self._close_sockets()

    def _close_sockets(self) -> None:
        self._ours.close()
        self._sender.close()

    def _run(self) -> None:
        while True:
            try:
                data, ancillary, flags, _ = self._ours.recvmsg(_MAX_DATAGRAM, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
            except OSError:
                return
            if not data and not ancillary and self._is_ending:
                return
            descriptors = _descriptors(ancillary)
            try:
                if not flags & _INCOMPLETE:
                    self._forward(data, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _forward(self, data: bytes, descriptors: array.array[int]) -> None:
        kept = keep_main_process(data)
        if kept:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)] if descriptors else []
            with suppress(OSError):  # no manager is there, or it has no room
                self._sender.sendmsg([kept], rights, 0, self._manager)


def keep_main_process(data: bytes) -> bytes:
    """A notification without the claim that another process is the main one: the manager would refuse us from then on."""
    return b"\n".join(line for line in data.split(b"\n") if not line.startswith(_OF_MAIN_PROCESS))


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> array.array[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found
