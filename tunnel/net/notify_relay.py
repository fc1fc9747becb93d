"""A relay for the notifications (sd_notify(3)) of a command, which forwards them to the service manager from our process.

By default (NotifyAccess=main) systemd accepts notifications from the main process of a service only, which is ours.
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

_MAX_DATAGRAM = 64 * 1024  # systemd accepts 4096 bytes
_MAX_DESCRIPTORS = 253  # of one message: SCM_MAX_FD, linux/net/scm.h
_ANCILLARY = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
_INCOMPLETE = socket.MSG_TRUNC | socket.MSG_CTRUNC
_SEND_LIMIT = struct.pack("@ll", 5, 0)  # struct timeval: the limit for one notification while the queue of the manager is full
_END_LIMIT = 6.0  # seconds to forward what is queued at the end
_OF_MAIN_PROCESS = (b"MAINPID=", b"MAINPIDFD=", b"MAINPIDFDID=")


class NotifyRelay:
    """Forwards datagrams, with the descriptors in them, from `socket_path` to the manager; `start` starts its thread."""

    def __init__(self, environ: Mapping[str, str], pid: int, directory: Path) -> None:
        """`environ` is the environment of this process, `pid`, and contains NOTIFY_SOCKET; raises ConfigError."""
        self._environ, self._pid = environ, pid
        self._manager = parse_notify_address(environ.get("NOTIFY_SOCKET", ""))
        self.directory = str(directory)
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
        """Return the variables for the command, whose PID is `command`; with those of our watchdog if we have one."""
        found = {name: self._environ[name] for name in ("WATCHDOG_PID", "WATCHDOG_USEC") if name in self._environ}
        if found.get("WATCHDOG_PID") == str(self._pid):
            found["WATCHDOG_PID"] = str(command)
        return {"NOTIFY_SOCKET": self.socket_path, **found}

    def start(self) -> None:
        """Start the thread; call this after Landlock is set up, which applies to later threads only."""
        self._thread.start()

    def close(self) -> None:
        """Forward what is queued, then stop."""
        self._is_ending = True
        with suppress(OSError):
            self._ours.shutdown(socket.SHUT_RD)  # queued datagrams are still received, then EOF
        if self._thread.is_alive():
            self._thread.join(_END_LIMIT)
        if not self._thread.is_alive():  # otherwise it ends with the process
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
            with suppress(OSError):  # no manager, or its queue is full
                self._sender.sendmsg([kept], rights, 0, self._manager)


def keep_main_process(data: bytes) -> bytes:
    """Remove the fields that declare another main process: after them the manager would refuse notifications from us."""
    return b"\n".join(line for line in data.split(b"\n") if not line.startswith(_OF_MAIN_PROCESS))


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> array.array[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found
