"""Capture of warnings, library log records and unhandled exceptions, which otherwise go to standard error.

A report can occur in any thread and at any point, for example during garbage collection: it is only appended here, without a
lock, and the owner of the log drains it.
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

_MAX_REPORTS = 100  # reports kept: the newest


class LogCapture:
    """The captured reports that are not logged yet."""

    def __init__(self) -> None:
        self._reports: deque[str] = deque(maxlen=_MAX_REPORTS)

    def install(self) -> None:
        """Capture warnings, log records of libraries and unhandled exceptions from now on."""
        sys.unraisablehook = self._take_unraisable
        threading.excepthook = self._take_thread
        warnings.showwarning = self._take_warning
        logging.getLogger().addHandler(_Handler(self._reports.append))

    def drain(self, write: Callable[[str], None]) -> None:
        """Write each report as one line, once."""
        while self._reports:
            write(self._reports.popleft())

    def _take_unraisable(self, what: sys.UnraisableHookArgs) -> None:
        # Not the repr of the object, which may be partly destroyed.
        context = what.err_msg or f"ignored in {type(what.object).__name__}"
        self._put(context, _trace(what.exc_type, what.exc_value, what.exc_traceback))

    def _take_thread(self, what: threading.ExceptHookArgs) -> None:
        if what.exc_type is not SystemExit:
            name = what.thread.name if what.thread is not None else "?"
            self._put(f"exception in thread {name}", _trace(what.exc_type, what.exc_value, what.exc_traceback))

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

    def _put(self, context: str, trace: str) -> None:
        self._reports.append(f"internal error: {escape(context)}: {escape(trace, MAX_TRACE)}")


class _Handler(logging.Handler):
    """Captures log records of libraries, from level WARNING."""

    def __init__(self, put: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self._put = put

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):  # the arguments do not match the format: a bug of the library
            text = str(record.msg)
        trace = _trace(*record.exc_info) if record.exc_info else ""
        self._put(f"{record.levelname.lower()} from {escape(record.name)}: {escape(text)} {escape(trace, MAX_TRACE)}".rstrip())


def _trace(kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None) -> str:
    return "".join(traceback.format_exception(kind, value, where)) if kind is not None else ""
