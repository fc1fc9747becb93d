"""The log: one line per event, in ghostunnel's format, to standard output or another sink.

Before the event loop runs, each line is written at once. Then the lines of one batch of events are written together, before the
loop waits again.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Callable, Collection
from enum import Enum
from typing import Protocol

STDOUT, STDERR = 1, 2
MAX_FOREIGN_TEXT = 512  # characters of one text from another process, after escaping
MAX_TRACE = 16 * 1024  # characters of a traceback
_MAX_BACKLOG = 1024 * 1024  # bytes that wait for the reader; further lines are dropped and counted
_RETRY = 0.1  # seconds until the next attempt to write to a blocked reader
_UNSAFE = re.compile(r"[^\x20-\x7e]|[\\\[\]]")


class Category(Enum):
    """The categories of `--quiet`; lines of no other category are suppressed by `all` only."""

    CONNS = "conns"
    CONN_ERRORS = "conn-errs"
    HANDSHAKE_ERRORS = "handshake-errs"
    INFO = "info"  # suppressed by commands that log problems only; not a value of `--quiet`
    OTHER = "all"


def escape(text: str, limit: int = MAX_FOREIGN_TEXT) -> str:
    """Return printable ASCII of at most `limit` characters; brackets are escaped, because they delimit fields of a line."""
    escaped = _UNSAFE.sub(_escape_one, text[: limit + 1])
    return escaped if len(escaped) <= limit else _cut(text, limit)


def one_line(text: str, limit: int | None = None) -> str:
    """Return `text` as one printable line, cut to `limit` characters; printable characters are unchanged."""
    if limit is not None and len(text) > limit:
        text = text[:limit] + "..."
    return text if text.isprintable() else "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def _escape_one(match: re.Match[str]) -> str:
    code = ord(match.group())
    return "\\\\" if code == 0x5C else f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _cut(text: str, limit: int) -> str:
    """Escape as many whole characters as fit into `limit`."""
    end = room = 0
    while (room := room + len(_UNSAFE.sub(_escape_one, text[end]))) <= limit:
        end += 1
    return _UNSAFE.sub(_escape_one, text[:end]) + "..."


class Sink(Protocol):
    """The destination of the log. It never blocks or raises: what cannot be written now is retried, the rest is dropped."""

    def write(self, data: bytes, start: int) -> int:
        """Write some of `data` (whole ASCII lines) from `start`; return where to continue, or `start` if the sink is full."""


class DescriptorSink:
    """A sink for an open descriptor, which may be shared with other processes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write(self, data: bytes, start: int) -> int:
        # A writable descriptor accepts PIPE_BUF bytes without blocking; O_NONBLOCK would affect other processes.
        if not self._poll.poll(0):
            return start
        try:
            return start + os.write(self._descriptor, data[start : start + select.PIPE_BUF])
        except OSError:
            return len(data)


class Log:
    """Collects lines and writes them; `schedule(delay)` must arrange a call of `flush` after `delay` seconds.

    Without `schedule`, as before the event loop runs, each line is written at once unless the sink is full.
    """

    def __init__(
        self,
        quiet: Collection[Category] = (),
        *,
        schedule: Callable[[float], None] | None = None,
        clock: Callable[[], float] = time.time,
        sink: Sink | None = None,
        name: str | None = None,
    ) -> None:
        """`name` replaces process and time as the prefix of each line; "" means no prefix."""
        self._schedule = schedule
        self.change_quiet(quiet)
        self._clock = clock
        self._sink = sink or DescriptorSink(STDOUT)
        self._name = name
        self._prefix = f"[{os.getpid()}] "
        self._lines: list[str] = []
        self._backlog = b""  # not written yet
        self._dropped = 0
        self._second = -1
        self._stamp = ""

    def defer(self, schedule: Callable[[float], None]) -> None:
        """Collect lines until `flush` is called, from now on: the event loop runs."""
        self._schedule = schedule
        if self._lines or self._backlog:
            schedule(0)

    def change_quiet(self, quiet: Collection[Category]) -> None:
        """Omit lines of these categories, and of no others, from now on."""
        self._quiet = frozenset(Category) if Category.OTHER in quiet else frozenset(quiet)

    def is_enabled(self, category: Category) -> bool:
        """Return whether lines of a category are written, so that a caller can skip building them."""
        return category not in self._quiet

    def write(self, message: str, category: Category = Category.OTHER) -> None:
        """Write one line at the next flush; it is dropped and counted if the backlog is full."""
        if category in self._quiet:
            return
        if len(self._backlog) > _MAX_BACKLOG:
            self._dropped += 1
            return
        is_first = not self._lines and not self._backlog
        self._lines.append(self._format(message))
        if self._schedule is None:
            self.flush()
        elif is_first:
            self._schedule(0)

    def info(self, message: str) -> None:
        """Write one line that reports no problem."""
        self.write(message, Category.INFO)

    def flush(self) -> None:
        """Write the collected lines; errors are ignored, so that the log never stops the traffic."""
        data = self._backlog + "".join(self._lines).encode("ascii", "backslashreplace")
        self._lines.clear()
        start = 0
        while start < len(data):
            end = self._sink.write(data, start)
            if end == start:
                self._retry_later()
                break
            start = end
        self._backlog = data[start:]
        if self._dropped and not self._backlog:
            dropped, self._dropped = self._dropped, 0
            self.write(f"log reader was blocked: dropped_lines={dropped}")

    def with_fields(self, fields: str) -> Log:
        """Return a log that writes here, with these fields at the end of each line."""
        return _FieldLog(self, fields)

    def _retry_later(self) -> None:
        if self._schedule is not None:
            self._schedule(_RETRY)

    def _format(self, message: str) -> str:
        if self._name is not None:
            return f"{self._name}{': ' if self._name else ''}{one_line(message)}\n"
        now = self._clock()
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(second))
        return f"{self._prefix}{self._stamp}.{int((now - second) * 1e6):06d} {one_line(message)}\n"


class _FieldLog(Log):
    """Writes to another log, with the same fields at the end of each line."""

    def __init__(self, log: Log, fields: str) -> None:
        self._log = log
        self._fields = fields

    def is_enabled(self, category: Category) -> bool:
        return self._log.is_enabled(category)

    def write(self, message: str, category: Category = Category.OTHER) -> None:
        self._log.write(f"{message} {self._fields}", category)

    def flush(self) -> None:
        self._log.flush()
