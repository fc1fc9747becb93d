"""One identity source of the process, and the listeners that use its credentials."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from tunnel.config.model import IdentityConfig
from tunnel.errors import TunnelError
from tunnel.identity.credentials import Credentials
from tunnel.lazy_dataclass import replace
from tunnel.listener.generation import Generation, GenerationBuilder
from tunnel.log import Log
from tunnel.proxy.identity_facts import describe_credentials, describe_rotation
from tunnel.proxy.identity_source import CredentialSink, IdentitySource, reload_source
from tunnel.proxy.proxy_listener import ProxyListener
from tunnel.status.counters import Counters, WorkloadApiState
from tunnel.status.identity_report import NO_CREDENTIALS, IdentityReport, Rotation

if TYPE_CHECKING:  # loaded only when a certificate comes from an ACME server
    from tunnel.tls.acme_challenge import AcmeChallenges

OpenSource = Callable[[IdentityConfig, CredentialSink], IdentitySource]

_SLICE = 0.01  # seconds
_MOST_ROTATIONS = 20  # that are shown
WITHDRAWAL_GRACE = 60.0  # seconds: the restart of an agent or a changed entry must not interrupt service


class Slices:
    """Divides work on the thread of the event loop into slices; connections are served for as long in between.

    The slices have a length instead of a number: if the loop is busy, each pause takes at least a turn of it.
    """

    def __init__(self) -> None:
        self._ends = time.perf_counter() + _SLICE

    async def next(self) -> None:
        """Pause if the slice is over."""
        if time.perf_counter() >= self._ends:
            await trio.sleep(_SLICE)
            self._ends = time.perf_counter() + _SLICE


class IdentityFeed:
    """Publishes the credentials of one source to its listeners; a CredentialSink."""

    def __init__(
        self,
        config: IdentityConfig,
        open_source: OpenSource,
        on_failure: Callable[[IdentityFeed, TunnelError], None],
        log: Log,
    ) -> None:
        self.config = config
        self.listeners: list[ProxyListener] = []
        self.counters = Counters()  # of the source: certificates and the Workload API
        self.credentials: Credentials | None = None
        self.number = 0
        self._rotations: deque[Rotation] = deque(maxlen=_MOST_ROTATIONS)  # the newest first
        self._replaced = 0  # how often our certificate was replaced by another one
        self.ready = trio.Event()  # credentials are in use, or `failure` is set
        self.failure: TunnelError | None = None
        self._on_failure = on_failure
        self._challenges: AcmeChallenges | None = None
        self._withdrawn_until: float | None = None  # trio's time; None if the credentials are not withdrawn
        self.source = open_source(config, self)
        self._scope = trio.CancelScope()
        self._log = log
        self._warned_of, self._warnings = 0, set[str]()  # the number of credentials, and what was logged about them
        self._is_built = trio.Event()
        self._is_built.set()

    async def run(self) -> None:
        """Publish the first credentials, then every change, until `close`."""
        with self._scope:
            await self.source.run()

    async def reload(self) -> None:
        """Read the files of the source again and use them; raises IdentityError, and the previous credentials stay in use."""
        await reload_source(self.source)

    def close(self) -> None:
        """Stop the source."""
        self._scope.cancel()

    @property
    def problem(self) -> str:
        """What is wrong with the source, "" if nothing is known."""
        return self.counters.workload_api.error if self.counters.workload_api is not None else ""

    def join(self, listener: ProxyListener) -> None:
        """Publish to this listener too, from the next credentials on."""
        self.listeners.append(listener)
        self._introduce(listener)

    def leave(self, listener: ProxyListener) -> None:
        """Stop publishing to this listener."""
        self.listeners.remove(listener)

    def apply(self, listener: ProxyListener, generation: Generation) -> None:
        """Put a generation with the current credentials into use on one listener; their withdrawal goes on."""
        until = self._withdrawn_until
        self._use(listener, generation, withdrawn_in=None if until is None else until - trio.current_time())

    def _use(self, listener: ProxyListener, generation: Generation, withdrawn_in: float | None = None) -> None:
        listener.use(generation, withdrawn_in=withdrawn_in)
        if generation.number != self._warned_of:
            self._warned_of, self._warnings = generation.number, set()
        for warning in generation.warnings:
            if warning not in self._warnings:  # once, and not for each listener
                self._warnings.add(warning)
                self._log.write(f"warning: {warning}")

    def adopt(self, credentials: Credentials) -> None:
        """The listeners have generations with credentials that the source has read: they are the current ones."""
        self.source.adopt(credentials)
        self._take(self.number + 1, credentials)
        self.counters.certificates.count(is_success=True)

    def _take(self, number: int, credentials: Credentials) -> None:
        self.number, self.credentials = number, credentials
        rotation = describe_rotation(credentials, time.time())
        self._replaced += bool(self._rotations) and self._rotations[0].serial != rotation.serial
        self._rotations.appendleft(rotation)

    def report(self) -> IdentityReport:
        """What the source has delivered, for status ports."""
        names = tuple(listener.name for listener in self.listeners)
        facts = describe_credentials(self.credentials) if self.credentials is not None else NO_CREDENTIALS
        return replace(
            facts,
            name=self.config.name,
            source=str(self.config.source),
            listeners=names,
            generation=self.number,
            problem=self.problem,
            rotations=tuple(self._rotations),
            replaced=self._replaced,
        )

    # -- the identity source

    async def use(self, number: int, credentials: Credentials) -> None:
        """Use credentials from the next handshake on; raises IdentityError, and the previous generations stay in use.

        Nothing is in use before everything is built. Meanwhile no listener may join, or change.
        """
        self._is_built = trio.Event()
        try:
            generations = await self._build(GenerationBuilder(number, credentials))
        finally:
            self._is_built.set()
        self._take(number, credentials)
        self._withdrawn_until = None
        for listener in self.listeners:  # others may have left
            self._use(listener, generations[listener])
        self.counters.certificates.count(is_success=True)
        self.ready.set()

    async def _build(self, builder: GenerationBuilder) -> dict[ProxyListener, Generation]:
        """Build the generation of each listener, one for those with equal configurations; raises IdentityError."""
        slices, built = Slices(), dict[object, Generation]()
        generations = {}
        for listener in list(self.listeners):
            key = listener.generation_config, id(listener.policy)  # equal rules of two policies are not the same
            if key not in built:
                await slices.next()
                built[key] = listener.build(builder)
            generations[listener] = built[key]
        return generations

    @property
    def is_building(self) -> bool:
        """Whether credentials are not in use yet because generations are built."""
        return not self._is_built.is_set()

    async def wait_built(self) -> None:
        """Wait for the end of that."""
        await self._is_built.wait()

    def confirm(self) -> None:
        """The credentials in use are still valid, also after `withdraw`."""
        self._withdrawn_until = None
        for listener in self.listeners:
            listener.tunnel.confirm()

    def withdraw(self) -> None:
        """The issuer no longer grants the identity in use: use it for `WITHDRAWAL_GRACE` at most."""
        if self._withdrawn_until is None:
            self._withdrawn_until = trio.current_time() + WITHDRAWAL_GRACE
        for listener in self.listeners:
            listener.tunnel.withdraw(WITHDRAWAL_GRACE)

    def show_workload_api(self, state: WorkloadApiState) -> None:
        """Publish the state of the Workload API connection."""
        self.counters.workload_api = state
        for listener in self.listeners:
            listener.show_workload_api(state.error)

    def accept_challenges(self, challenges: AcmeChallenges) -> None:
        """Answer ACME challenges on the listeners from now on."""
        self._challenges = challenges
        for listener in self.listeners:
            listener.accept_challenges(challenges)

    def fail(self, error: TunnelError) -> None:
        """There will be no credentials."""
        self.failure = error
        self.ready.set()
        self._on_failure(self, error)

    def _introduce(self, listener: ProxyListener) -> None:
        listener.accept_challenges(self._challenges)
        state = self.counters.workload_api
        listener.show_workload_api(state.error if state is not None else None)
