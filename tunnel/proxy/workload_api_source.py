"""The identity source for the SPIFFE Workload API."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import trio

from tunnel.config.model import WorkloadApi
from tunnel.errors import IdentityError, IdentityFault
from tunnel.identity.credentials import Credentials, SvidCredentials
from tunnel.identity.event_channel import EventChannel, WorkloadStreams, receive_newest
from tunnel.identity.events import Rejected, Updated, WorkloadEvent
from tunnel.identity.identity_tracker import IdentityTracker, describe_timeout
from tunnel.log import Log, escape
from tunnel.proxy.identity_source import CredentialSink
from tunnel.status.counters import WorkloadApiState


class WorkloadApiSource:
    """Publishes each update for one selection; the sources of a process share `streams`."""

    def __init__(self, source: WorkloadApi, sink: CredentialSink, log: Log, streams: WorkloadStreams | None = None) -> None:
        self._source = source
        self._sink = sink
        self._log = log
        self._streams = streams or WorkloadStreams()
        self._tracker = IdentityTracker(source.selection, log.write, log.info)
        self._state = WorkloadApiState()
        self._ready = trio.Event()

    async def run(self) -> None:
        """Publish every update until cancelled."""
        subscription = self._streams.subscribe(self._source.endpoint, self._source.selection)
        async with subscription as events, trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, events)
            nursery.start_soon(self._await_identity)

    async def read(self) -> None:
        """Return None: the Workload API sends each update."""

    def publish(self, credentials: Credentials) -> None:
        """There is nothing to publish beside the updates."""
        raise AssertionError

    async def _follow(self, events: EventChannel) -> None:
        while True:
            for event in await receive_newest(events):
                self._apply(event)

    def _apply(self, event: WorkloadEvent) -> None:
        try:
            outcome = self._tracker.take(event)
        except IdentityError as error:
            self._sink.fail(error)
            return
        self._show(event)
        if outcome.is_withdrawn:
            self._sink.withdraw()
        if outcome.credentials is not None:
            self._use(outcome.credentials)
        elif outcome.is_confirmed:
            self._sink.confirm()

    def _show(self, event: WorkloadEvent) -> None:
        state = self._state
        if isinstance(event, Updated):
            skipped = state.skipped + len(event.context.skipped)
            state = replace(state, error="", updates=state.updates + 1, skipped=skipped, last_update=int(time.time()))
        elif isinstance(event, Rejected):
            state = replace(state, rejected=state.rejected + 1)
        self._state = replace(state, error=self._tracker.problem or state.error)
        self._sink.show_workload_api(self._state)

    def _use(self, credentials: SvidCredentials) -> None:
        number = self._tracker.generation
        try:
            self._sink.use(number, credentials)
        except IdentityError as error:
            why = f"{error.reason.value}: {escape(str(error))}"
            self._log.write(f"identity update unusable: {why}; keeping the previous identity")
            return
        self._ready.set()

    async def _await_identity(self) -> None:
        limit = self._source.timeout
        with trio.move_on_after(limit or math.inf):
            await self._ready.wait()
            return
        why = describe_timeout(self._source.endpoint, limit, self._tracker.problem)
        self._sink.fail(
            IdentityError(IdentityFault.TIMEOUT, f"timed out or failed waiting for initial SPIFFE Workload API update: {why}")
        )
