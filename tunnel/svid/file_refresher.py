"""Keeps the content of one file up to date until stopped. If a fetch or a write fails, the previous content stays."""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import Generic, Protocol, TypeVar

import trio

from tunnel.backoff import Backoff
from tunnel.errors import IdentityError, OutputError
from tunnel.lazy_dataclass import dataclass, field
from tunnel.net.notify import Notifier, State
from tunnel.svid.event_log import Event

_STEP = 10.0  # seconds; after a suspend the wall clock has jumped
_CHECK_INTERVAL = 5.0  # seconds between checks that no other process has removed or replaced the file
_FLOOR, _CAP = 1.0, 30.0  # seconds between attempts

T = TypeVar("T")


class WriteEvent(Protocol):
    """Writes one event: its kind, the whole message, and further keys for JSON."""

    def __call__(self, event: Event, text: str, **facts: object) -> None: ...


@dataclass(frozen=True, slots=True)
class ContentDescription:
    """The message on content that was written."""

    text: str
    facts: dict[str, object]
    warnings: tuple[str, ...] = ()


@dataclass
class FileRefresher(ABC, Generic[T]):
    """One file and its content: `fetch_first` may wait long, `fetch_next` fetches each later one.

    Fetching and writing block, and run on threads; `stop` ends a running fetch.
    """

    fetch_first: Callable[[], T]
    fetch_next: Callable[[], T]
    stop: Callable[[], None]
    write: Callable[[T], None]
    write_event: WriteEvent
    wall: Callable[[], float] = time.time
    backoff: Backoff = field(default_factory=Backoff)
    notifier: Notifier = field(default_factory=lambda: Notifier({}, 0))
    find_fault: Callable[[], str] = lambda: ""  # why the content written last is not in the file any more
    _writing: trio.Lock = field(default_factory=trio.Lock)
    _file_error: str = ""
    _current: T | None = None
    _error: str = ""
    _summary: str = "nothing was written"

    @abstractmethod
    def refresh_delay(self, current: T) -> float:
        """Return the seconds until the next fetch."""

    @abstractmethod
    def describe(self, current: T) -> ContentDescription:
        """Return the message on content that was written."""

    @abstractmethod
    def describe_failure(self, error: str) -> str:
        """Return the message on a failed refresh."""

    def report_expiry(self, current: T) -> None:
        """Report once that the content of the file has expired, if it can."""

    def run_blocking(self) -> None:
        """Call `run` from synchronous code."""
        trio.run(self.run)

    async def run(self) -> None:
        """Refresh until SIGTERM or SIGINT; raises IdentityError or OutputError if the first fetch or write fails."""
        failure: list[IdentityError | OutputError] = []
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.notifier.run_watchdog, trio.sleep)
                nursery.start_soon(self._stop_on_signal, signals, nursery.cancel_scope)
                try:
                    await self._refresh(self.fetch_first)
                except (IdentityError, OutputError) as error:
                    if not nursery.cancel_scope.cancel_called:
                        failure.append(error)
                else:
                    nursery.start_soon(self._restore_always)
                    await self._refresh_always()
                nursery.cancel_scope.cancel()
        if failure:
            raise failure[0]

    async def _stop_on_signal(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for _number in signals:
            self.notifier.notify(State.STOPPING, self._summary)
            self.stop()
            scope.cancel()

    async def _refresh_always(self) -> None:
        while True:
            assert self._current is not None
            delay = self.refresh_delay(self._current)
            with trio.move_on_after(
                delay
            ):  # the monotonic or the wall clock, whichever is first: the wall clock may be set back
                await self._sleep_until(self.wall() + delay)
            while not await self._try_refresh():
                self.report_expiry(self._current)
                await trio.sleep(self.backoff.next(floor=_FLOOR, cap=_CAP))

    async def _restore_always(self) -> None:
        while True:
            await trio.sleep(_CHECK_INTERVAL)
            async with self._writing:
                await self._restore()

    async def _restore(self) -> None:
        """Write the content again if the file was removed or changed."""
        assert self._current is not None
        fault = await trio.to_thread.run_sync(self.find_fault)
        if fault:
            try:
                await trio.to_thread.run_sync(self.write, self._current)
            except OutputError as error:
                self._report_file_error(f"{fault}: {error}; retrying")
                return
            self.write_event(Event.FILES_CHANGED, f"{fault}: written again")
        self._file_error = ""

    def _report_file_error(self, error: str) -> None:
        if error != self._file_error:
            self._file_error = error
            self.write_event(Event.WRITE_FAILED, error)

    async def _try_refresh(self) -> bool:
        try:
            await self._refresh(self.fetch_next)
        except (IdentityError, OutputError) as error:
            await trio.lowlevel.checkpoint_if_cancelled()  # not a failure if we were stopped
            self._report_failure(error)
            return False
        self.backoff.reset()
        self._error = ""
        return True

    async def _refresh(self, fetch: Callable[[], T]) -> None:
        found = await trio.to_thread.run_sync(fetch)
        if found == self._current and not self._error:
            return  # an agent returns the same token for some time
        async with self._writing:
            await trio.to_thread.run_sync(self.write, found)
            self._report_written(found)

    def write_once(self) -> None:
        """Fetch and write once; raises IdentityError and OutputError."""
        found = self.fetch_first()
        self.write(found)
        self._report_written(found)

    def _report_written(self, found: T) -> None:
        self._current = found
        description = self.describe(found)
        for warning in description.warnings:
            self.write_event(Event.NOTICE, f"warning: {warning}")
        self.write_event(Event.WRITTEN, description.text, **description.facts)
        self._summary = description.text
        self.notifier.notify(State.KEEPING, description.text)

    def _report_failure(self, error: IdentityError | OutputError) -> None:
        if str(error) == self._error:
            return
        self._error = str(error)
        self.write_event(
            Event.UNAVAILABLE if isinstance(error, IdentityError) else Event.WRITE_FAILED, self.describe_failure(self._error)
        )

    async def _sleep_until(self, due: float) -> None:
        while (left := due - self.wall()) > 0:  # noqa: ASYNC110 - there is no event for a change of the wall clock
            await trio.sleep(min(left, _STEP))
