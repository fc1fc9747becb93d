"""One proxy: its tunnel, and everything that keeps it going.

Knows what follows from new credentials, from a reload and from the end; must not know signals or the process, which may hold
several of them. It is a part of trio's side: everything here waits for something slow, and it reaches the data plane by plain
calls in the same thread.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from tunnel.config.model import ProxyConfig
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
from tunnel.proxy.settings import tunnel_settings
from tunnel.proxy.state_reporter import StateReporter
from tunnel.proxy.tunnel import Resolved, Tunnel
from tunnel.relay.loop import Loop
from tunnel.status.counters import Counters, WorkloadApiState, timed_counters

if TYPE_CHECKING:  # loaded only when a status port, metrics or ACME are wanted
    from tunnel.http.server import HttpService
    from tunnel.status.snapshot import MetricsSource
    from tunnel.tls.acme_challenge import AcmeChallenges

OpenSource = Callable[[CredentialSink], IdentitySource]

WITHDRAWAL_GRACE = 60.0  # seconds: an agent's restart or a rewritten entry must not cut service
_HOLDERS_LIMIT = 5.0  # seconds for the look at who else listens, which the start waits for
_REVIEW_INTERVAL = 5.0  # seconds between looks at the clock on the wall, which may jump


class Proxy:
    """Serves from the first identity until it is drained; `stop_requested` says that somebody asks for that."""

    def __init__(
        self,
        config: ProxyConfig,
        loop: Loop,
        log: Log,
        open_source: OpenSource,
        inherited: ActivationSockets,
        notifier: Notifier,
        *,
        holders: Holders | None = None,
    ) -> None:
        self.config = config
        self.stop_requested = trio.Event()
        self.is_listening = trio.Event()
        self.bound: Any = None  # where it listens, as the socket has it
        self._log = log
        self._inherited = inherited
        self._holders = holders or {}
        self._state_reporter = StateReporter(config, notifier)
        self._is_stopping = trio.Event()
        self._ready = trio.Event()
        self._empty = trio.Event()
        self._status_closed = trio.Event()
        self._status_closed.set()  # until there is a status port
        self._failure: TunnelError | None = None
        self._is_over = False
        self._generation_config = GenerationConfig(config.is_server, config.access, config.host, config.tls)
        self._policy = ReloadablePolicy(config.access.policy, config.connect_timeout) if config.access.policy else None
        if self._policy is not None:
            self._generation_config = self._generation_config.with_policy(self._policy.rule)
        has_sink = config.status is not None or config.metrics.has_target()
        counters = timed_counters() if has_sink else Counters()
        self.tunnel = Tunnel(loop, tunnel_settings(config), log, self._resolve_later, counters=counters)
        self.tunnel.on_identity_error = self._show_identity_error
        self.on_identity_change: Callable[[], None] | None = None
        self._metrics = _open_metrics(self.tunnel) if has_sink else None
        self._identity_source = open_source(self)
        self._reloader = Reloader(
            self._identity_source, self._policy, self._state_reporter, counters, log, interval=config.timed_reload
        )

    async def run(self) -> None:
        """Serve until `close`; raises TunnelError when service cannot begin or go on."""
        self._token = trio.lowlevel.current_trio_token()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._identity_source.run)
                nursery.start_soon(self._serve)
        finally:
            self._is_over = True
            if self._policy is not None:  # threads may wait for its answers
                self._policy.close()
        if self._failure is not None:
            raise self._failure

    @property
    def pids(self) -> set[int]:
        """The processes that work for this proxy, whose status it takes."""
        return self._policy.pids if self._policy is not None else set()

    def reload(self) -> None:
        """Read again, soon, what changes without a word."""
        self._reloader.request()

    def show_shutdown_delay(self, seconds: float) -> None:
        """Report not ready from now on; connections are accepted until `shut`, which is to come in so many seconds."""
        self._state_reporter.show_shutdown_delay(seconds)

    async def delay_shutdown(self, seconds: float) -> None:
        """Go on serving for so many seconds and report not ready; not if nobody has been served yet."""
        if seconds and self._state_reporter.state.is_listening:
            self.show_shutdown_delay(seconds)
            self._log.info(f"shutdown delay: not ready, accepting connections for {seconds:g}s more")
            await trio.sleep(seconds)
            self._log.info("shutdown delay is over")

    def stop_accepting(self) -> None:
        """Accept no more; what is carried goes on, what is only on its way is given up."""
        self.stop_requested.set()
        self._is_stopping.set()
        self._state_reporter.show_stopping()
        self.tunnel.on_empty = self._report_empty
        self.tunnel.drain()

    async def drain(self, limit: float) -> int:
        """Let what is carried end within so many seconds, and cut the rest: how many those were."""
        self.stop_accepting()
        self._log.info(f"shutdown proxy, waiting for drain of {len(self.tunnel)} connections")
        aborted = 0
        if len(self.tunnel):
            with trio.move_on_after(max(limit, 0)):
                await self._empty.wait()
        if len(self.tunnel):
            aborted = self.tunnel.abort()
            self._log.write(f"graceful shutdown timeout: forcing exit connections={aborted}")
        await self._status_closed.wait()  # whoever asked for the end by HTTP gets an answer; it takes seconds at most
        self.tunnel.refusals.flush()
        self._log.info(f"stopped {self.tunnel.counters.summary()}".rstrip())
        return aborted

    def close(self) -> None:
        """Leave nothing running."""
        self._nursery.cancel_scope.cancel()

    # -- what the feed says

    def use(self, number: int, credentials: Credentials) -> None:
        """Build all, then swap; what cannot be built is not used, and what is in use stays."""
        generation = build_generation(number, credentials, self._generation_config)
        self.tunnel.swap(generation)
        for note in generation.notes:
            self._log.write(f"warning: {note}")
        self._state_reporter.show_identity(generation)
        self.tunnel.counters.certificates.count(is_success=True)
        self._ready.set()

    def confirm(self) -> None:
        """What is in use is ours still."""
        self.tunnel.confirm()

    def withdraw(self) -> None:
        """What is in use has been taken away from us."""
        self.tunnel.withdraw(WITHDRAWAL_GRACE)

    def _show_identity_error(self, error: str) -> None:
        self._state_reporter.show_identity_error(error)
        if self.on_identity_change is not None:
            self.on_identity_change()

    def show_workload_api(self, state: WorkloadApiState) -> None:
        """The Workload API that our identity comes from is in this state."""
        self.tunnel.counters.workload_api = state
        self._state_reporter.show_workload_api(state.error)

    def accept_challenges(self, challenges: AcmeChallenges) -> None:
        """From now on an ACME server may look in where we listen."""
        from tunnel.relay.acme_handshake import AcmeHandshake

        self.tunnel.new_handshake = partial(AcmeHandshake, challenges=challenges)
        self._generation_config = replace(self._generation_config, accepts_acme=True)

    def fail(self, error: TunnelError) -> None:
        """End, with this reason."""
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
        while True:  # an identity can run out between two updates
            await trio.sleep(_REVIEW_INTERVAL)
            self.tunnel.review()

    async def _check_target(self) -> None:
        """Whether the target's name means anything; the answer is thrown away, since it may change."""
        if not self.config.is_resolved_early or self.config.outbound is not None:
            return
        try:
            await trio.to_thread.run_sync(resolve, self.config.target, abandon_on_cancel=True)
        except TargetError as error:
            raise ConfigError(f"invalid target address: {error}") from error
        self._log.info(f"using target address {self.config.target}")

    def _build_status_port(self) -> HttpService | None:
        config = self.config
        if self._metrics is not None and config.metrics.has_target():
            from tunnel.proxy.reporting import start_reports

            start_reports(self._nursery, config.metrics, config.ca_bundle, self._metrics, self._log)
        if config.status is None or self._metrics is None:
            return None
        from tunnel.proxy.status_port import build_status_port

        return build_status_port(
            config, config.status, self.tunnel, self._state_reporter, self._metrics, self._on_shutdown_request, self._log
        )

    async def _open(self, port: HttpService | None) -> None:
        """Everything has been loaded: listen on both sides, with nothing in between."""
        status = self.config.status
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
        look = partial(find_shared_port, listener.socket, self._holders)
        with trio.move_on_after(_HOLDERS_LIMIT):
            sharing = await trio.to_thread.run_sync(look, abandon_on_cancel=True)
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
        """Asked for by HTTP, perhaps more than once."""
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
            if self._is_over:  # the process may have more to do than this proxy
                answer(TargetError(TargetFault.RESOLVE, f"{address}: not looked up, the proxy is at its end"))
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
