"""Who waits and who is served: the bound on connections, and who leaves first.

Knows connections as scopes that can be cancelled; must not know what they wait for. A connection waits until a whole
request is there: in a TLS handshake, between two requests, in the middle of a head. When all places are taken, whoever has
waited longest leaves, so that silent connections never keep out one that speaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Lobby:
    """The places of one listener."""

    def __init__(self, places: int) -> None:
        self._places = places
        self.taken = 0
        self._waiting: dict[trio.CancelScope, None] = {}  # longest first
        self._room = trio.Event()
        self.is_closed = False

    @contextmanager
    def place(self) -> Iterator[None]:
        """One connection, from its accept to its end."""
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._room.set()

    async def make_room(self) -> None:
        """Until a place is free; whoever has waited longest is asked to leave, if anyone waits."""
        while self.taken >= self._places:
            self._room = trio.Event()
            if self._waiting:
                self._dismiss(next(iter(self._waiting)))
            await self._room.wait()

    @contextmanager
    def waiting(self, deadline: float) -> Iterator[trio.CancelScope]:
        """A time in which the connection has no claim to stay; cancelled at `deadline` of trio's clock, or when dismissed."""
        with trio.CancelScope(deadline=deadline) as scope:
            if self.is_closed:
                scope.cancel()
            self._waiting[scope] = None
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
