"""Credentials from the Workload API: from the watcher's thread into trio, and on to whoever uses them.

Knows what to do with each outcome of an event, and how long the first identity may take; must not know streams or TLS.
"""

from __future__ import annotations

import math
from contextlib import suppress

import trio

from tunnel.config.model import WorkloadApi
from tunnel.errors import IdentityError, IdentityFault
from tunnel.identity.credentials import SvidCredentials
from tunnel.identity.follower import Follower
from tunnel.identity.workload import Event, Updated, WorkloadWatcher
from tunnel.log import Log, escape
from tunnel.proxy.feed import Publisher


class WorkloadFeed:
    """Follows one Workload API."""

    def __init__(self, source: WorkloadApi, publisher: Publisher, log: Log) -> None:
        self._source = source
        self._publisher = publisher
        self._log = log
        self._follower = Follower(source.selection, log.write, log.tell)
        self._ready = trio.Event()

    async def run(self) -> None:
        """Publish every update until cancelled."""
        self._token = trio.lowlevel.current_trio_token()
        self._events, events = trio.open_memory_channel[Event](math.inf)
        watcher = WorkloadWatcher(self._source.endpoint, self._emit)
        try:
            async with trio.open_nursery() as nursery:
                watcher.start()
                nursery.start_soon(self._follow, events)
                nursery.start_soon(self._await_identity)
        finally:
            watcher.stop()

    async def reload(self) -> None:
        """Nothing to do: every update comes by itself."""

    def _emit(self, event: Event) -> None:
        """Take an event over from the watcher's thread; when trio is over, so is the interest."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._events.send_nowait, event)

    async def _follow(self, events: trio.MemoryReceiveChannel[Event]) -> None:
        async for event in events:
            newest = event
            with suppress(trio.WouldBlock):
                while True:  # in a storm of updates only the newest counts: each is the whole state
                    following = events.receive_nowait()
                    if not (isinstance(newest, Updated) and isinstance(following, Updated)):
                        self._apply(newest)
                    newest = following
            self._apply(newest)

    def _apply(self, event: Event) -> None:
        try:
            outcome = self._follower.take(event)
        except IdentityError as error:
            self._publisher.fail(error)
            return
        if outcome.is_withdrawn:
            self._publisher.withdraw()
        if outcome.credentials is not None:
            self._use(outcome.credentials)
        elif outcome.is_confirmed:
            self._publisher.confirm()

    def _use(self, credentials: SvidCredentials) -> None:
        number = self._follower.generation
        try:
            self._publisher.use(number, credentials)
        except IdentityError as error:
            why = f"{error.reason.value}: {escape(str(error))}"
            self._log.write(f"generation {number} cannot be used, the last good one stays: {why}")
            return
        self._ready.set()

    async def _await_identity(self) -> None:
        limit = self._source.timeout
        with trio.move_on_after(limit or math.inf):
            await self._ready.wait()
            return
        why = self._follower.complaint or "the Workload API has not answered"
        self._publisher.fail(
            IdentityError(
                IdentityFault.TIMEOUT,
                "timed out or failed waiting for initial SPIFFE Workload API update: no identity from "
                f"{self._source.endpoint} within {limit:g}s (does the agent run, and has it an entry for this process?): {why}",
            )
        )
