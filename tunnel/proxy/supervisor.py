"""The control plane of one proxy: from the first identity to the end of the drain.

Knows what follows from an update, a signal or a deadline; must not know bytes or handshakes. It is trio's part: everything
here waits for something slow, and it reaches the data plane by plain calls in the same thread.
"""

from __future__ import annotations

import math
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import trio

from tunnel.config.proxy import ProxyConfig
from tunnel.errors import IdentityError, IdentityFault, TargetError, TunnelError
from tunnel.identity.credentials import Credentials
from tunnel.identity.follower import Follower
from tunnel.identity.workload import Event, Updated, WorkloadWatcher
from tunnel.log import Log, escape
from tunnel.net.address import Address
from tunnel.net.listen import Listener, open_listener
from tunnel.net.sockets import Endpoint, resolve
from tunnel.proxy.generation import build_generation
from tunnel.proxy.settings import Settings
from tunnel.proxy.tunnel import Tunnel
from tunnel.relay.loop import Loop

WITHDRAWAL_GRACE = 60.0  # seconds: an agent's restart or a rewritten entry must not cut service
_REVIEW_INTERVAL = 5.0  # seconds between looks at the clock on the wall, which may jump

_STOP = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupt"}
_RELOAD = {signal.SIGHUP: "hangup", signal.SIGUSR1: "user defined signal 1"}


class Supervisor:
    """Runs one tunnel."""

    def __init__(self, config: ProxyConfig, loop: Loop, log: Log) -> None:
        self._config = config
        self._log = log
        self._ready = trio.Event()
        self._empty = trio.Event()
        self._failure: TunnelError | None = None
        self.exit_code = 0
        self._tunnel = Tunnel(loop, _settings(config), log, self._resolve_later)
        self._follower = Follower(config.selection, log.write)

    async def run(self) -> None:
        """Wait for an identity, serve, drain; raises TunnelError when service cannot begin."""
        self._announce()
        self._token = trio.lowlevel.current_trio_token()
        self._events, events = trio.open_memory_channel[Event](math.inf)
        watcher = WorkloadWatcher(self._config.endpoint, self._emit)
        with trio.open_signal_receiver(*_STOP, *_RELOAD) as signals:
            try:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    watcher.start()
                    nursery.start_soon(self._follow, events)
                    nursery.start_soon(self._serve)
                    await self._obey(signals)
                    nursery.start_soon(self._ignore, signals)
                    await self._drain()
                    nursery.cancel_scope.cancel()
            finally:
                watcher.stop()
        if self._failure is not None:
            raise self._failure

    def _announce(self) -> None:
        mode = "server" if self._config.is_server else "client"
        self._log.write(f"starting tunnel in {mode} mode")
        self._log.write(f"using SPIFFE Workload API as certificate source: {self._config.endpoint}")
        for warning in self._config.warnings:
            self._log.write(f"warning: {escape(warning)}")

    def _fail(self, error: TunnelError) -> None:
        self._failure = error
        self._nursery.cancel_scope.cancel()

    # -- the identity

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
            self._fail(error)
            return
        if outcome.is_withdrawn:
            self._tunnel.withdraw(WITHDRAWAL_GRACE)
        if outcome.credentials is not None:
            self._use(outcome.credentials)
        elif outcome.is_confirmed:
            self._tunnel.confirm()

    def _use(self, credentials: Credentials) -> None:
        """Build all, then swap; what cannot be built is not used, and what is in use stays."""
        config, number = self._config, self._follower.generation
        try:
            generation = build_generation(number, credentials, config.rules, is_server=config.is_server)
        except IdentityError as error:
            self._log.write(
                f"generation {number} cannot be used, the last good one stays: {error.reason.value}: {escape(str(error))}"
            )
            return
        self._tunnel.swap(generation)
        self._ready.set()

    # -- serving

    async def _serve(self) -> None:
        try:
            await self._await_identity()
            self._open()
        except TunnelError as error:
            self._fail(error)
        while True:  # an identity can run out between two updates
            await trio.sleep(_REVIEW_INTERVAL)
            self._tunnel.review()

    async def _await_identity(self) -> None:
        limit = self._config.identity_timeout
        with trio.move_on_after(limit or math.inf):
            await self._ready.wait()
            return
        why = self._follower.complaint or "the Workload API has not answered"
        raise IdentityError(
            IdentityFault.TIMEOUT,
            f"no identity from {self._config.endpoint} within {limit:g}s (does the agent run, and has it an entry for this "
            f"process?): {why}",
        )

    def _open(self) -> None:
        listener: Listener = open_listener(self._config.listen)
        self._tunnel.open(listener)
        self._log.write(f"listening for connections on {str(listener).removeprefix('tcp:')}")

    def _resolve_later(self, address: Address, answer: Callable[[tuple[Endpoint, ...] | TargetError], None]) -> None:
        async def ask() -> None:
            result: tuple[Endpoint, ...] | TargetError
            try:
                result = await trio.to_thread.run_sync(resolve, address, abandon_on_cancel=True)
            except TargetError as error:
                result = error
            answer(result)

        self._token.run_sync_soon(self._nursery.start_soon, ask)

    # -- stopping

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        """Until a signal that means stop; reloading has nothing to do where every update comes by itself."""
        async for number in signals:
            if number in _STOP:
                self._log.write(f"received {_STOP[signal.Signals(number)]}, shutting down")
                return
            word = _RELOAD[signal.Signals(number)]
            self._log.write(f"received {word}, reloading TLS configuration: the Workload API keeps it current, nothing to do")

    async def _ignore(self, signals: AsyncIterator[int]) -> None:
        """In the drain: an end that was asked for stays asked for."""
        async for number in signals:
            if number in _STOP:  # came before it could end the process by itself
                signal.raise_signal(number)
            self._log.write(f"received {_RELOAD[signal.Signals(number)]}, ignored while shutting down")

    async def _drain(self) -> None:
        for number in _STOP:
            signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
        self._tunnel.on_empty = self._report_empty
        self._tunnel.drain()
        self._log.write(f"shutdown proxy, waiting for drain of {len(self._tunnel)} connections")
        if len(self._tunnel):
            with trio.move_on_after(max(self._config.shutdown_timeout, 0)):
                await self._empty.wait()
        if len(self._tunnel):
            self._log.write(f"graceful shutdown timeout: forcing exit, {self._tunnel.cut()} connections cut")
            self.exit_code = 1
        self._log.write(f"stopped {self._tunnel.counters.summary()}".rstrip())

    def _report_empty(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._empty.set)


def _settings(config: ProxyConfig) -> Settings:
    return Settings(
        is_server=config.is_server,
        target=config.target,
        connect_timeout=config.connect_timeout,
        close_timeout=config.close_timeout,
        max_conn_lifetime=config.max_conn_lifetime,
        max_concurrent_conns=config.max_concurrent_conns,
    )
