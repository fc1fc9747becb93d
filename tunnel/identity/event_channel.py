"""Trio channels that carry the events of Workload API streams, which run in threads."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import trio

from tunnel.identity.events import Updated, WorkloadEvent
from tunnel.lazy_dataclass import replace
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.selection import Selection

if TYPE_CHECKING:  # loads gRPC, which a process without the Workload API does not need
    from tunnel.identity.workload import WorkloadStream

EventChannel = trio.MemoryReceiveChannel[WorkloadEvent]


class WorkloadStreams:
    """The Workload API streams of a process: one for each address, shared by its subscribers."""

    def __init__(self, *, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._streams: dict[WorkloadEndpoint, WorkloadStream] = {}

    @asynccontextmanager
    async def subscribe(
        self, endpoint: WorkloadEndpoint, selection: Selection, *, wants_all: bool = False
    ) -> AsyncIterator[EventChannel]:
        """Yield the channel of the events for one selection, which is closed at exit; `wants_all` verifies every SVID.

        The stream is open from the first subscriber's entry to the last one's exit. A later subscriber gets the newest update
        at once.
        """
        token = trio.lowlevel.current_trio_token()
        sender, events = trio.open_memory_channel[WorkloadEvent](math.inf)

        def send(event: WorkloadEvent) -> None:
            with suppress(trio.BrokenResourceError):  # the subscriber has left
                sender.send_nowait(event)

        def emit(event: WorkloadEvent) -> None:
            with suppress(trio.RunFinishedError):  # nothing receives events any more
                token.run_sync_soon(send, event)

        stream = self._open(endpoint)
        subscription = stream.subscribe(emit, selection, wants_all=wants_all)
        stream.start()
        try:
            yield events
        finally:
            events.close()
            stream.unsubscribe(subscription)
            if stream.is_unused:
                await self._close(endpoint, stream)

    def _open(self, endpoint: WorkloadEndpoint) -> WorkloadStream:
        """Return the stream of an address, a new one if there is none or if it has ended with a fatal error."""
        from tunnel.identity.subscription import Clocks
        from tunnel.identity.workload import WorkloadStream

        stream = self._streams.get(endpoint)
        if stream is None or stream.has_failed:
            stream = self._streams[endpoint] = WorkloadStream(endpoint, clocks=Clocks(self._wall))
        return stream

    async def _close(self, endpoint: WorkloadEndpoint, stream: WorkloadStream) -> None:
        if self._streams.get(endpoint) is stream:
            del self._streams[endpoint]
        with trio.CancelScope(shield=True):  # the stream ends at once, but waiting for its thread here would delay connections
            await trio.to_thread.run_sync(stream.stop, limiter=trio.CapacityLimiter(1))


@asynccontextmanager
async def open_event_channel(
    endpoint: WorkloadEndpoint, selection: Selection, *, wants_all: bool = False, wall: Callable[[], float] = time.time
) -> AsyncIterator[EventChannel]:
    """Yield the channel of the events for one selection, from a stream of its own."""
    async with WorkloadStreams(wall=wall).subscribe(endpoint, selection, wants_all=wants_all) as events:
        yield events


async def receive_newest(events: EventChannel) -> list[WorkloadEvent]:
    """Return the pending events in order, at least one; of consecutive updates only the last, since each is the whole state."""
    newest = [await events.receive()]
    with suppress(trio.WouldBlock):
        while True:
            following = events.receive_nowait()
            if isinstance(newest[-1], Updated) and isinstance(following, Updated):
                newest[-1] = replace(following, is_new=newest[-1].is_new or following.is_new)
            else:
                newest.append(following)
    return newest
