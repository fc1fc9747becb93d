"""The control plane of one proxy: credentials, reload, status port, drain.

It runs in trio and calls the data plane directly, because both run on the same thread.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from tunnel.config.model import ListenerConfig, Monitor, ProcessConfig
from tunnel.errors import ConfigError, TargetError, TargetFault, TunnelError
from tunnel.identity.credentials import Credentials
from tunnel.log import Log, escape
from tunnel.net.activation import ActivationSockets
from tunnel.net.address import Address, ListenAddress, TcpAddress
from tunnel.net.holders import Holders, SharedPort, find_shared_port
from tunnel.net.listen import Listener, open_listener
from tunnel.net.notify import Notifier
from tunnel.net.sockets import resolve
from tunnel.proxy.generation import GenerationConfig, build_generation
from tunnel.proxy.identity_source import CredentialSink, IdentitySource
from tunnel.proxy.reloadable_policy import ReloadablePolicy
from tunnel.proxy.reloader import Reloader
from tunnel.proxy.state_reporter import StateReporter
from tunnel.proxy.tunnel import Resolved, Tunnel
from tunnel.relay.loop import Loop
from tunnel.status.counters import Counters, WorkloadApiState, timed_counters

if TYPE_CHECKING:  # loaded only when a status port, metrics or ACME are wanted
    from tunnel.http.server import HttpService
    from tunnel.status.snapshot import MetricsSource
    from tunnel.tls.acme_challenge import AcmeChallenges

OpenSource = Callable[[CredentialSink], IdentitySource]

WITHDRAWAL_GRACE = 60.0  # seconds: the restart of an agent or a changed entry must not interrupt service
_HOLDERS_LIMIT = 5.0  # seconds for the search for other listeners, which the start waits for
_REVIEW_INTERVAL = 5.0  # seconds between checks of the wall clock, which may jump


class Proxy:
    """Serves from the first identity until the drain; `stop_requested` is set at a request for the drain."""

    def __init__(
        self,
        config: ListenerConfig,
        process: ProcessConfig,
        loop: Loop,
        log: Log,
        open_source: OpenSource,
        inherited: ActivationSockets,
        notifier: Notifier,
        *,
        holders: Holders | None = None,
    ) -> None:
        self.config = config
        self.process = process
        monitors = [one for one in process.monitors if not one.listeners or config.name in one.listeners]
        self._monitor = monitors[0] if monitors else Monitor()
        self.stop_requested = trio.Event()
        self.is_listening = trio.Event()
        self.bound: Any = None  # the address of the listening socket
        self._log = log
        self._inherited = inherited
        self._holders = holders or {}
        self._state_reporter = StateReporter(config, notifier)
        self._is_stopping = trio.Event()
        self._ready = trio.Event()
        self._empty = trio.Event()
        self._status_closed = trio.Event()
        self._status_closed.set()  # there is no status port yet
        self._failure: TunnelError | None = None
        self._is_over = False
        self._generation_config = GenerationConfig(config.is_server, config.access, config.host, config.tls)
        self._policy = ReloadablePolicy(config.access.policy, config.connect_timeout) if config.access.policy else None
        if self._policy is not None:
            self._generation_config = self._generation_config.with_policy(self._policy.rule)
        has_sink = self._monitor.status is not None or self._monitor.metrics.has_target()
        counters = timed_counters() if has_sink else Counters()
        self.tunnel = Tunnel(loop, config, log, self._resolve_later, counters=counters)
        self.tunnel.on_identity_error = self._show_identity_error
        self.on_identity_change: Callable[[], None] | None = None
        self._metrics = _open_metrics(self.tunnel) if has_sink else None
        self._identity_source = open_source(self)
        self._reloader = Reloader(
            self._identity_source, self._policy, self._state_reporter, counters, log, interval=process.timed_reload
        )

    async def run(self) -> None:
        """Serve until `close`; raises TunnelError if the proxy cannot start or continue."""
        self._token = trio.lowlevel.current_trio_token()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._identity_source.run)
                nursery.start_soon(self._serve)
        finally:
            self._is_over = True
            if self._policy is not None:  # threads may wait for it
                self._policy.close()
        if self._failure is not None:
            raise self._failure

    @property
    def problem(self) -> str:
        """What is wrong with the identity source, "" if nothing is known."""
        return self._state_reporter.state.source_error or ""

    @property
    def pids(self) -> set[int]:
        """The child processes that this proxy waits for."""
        return self._policy.pids if self._policy is not None else set()

    def reload(self) -> None:
        """Request a reload of files and policy."""
        self._reloader.request()

    def show_shutdown_delay(self, seconds: float) -> None:
        """Report not ready from now on; connections are accepted until `stop_accepting`, `seconds` later."""
        self._state_reporter.show_shutdown_delay(seconds)

    async def delay_shutdown(self, seconds: float) -> None:
        """Report not ready and continue to serve for so many seconds; return at once if the proxy does not listen yet."""
        if seconds and self._state_reporter.state.is_listening:
            self.show_shutdown_delay(seconds)
            self._log.info(f"shutdown delay: not ready, accepting connections for {seconds:g}s more")
            await trio.sleep(seconds)
            self._log.info("shutdown delay is over")

    def stop_accepting(self) -> None:
        """Stop accepting connections, and close those whose relay has not begun."""
        self.stop_requested.set()
        self._is_stopping.set()
        self._state_reporter.show_stopping()
        self.tunnel.on_empty = self._report_empty
        self.tunnel.drain()

    async def drain(self, limit: float) -> int:
        """Wait at most `limit` seconds for relays to end, then close the rest; return how many were closed."""
        self.stop_accepting()
        self._log.info(f"shutdown proxy, waiting for drain of {len(self.tunnel)} connections")
        aborted = 0
        if len(self.tunnel):
            with trio.move_on_after(max(limit, 0)):
                await self._empty.wait()
        if len(self.tunnel):
            aborted = self.tunnel.abort()
            self._log.write(f"graceful shutdown timeout: forcing exit connections={aborted}")
        await self._status_closed.wait()  # the response to /_shutdown; takes seconds at most
        self.tunnel.refusals.flush()
        self._log.info(f"stopped {self.tunnel.counters.summary()}".rstrip())
        return aborted

    def close(self) -> None:
        """Stop all tasks."""
        self._nursery.cancel_scope.cancel()

    # -- the identity source

    def use(self, number: int, credentials: Credentials) -> None:
        """Build a generation and swap it in; raises IdentityError, and the previous generation stays in use."""
        generation = build_generation(number, credentials, self._generation_config)
        self.tunnel.swap(generation)
        for warning in generation.warnings:
            self._log.write(f"warning: {warning}")
        self._state_reporter.show_identity(generation)
        self.tunnel.counters.certificates.count(is_success=True)
        self._ready.set()

    def confirm(self) -> None:
        """The identity in use is still valid, also after `withdraw`."""
        self.tunnel.confirm()

    def withdraw(self) -> None:
        """The identity in use is no longer granted: use it for `WITHDRAWAL_GRACE` at most."""
        self.tunnel.withdraw(WITHDRAWAL_GRACE)

    def _show_identity_error(self, error: str) -> None:
        self._state_reporter.show_identity_error(error)
        if self.on_identity_change is not None:
            self.on_identity_change()

    def show_workload_api(self, state: WorkloadApiState) -> None:
        """Publish the state of the Workload API connection."""
        self.tunnel.counters.workload_api = state
        self._state_reporter.show_workload_api(state.error)

    def accept_challenges(self, challenges: AcmeChallenges) -> None:
        """Answer ACME challenges on the listener from now on."""
        from tunnel.relay.acme_handshake import AcmeHandshake

        self.tunnel.new_handshake = partial(AcmeHandshake, challenges=challenges)
        self._generation_config = replace(self._generation_config, accepts_acme=True)

    def fail(self, error: TunnelError) -> None:
        """Stop all tasks; `run` raises this error."""
        self._failure = error
        self.close()

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
        self.is_listening.set()
        while True:  # an identity can expire between two updates
            await trio.sleep(_REVIEW_INTERVAL)
            self.tunnel.review()

    async def _check_target(self) -> None:
        """Check that the target's name can be resolved; the addresses are not kept, because they may change."""
        if not self.config.is_resolved_early or self.config.outbound is not None:
            return
        try:
            await trio.to_thread.run_sync(resolve, self.config.target, abandon_on_cancel=True)
        except TargetError as error:
            raise ConfigError(f"invalid target address: {error}") from error
        self._log.info(f"using target address {self.config.target}")

    def _build_status_port(self) -> HttpService | None:
        status, metrics = self._monitor.status, self._monitor.metrics
        if self._metrics is not None and metrics.has_target():
            from tunnel.proxy.reporting import start_reports

            start_reports(self._nursery, metrics, self._metrics, self._log)
        if status is None or self._metrics is None:
            return None
        from tunnel.proxy.status_port import build_status_port

        return build_status_port(
            self.config,
            status,
            metrics.prefix,
            self.tunnel,
            self._state_reporter,
            self._metrics,
            self._on_shutdown_request,
            self._log,
        )

    async def _open(self, port: HttpService | None) -> None:
        """Open the listener and the status port. Nothing may fail between the two: all else is loaded before."""
        status = self._monitor.status
        inherited = self._inherited
        listener = open_listener(self.config.listen, inherited) if self.config.listen is not None else None
        try:
            status_listener = open_listener(status.address.address, inherited) if status is not None else None
        except ConfigError:
            if listener is not None:
                listener.close()
            raise
        if listener is not None:
            self.tunnel.open(listener)
            self.bound = listener.socket.getsockname()
        self._state_reporter.show_listening()
        if port is not None and status_listener is not None:
            await self._nursery.start(partial(self._serve_status, status_listener, port))
        await self._report_sharing("listen", self.config.listen, listener)
        await self._report_sharing("status", status.address.address if status is not None else None, status_listener)
        if listener is not None:
            self._log.info(f"listening for connections on {str(listener).removeprefix('tcp:')}")

    async def _report_sharing(self, name: str, address: ListenAddress | None, listener: Listener | None) -> None:
        """Warn if another socket listens where ours does, which SO_REUSEPORT allows: for a restart, or by mistake."""
        if not isinstance(address, TcpAddress) or address.port == "0" or listener is None:
            return
        find = partial(find_shared_port, listener.socket, self._holders)
        with trio.move_on_after(_HOLDERS_LIMIT):
            sharing = await trio.to_thread.run_sync(find, abandon_on_cancel=True)
            if sharing is not None:
                self._log.write(f"warning: --{name} {address}: {escape(_describe_sharing(sharing))}")

    async def _serve_status(self, listener: Listener, port: HttpService, *, task_status: trio.TaskStatus[object]) -> None:
        from tunnel.http.server import serve_http

        self._status_closed = trio.Event()
        try:
            await serve_http(listener, port, stopping=self._is_stopping, task_status=task_status)
        finally:
            self._status_closed.set()

    def _on_shutdown_request(self) -> None:
        """Request the drain; may be called more than once."""
        self._log.info("shutdown was requested via status endpoint")
        if not self.stop_requested.is_set():
            self._log.info("shutdown request processing, shutting down")
            self.stop_requested.set()

    def _resolve_later(self, address: Address, answer: Callable[[Resolved], object]) -> None:
        async def ask() -> None:
            result: Resolved
            try:
                result = await trio.to_thread.run_sync(resolve, address, abandon_on_cancel=True)
            except TargetError as error:
                result = error
            answer(result)

        def begin() -> None:
            if self._is_over:  # the process may run other proxies
                answer(TargetError(TargetFault.RESOLVE, f"{address}: not resolved because the proxy has stopped"))
            else:
                self._nursery.start_soon(ask)

        self._token.run_sync_soon(begin)

    def _report_empty(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._empty.set)


def _describe_sharing(sharing: SharedPort) -> str:
    if sharing.is_same_address:
        return f"{sharing.holders} listens there too: the kernel shares new connections among them at random"
    return f"{sharing.holders} listens on this port at an overlapping address: each gets some of the new connections"


def _open_metrics(tunnel: Tunnel) -> MetricsSource:
    from tunnel.status.snapshot import open_metrics

    return open_metrics(tunnel.counters, tunnel.gauges)
