"""Standard input and output as one socket, for code that needs a socket.

The two descriptors may be shared with other processes (a terminal with the shell, for example), so they must stay in blocking
mode: one thread blocks on each.
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
_READER_CLOSED = (errno.EPIPE, errno.ECONNRESET)  # the reader has closed; ECONNRESET if it is a socket


class StandardStreams:
    """Copies standard input to `inner` and `inner` to standard output, EOF included."""

    def __init__(self, on_output_end: Callable[[], None]) -> None:
        """`on_output_end` is called from another thread when the output is complete."""
        self.inner, self._outer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._on_output_end = on_output_end
        self.is_broken = False  # the reader of standard output has closed
        self.fault = ""  # any other error of standard input or output

    def start(self) -> None:
        """Start the two threads."""
        for copy in (self._copy_in, self._copy_out):
            # Daemon threads: a thread that reads from a terminal cannot be woken, and need not be.
            threading.Thread(target=copy, daemon=True).start()

    def end_input(self) -> None:
        """Stop reading standard input: the reader of `inner` gets EOF."""
        with suppress(OSError):
            self._outer.shutdown(socket.SHUT_WR)

    def _copy_in(self) -> None:
        with suppress(OSError):  # `inner` is closed
            while piece := self._read():
                self._outer.sendall(piece)
        self.end_input()

    def _copy_out(self) -> None:
        with suppress(OSError):
            while piece := self._outer.recv(_PIECE):
                self._write(piece)
        with suppress(OSError):
            self._outer.shutdown(socket.SHUT_RD)
        self._on_output_end()

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
            if error.errno in _READER_CLOSED:
                self.is_broken = True
            else:
                self.fault = f"standard output: {describe_os_error(error)}"
            raise


def _read(descriptor: int) -> bytes:
    """Read what is available; waits even if another process has made the descriptor non-blocking."""
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
