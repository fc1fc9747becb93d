"""A limit on log lines about refusals: of equal ones from one source, a few in each window, and a count of the others."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tunnel.log import Category, escape

WINDOW = 10.0  # seconds
EQUAL_LINES = 5  # in a window, that differ in nothing but the port
LINES = 20  # in a window, of one source and one reason: clients behind one load balancer are one source
MAX_ENTRIES = 1024  # pairs of source and reason that are remembered; one more evicts the oldest
_PREFIX = 64  # bits of an IPv6 address that are one source: whoever has one address has the whole prefix


class Writer(Protocol):
    """The part of a log that is needed here."""

    def wants(self, category: Category) -> bool:
        """Whether lines of a category are written at all."""

    def write(self, message: str, category: Category = ...) -> None:
        """Write one line."""


@dataclass(slots=True)
class _Window:
    ends: float
    written: int = 0
    suppressed: int = 0
    equal: dict[int, int] = field(default_factory=dict)  # lines by the hash of their text

    def takes(self, text: str) -> bool:
        """Whether one more line has room, which is then counted; else it is counted as suppressed."""
        count = self.equal.get(hash(text), 0)
        if self.written >= LINES or count >= EQUAL_LINES:
            self.suppressed += 1
            return False
        self.written += 1
        self.equal[hash(text)] = count + 1
        return True


_Key = tuple[Category, str, str]  # category, source, reason


CallLater = Callable[[float, Callable[[], object]], object]  # calls a function after so many seconds


class RefusalLog:
    """Writes lines about refusals; the first of its kind is always written, and a suppressed one always counted."""

    def __init__(self, log: Writer, clock: Callable[[], float], call_later: CallLater) -> None:
        self._log = log
        self._clock = clock
        self._call_later = call_later
        self._windows: dict[_Key, _Window] = {}  # the one that ends first is in front

    def write(self, peer: str, reason: str, line: str, category: Category) -> None:
        """Write a line about a refusal of `peer`, an address with its port, or count it as suppressed."""
        if not self._log.wants(category):
            return
        key, now = (category, source_of(peer), reason), self._clock()
        window = self._windows.get(key)
        suppressed = 0
        if window is None or window.ends <= now:
            suppressed = window.suppressed if window is not None else 0
            window = self._open(key, now)
        if window.takes(line.replace(peer.removeprefix("tcp:"), "")):
            self._log.write(f"{line} suppressed={suppressed}" if suppressed else line, category)

    def flush(self) -> None:
        """Write every count that is not written yet."""
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
            line = f"equal refusals left out: from={escape(source)} reason={reason} suppressed={window.suppressed}"
            self._log.write(line, category)

    def _close_ended(self) -> None:
        now = self._clock()
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if window.ends > now:
                self._call_later(window.ends - now, self._close_ended)
                return
            self._close(key)


def source_of(peer: str) -> str:
    """Whom an address stands for: an IPv4 address, an IPv6 prefix of 64 bits, or a Unix socket's name."""
    if peer.startswith("unix:"):
        return peer
    host = peer.removeprefix("tcp:").rpartition(":")[0].strip("[]").partition("%")[0]
    return str(ipaddress.IPv6Network((host, _PREFIX), strict=False)) if ":" in host else host
