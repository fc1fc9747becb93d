"""Standard input and output as one socket, for whoever can only work with sockets.

Knows threads that copy; must not know what the bytes mean. The two descriptors are shared with other processes (a terminal
with the shell, a pipe with its other end's heirs) and are therefore never made non-blocking: a thread waits in each.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from tunnel.errors import describe_os_error

_STDIN, _STDOUT = 0, 1
_PIECE = 128 * 1024
_GONE = (errno.EPIPE, errno.ECONNRESET)  # whoever read it: the second is a socket's


class StandardStreams:
    """What is written to `inner` comes out, and what comes in can be read there, ends included."""

    def __init__(self, on_over: Callable[[], None]) -> None:
        """`on_over` is called from another thread when nothing more will come out."""
        self.inner, self._outer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._on_over = on_over
        self.is_broken = False  # whoever read our output has gone
        self.fault = ""  # what else has kept us from reading or writing to the end

    def start(self) -> None:
        """Begin to copy."""
        for copy in (self._copy_in, self._copy_out):
            # Daemons: nothing can wake a thread that reads from a terminal, and nobody has to.
            threading.Thread(target=copy, daemon=True).start()

    def end_input(self) -> None:
        """Take no more from standard input: the reader of `inner` sees its end."""
        with suppress(OSError):
            self._outer.shutdown(socket.SHUT_WR)

    def _copy_in(self) -> None:
        with suppress(OSError):  # nobody wants it
            while piece := self._read():
                self._outer.sendall(piece)
        self.end_input()

    def _copy_out(self) -> None:
        with suppress(OSError):
            while piece := self._outer.recv(_PIECE):
                self._write(piece)
        with suppress(OSError):
            self._outer.shutdown(socket.SHUT_RD)
        self._on_over()

    def _read(self) -> bytes:
        try:
            return _read(_STDIN)
        except OSError as error:
            self.fault = f"standard input: {describe_os_error(error)}"
            raise

    def _write(self, piece: bytes) -> None:
        try:
            _write_all(_STDOUT, piece)
        except OSError as error:
            if error.errno in _GONE:
                self.is_broken = True
            else:
                self.fault = f"standard output: {describe_os_error(error)}"
            raise


def _read(descriptor: int) -> bytes:
    """What is there, waiting for it even if somebody else has made the descriptor non-blocking."""
    while True:
        try:
            return os.read(descriptor, _PIECE)
        except BlockingIOError:
            _wait(descriptor, select.POLLIN)


def _write_all(descriptor: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            _wait(descriptor, select.POLLOUT)


def _wait(descriptor: int, events: int) -> None:
    poll = select.poll()
    poll.register(descriptor, events)
    poll.poll()
