"""Output of log lines that never blocks: lines are collected, written together, and dropped and counted if nobody reads."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Protocol

MAX_BACKLOG = 1024 * 1024  # bytes that wait for the reader; further lines are dropped
_RETRY = 0.1  # seconds until the next attempt to write to a blocked reader


class Sink(Protocol):
    """The destination of lines. It never blocks or raises: what cannot be written now is retried, what fails is lost."""

    @property
    def lost(self) -> int:
        """Lines that could not be written, since the start."""

    @property
    def problem(self) -> str:
        """Why lines were lost the last time; "" if none were."""

    @property
    def is_failing(self) -> bool:
        """Whether the last line was lost."""

    def write(self, data: bytes, start: int) -> int:
        """Write some of `data` (whole ASCII lines) from `start`; return where to continue, or `start` if the sink is full."""


class LineAppender:
    """Writes lines to a descriptor; after a failure in the middle of a line the next one begins on a new line."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.lost = 0
        self.problem = ""
        self.is_failing = False
        self._is_in_line = False
        self._is_torn = False

    def use(self, descriptor: int) -> None:
        """Write to another descriptor from now on."""
        self.descriptor = descriptor
        self._is_in_line = self._is_torn = False

    def write(self, data: bytes, start: int, end: int) -> int:
        """Write some of `data` up to `end`; after an error all of `data` is lost."""
        prefix = b"\n" if self._is_torn else b""
        try:
            written = os.write(self.descriptor, prefix + data[start:end]) - len(prefix)
        except BlockingIOError:
            return start
        except OSError as error:
            self.lost += data.count(b"\n", start)
            self.problem = error.strerror or str(error)
            self.is_failing = True
            self._is_torn = self._is_in_line or self._is_torn
            self._is_in_line = False
            return len(data)
        self._is_torn = self.is_failing = False
        self._is_in_line = written > 0 and data[start + written - 1 : start + written] != b"\n"
        return start + max(written, 0)


class AppenderSink:
    """The part of a sink that tells what its appender could not write."""

    def __init__(self, appender: LineAppender) -> None:
        self._appender = appender

    @property
    def lost(self) -> int:
        """Lines that could not be written."""
        return self._appender.lost

    @property
    def problem(self) -> str:
        """Why lines were lost the last time."""
        return self._appender.problem

    @property
    def is_failing(self) -> bool:
        """Whether the last line was lost."""
        return self._appender.is_failing


class DescriptorSink(AppenderSink):
    """A sink for an open descriptor, which may be shared with other processes."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(LineAppender(descriptor))
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write(self, data: bytes, start: int) -> int:
        """Write up to PIPE_BUF bytes, which a writable descriptor accepts without blocking.

        O_NONBLOCK would affect other processes.
        """
        if not self._poll.poll(0):
            return start
        return self._appender.write(data, start, start + select.PIPE_BUF - 1)  # one for the end of a torn line


class LineOutput:
    """Collects lines and writes them; `schedule(delay)` must arrange a call of `flush` after `delay` seconds.

    Without `schedule`, as before the event loop runs, each line is written at once unless the sink is full.
    """

    def __init__(self, sink: Sink, schedule: Callable[[float], None] | None = None, *, max_backlog: int = MAX_BACKLOG) -> None:
        self._sink = sink
        self._schedule = schedule
        self._is_flush_near = False  # scheduled without a delay
        self._max_backlog = max_backlog
        self._lines: list[str] = []
        self._backlog = b""  # not written yet
        self._dropped = 0  # because the backlog was full
        self._reported = self._lost = 0  # at the last report
        self._was_failing = False  # at the last flush
        self.on_dropped: Callable[[int, str], None] = lambda _dropped, _cause: None
        self.on_failed: Callable[[str], None] = lambda _cause: None

    @property
    def dropped(self) -> int:
        """Lines that were not written and never will be, since the start."""
        return self._dropped + self._sink.lost

    def defer(self, schedule: Callable[[float], None]) -> None:
        """Collect lines until `flush` is called, from now on: the event loop runs."""
        self._schedule = schedule
        if self._lines or self._backlog:
            schedule(0)

    def write(self, line: str, delay: float = 0.0) -> None:
        """Write one line of ASCII with its end at the next flush, at the latest after `delay` seconds if the event loop runs.

        It is dropped and counted if the backlog is full.
        """
        if len(self._backlog) > self._max_backlog:
            self._dropped += 1
            return
        is_first = not self._lines and not self._backlog
        self._lines.append(line)
        if self._schedule is None:
            self.flush()
        elif is_first or not (delay or self._is_flush_near or self._backlog):
            self._is_flush_near = not delay
            self._schedule(delay)

    def flush(self) -> None:
        """Write the collected lines; errors are counted and else ignored, so that a log never stops the traffic."""
        data = self._backlog + "".join(self._lines).encode("ascii", "backslashreplace")
        self._lines.clear()
        self._is_flush_near = False
        start = 0
        while start < len(data):
            end = self._sink.write(data, start)
            if end == start:
                if self._schedule is not None:
                    self._schedule(_RETRY)
                break
            start = end
        self._backlog = data[start:]
        self._report_failed()
        if not self._backlog and not self._sink.is_failing:
            self.report_dropped()

    def _report_failed(self) -> None:
        """Call `on_failed` with the cause when writes begin to fail."""
        was_failing, self._was_failing = self._was_failing, self._sink.is_failing
        if self._was_failing and not was_failing:
            self.on_failed(self._sink.problem)

    def report_dropped(self) -> None:
        """Call `on_dropped` with the number of lines that were dropped since the last call, and the cause, if there are any."""
        dropped = self.dropped - self._reported
        if dropped:
            cause = self._sink.problem if self._sink.lost > self._lost else ""
            self._reported, self._lost = self._reported + dropped, self._sink.lost
            self.on_dropped(dropped, cause)
