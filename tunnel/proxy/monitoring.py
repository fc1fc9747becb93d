"""The status ports, health ports and metric reports of the process, which a reload can replace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Protocol

import trio

from tunnel.config.model import ListenerConfig, Monitor, NoIdentity, ProcessConfig
from tunnel.errors import ConfigError
from tunnel.lazy_dataclass import dataclass, replace
from tunnel.listener.tunnel_control import TunnelControl
from tunnel.log import Log, escape
from tunnel.net.activation import ActivationSockets
from tunnel.net.address import ListenAddress, TcpAddress
from tunnel.net.listen import Listener, open_listener
from tunnel.proxy.monitor_scope import Monitored, MonitorScope
from tunnel.status.counters import Counters, timed_counters

if TYPE_CHECKING:  # loaded only when a status port or metrics are wanted
    from tunnel.http.connection import Request, Response
    from tunnel.http.server import HttpService
    from tunnel.proxy.process_observation import ProcessObservation
    from tunnel.status.backend_health import Check
    from tunnel.status.snapshot import MetricsSource


class MonitoredProcess(Monitored, Protocol):
    """The process, with what its status ports can request."""

    config: ProcessConfig
    log: Log
    inherited: ActivationSockets
    nursery: trio.Nursery

    def request_shutdown(self) -> None:
        """Request the drain."""

    async def reload(self) -> str:
        """Reload; return the error, "" after success."""


@dataclass(frozen=True, slots=True)
class MonitorPlan:
    """A monitor, with what the listeners of a configuration decide about it."""

    monitor: Monitor
    is_encrypted: bool  # the status port uses TLS

    @property
    def address(self) -> ListenAddress | None:
        """The address of its port."""
        return next(iter(self.monitor.addresses), None)

    @property
    def is_health(self) -> bool:
        """Whether it is a health port, which has no metrics."""
        return self.monitor.health is not None


def plan_monitors(config: ProcessConfig) -> list[MonitorPlan]:
    """Return the monitors of a configuration, each with one port at most."""
    parts = [part for monitor in config.monitors for part in monitor.parts()]
    return [MonitorPlan(part, _is_encrypted(part, config.listeners)) for part in parts]


def _is_encrypted(monitor: Monitor, listeners: Sequence[ListenerConfig]) -> bool:
    """Whether a status port uses TLS: over TCP, unless its address is http:// or no listener has a certificate."""
    if monitor.status is None or monitor.status.address.scheme == "http":
        return False
    own = [one for one in listeners if not monitor.listeners or one.name in monitor.listeners]
    has_certificate = any(not isinstance(one.identity.source, NoIdentity) for one in own)
    return isinstance(monitor.status.address.address, TcpAddress) and has_certificate


class RunningMonitor:
    """One status port and its metric reports, or one health port."""

    def __init__(self, plan: MonitorPlan, process: MonitoredProcess, replaced: RunningMonitor | None = None) -> None:
        """`replaced` is the monitor whose socket this one takes over."""
        monitor = plan.monitor
        self.plan = plan
        self.address = plan.address
        self.scope = MonitorScope(process, monitor.listeners)
        self.listener: Listener | None = None
        self.service: HttpService | None = None
        self.metrics: MetricsSource | None = None if plan.is_health else _open_metrics(self.scope)
        self._process = process
        self._replaced = replaced
        self._send_reports: Callable[[], Awaitable[None]] | None = None
        self._stopping = trio.Event()
        self._closed = trio.Event()
        self._closed.set()  # it does not serve yet
        self._reports = trio.CancelScope()

    def build(self, check_of: Callable[[ListenerConfig], Check]) -> None:
        """Load what the port and the reports need; raises ConfigError."""
        monitor, log = self.plan.monitor, self._process.log
        if self.metrics is None:
            from tunnel.proxy.health_port import build_health_port

            self.service = self._refreshing(build_health_port(self.plan, self.scope, check_of, log))
            return
        if monitor.metrics.has_target():
            from tunnel.proxy.reporting import run_reports

            self._send_reports = run_reports(monitor.metrics, self.metrics, log)
        if monitor.status is not None:
            from tunnel.proxy.status_port import build_status_port

            service = build_status_port(self.plan, self.scope, self.metrics, check_of, self._process, log)
            self.service = self._refreshing(service)

    def _refreshing(self, service: HttpService) -> HttpService:
        """The same service, which first gets the counts of workers."""
        process, respond = self._process, service.respond

        async def refresh_and_respond(request: Request) -> Response:
            await process.data_plane.refresh()
            return await respond(request)

        return replace(service, respond=refresh_and_respond)

    def open(self) -> None:
        """Open the listening socket; raises ConfigError."""
        if self._replaced is not None and self._replaced.listener is not None:
            self.listener = self._replaced.listener.share()
        elif self.address is not None:
            self.listener = open_listener(self.address, self._process.inherited)

    def take_over(self) -> None:
        """Own the file of the socket, if it was that of another monitor."""
        if self._replaced is not None and self._replaced.listener is not None and self.listener is not None:
            self.listener.take_file(self._replaced.listener)
        self._replaced = None

    def start_reports(self) -> None:
        """Send reports to the configured targets from now on."""
        if self._send_reports is not None:
            self._process.nursery.start_soon(self._run_reports, self._send_reports)

    async def serve(self, *, task_status: trio.TaskStatus[object]) -> None:
        """Serve requests until `stop`."""
        from tunnel.http.server import serve_http

        assert self.listener is not None
        assert self.service is not None
        if self.plan.is_health:
            self._process.log.info(f"health port is open: address={escape(str(self.listener))}")
        self._closed = trio.Event()
        try:
            await serve_http(self.listener, self.service, stopping=self._stopping, task_status=task_status)
        finally:
            self._closed.set()

    def stop(self) -> None:
        """Stop accepting requests; those in progress are answered."""
        self._stopping.set()

    def retire(self) -> None:
        """Stop the port and the reports, because a reload has removed them."""
        self.stop()
        self._reports.cancel()
        self._close_metrics()

    def abandon(self) -> None:
        """Close what was opened, because the monitor will not be used."""
        self._close_metrics()
        if self.listener is not None:
            self.listener.close()

    async def wait_closed(self) -> None:
        """Wait until the last request is answered; takes seconds at most after `stop`."""
        await self._closed.wait()

    def _close_metrics(self) -> None:
        if self.metrics is not None:
            self.metrics.close()

    async def _run_reports(self, reports: Callable[[], Awaitable[None]]) -> None:
        with self._reports:
            await reports()


