"""The loop of `tunnel top`: answers of the proxy, keys, signals and the size of the terminal."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from tunnel.backoff import Backoff
from tunnel.child.inherited import inherited, restore_default
from tunnel.commands.overview.keys import ScreenKey, parse_keys, press
from tunnel.commands.overview.live_tables import Feed
from tunnel.commands.overview.query import document_of
from tunnel.commands.overview.rates import NO_RATES, measure_rates
from tunnel.commands.overview.screen import FIRST_VIEW, draw_screen
from tunnel.commands.overview.terminal import Terminal
from tunnel.commands.status_query import MAX_LINE, StatusQuery, ask
from tunnel.errors import TunnelError
from tunnel.lazy_dataclass import dataclass, replace
from tunnel.status.overview_reading import ProxySummary, parse_overview, to_ascii

_STOPS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT)
_SIGNALS = (*_STOPS, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
_LONGEST_DELAY = 4.0  # seconds, and a quarter of jitter, between two attempts to reach a proxy that does not answer
_TICK = 1.0  # seconds between two screens while nothing happens: how long the proxy has not answered is shown


@dataclass(frozen=True, slots=True)
class TopConfig:
    """What is shown; the interval is in seconds."""

    place: str
    listener: str
    query: StatusQuery
    interval: float


def query_overview(config: TopConfig) -> ProxySummary:
    """The overview of the proxy; raises TunnelError."""
    return parse_overview(document_of(ask(config.query), config.listener))


def run_top(config: TopConfig, terminal: Terminal, first: ProxySummary) -> int:
    """Show the overview until the user quits; ends this process by the signal that has stopped it, if one has."""
    with _record_signals() as (wakeup, signals):
        top = Top(config, terminal, first, wakeup, signals)
        try:
            terminal.enter()
            stop = top.run()
        finally:
            terminal.leave()
    if stop in (0, signal.SIGINT):  # Ctrl-C is a way to quit
        return 0
    restore_default(stop)
    signal.raise_signal(stop)
    return 1


@contextmanager
def _record_signals() -> Iterator[tuple[tuple[int, int], list[int]]]:
    """Append signals to a list, and write to the pipe that is returned; what was ignored when we started stays so."""
    seen: list[int] = []
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)

    def record(number: int, _frame: FrameType | None) -> None:
        seen.append(number)

    before = {number: signal.signal(number, record) for number in _SIGNALS if number not in inherited().ignored}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield (reader, writer), seen
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, action in before.items():
            signal.signal(number, action)
        os.close(reader)  # the writer stays: a query may still end


class _Query:
    """One query in a thread, which writes a byte to a pipe when it has ended."""

    def __init__(self, config: TopConfig, writer: int) -> None:
        self.answer: ProxySummary | str | None = None  # a text is an error
        self._config = config
        self._writer = writer
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether there is an answer."""
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            self.answer = query_overview(self._config)
        except TunnelError as error:
            self.answer = to_ascii(str(error), MAX_LINE)
        finally:
            with suppress(OSError):
                os.write(self._writer, b"\0")


class Top:
    """The state of the screen and of the queries."""

    def __init__(
        self, config: TopConfig, terminal: Terminal, first: ProxySummary, pipe: tuple[int, int], signals: list[int]
    ) -> None:
        self._config = config
        self._terminal = terminal
        self._reader, self._writer = pipe
        self._signals = signals
        self._feed = Feed(config.place, first, NO_RATES)
        self._view = FIRST_VIEW
        self._page = 1
        self._typed = b""
        self._backoff = Backoff()
        self._query: _Query | None = None
        self._answered = time.monotonic()
        self._due = self._answered + config.interval

    def run(self) -> int:
        """Run until a key or a signal ends it; return the signal, or 0."""
        while True:
            self._draw()
            self._terminal.wait(self._reader, self._wait_limit())
            self._terminal.flush()
            with suppress(BlockingIOError):
                os.read(self._reader, 4096)
            stop = self._take_signals()
            if stop is not None:
                return stop
            if self._terminal.has_input() and not self._take_keys():
                return 0
            self._take_answer()

    def _wait_limit(self) -> float:
        """Seconds until something is due."""
        if self._query is not None or self._view.is_paused:
            return _TICK
        return min(max(self._due - time.monotonic(), 0.0), _TICK)

    def _draw(self) -> None:
        """Show the newest screen, unless the terminal still takes an earlier one: a slow terminal gets fewer screens."""
        if self._terminal.is_waiting:
            return
        if self._feed.fault:
            self._feed = replace(self._feed, silence=time.monotonic() - self._answered)
        frame = draw_screen(self._feed, self._view, *self._terminal.size())
        self._view, self._page = frame.view, frame.page
        self._terminal.draw(frame.lines)

    # -- signals and keys

    def _take_signals(self) -> int | None:
        """React to the signals so far; return one that ends the process."""
        while self._signals:
            number = self._signals.pop(0)
            if number in _STOPS:
                return number
            if number == signal.SIGTSTP:
                self._suspend()
            elif number == signal.SIGCONT:  # somebody else may have used the terminal
                self._terminal.enter()
            else:
                self._terminal.redraw()
        return None

    def _suspend(self) -> None:
        """Stop as the default action of Ctrl-Z does, with the terminal as it was."""
        self._terminal.leave()
        record = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, record)
        self._terminal.enter()

    def _take_keys(self) -> bool:
        """React to the keys; return whether to continue."""
        data = self._terminal.read()
        keys, self._typed = parse_keys(self._typed + data)
        for key in keys:
            if key is ScreenKey.REDRAW:
                self._terminal.redraw()
            was_paused, self._view = self._view.is_paused, press(self._view, key, self._page)
            if was_paused and not self._view.is_paused:
                self._due = time.monotonic()
        return bool(data) and ScreenKey.QUIT not in keys

    # -- queries

    def _take_answer(self) -> None:
        """Take the answer of the query if it is over, and begin the next one when it is due."""
        if self._query is not None and self._query.is_over:
            answer, self._query = self._query.answer, None
            assert answer is not None, "the query has ended by an unexpected exception"
            self._take_failure(answer) if isinstance(answer, str) else self._take_overview(answer)
        if self._query is None and not self._view.is_paused and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._config.interval
            self._query = _Query(self._config, self._writer)

    def _take_overview(self, overview: ProxySummary) -> None:
        self._backoff.reset()
        self._answered = time.monotonic()
        self._feed = Feed(self._config.place, overview, measure_rates(self._feed.overview, overview))

    def _take_failure(self, fault: str) -> None:
        delay = self._backoff.next(floor=self._config.interval, cap=max(self._config.interval, _LONGEST_DELAY))
        self._due = time.monotonic() + delay
        answered = self._feed.answered or time.strftime(
            "%H:%M:%S", time.localtime(time.time() - time.monotonic() + self._answered)
        )
        self._feed = replace(self._feed, fault=fault, answered=answered)
