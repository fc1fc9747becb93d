"""The identity source for the SPIFFE Workload API."""

from __future__ import annotations

import math
import time
from functools import partial

import trio

from tunnel.config.model import Revocation, WorkloadApi
from tunnel.errors import IdentityError, IdentityFault, identity_errors
from tunnel.identity.credentials import Credentials, SvidCredentials
from tunnel.identity.event_channel import EventChannel, WorkloadStreams, receive_newest
from tunnel.identity.events import Disconnected, Rejected, Updated, WorkloadEvent
from tunnel.identity.identity_tracker import IdentityTracker, describe_timeout
from tunnel.lazy_dataclass import replace
from tunnel.log import Log, escape
from tunnel.pkix.revocation import RevocationLists
from tunnel.proxy.identity_source import CredentialSink
from tunnel.status.counters import WorkloadApiState


class WorkloadApiSource:
    """Publishes each update for one selection, with the revocation lists in files; the sources of a process share `streams`."""

    def __init__(
        self,
        source: WorkloadApi,
        revocation: Revocation,
        sink: CredentialSink,
        log: Log,
        streams: WorkloadStreams | None = None,
    ) -> None:
        self._source = source
        self._revocation = revocation
        self._lists = RevocationLists(is_required=revocation.is_required)  # in files
        self._read_lists = self._lists  # by the last `read`
        self._credentials: SvidCredentials | None = None  # of the last usable update
        self._is_withdrawn = False
        self._sink = sink
        self._log = log
        self._streams = streams or WorkloadStreams()
        self._tracker = IdentityTracker(source.selection, log.write, log.info)
        self._state = WorkloadApiState()
        self._ready = trio.Event()
        self._publishing = trio.Lock()

    async def run(self) -> None:
        """Publish every update until cancelled."""
        try:
            self._lists = await self._load_lists()
        except IdentityError as error:
            self._sink.fail(error)
            return
        subscription = self._streams.subscribe(self._source.endpoint, self._source.selection)
        async with subscription as events, trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, events)
            nursery.start_soon(self._await_identity)

    async def read(self) -> SvidCredentials | None:
        """Read the revocation lists again; None if they are the same. Raises IdentityError."""
        lists = await self._load_lists()
        if lists == self._lists:
            return None
        if self._credentials is None or self._is_withdrawn:
            self._lists = lists
            return None
        self._read_lists = lists
        return _complete(self._credentials, lists)

    async def publish(self, _credentials: Credentials) -> None:
        """Use the newest SVID with the revocation lists that were read; raises IdentityError."""
        async with self._publishing:
            if self._credentials is None or self._is_withdrawn:  # meanwhile
                self._lists = self._read_lists
                return
            credentials = _complete(self._credentials, self._read_lists)
            await self._sink.use(self._tracker.generation + 1, credentials)
            self.adopt(credentials)

    def adopt(self, _credentials: Credentials) -> None:
        """The revocation lists that were read are in use."""
        self._lists = self._read_lists
        self._tracker.renumber()

    async def _load_lists(self) -> RevocationLists:
        if not self._revocation.files:
            return self._lists
        from tunnel.keystore.revocation_lists import load_revocation

        with identity_errors("the revocation lists cannot be used"):
            return await trio.to_thread.run_sync(partial(load_revocation, self._revocation), abandon_on_cancel=True)

    async def _follow(self, events: EventChannel) -> None:
        while True:
            for event in await receive_newest(events):
                async with self._publishing:
                    await self._apply(event)

    async def _apply(self, event: WorkloadEvent) -> None:
        try:
            outcome = self._tracker.take(event)
        except IdentityError as error:
            self._sink.fail(error)
            return
        self._show(event)
        if outcome.is_withdrawn:
            self._is_withdrawn = True
            self._sink.withdraw()
        if outcome.credentials is not None:
            await self._use(outcome.credentials, self._tracker.generation)
        elif outcome.is_confirmed and self._is_withdrawn and self._credentials is not None and self._revocation.files:
            await self._use(self._credentials, self._tracker.renumber())  # the lists may have changed
        elif outcome.is_confirmed:
            self._is_withdrawn = False
            self._sink.confirm()

    def _show(self, event: WorkloadEvent) -> None:
        state = self._state
        if isinstance(event, Updated):
            state = replace(
                state,
                error="",
                updates=state.updates + 1,
                skipped=state.skipped + len(event.context.skipped),
                skipped_lists=state.skipped_lists + event.context.skipped_lists,
                last_update=int(time.time()),
            )
        elif isinstance(event, Rejected):
            state = replace(state, rejected=state.rejected + 1)
        elif isinstance(event, Disconnected) and event.code != "OK":  # the agent may end a stream at any time
            state = replace(state, errors={**state.errors, event.code: state.errors.get(event.code, 0) + 1})
        self._state = replace(state, error=self._tracker.problem or state.error)
        self._sink.show_workload_api(self._state)

    async def _use(self, credentials: SvidCredentials, number: int) -> None:
        try:
            await self._sink.use(number, _complete(credentials, self._lists))
        except IdentityError as error:
            why = f"{error.reason.value}: {escape(str(error))}"
            self._log.write(f"identity update unusable: {why}; keeping the previous identity")
            return
        self._credentials, self._is_withdrawn = credentials, False
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


def _complete(credentials: SvidCredentials, lists: RevocationLists) -> SvidCredentials:
    """Add the lists in files to those of an update."""
    return replace(credentials, revocation=lists.with_lists(credentials.revocation.lists))
