"""Events of the Workload API in trio: from the watcher's thread to a task that waits for them.

Knows both sides of that step, and which events of a storm still count; must not know what any of them means.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import trio

from tunnel.identity.workload import Event, Updated, WorkloadWatcher
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.selection import Selection

EventChannel = trio.MemoryReceiveChannel[Event]


@asynccontextmanager
async def open_event_channel(
    endpoint: WorkloadEndpoint, selection: Selection, *, wants_all: bool = False
) -> AsyncIterator[EventChannel]:
    """The events of a Workload API, which is watched from entry to exit; with `wants_all` every SVID is verified."""
    token = trio.lowlevel.current_trio_token()
    sender, events = trio.open_memory_channel[Event](math.inf)

    def emit(event: Event) -> None:
        with suppress(trio.RunFinishedError):  # when trio is over, so is the interest
            token.run_sync_soon(sender.send_nowait, event)

    watcher = WorkloadWatcher(endpoint, emit, selection, wants_all=wants_all)
    watcher.start()
    try:
        yield events
    finally:
        watcher.stop()


async def receive_newest(events: EventChannel) -> list[Event]:
    """The next events in their order, without an update that another one follows: each is the whole state."""
    newest = [await events.receive()]
    with suppress(trio.WouldBlock):
        while True:
            following = events.receive_nowait()
            if isinstance(newest[-1], Updated) and isinstance(following, Updated):
                newest[-1] = replace(following, is_new=newest[-1].is_new or following.is_new)
            else:
                newest.append(following)
    return newest
