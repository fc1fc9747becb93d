"""A rate limit for log lines about refused peers: a few per source, reason and window, then a count."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Protocol

from tunnel.lazy_dataclass import dataclass, field
from tunnel.log import Category, escape

WINDOW = 10.0  # seconds
EQUAL_LINES = 5  # per window, that differ only in the port
LINES = 20  # per window, source and reason; clients behind one load balancer are one source
MAX_ENTRIES = 1024  # windows kept; one more evicts the oldest
_PREFIX = 64  # bits of an IPv6 address that identify a source: a host usually has the whole prefix


class LineWriter(Protocol):
    """The part of a log that is used here."""

    def is_enabled(self, category: Category) -> bool:
        """Return whether lines of a category are written."""

    def write(self, message: str, category: Category = ..., *, at: float | None = None) -> None:
        """Write one line about an event of this time, or of now."""


@dataclass(slots=True)
class _Window:
    ends: float
    written: int = 0
    suppressed: int = 0
    equal: dict[int, int] = field(default_factory=dict)  # lines by the hash of their text

    def admit(self, text: str) -> bool:
        """Count one more line as written or suppressed; return whether to write it."""
        count = self.equal.get(hash(text), 0)
        if self.written >= LINES or count >= EQUAL_LINES:
            self.suppressed += 1
            return False
        self.written += 1
        self.equal[hash(text)] = count + 1
        return True


_Key = tuple[Category, str, str]  # category, source, reason


ReportCount = Callable[[Category, str, str, int], object]  # category, source, reason, number of suppressed refusals
CallLater = Callable[[float, Callable[[], object]], object]  # arranges a call after a delay in seconds


class RefusalLog:
    """Writes lines about refused peers; the first of a window is always written, and every suppressed one is counted."""

    def __init__(self, log: LineWriter, clock: Callable[[], float], call_later: CallLater) -> None:
        self._log = log
        self._limit = RefusalLimit(clock, call_later, self._write_count)

    def write(self, peer: str, reason: str, line: str, category: Category, at: float | None = None) -> None:
        """Write a line about `peer` (an address with a port), or count it as suppressed; `at` is as in `Log.write`."""
        if not self._log.is_enabled(category):
            return
        suppressed = self._limit.admit(peer, reason, line, category)
        if suppressed is not None:
            self._log.write(f"{line} suppressed={suppressed}" if suppressed else line, category, at=at)

    def flush(self) -> None:
        """Write all pending counts."""
        self._limit.flush()

    def _write_count(self, category: Category, source: str, reason: str, suppressed: int) -> None:
        line = f"similar refusals suppressed: from={escape(source)} reason={reason} suppressed={suppressed}"
        self._log.write(line, category)


class RefusalLimit:
    """Decides which refusals are written, and passes the count of the others to `report` at the end of each window."""

    def __init__(self, clock: Callable[[], float], call_later: CallLater, report: ReportCount) -> None:
        self._clock = clock
        self._call_later = call_later
        self._report = report
        self._windows: dict[_Key, _Window] = {}  # in the order in which they end

    def admit(self, peer: str, reason: str, text: str, category: Category) -> int | None:
        """Return how many equal refusals were suppressed before this one, or None if it is suppressed too.

        `peer` is an address with a port; texts that differ only in it are equal.
        """
        key, now = (category, source_of(peer), reason), self._clock()
        window = self._windows.get(key)
        suppressed = 0
        if window is None or window.ends <= now:
            suppressed = window.suppressed if window is not None else 0
            window = self._open(key, now)
        return suppressed if window.admit(text.replace(peer.removeprefix("tcp:"), "")) else None

    def flush(self) -> None:
        """Report all pending counts."""
        while self._windows:
            self._close(next(iter(self._windows)))

    def _open(self, key: _Key, now: float) -> _Window:
        if self._windows.pop(key, None) is None and not self._windows:
            self._call_later(WINDOW, self._close_ended)
        if len(self._windows) >= MAX_ENTRIES:
            self._close(next(iter(self._windows)))
        window = self._windows[key] = _Window(now + WINDOW)
        return window

    def _close(self, key: _Key) -> None:
        window, (category, source, reason) = self._windows.pop(key), key
        if window.suppressed:
            self._report(category, source, reason, window.suppressed)

    def _close_ended(self) -> None:
        now = self._clock()
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if window.ends > now:
                self._call_later(window.ends - now, self._close_ended)
                return
            self._close(key)


def source_of(peer: str) -> str:
    """Return the source of an address: an IPv4 address, an IPv6 /64 prefix, or the name of a Unix socket."""
    if peer.startswith("unix:"):
        return peer
    host = peer.removeprefix("tcp:").rpartition(":")[0].strip("[]").partition("%")[0]
    return str(ipaddress.IPv6Network((host, _PREFIX), strict=False)) if ":" in host else host
