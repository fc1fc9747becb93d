"""The control plane of the process: identity sources, listeners, status ports, reload and drain.

It runs in trio and calls the data plane directly, because both run on the same thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

from tunnel.config.model import IdentityConfig, ListenerConfig, ProcessConfig
from tunnel.errors import ConfigError, TunnelError
from tunnel.listener.shared_resources import open_shared_resources
from tunnel.listener.tunnel_control import REVIEW_INTERVAL, TunnelControl, count_crash
from tunnel.log import Log, escape
from tunnel.net.activation import ActivationSockets
from tunnel.net.holders import Holders, ListeningPorts
from tunnel.net.notify import Notifier
from tunnel.proxy.data_plane import open_data_plane
from tunnel.proxy.identity_feed import IdentityFeed, OpenSource
from tunnel.proxy.identity_source import name_identity
from tunnel.proxy.listening import open_all, report_sharing
from tunnel.proxy.monitoring import Monitoring, RunningMonitor, abandon_monitors, open_ports
from tunnel.proxy.name_resolver import NameResolver
from tunnel.proxy.process_traces import ProcessTraces
from tunnel.proxy.proxy_listener import ProxyListener, open_policy
from tunnel.proxy.reload_request import ReloadRequest
from tunnel.proxy.reloadable_policy import ReloadablePolicy
from tunnel.proxy.retirement import Retirement
from tunnel.proxy.state_reporter import StateReporter
from tunnel.relay.loop import Loop
from tunnel.status.counters import Counters, total

if TYPE_CHECKING:  # loaded only when they are wanted
    from tunnel.listener.access_log import AccessLog
    from tunnel.proxy.process_observation import ProcessObservation
    from tunnel.status.histogram import Histogram


class Proxy:
    """Serves from the first identities until the drain; `stop_requested` is set at a request for the drain."""

    def __init__(
        self,
        config: ProcessConfig,
        loop: Loop,
        log: Log,
        open_source: OpenSource,
        inherited: ActivationSockets,
        notifier: Notifier,
        *,
        holders: Holders | None = None,
        access_log: AccessLog | None = None,
        is_reconfigurable: bool = False,
    ) -> None:
        self.config = config
        self.log = log
        self.started = time.time()
        self.stop_requested = trio.Event()
        self.reload_request = ReloadRequest()  # the reloader replaces it
        self.is_listening = trio.Event()
        self.counters = Counters()  # of what belongs to no listener: status ports and the configuration file
        self.inherited = inherited
        self.open_source = open_source
        self.state_reporter = StateReporter(config.listeners, notifier)
        self._is_reconfigurable = is_reconfigurable
        names_listeners = is_reconfigurable or len(config.listeners) > 1
        self.shared = open_shared_resources(loop, log, access_log=access_log, names_listeners=names_listeners)
        self.data_plane = open_data_plane(
            config.workers,
            self.shared,
            drain_limit=config.shutdown_timeout,
            counters=self.counters,
            policy_of=self._policy_of,
            on_failure=self._fail_from_loop,
        )
        self.feeds: dict[IdentityConfig, IdentityFeed] = {}
        self.listeners: dict[str, ProxyListener] = {}
        self.retirement = Retirement(self)
        self._resolver = NameResolver()
        loop.on_unowned_crash = partial(count_crash, counters=self.counters, log=log)
        self._old_policies: set[ReloadablePolicy] = set()  # to be closed soon
        self.monitoring = Monitoring(self)
        self._traces = ProcessTraces(config.traces, self.shared, log.info, self._log_from_thread)
        self._holders = holders or {}
        self._empty = trio.Event()
        self._failure: TunnelError | None = None
        for listener in config.listeners:
            self.add(self.new_listener(listener, open_policy(listener)), self._feed_of(listener.identity))

    def _policy_of(self, tunnel: TunnelControl) -> ReloadablePolicy | None:
        return next((listener.policy for listener in self.all_listeners() if listener.tunnel is tunnel), None)

    def _fail_from_loop(self, error: TunnelError) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self.fail, error)

    async def sleep_and_confirm(self, seconds: float) -> None:
        """Sleep, and then until all workers answer: one that hangs ends the keep-alives of the watchdog."""
        await trio.sleep(seconds)
        while not await self.data_plane.refresh():
            pass

    async def run(self) -> None:
        """Serve until `close`; raises TunnelError if the process cannot start or continue."""
        self._token = trio.lowlevel.current_trio_token()
        try:
            self.data_plane.start()
            async with trio.open_nursery() as nursery:
                self.nursery = nursery
                self._resolver.open(nursery)
                for feed in self.feeds.values():
                    nursery.start_soon(feed.run)
                nursery.start_soon(self._serve)
        finally:
            self._resolver.close()
            self.data_plane.kill()
            for policy in self._policies():
                policy.close()
        if self._failure is not None:
            raise self._failure

    @property
    def problem(self) -> str:
        """What the process waits for while it does not listen: each target without an identity, and why if that is known."""
        late = [listener for listener in self.listeners.values() if listener.tunnel.generation is None]
        waiting = late or list(self.listeners.values())
        problems = ((one.config.target_name, self.feeds[one.config.identity].problem) for one in waiting)
        return ", ".join(f"{name} ({problem})" if problem else name for name, problem in problems)

    @property
    def observation(self) -> ProcessObservation | None:
        """What is observed for status ports and metrics; None if there was none yet."""
        return self.monitoring.observation

    def loop_lags(self) -> Iterable[Histogram]:
        """The lag of the event loop of each process; nothing before the first monitor."""
        ours = self.observation.lag if self.observation is not None else None
        return [lag for lag in (ours, self.data_plane.lag()) if lag is not None]

    def dropped_lines(self) -> Mapping[str, int]:
        """Log lines that were dropped since the start, by log."""
        dropped, of_workers = self.shared.dropped_lines(), self.data_plane.dropped_lines
        return dropped if of_workers is None else {**dropped, "workers": of_workers}

    @property
    def identity_error(self) -> str:
        """Why identities of listeners cannot be used now; "" if they can."""
        return self.state_reporter.state.identity_error

    @property
    def pids(self) -> set[int]:
        """The child processes that this one waits for: workers, and evaluators of policies."""
        return self.data_plane.pids.union(*(policy.pids for policy in self._policies()))

    def _policies(self) -> Iterable[ReloadablePolicy]:
        policies = (listener.policy for listener in self.all_listeners())
        return (*(one for one in policies if one is not None), *self._old_policies)

    @property
    def reload_subject(self) -> str:
        """What a reload reads, as the log names it."""
        return "configuration" if self._is_reconfigurable else "TLS configuration"

    @property
    def retired(self) -> Sequence[ProxyListener]:
        """Listeners that a reload has removed, and that still have connections."""
        return self.retirement.listeners

    def all_listeners(self) -> Iterable[ProxyListener]:
        """The listeners, and those that were removed and still have connections."""
        return (*self.listeners.values(), *self.retired)

    def connections(self) -> int:
        """How many connections are open."""
        return sum(len(listener.tunnel) for listener in self.all_listeners())

    def request_reload(self) -> None:
        """Request a reload of the configuration file, of certificates and of policies."""
        self.reload_request.requested.set()

    async def reload(self) -> str:
        """Reload at a request of a status port; return the error, "" after success."""
        self.log.info("reload was requested via status endpoint")
        request = self.reload_request
        request.requested.set()
        await request.done.wait()
        return request.error

    # -- listeners and identity sources

    def new_listener(self, config: ListenerConfig, policy: ReloadablePolicy | None) -> ProxyListener:
        """Create a listener that is not open yet."""
        listener = ProxyListener(
            config, self.data_plane.new_tunnel, self._resolver.resolve_later, self.state_reporter, policy, self.warn_from_thread
        )
        self.monitoring.add_timers(listener.tunnel, config.name, self.config.monitors)
        return listener

    def add(self, listener: ProxyListener, feed: IdentityFeed) -> None:
        """Make a listener one of the process, with the credentials of a feed from the next ones on."""
        self.listeners[listener.name] = listener
        self.state_reporter.show_listener(listener.config)
        feed.join(listener)

    def close_later(self, policy: ReloadablePolicy | None) -> None:
        """Close a policy that is no longer used, when the handshakes that wait for it have ended."""
        if policy is not None:
            self._old_policies.add(policy)
            self.nursery.start_soon(self._close_old_policy, policy)

    async def _close_old_policy(self, policy: ReloadablePolicy) -> None:
        await trio.sleep(policy.limit)
        await trio.to_thread.run_sync(policy.close)  # waits for the evaluator processes to exit
        self._old_policies.remove(policy)

    def order_listeners(self, names: Sequence[str]) -> None:
        """Show the listeners in the order of the configuration."""
        self.listeners = {name: self.listeners[name] for name in names}
        self.state_reporter.order(names)

    def close_unused_feeds(self) -> None:
        """Stop the identity sources that no listener uses."""
        for identity, feed in list(self.feeds.items()):
            if not feed.listeners:
                feed.close()
                del self.feeds[identity]
                self.counters.absorb(feed.counters)

    def new_feed(self, config: IdentityConfig) -> IdentityFeed:
        """Create the feed of an identity, to be run by the caller."""
        return IdentityFeed(config, self.open_source, self._report_failure, name_identity(self.log, config))

    def _feed_of(self, config: IdentityConfig) -> IdentityFeed:
        if config not in self.feeds:
            self.feeds[config] = self.new_feed(config)
        return self.feeds[config]

    def _report_failure(self, feed: IdentityFeed, error: TunnelError) -> None:
        if self.feeds.get(feed.config) is feed:
            self.fail(error)

    def fail(self, error: TunnelError) -> None:
        """Stop all tasks; `run` raises this error."""
        self._failure = error
        self.close()

    # -- the end

    def show_shutdown_delay(self, seconds: float) -> None:
        """Report not ready from now on; connections are accepted until `stop_accepting`, `seconds` later."""
        self.state_reporter.show_shutdown_delay(seconds)

    async def delay_shutdown(self, seconds: float) -> None:
        """Report not ready and continue to serve for so many seconds; return at once if the process does not listen yet."""
        if seconds and self.state_reporter.state.is_listening:
            self.show_shutdown_delay(seconds)
            self.log.info(f"shutdown delay: not ready, accepting connections for {seconds:g}s more")
            await trio.sleep(seconds)
            self.log.info("shutdown delay is over")

    def stop_accepting(self, *, only_servers: bool = False) -> None:
        """Stop accepting connections, and close those whose relay has not begun."""
        self.stop_requested.set()
        stopped = [one for one in self.all_listeners() if one.config.is_server or not only_servers]
        if all(one in stopped for one in self.listeners.values()):
            self.state_reporter.show_stopping()
        ports = ListeningPorts()  # read once for all listeners
        for listener in stopped:
            if listener not in self.retired:  # its name may belong to another one
                self.state_reporter.show_stopped(listener.name)
            listener.tunnel.on_empty = self._report_empty
            listener.tunnel.drain(ports)
        self.monitoring.stop({listener.name for listener in stopped})

    async def drain(self, limit: float) -> int:
        """Wait at most `limit` seconds for relays to end, then close the rest; return how many were closed."""
        self.stop_accepting()
        await self.data_plane.refresh()
        self.log.info(f"shutdown proxy, waiting for drain of {self.connections()} connections")
        with trio.move_on_after(max(limit, 0)):
            while not all(listener.tunnel.is_drained for listener in self.all_listeners()):
                self._empty = trio.Event()
                await self._empty.wait()
        await self.data_plane.refresh()
        aborted = self.abort()
        await self.data_plane.stop()
        if aborted:
            self.log.write(f"graceful shutdown timeout: forcing exit connections={aborted}")
        await self.monitoring.wait_closed()  # the response to /_shutdown; takes seconds at most
        self.shared.refusals.flush()
        if self.shared.access_log is not None:
            self.shared.access_log.flush()
        await self._traces.stop()
        self._log_totals()
        return aborted

    def _log_totals(self) -> None:
        """Log the outcomes of all connections, and those of each listener if there are several."""
        if len(self.listeners) > 1:
            for name, listener in self.listeners.items():
                self.log.info(f"stopped listener={name} {listener.tunnel.read_counters().summary()}".rstrip())
        parts = (self.counters, *(one.tunnel.read_counters() for one in self.all_listeners()))
        self.log.info(f"stopped {total(parts).summary()}".rstrip())

    def abort(self) -> int:
        """Close all connections; return how many there were."""
        return sum(listener.tunnel.abort() for listener in self.all_listeners())

    def close(self) -> None:
        """Stop all tasks."""
        self.nursery.cancel_scope.cancel()

    # -- serving

    async def _serve(self) -> None:
        try:
            monitors = await self.monitoring.serve_health(self.monitoring.prepare(self.config))
            await self._check_targets()
            for listener in self.listeners.values():
                if listener.policy is not None:
                    await listener.policy.load()
            for monitor in monitors:
                monitor.start_reports()
            self._traces.start()
            for feed in self.feeds.values():
                await feed.ready.wait()
                if feed.failure is not None:  # it has cancelled this task, but the end of the wait came first
                    return
            self.data_plane.share_log()
            await self.data_plane.wait_started()
            if self.stop_requested.is_set():  # the drain would wait for listeners that are opened now
                return
            await self._open(monitors)
        except TunnelError as error:
            self.fail(error)
            return
        if self.stop_requested.is_set():
            return
        for listener in self.listeners.values():
            listener.log_listening()
            self.nursery.start_soon(listener.run_health_checks)
        self.is_listening.set()
        while True:  # an identity can expire between two updates
            await trio.sleep(REVIEW_INTERVAL)
            for listener in self.all_listeners():
                listener.tunnel.review()

    async def _check_targets(self) -> None:
        """Check the names of all targets; one that a file names may be unknown now: the other listeners start."""
        if not self._is_reconfigurable:
            for listener in self.listeners.values():
                await listener.check_target(is_required=True)
            return
        async with trio.open_nursery() as nursery:
            for listener in self.listeners.values():
                nursery.start_soon(partial(listener.check_target, is_required=False))

    async def _open(self, monitors: Sequence[RunningMonitor]) -> None:
        """Open the listeners and the status ports. Nothing may fail between them: all else is loaded before."""
        addresses = [listener.config.listen for listener in self.listeners.values()]
        try:
            open_ports(monitors)  # first: a listener may at once get connections that belonged to a process that it replaces
            opened = open_all(addresses, self.inherited)
        except ConfigError:
            abandon_monitors(monitors)
            raise
        for listener, sock in zip(self.listeners.values(), opened, strict=True):
            if sock is not None:
                listener.open(sock)
        self.state_reporter.show_listening()
        self.monitoring.use(monitors, self.config)
        await self.monitoring.start(monitors)
        await report_sharing("listen", zip(addresses, opened, strict=True), self._holders, self.log)
        for name, is_health in (("status", False), ("health", True)):
            ports = [one for one in self.monitoring.running if one.plan.is_health is is_health]
            await report_sharing(name, ((one.address, one.listener) for one in ports), self._holders, self.log)

    def request_shutdown(self) -> None:
        """Request the drain by the status port; may be called more than once."""
        self.log.info("shutdown was requested via status endpoint")
        if not self.stop_requested.is_set():
            self.log.info("shutdown request processing, shutting down")
            self.stop_requested.set()

    def warn_from_thread(self, warning: str) -> None:
        """Log a warning of a handshake, which may run on a thread of its own."""
        self._log_from_thread(f"warning: {escape(warning)}")

    def _log_from_thread(self, line: str) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self.log.write, line)

    def _report_empty(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._empty.set)
