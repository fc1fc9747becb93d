"""A log sink that appends to a file on a thread of its own, because a write to a disk can block.

The thread starts with the first line: Landlock restricts only threads that begin later.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from tunnel.errors import ConfigError, describe_os_error
from tunnel.log_output import MAX_BACKLOG, AppenderSink, LineAppender

_MODE: Final = 0o640  # an access log has the names of peers
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_CHECK_INTERVAL: Final = 1.0  # seconds between two looks at whether the file was moved
_MAX_WARNINGS: Final = 10


class LogFile(AppenderSink):
    """A sink for the file at a path; it follows the path when the file is moved or removed, and at `reopen`."""

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Open the file, and create it if it does not exist; raises ConfigError."""
        self._path = path
        self._clock = clock
        try:
            super().__init__(LineAppender(_open(path)))
        except OSError as error:
            raise ConfigError(f"access log {path}: {_describe(path, error)}") from error
        self._changed = threading.Condition()
        self._waiting: list[bytes] = []
        self._size = 0  # bytes that the thread has not written yet
        self._must_reopen = False
        self._is_closed = False
        self._checked_at = clock()
        self._has_failed = False  # to open the file again
        self._thread: threading.Thread | None = None
        self.warnings: deque[str] = deque(maxlen=_MAX_WARNINGS)  # for the log; the reader removes them

    def write(self, data: bytes, start: int) -> int:
        """Pass lines to the thread; the sink is full while the thread has too many, or cannot be started."""
        with self._changed:
            if self._size > MAX_BACKLOG or self._is_closed or not self._has_thread():
                return start
            self._waiting.append(data[start:] if start else data)
            self._size += len(data) - start
            self._changed.notify()
        return len(data)

    def reopen(self) -> None:
        """Open the path again before the next line: the file was moved by a log rotation."""
        with self._changed:
            self._must_reopen = True
            if self._has_thread():
                self._changed.notify()

    def close(self, limit: float) -> None:
        """Write what waits, for at most `limit` seconds, and close the file."""
        with self._changed:
            is_closed, self._is_closed = self._is_closed, True
            self._changed.notify()
        if is_closed:
            return
        if self._thread is not None:
            self._thread.join(limit)
        if self._thread is None or not self._thread.is_alive():
            _close(self._appender.descriptor)

    def _has_thread(self) -> bool:
        """Start the thread if it does not run; False if the limit of processes or memory does not allow it now."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="access-log", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread
        return True

    # -- on the thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._must_reopen or self._is_closed):
                    self._changed.wait()
                waiting, self._waiting = self._waiting, []
                must_reopen, self._must_reopen = self._must_reopen, False
                is_last = self._is_closed
            if must_reopen or self._is_moved():
                self._open_again()
            self._append(b"".join(waiting))
            if is_last and not waiting:
                return

    def _append(self, data: bytes) -> None:
        start = 0
        while start < len(data):
            start = self._appender.write(data, start, len(data))
        with self._changed:
            self._size -= len(data)

    def _is_moved(self) -> bool:
        """Whether the path leads to no file or to another one; asked once a second."""
        now = self._clock()
        if now - self._checked_at < _CHECK_INTERVAL:
            return False
        self._checked_at = now
        try:
            there, ours = os.stat(self._path), os.fstat(self._appender.descriptor)
        except OSError:  # of a network file system, also of a file that is open
            return True
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)

    def _open_again(self) -> None:
        """Open the path; after a failure the previous file stays in use, and that is reported once."""
        try:
            descriptor = _open(self._path)
        except OSError as error:
            if not self._has_failed:
                self.warnings.append(
                    f"cannot open access log again: {self._path}: {_describe(self._path, error)}; keeping the previous file"
                )
            self._has_failed = True
            return
        self._has_failed = False
        previous = self._appender.descriptor
        self._appender.use(descriptor)
        _close(previous)


def check_log_file(path: str) -> None:
    """Raise ConfigError if a file could not be opened now; creates nothing."""
    try:
        try:
            os.close(os.open(path, _FLAGS & ~os.O_CREAT))
        except FileNotFoundError:
            folder = os.path.dirname(path) or "."
            os.stat(folder)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None
    except OSError as error:
        raise ConfigError(f"access log {path}: {_describe(path, error)}") from error


def _open(path: str) -> int:
    """Open a file, or a FIFO that a process reads, to append to it; writes may block."""
    descriptor = os.open(path, _FLAGS, _MODE)
    os.set_blocking(descriptor, True)
    return descriptor


def _close(descriptor: int) -> None:
    """Close a file; a network file system reports earlier writes that have failed only now, and the file is closed anyway."""
    with suppress(OSError):
        os.close(descriptor)


def _describe(path: str, error: OSError) -> str:
    if error.errno != errno.ENXIO:
        return describe_os_error(error)
    return "is a socket; expected a file" if Path(path).is_socket() else "no process reads this FIFO"
