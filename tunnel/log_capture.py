"""Reports that nobody asked for, on their way to the log: standard error is not their place.

Knows the four ways in which the interpreter and libraries speak up by themselves; must not know what led to it. A report can
come in any thread and in the middle of anything, such as a collection of garbage: it is only put down here, without a lock, and
the owner of the log fetches it.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from tunnel.log import MAX_TRACE, escape

_MOST = 100  # that wait to be fetched: the newest


class LogCapture:
    """What was said and not yet fetched."""

    def __init__(self) -> None:
        self._reports: deque[str] = deque(maxlen=_MOST)

    def install(self) -> None:
        """From now on collect warnings, log records of libraries, and exceptions that nobody could catch."""
        sys.unraisablehook = self._take_unraisable
        threading.excepthook = self._take_thread
        warnings.showwarning = self._take_warning
        logging.getLogger().addHandler(_Handler(self._reports.append))

    def drain(self, write: Callable[[str], None]) -> None:
        """Write each report as one line, once."""
        while self._reports:
            write(self._reports.popleft())

    def _take_unraisable(self, what: sys.UnraisableHookArgs) -> None:
        # Never the object's own repr: it may be half gone.
        where = what.err_msg or f"ignored in {type(what.object).__name__}"
        self._put(where, _trace(what.exc_type, what.exc_value, what.exc_traceback))

    def _take_thread(self, what: threading.ExceptHookArgs) -> None:
        if what.exc_type is not SystemExit:
            name = what.thread.name if what.thread is not None else "a thread"
            self._put(f"end of {name}", _trace(what.exc_type, what.exc_value, what.exc_traceback))

    def _take_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        self._reports.append(f"warning: {escape(f'{category.__name__}: {message} ({filename}:{lineno})')}")

    def _put(self, where: str, trace: str) -> None:
        self._reports.append(f"internal error: {escape(where)}: {escape(trace, MAX_TRACE)}")


class _Handler(logging.Handler):
    """What libraries log, from warnings upward."""

    def __init__(self, put: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self._put = put

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):  # its arguments do not fit: the logger's mistake, not ours to raise
            text = str(record.msg)
        trace = _trace(*record.exc_info) if record.exc_info else ""
        self._put(f"{record.levelname.lower()} of {escape(record.name)}: {escape(text)} {escape(trace, MAX_TRACE)}".rstrip())


def _trace(kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None) -> str:
    return "".join(traceback.format_exception(kind, value, where)) if kind is not None else ""
