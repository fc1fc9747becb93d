"""A Workload API stream with short delays, and subscribers whose events a test reads."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TypeVar

from tunnel.backoff import Backoff
from tunnel.identity.events import Disconnected, FatalError, Rejected, Updated, WorkloadEvent
from tunnel.identity.subscription import Clocks
from tunnel.identity.workload import WorkloadStream
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.selection import Selection

LIMIT = 60.0  # of every wait: generous, and never reached when things work
ANY = Selection()
E = TypeVar("E", bound=Disconnected | Updated | Rejected | FatalError)


class FastBackoff(Backoff):
    """Waits for a few milliseconds and records the floor and cap of each delay."""

    def __init__(self, delay: float = 0.01) -> None:
        super().__init__(lambda: 0.0)
        self._delay = delay
        self.asked: list[tuple[float, float]] = []
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1
        super().reset()

    def next(self, *, floor: float, cap: float) -> float:
        self.asked.append((floor, cap))
        return self._delay


class Subscriber:
    """One selection of a stream, and its events."""

    def __init__(self, stream: WorkloadStream, selection: Selection = ANY, *, wants_all: bool = False) -> None:
        self._events: queue.SimpleQueue[WorkloadEvent] = queue.SimpleQueue()
        self.stream = stream
        self.subscription = stream.subscribe(self._events.put, selection, wants_all=wants_all)
        backoff = self.subscription._backoff
        assert isinstance(backoff, FastBackoff)
        self.backoff = backoff

    def leave(self) -> None:
        self.stream.unsubscribe(self.subscription)

    def next(self) -> WorkloadEvent:
        return self._events.get(timeout=LIMIT)

    def until(self, kind: type[E]) -> E:
        """The next event of a type; earlier ones are skipped."""
        while True:
            event = self.next()
            if type(event) is kind:
                return event  # type: ignore[return-value]

    def updated(self, *, is_new: bool = True) -> Updated:
        """The next event, which must be an update."""
        event = self.next()
        assert isinstance(event, Updated), event
        assert event.is_new is is_new
        return event

    def is_silent(self) -> bool:
        return self._events.empty()


@contextmanager
def watching(
    endpoint: WorkloadEndpoint,
    *,
    selection: Selection = ANY,
    wants_all: bool = False,
    backoff: FastBackoff | None = None,
    wall: Callable[[], float] = time.time,
    clock: Callable[[], float] = time.monotonic,
    check_interval: float = 5.0,
) -> Iterator[Subscriber]:
    """Open the stream of an endpoint with its first subscriber, which has this backoff."""
    backoffs = chain([backoff or FastBackoff()], iter(FastBackoff, None))
    stream = WorkloadStream(
        endpoint, clocks=Clocks(wall, clock), new_backoff=lambda: next(backoffs), check_interval=check_interval
    )
    subscriber = Subscriber(stream, selection, wants_all=wants_all)
    stream.start()
    try:
        yield subscriber
    finally:
        stream.stop()
