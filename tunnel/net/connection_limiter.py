"""Who waits and who is served: the bound on connections, and who leaves first.

Knows connections as scopes that can be cancelled; must not know what they wait for. A connection waits until a whole
request is there: in a TLS handshake, between two requests, in the middle of a head. When all places are taken, whoever has
waited longest leaves, so that silent connections never keep out one that speaks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio

STAY = 0.1  # seconds that everyone may wait undisturbed: a request that is on its way is not cut off by a burst of others


class ConnectionLimiter:
    """The places of one listener."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._waiting: dict[trio.CancelScope, float] = {}  # since when, longest first
        self._changed = trio.Event()
        self._left = trio.Event()
        self.taken = 0
        self.is_closed = False

    def take_place(self) -> None:
        """A connection has been accepted."""
        self.taken += 1

    def leave_place(self) -> None:
        """It has ended, and its descriptor is closed."""
        self.taken -= 1
        self._left.set()
        self._changed.set()

    async def make_room(self) -> None:
        """Until a place is free; whoever has waited longest is asked to leave, if anyone waits."""
        while self.taken >= self._places:
            self._changed, self._left = trio.Event(), trio.Event()
            oldest = next(iter(self._waiting), None)
            with trio.move_on_at(math.inf if oldest is None else self._waiting[oldest] + STAY):
                await self._changed.wait()
                continue
            if oldest in self._waiting:
                self._dismiss(oldest)
                await self._left.wait()

    @contextmanager
    def waiting(self, deadline: float) -> Iterator[trio.CancelScope]:
        """A time in which the connection has no claim to stay; cancelled at `deadline` of trio's clock, or when dismissed."""
        with trio.CancelScope(deadline=deadline) as scope:
            if self.is_closed:
                scope.cancel()
            self._waiting[scope] = trio.current_time()
            self._changed.set()
            try:
                yield scope
            finally:
                self._waiting.pop(scope, None)

    def close(self) -> None:
        """Everyone who waits leaves, now and from now on; who is served is served."""
        self.is_closed = True
        for scope in list(self._waiting):
            self._dismiss(scope)

    def _dismiss(self, scope: trio.CancelScope) -> None:
        del self._waiting[scope]
        scope.cancel()
