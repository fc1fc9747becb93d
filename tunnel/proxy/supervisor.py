"""The control plane of one proxy: from the first identity to the end of the drain.

Knows what follows from new credentials, a signal or a deadline; must not know bytes or handshakes. It is trio's part:
everything here waits for something slow, and it reaches the data plane by plain calls in the same thread.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import trio

from tunnel.config.model import ProxyConfig
from tunnel.errors import ConfigError, TargetError, TunnelError
from tunnel.identity.credentials import Credentials
from tunnel.log import Log
from tunnel.net.address import Address
from tunnel.net.listen import Listener, open_listener
from tunnel.net.sockets import Endpoint, resolve
from tunnel.proxy.board import Board
from tunnel.proxy.feed import Feed, Publisher
from tunnel.proxy.generation import Terms, build_generation
from tunnel.proxy.policy_desk import PolicyDesk
from tunnel.proxy.reloader import Reloader
from tunnel.proxy.settings import Settings
from tunnel.proxy.surroundings import Surroundings
from tunnel.proxy.tunnel import Tunnel
from tunnel.relay.loop import Loop
from tunnel.status.counters import Counters, timed_counters

if TYPE_CHECKING:  # loaded only when a status port, metrics or ACME are wanted
    from tunnel.status.server import StatusPort
    from tunnel.status.snapshot import MetricsSource
    from tunnel.tls.challenge import ChallengeGate

OpenFeed = Callable[[Publisher], Feed]

WITHDRAWAL_GRACE = 60.0  # seconds: an agent's restart or a rewritten entry must not cut service
_REVIEW_INTERVAL = 5.0  # seconds between looks at the clock on the wall, which may jump

_STOP = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupt"}
_RELOAD = {signal.SIGHUP: "hangup", signal.SIGUSR1: "user defined signal 1"}


class Supervisor:
    """Runs one tunnel."""

    def __init__(self, config: ProxyConfig, loop: Loop, log: Log, open_feed: OpenFeed, surroundings: Surroundings) -> None:
        self._config = config
        self._log = log
        self._surroundings = surroundings
        self._board = Board(config, surroundings.notifier)
        self._ready = trio.Event()
        self._empty = trio.Event()
        self._stop_wanted = trio.Event()
        self._status_over = trio.Event()
        self._status_over.set()  # until there is a status port
        self._failure: TunnelError | None = None
        self.exit_code = 0
        self._terms = Terms(config.is_server, config.access, config.host, config.tls)
        self._policy = PolicyDesk(config.access.policy, config.connect_timeout) if config.access.policy else None
        if self._policy is not None:
            self._terms = self._terms.with_policy(self._policy.rule)
        has_sink = config.status is not None or config.metrics.has_target()
        counters = timed_counters() if has_sink else Counters()
        self._tunnel = Tunnel(loop, _settings(config), log, self._resolve_later, counters=counters)
        self._metrics = _open_metrics(self._tunnel) if has_sink else None
        self._feed = open_feed(self)
        self._reloader = Reloader(self._feed, self._policy, self._board, counters, log, interval=config.timed_reload)

    async def run(self) -> None:
        """Wait for an identity, serve, drain; raises TunnelError when service cannot begin."""
        self._token = trio.lowlevel.current_trio_token()
        with trio.open_signal_receiver(*_STOP, *_RELOAD) as signals:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._feed.run)
                nursery.start_soon(self._serve)
                nursery.start_soon(self._obey, signals)
                await self._stop_wanted.wait()
                await self._drain()
                self._end()
        if self._failure is not None:
            raise self._failure

    # -- what the feed says

    def use(self, number: int, credentials: Credentials) -> None:
        """Build all, then swap; what cannot be built is not used, and what is in use stays."""
        generation = build_generation(number, credentials, self._terms)
        self._tunnel.swap(generation)
        self._board.show_identity(generation)
        self._tunnel.counters.certificates.note(is_well=True)
        self._ready.set()

    def confirm(self) -> None:
        """What is in use is ours still."""
        self._tunnel.confirm()

    def withdraw(self) -> None:
        """What is in use has been taken away from us."""
        self._tunnel.withdraw(WITHDRAWAL_GRACE)

    def expect_probes(self, gate: ChallengeGate) -> None:
        """From now on an ACME server may look in where we listen."""
        from tunnel.relay.gate import GatedHandshake

        self._tunnel.new_handshake = partial(GatedHandshake, gate=gate)
        self._terms = replace(self._terms, knows_acme=True)

    def fail(self, error: TunnelError) -> None:
        """End, with this reason."""
        self._failure = error
        self._end()

    def _end(self) -> None:
        """Leave nothing running; a policy first, since threads may wait for its answers."""
        if self._policy is not None:
            self._policy.close()
        self._nursery.cancel_scope.cancel()

    # -- serving

    async def _serve(self) -> None:
        try:
            await self._check_target()
            if self._policy is not None:
                await self._policy.load()
            port = self._build_status_port()
            await self._ready.wait()
            await self._open(port)
        except TunnelError as error:
            self.fail(error)
            return
        self._nursery.start_soon(self._reloader.run)
        self._nursery.start_soon(self._beat)
        while True:  # an identity can run out between two updates
            await trio.sleep(_REVIEW_INTERVAL)
            self._tunnel.review()
            self._surroundings.strays.drain(self._log.write)

    async def _check_target(self) -> None:
        """Whether the target's name means anything; the answer is thrown away, since it may change."""
        if not self._config.is_resolved_early or self._config.outbound is not None:
            return
        try:
            await trio.to_thread.run_sync(resolve, self._config.target, abandon_on_cancel=True)
        except TargetError as error:
            raise ConfigError(f"invalid target address: {error}") from error
        self._log.write(f"using target address {self._config.target}")

    def _build_status_port(self) -> StatusPort | None:
        config = self._config
        if self._metrics is not None and config.metrics.has_target():
            from tunnel.proxy.reporting import start_reports

            start_reports(self._nursery, config.metrics, config.ca_bundle, self._metrics, self._log)
        if config.status is None or self._metrics is None:
            return None
        from tunnel.proxy.status_port import build_status_port

        return build_status_port(config, config.status, self._tunnel, self._board, self._metrics, self._shut_down, self._log)

    async def _open(self, port: StatusPort | None) -> None:
        """Everything has been loaded: listen on both sides, with nothing in between."""
        status = self._config.status
        inherited = self._surroundings.inherited
        listener: Listener = open_listener(self._config.listen, inherited)
        try:
            status_listener = open_listener(status.address.address, inherited) if status is not None else None
        except ConfigError:
            listener.close()
            raise
        self._tunnel.open(listener)
        self._board.show_listening()
        if port is not None and status_listener is not None:
            await self._nursery.start(partial(self._serve_status, status_listener, port))
        self._log.write(f"listening for connections on {str(listener).removeprefix('tcp:')}")

    async def _serve_status(self, listener: Listener, port: StatusPort, *, task_status: trio.TaskStatus[object]) -> None:
        from tunnel.status.server import serve_status

        self._status_over = trio.Event()
        try:
            await serve_status(listener, port, stopping=self._stop_wanted, task_status=task_status)
        finally:
            self._status_over.set()

    def _shut_down(self) -> None:
        """Asked for by HTTP, perhaps more than once."""
        self._log.write("shutdown was requested via status endpoint")
        if not self._stop_wanted.is_set():
            self._log.write("shutdown request processing, shutting down")
            self._stop_wanted.set()

    async def _beat(self) -> None:
        """Tell the watchdog that the loop turns: a loop that hangs falls silent."""
        while self._surroundings.notifier.interval:
            self._surroundings.notifier.beat()
            await trio.sleep(self._surroundings.notifier.interval)

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
        """Stop or reload; in the drain an end that was asked for stays asked for."""
        async for number in signals:
            if number in _STOP and self._stop_wanted.is_set():
                signal.raise_signal(number)  # came before it could end the process by itself
            elif number in _STOP:
                self._log.write(f"received {_STOP[signal.Signals(number)]}, shutting down")
                self._stop_wanted.set()
            elif self._stop_wanted.is_set():
                self._log.write(f"received {_RELOAD[signal.Signals(number)]}, ignored while shutting down")
            else:
                self._log.write(f"received {_RELOAD[signal.Signals(number)]}, reloading TLS configuration")
                self._reloader.ask()

    async def _drain(self) -> None:
        for number in _STOP:
            signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
        self._board.show_stopping()
        self._tunnel.on_empty = self._report_empty
        self._tunnel.drain()
        self._log.write(f"shutdown proxy, waiting for drain of {len(self._tunnel)} connections")
        if len(self._tunnel):
            with trio.move_on_after(max(self._config.shutdown_timeout, 0)):
                await self._empty.wait()
        if len(self._tunnel):
            self._log.write(f"graceful shutdown timeout: forcing exit, {self._tunnel.cut()} connections cut")
            self.exit_code = 1
        await self._status_over.wait()  # whoever asked for the end by HTTP gets an answer; it takes seconds at most
        self._log.write(f"stopped {self._tunnel.counters.summary()}".rstrip())

    def _report_empty(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._empty.set)


def _open_metrics(tunnel: Tunnel) -> MetricsSource:
    from tunnel.status.snapshot import open_metrics

    return open_metrics(tunnel.counters, tunnel.standing)


def _settings(config: ProxyConfig) -> Settings:
    return Settings(
        is_server=config.is_server,
        target=config.target,
        host=config.host,
        outbound=config.outbound,
        header=config.header_mode,
        connect_timeout=config.connect_timeout,
        close_timeout=config.close_timeout,
        max_conn_lifetime=config.max_conn_lifetime,
        max_concurrent_conns=config.max_concurrent_conns,
    )
