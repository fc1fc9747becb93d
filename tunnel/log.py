"""The log: one event, one line, in ghostunnel's format, on standard output or wherever its sink leads.

Knows the clock's notation, the categories that can be silenced and how hostile text is made harmless; must not know what
any line means. Before the event loop runs each line is written at once; from then on lines of one batch of events leave in one
write, before the loop waits again.
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
MAX_FOREIGN_TEXT = 512  # characters of one text that somebody else has written, as it stands in the line
MAX_TRACE = 16 * 1024  # characters of a traceback of ours
_MAX_BACKLOG = 1024 * 1024  # bytes that wait for a reader; what comes then is lost and counted
_RETRY = 0.1  # seconds until a reader that stands still is looked at again
_UNSAFE = re.compile(r"[^\x20-\x7e]|[\\\[\]]")


class Category(Enum):
    """What `--quiet` can silence; other lines only fall silent under `all`."""

    CONNS = "conns"
    CONN_ERRORS = "conn-errs"
    HANDSHAKE_ERRORS = "handshake-errs"
    NEWS = "news"  # all is well: what a tool that speaks only of trouble leaves out, and no word of `--quiet`
    OTHER = "all"


def escape(text: str, limit: int = MAX_FOREIGN_TEXT) -> str:
    """Printable ASCII in one line, cut to `limit` characters; brackets are escaped, since they delimit fields of the log."""
    escaped = _UNSAFE.sub(_escape_one, text[: limit + 1])
    return escaped if len(escaped) <= limit else _cut(text, limit)


def one_line(text: str, limit: int | None = None) -> str:
    """`text` as one line that a terminal shows and never obeys, cut to `limit` characters; what is printable stays as it is."""
    if limit is not None and len(text) > limit:
        text = text[:limit] + "..."
    return text if text.isprintable() else "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def _escape_one(match: re.Match[str]) -> str:
    code = ord(match.group())
    return "\\\\" if code == 0x5C else f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _cut(text: str, limit: int) -> str:
    """As many whole characters as have room when they are escaped."""
    end = room = 0
    while (room := room + len(_UNSAFE.sub(_escape_one, text[end]))) <= limit:
        end += 1
    return _UNSAFE.sub(_escape_one, text[:end]) + "..."


class Sink(Protocol):
    """Where the bytes go. Nothing here waits or raises: what cannot be had is lost, what has no room comes again."""

    def write(self, data: bytes, start: int) -> int:
        """Take some of `data`, whole lines of ASCII, from `start` on; where to go on, or `start` if there is no room now."""


class DescriptorSink:
    """An open descriptor, which may be shared with other processes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._room = select.poll()
        self._room.register(descriptor, select.POLLOUT)

    def write(self, data: bytes, start: int) -> int:
        # Whatever is ready takes this much without blocking; a shared descriptor is not ours to make non-blocking.
        if not self._room.poll(0):
            return start
        try:
            return start + os.write(self._descriptor, data[start : start + select.PIPE_BUF])
        except OSError:
            return len(data)


class Log:
    """Collects lines and writes them out; `schedule` is asked to have `flush` called, in so many seconds.

    Without one every line is written at once, as far as the sink has room: so it is until the event loop runs.
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
        """With a `name` it stands before each line in the place of process and time; "" for lines as they are."""
        self._schedule = schedule
        self._quiet = frozenset(Category) if Category.OTHER in quiet else frozenset(quiet)
        self._clock = clock
        self._sink = sink or DescriptorSink(STDOUT)
        self._name = name
        self._prefix = f"[{os.getpid()}] "
        self._lines: list[str] = []
        self._backlog = b""  # what has found no room yet
        self._lost = 0
        self._second = -1
        self._stamp = ""

    def defer(self, schedule: Callable[[float], None]) -> None:
        """From now on collect lines until `flush` is called: the event loop runs."""
        self._schedule = schedule
        if self._lines or self._backlog:
            schedule(0)

    def wants(self, category: Category) -> bool:
        """Whether lines of a category are written at all: spares building those that are not."""
        return category not in self._quiet

    def write(self, message: str, category: Category = Category.OTHER) -> None:
        """One line, at the next flush; lost, and counted, while a reader has stood still for too long."""
        if category in self._quiet:
            return
        if len(self._backlog) > _MAX_BACKLOG:
            self._lost += 1
            return
        is_first = not self._lines and not self._backlog
        self._lines.append(self._stamped(message))
        if self._schedule is None:
            self.flush()
        elif is_first:
            self._schedule(0)

    def tell(self, message: str) -> None:
        """One line that says how things go, while they go well."""
        self.write(message, Category.NEWS)

    def flush(self) -> None:
        """Write what has been collected; a log that cannot be written never stops the traffic."""
        data = self._backlog + "".join(self._lines).encode("ascii", "backslashreplace")
        self._lines.clear()
        start = 0
        while start < len(data):
            end = self._sink.write(data, start)
            if end == start:
                self._ask_again()
                break
            start = end
        self._backlog = data[start:]
        if self._lost and not self._backlog:
            lost, self._lost = self._lost, 0
            self.write(f"{lost} lines are missing here: nobody read the log")

    def _ask_again(self) -> None:
        if self._schedule is not None:
            self._schedule(_RETRY)

    def _stamped(self, message: str) -> str:
        if self._name is not None:
            return f"{self._name}{': ' if self._name else ''}{one_line(message)}\n"
        now = self._clock()
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(second))
        return f"{self._prefix}{self._stamp}.{int((now - second) * 1e6):06d} {one_line(message)}\n"
