"""A trio channel that carries the events of the Workload API client's thread."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import trio

from tunnel.identity.events import Updated, WorkloadEvent
from tunnel.identity.workload import WorkloadWatcher
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.selection import Selection

EventChannel = trio.MemoryReceiveChannel[WorkloadEvent]


@asynccontextmanager
async def open_event_channel(
    endpoint: WorkloadEndpoint, selection: Selection, *, wants_all: bool = False, wall: Callable[[], float] = time.time
) -> AsyncIterator[EventChannel]:
    """Watch a Workload API from entry to exit and yield the channel of its events; `wants_all` verifies every SVID."""
    token = trio.lowlevel.current_trio_token()
    sender, events = trio.open_memory_channel[WorkloadEvent](math.inf)

    def emit(event: WorkloadEvent) -> None:
        with suppress(trio.RunFinishedError):  # nothing receives events any more
            token.run_sync_soon(sender.send_nowait, event)

    watcher = WorkloadWatcher(endpoint, emit, selection, wants_all=wants_all, wall=wall)
    watcher.start()
    try:
        yield events
    finally:
        watcher.stop()


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