class Monitoring:
    """All monitors of the process."""

    def __init__(self, process: MonitoredProcess) -> None:
        self.running: list[RunningMonitor] = []
        self._process = process
        self._checks: dict[str, tuple[TunnelControl, ListenerConfig, Check]] = {}
        self._timers: dict[tuple[str, ...], Counters] = {}  # with the timers that the listeners of a monitor share
        self.observation: ProcessObservation | None = None  # None until the first monitor

    def add_timers(self, tunnel: TunnelControl, name: str, monitors: Sequence[Monitor]) -> None:
        """Give a listener timers, if a monitor is about it."""
        monitor = next((one for one in monitors if one.has_metrics and (not one.listeners or name in one.listeners)), None)
        if monitor is not None and tunnel.counters.handshake is None:
            tunnel.use_timers(self._timers.setdefault(monitor.listeners, timed_counters()))

    def prepare(self, config: ProcessConfig) -> list[RunningMonitor]:
        """Build the monitors that do not run yet; raises ConfigError."""
        plans, known = plan_monitors(config), [one.plan for one in self.running]
        if self.observation is None and not all(plan.is_health for plan in plans):
            from tunnel.proxy.process_observation import ProcessObservation

            self.observation = ProcessObservation(self._process.shared)
        replaced = {one.address: one for one in self.running if one.plan not in plans}
        prepared: list[RunningMonitor] = []
        try:
            for plan in [one for one in plans if one not in known]:
                prepared.append(RunningMonitor(plan, self._process, replaced.get(plan.address)))
                prepared[-1].build(self.check_of)
        except ConfigError:
            abandon_monitors(prepared)
            raise
        return prepared

    def check_of(self, listener: ListenerConfig) -> Check:
        """Return the health check of a listener's target, with an outcome that all status ports share; raises ConfigError."""
        from tunnel.listener.health_checks import check_any
        from tunnel.status.backend_health import share

        running = self._process.listeners.get(listener.name)
        if running is None:  # since the caller has read its name
            raise ConfigError(f"the listener {listener.name} was removed")
        known = self._checks.get(listener.name)
        if known is None or known[:2] != (running.tunnel, listener):
            known = running.tunnel, listener, share(check_any(running.tunnel))
            self._checks[listener.name] = known
        return known[2]

    def use(self, prepared: Sequence[RunningMonitor], config: ProcessConfig) -> None:
        """Add new monitors, retire those that are not configured, and give all listeners the timers that they need."""
        plans = plan_monitors(config)
        for one in prepared:
            one.take_over()
        for one in [one for one in self.running if one.plan not in plans]:
            one.retire()
            self.running.remove(one)
        self.running += prepared
        self._checks = {name: one for name, one in self._checks.items() if name in self._process.listeners}
        for listener in self._process.listeners.values():
            self.add_timers(listener.tunnel, listener.name, config.monitors)

    async def start(self, prepared: Sequence[RunningMonitor]) -> None:
        """Serve the ports that are open."""
        for one in prepared:
            if one.listener is not None:
                one.scope.status_port = await self._process.nursery.start(one.serve)

    async def serve_health(self, prepared: Sequence[RunningMonitor]) -> list[RunningMonitor]:
        """Serve the health ports, before there is an identity, and return the other monitors; raises ConfigError."""
        ports = [one for one in prepared if one.plan.is_health]
        try:
            open_ports(ports)
        except ConfigError:
            abandon_monitors(prepared)
            raise
        self.running += ports
        await self.start(ports)
        return [one for one in prepared if one not in ports]

    def stop(self, stopped: Collection[str]) -> None:
        """Stop the status ports that are about no other listeners than these; health ports go on."""
        for one in self.running:
            if not one.plan.is_health and all(listener.name in stopped for listener in one.scope.listeners()):
                one.stop()

    async def wait_closed(self) -> None:
        """Stop the health ports too, and wait until all requests are answered."""
        for one in self.running:
            one.stop()
        for one in self.running:
            await one.wait_closed()


def _open_metrics(scope: MonitorScope) -> MetricsSource:
    from tunnel.status.snapshot import open_metrics

    return open_metrics(scope.measure, scope.process.data_plane.refresh)


def open_ports(prepared: Sequence[RunningMonitor]) -> None:
    """Open the ports; raises ConfigError, and then `abandon_monitors` must follow."""
    for one in prepared:
        one.open()


def abandon_monitors(prepared: Sequence[RunningMonitor]) -> None:
    """Close monitors that do not run yet."""
    for one in prepared:
        one.abandon()
