"""The answer for one name with its lifetime: one resolution at a time, and the old answer while a resolution fails."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Generic, Protocol, TypeVar

from tunnel.errors import TargetError
from tunnel.lazy_dataclass import dataclass
from tunnel.net.sockets import NameNotFound

MIN_LIFETIME, MAX_LIFETIME = 1.0, 3600.0  # seconds: for a lifetime that a name server has given
STALE_LIMIT = 3600.0  # seconds after its lifetime for which an answer is used while resolutions fail
STALE_WAIT = 1.0  # seconds to wait for a resolution before the old answer is used
_RETRY_DELAY = 1.0  # seconds for which the old answer is used after a failure, without a new resolution

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Timed(Generic[T]):
    """An answer, and the seconds for which it is valid."""

    value: T
    lifetime: float


Answer = Timed[T] | TargetError
Ask = Callable[[Callable[[Answer[T]], object]], object]


class Waiter(Protocol):
    """What waits for an answer."""

    def answered(self, answer: object) -> None:
        """Receive the value, or a TargetError."""


class Clock(Protocol):
    """The time and the timers of the event loop."""

    clock: Callable[[], float]

    def call_later(self, delay: float, action: Callable[[], object]) -> None:
        """Call `action` after `delay` seconds."""


def bounded_lifetime(seconds: float) -> float:
    """Return a lifetime from a name server within our bounds."""
    return min(max(seconds, MIN_LIFETIME), MAX_LIFETIME)


class CachedName(Generic[T]):
    """Asks for one name again when the last answer has expired. `ask` calls its argument once, on the thread of the loop."""

    def __init__(self, ask: Ask[T], loop: Clock) -> None:
        self._ask = ask
        self._loop = loop
        self._value: T | None = None
        self._ends = -math.inf  # of the lifetime
        self._retry_at = -math.inf
        self._waiters: dict[Waiter, None] = {}
        self._is_asking = False
        self._serial = 0  # of the resolution that runs, so that an old timer is ignored
        self._error = ""  # because of which an old answer is in use
        self.on_answer: Callable[[T | TargetError], object] | None = None
        self.on_stale: Callable[[str], object] | None = None  # called with each new error, and with "" when it is over

    def fresh(self) -> T | None:
        """Return the answer while it need not be asked for again, else None."""
        return self._value if self._loop.clock() < max(self._ends, self._retry_at) else None

    def wait(self, waiter: Waiter) -> None:
        """Pass the next answer to `waiter`, and ask for it unless a resolution is running."""
        self._waiters[waiter] = None
        self.refresh()

    def forget(self, waiter: Waiter) -> None:
        """Pass nothing to `waiter`."""
        self._waiters.pop(waiter, None)

    def refresh(self) -> None:
        """Ask again, unless a resolution is running."""
        if self._is_asking:
            return
        self._is_asking = True
        self._serial += 1
        if self._stale() is not None:
            self._loop.call_later(STALE_WAIT, partial(self._stop_waiting, self._serial))
        self._ask(self._take)

    def _stale(self) -> T | None:
        return self._value if self._loop.clock() < self._ends + STALE_LIMIT else None

    def _stop_waiting(self, serial: int) -> None:
        if self._is_asking and serial == self._serial and (value := self._stale()) is not None:
            self._deliver(value)

    def _take(self, answer: Answer[T]) -> None:
        self._is_asking = False
        now = self._loop.clock()
        result: T | TargetError
        if isinstance(answer, Timed):
            self._value, self._ends = answer.value, now + answer.lifetime
            result = answer.value
            self._report_stale("")
        else:
            stale = None if isinstance(answer, NameNotFound) else self._stale()
            self._value, self._retry_at = stale, now + _RETRY_DELAY
            result = answer if stale is None else stale
            self._report_stale("" if stale is None else str(answer))
        if self.on_answer is not None:
            self.on_answer(result)
        self._deliver(result)

    def _report_stale(self, error: str) -> None:
        if error != self._error:
            self._error = error
            if self.on_stale is not None:
                self.on_stale(error)

    def _deliver(self, result: T | TargetError) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            waiter.answered(result)
