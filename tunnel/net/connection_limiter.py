"""Limit on the connections of one server: when it is reached, the connection that has waited longest is closed.

A connection waits until a complete request has arrived: in a TLS handshake, between two requests, inside a header. So idle
connections never block one that sends a request, and a request in progress is never cut off. A response without an end, a
stream, is in progress until the server stops; so fewer streams than connections may be open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio

MAX_STREAMS = 16  # open at one time, and at most half of all connections
MIN_WAIT = 0.1  # seconds that every connection may wait: a burst of others does not cut off a request that is being sent


class ConnectionLimiter:
    """The connections of one listener."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._waiting: dict[trio.CancelScope, float] = {}  # since when, longest first
        self._streams: set[trio.CancelScope] = set()
        self._changed = trio.Event()
        self._released = trio.Event()
        self.count = 0
        self.is_closed = False

    def acquire(self) -> None:
        """A connection has been accepted."""
        self.count += 1

    def release(self) -> None:
        """A connection has ended, and its descriptor is closed."""
        self.count -= 1
        self._released.set()
        self._changed.set()

    async def wait_for_slot(self) -> None:
        """Wait until another connection may be accepted; close the one that has waited longest, if any waits."""
        while self.count >= self.limit:
            self._changed, self._released = trio.Event(), trio.Event()
            oldest = next(iter(self._waiting), None)
            with trio.move_on_at(math.inf if oldest is None else self._waiting[oldest] + MIN_WAIT):
                await self._changed.wait()
                continue
            if oldest in self._waiting:
                self._cancel(oldest)
                await self._released.wait()

    @contextmanager
    def waiting(self, deadline: float) -> Iterator[trio.CancelScope]:
        """The time in which a connection waits; cancelled at `deadline` of trio's clock, or when its slot is needed."""
        with trio.CancelScope(deadline=deadline) as scope:
            if self.is_closed:
                scope.cancel()
            self._waiting[scope] = trio.current_time()
            self._changed.set()
            try:
                yield scope
            finally:
                self._waiting.pop(scope, None)

    def open_stream(self) -> trio.CancelScope | None:
        """Return the scope of a stream, until `close_stream`; cancelled when the server stops. None if too many are open."""
        if len(self._streams) >= min(MAX_STREAMS, self.limit // 2):
            return None
        scope = trio.CancelScope()
        if self.is_closed:
            scope.cancel()
        self._streams.add(scope)
        return scope

    def close_stream(self, scope: trio.CancelScope) -> None:
        """A stream has ended."""
        self._streams.remove(scope)

    def close(self) -> None:
        """Close the connections that wait and end the streams, now and from now on; other requests in progress are served."""
        self.is_closed = True
        for scope in self._streams:
            scope.cancel()
        for scope in list(self._waiting):
            self._cancel(scope)

    def _cancel(self, scope: trio.CancelScope) -> None:
        del self._waiting[scope]
        scope.cancel()
