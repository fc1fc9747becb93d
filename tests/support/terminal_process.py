"""A process on a pseudo-terminal, and the screen that its user sees."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import pyte

from tests.support.processes import LIMIT

_SWITCH = re.compile(rb"(\x1b\[\?1049[hl])")
_PARTIAL = re.compile(rb"\x1b[^A-Za-z]{0,7}\Z")  # what may be the beginning of a switch


class TerminalProcess:
    """Starts a process whose controlling terminal is a new one; its screens are read in a thread."""

    def __init__(
        self, argv: Sequence[str], *, environ: Mapping[str, str], columns: int = 100, lines: int = 30, term: str = "xterm"
    ) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (lines, columns))
        self.before = termios.tcgetattr(slave)
        self._screens = [_Display(columns, lines), _Display(columns, lines)]  # the main one and the alternate one
        self.is_alternate = False
        self._changed = threading.Condition()
        self._unread = b""
        self._popen = subprocess.Popen(
            ["setsid", "--ctty", *argv],  # a function between fork and exec would run handlers of gRPC in the child
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**environ, "TERM": term},
        )
        self._slave = slave  # stays open: its attributes are read when the process has ended
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> TerminalProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.wait(LIMIT)
        if error is not None:
            print("\n".join(self.screen))
        os.close(self._slave)
        self._reader.join(LIMIT)
        os.close(self._master)

    @property
    def screen(self) -> list[str]:
        """The lines that the user sees, without blanks at their ends."""
        with self._changed:
            return [line.rstrip() for line in self._display.screen.display]

    @property
    def main_screen(self) -> list[str]:
        """The lines outside of the alternate screen."""
        with self._changed:
            return [line.rstrip() for line in self._screens[0].screen.display]

    @property
    def has_cursor(self) -> bool:
        """Whether the cursor is visible."""
        with self._changed:
            return not self._display.screen.cursor.hidden

    @property
    def attributes(self) -> list[Any]:
        """The attributes of the terminal now."""
        return termios.tcgetattr(self._slave)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def type(self, keys: str) -> None:
        """Type keys."""
        os.write(self._master, keys.encode())

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def resize(self, columns: int, lines: int) -> None:
        """Change the size, as a window that is dragged: the kernel sends SIGWINCH."""
        with self._changed:
            for display in self._screens:
                display.screen.resize(lines, columns)
            termios.tcsetwinsize(self._master, (lines, columns))

    def wait_for(self, *texts: str) -> list[str]:
        """Wait until the screen has all of these texts, and return it."""
        return self.wait_until(lambda screen: all(any(text in line for line in screen) for text in texts), " ".join(texts))

    def wait_until(self, is_so: Callable[[list[str]], bool], what: str) -> list[str]:
        """Wait for a state of the screen, and return it."""
        deadline = time.monotonic() + LIMIT
        with self._changed:
            while not is_so(screen := self.screen):
                left = deadline - time.monotonic()
                assert left > 0, f"not within {LIMIT:g}s: {what}\n" + "\n".join(screen)
                self._changed.wait(min(left, 1.0))
        return screen

    def exit_code(self) -> int:
        """Wait for the exit code; the screen has all output then."""
        code = self._popen.wait(LIMIT)
        os.write(self._slave, b"\x1b]end\x07")  # output is read in order
        self.wait_until(lambda _: self._is_over, "the end of the output")
        return code

    # -- the output

    @property
    def _display(self) -> _Display:
        return self._screens[self.is_alternate]

    _is_over = False

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # every descriptor of the other end is closed
                return
            with self._changed:
                self._feed(data)
                self._changed.notify_all()

    def _feed(self, data: bytes) -> None:
        data = self._unread + data
        self._is_over = self._is_over or b"\x1b]end\x07" in data
        partial = _PARTIAL.search(data)
        data, self._unread = (data[: partial.start()], data[partial.start() :]) if partial else (data, b"")
        for part in _SWITCH.split(data):
            if _SWITCH.fullmatch(part):
                self.is_alternate = part.endswith(b"h")
            else:
                self._display.stream.feed(part)


class _Display:
    """One screen of the terminal."""

    def __init__(self, columns: int, lines: int) -> None:
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
