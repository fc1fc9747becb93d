"""Keeping what is in one file fresh, until told to stop.

Knows what happens when something new is there, and while nothing new can be had; must not know what it is, gRPC, flags or how
a file is written. What was there before stays in its place.
"""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import trio

from tunnel.errors import IdentityError, OutputError
from tunnel.identity.backoff import Backoff
from tunnel.net.notify import Notifier, State
from tunnel.svid.event_log import Event

_STEP = 10.0  # seconds; a machine that slept wakes up with another time
_LOOK = 5.0  # seconds between looks at the file, which another process may have removed or replaced
_FLOOR, _CAP = 1.0, 30.0  # seconds between attempts

T = TypeVar("T")


class Tell(Protocol):
    """Takes one event: its word, all of it in a sentence, and the parts that a machine may want."""

    def __call__(self, event: Event, text: str, **facts: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Description:
    """What is told of something that is in the file now."""

    text: str
    facts: dict[str, object]
    warnings: tuple[str, ...] = ()


@dataclass
class FileRefresher(ABC, Generic[T]):
    """One file and where its contents come from: the first, for which a caller may wait long, and those that follow.

    To fetch and to write blocks, and is done on threads; `stop` ends what is under way.
    """

    wait_identity: Callable[[], T]
    fetch_next: Callable[[], T]
    stop: Callable[[], None]
    write: Callable[[T], None]
    tell: Tell
    wall: Callable[[], float] = time.time
    backoff: Backoff = field(default_factory=Backoff)
    notifier: Notifier = field(default_factory=lambda: Notifier({}, 0))
    find_fault: Callable[[], str] = lambda: ""  # why what was written last is not in the file any more
    _writing: trio.Lock = field(default_factory=trio.Lock)
    _file_complaint: str = ""
    _current: T | None = None
    _complaint: str = ""
    _summary: str = "nothing was written"

    @abstractmethod
    def delay(self, current: T) -> float:
        """Seconds until the next look."""

    @abstractmethod
    def describe(self, current: T) -> Description:
        """What to tell when it has been written."""

    @abstractmethod
    def complain(self, trouble: str) -> str:
        """What to tell when nothing fresh can be had."""

    def note_age(self, current: T) -> None:
        """Say so, once, if what is in the file has become useless while nothing fresh could be had."""

    def keep(self) -> None:
        """What `run` does, for a caller without a loop."""
        trio.run(self.run)

    async def run(self) -> None:
        """Keep the file until SIGTERM or SIGINT; raises IdentityError or OutputError when there is nothing to begin with."""
        failure: list[IdentityError | OutputError] = []
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.notifier.run_watchdog, trio.sleep)
                nursery.start_soon(self._stop_at, signals, nursery.cancel_scope)
                try:
                    await self._renew(self.wait_identity)
                except (IdentityError, OutputError) as error:
                    if not nursery.cancel_scope.cancel_called:
                        failure.append(error)
                else:
                    nursery.start_soon(self._keep_in_place)
                    await self._keep()
                nursery.cancel_scope.cancel()
        if failure:
            raise failure[0]

    async def _stop_at(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for _number in signals:
            self.notifier.notify(State.STOPPING, self._summary)
            self.stop()
            scope.cancel()

    async def _keep(self) -> None:
        while True:
            assert self._current is not None
            delay = self.delay(self._current)
            with trio.move_on_after(delay):  # whichever clock is first: the wall's may be set back
                await self._sleep_until(self.wall() + delay)
            while not await self._try_to_renew():
                self.note_age(self._current)
                await trio.sleep(self.backoff.next(floor=_FLOOR, cap=_CAP))

    async def _keep_in_place(self) -> None:
        while True:
            await trio.sleep(_LOOK)
            async with self._writing:
                await self._restore()

    async def _restore(self) -> None:
        """Write what is in the file again, if it is not there any more."""
        assert self._current is not None
        fault = await trio.to_thread.run_sync(self.find_fault)
        if fault:
            try:
                await trio.to_thread.run_sync(self.write, self._current)
            except OutputError as error:
                self._complain_of_file(f"{fault}: {error}; trying again")
                return
            self.tell(Event.FILES_CHANGED, f"{fault}: written again")
        self._file_complaint = ""

    def _complain_of_file(self, trouble: str) -> None:
        if trouble != self._file_complaint:
            self._file_complaint = trouble
            self.tell(Event.WRITE_FAILED, trouble)

    async def _try_to_renew(self) -> bool:
        try:
            await self._renew(self.fetch_next)
        except (IdentityError, OutputError) as error:
            await trio.lowlevel.checkpoint_if_cancelled()  # when we were told to stop, that is no trouble
            self._complain(error)
            return False
        self.backoff.reset()
        self._complaint = ""
        return True

    async def _renew(self, fetch: Callable[[], T]) -> None:
        found = await trio.to_thread.run_sync(fetch)
        if found == self._current and not self._complaint:
            return  # an agent hands out one token for some time
        async with self._writing:
            await trio.to_thread.run_sync(self.write, found)
            self._note(found)

    def take_one(self) -> None:
        """Write once and be done; raises IdentityError and OutputError."""
        found = self.wait_identity()
        self.write(found)
        self._note(found)

    def _note(self, found: T) -> None:
        self._current = found
        said = self.describe(found)
        for warning in said.warnings:
            self.tell(Event.NOTICE, f"warning: {warning}")
        self.tell(Event.WRITTEN, said.text, **said.facts)
        self._summary = said.text
        self.notifier.notify(State.KEEPING, said.text)

    def _complain(self, error: IdentityError | OutputError) -> None:
        if str(error) == self._complaint:
            return
        self._complaint = str(error)
        self.tell(Event.UNAVAILABLE if isinstance(error, IdentityError) else Event.WRITE_FAILED, self.complain(self._complaint))

    async def _sleep_until(self, due: float) -> None:
        while (left := due - self.wall()) > 0:  # noqa: ASYNC110 - no event tells that the wall clock was set
            await trio.sleep(min(left, _STEP))
