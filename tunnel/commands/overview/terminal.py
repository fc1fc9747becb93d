"""A terminal in full-screen use: alternate screen, cbreak mode, and output that never blocks the process."""

from __future__ import annotations

import errno
import os
import select
import termios
import tty
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import zip_longest
from time import monotonic
from typing import Any

from tunnel.commands.overview.styled import Line, encode_line

# DEC private modes as xterm documents them: alternate screen (1049), cursor (25), autowrap (7).
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
_CLEAR = "\x1b[2J"
_CHUNK = 256  # bytes of one write: a terminal that is writable has about as much room
_LEAVE_LIMIT = 1.0  # seconds that leaving waits for a terminal that takes no output
_FALLBACK = (80, 24)  # columns and lines of a terminal that does not know its size


def encode_changes(before: Sequence[Line], now: Sequence[Line], *, has_colour: bool) -> str:
    """The output that turns one screen into another: only the lines that differ, each cleared before it is written."""
    return "".join(
        f"\x1b[{row};1H\x1b[K{encode_line(new, has_colour=has_colour) if new else ''}"
        for row, (old, new) in enumerate(zip_longest(before, now), 1)
        if old != new
    )


class Terminal:
    """The terminal of an input and an output descriptor; `leave` restores it, and may be called in every state."""

    def __init__(self, source: int, sink: int, *, has_colour: bool) -> None:
        self._source = source
        self._sink = sink
        self._has_colour = has_colour
        self._before: list[Any] | None = None  # the attributes outside of our use
        self._drawn: tuple[Line, ...] = ()
        self._pending = b""

    def enter(self) -> None:
        """Use the whole screen, also again after somebody else has used the terminal; one that is gone ends the input."""
        with suppress(termios.error):
            if self._before is None:
                self._before = termios.tcgetattr(self._source)
            self._set(lambda: tty.setcbreak(self._source, termios.TCSANOW))
        self._drawn = ()
        self._pending = _ENTER.encode()

    def leave(self) -> None:
        """Restore the screen and the attributes, as far as the terminal is there."""
        if self._before is None:
            return
        before, self._before = self._before, None
        self._pending = _LEAVE.encode()
        deadline = monotonic() + _LEAVE_LIMIT
        while self._pending and (left := deadline - monotonic()) > 0:
            if select.select((), (self._sink,), (), left)[1]:
                self.flush()
        with suppress(termios.error):
            self._set(lambda: termios.tcsetattr(self._source, termios.TCSANOW, before))

    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            size = os.get_terminal_size(self._sink)
        except OSError:
            return _FALLBACK
        return (size.columns, size.lines) if size.columns and size.lines else _FALLBACK

    def redraw(self) -> None:
        """Draw all lines the next time, for example because the size has changed."""
        self._drawn = ()
        self._pending += _CLEAR.encode()

    def draw(self, lines: tuple[Line, ...]) -> None:
        """Show these lines with the next `flush`."""
        self._pending += encode_changes(self._drawn, lines, has_colour=self._has_colour).encode("ascii")
        self._drawn = lines

    def wait(self, other: int, seconds: float) -> None:
        """Wait for input here or at another descriptor, or until the terminal takes output that waits."""
        select.select((self._source, other), (self._sink,) if self._pending else (), (), seconds)

    def has_input(self) -> bool:
        """Whether `read` returns at once."""
        return bool(select.select((self._source,), (), (), 0)[0])

    @property
    def is_waiting(self) -> bool:
        """Whether `flush` has something to write."""
        return bool(self._pending)

    def flush(self) -> None:
        """Write what waits, as far as the terminal takes it at once."""
        try:
            while self._pending and select.select((), (self._sink,), (), 0)[1]:
                self._pending = self._pending[os.write(self._sink, self._pending[:_CHUNK]) :]
        except OSError:  # it is gone
            self._pending = b""

    def read(self) -> bytes:
        """The input that is there; b"" if the terminal is gone."""
        try:
            return os.read(self._source, 1024)
        except OSError:
            return b""

    def _set(self, change: Callable[[], object]) -> None:
        """Change attributes; a process in the background is stopped by it, and interrupted when it continues."""
        while True:
            try:
                change()
            except termios.error as error:
                if error.args[0] != errno.EINTR:
                    raise
            else:
                return
