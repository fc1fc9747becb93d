"""Active health checks of targets: at intervals for a listener with several, and at a request for the status port."""

from __future__ import annotations

from collections.abc import Awaitable
from random import random

import trio

from tunnel.errors import TargetError, TargetFault, TunnelError
from tunnel.http.client import parse_http_url
from tunnel.listener.route import Route
from tunnel.listener.target_pool import PooledTarget
from tunnel.listener.tunnel_control import TunnelControl
from tunnel.net.dial import open_target, open_through
from tunnel.status.backend_health import Check, check_by_connecting, check_by_handshake, check_by_request
from tunnel.tls.engine import TlsEnd
from tunnel.tls.stream import TlsSource

_RECOVERY_INTERVAL = 5.0  # seconds between checks of unhealthy targets if healthy ones are not checked
_JITTER = 0.1  # of the interval, so that many listeners do not check at the same time
_MAX_CHECKS = 16  # at one time


def build_check(tunnel: TunnelControl, limit: float, route: Route) -> Check:
    """Return the check of one target: a request to `--target-status`, a connection, or for a client a handshake."""
    config = tunnel.config

    def open_stream() -> Awaitable[trio.abc.HalfCloseableStream]:
        if route.via_proxy is not None:
            return open_through(route.via_proxy.proxy, route.via_proxy.host, route.via_proxy.port)
        return open_target(route.address)

    def open_end() -> TlsEnd | None:
        generation = tunnel.review()
        return generation.context.open_end(tunnel.buffers, route.sni) if generation else None

    if config.target_status:
        return check_by_request(open_stream, parse_http_url(config.target_status), limit)
    if config.is_server:
        return check_by_connecting(open_stream, limit)
    return check_by_handshake(open_stream, TlsSource(open_end, tunnel.buffers), limit)


class TargetChecks:
    """The check of each target, built once, because `--target-status` reads the system's root certificates."""

    def __init__(self, tunnel: TunnelControl, limit: float) -> None:
        self._tunnel = tunnel
        self._limit = limit
        self._checks: dict[Route, Check] = {}

    def of(self, target: PooledTarget) -> Check:
        """Return the check of a target."""
        if target.route not in self._checks:
            used = {one.route for one in self._tunnel.targets.pool.targets}
            self._checks = {route: check for route, check in self._checks.items() if route in used}
            self._checks[target.route] = build_check(self._tunnel, self._limit, target.route)
        return self._checks[target.route]


def check_any(tunnel: TunnelControl) -> Check:
    """Return the check of the whole listener: it succeeds if one of its targets is healthy."""
    only = tunnel.targets.only
    if only is not None:
        return _check_only(tunnel, only)

    checks = TargetChecks(tunnel, tunnel.config.connect_timeout)

    async def check() -> None:
        error: TunnelError = TargetError(TargetFault.RESOLVE, f"{tunnel.targets.name}: there are no targets")
        for target in sorted(tunnel.targets.pool.targets, key=lambda target: not target.is_healthy):
            try:
                await checks.of(target)()
            except TunnelError as failure:
                error = failure
            else:
                return
        raise error

    return check


def _check_only(tunnel: TunnelControl, target: PooledTarget) -> Check:
    check = build_check(tunnel, tunnel.config.connect_timeout, target.route)

    async def check_and_note() -> None:
        try:
            await check()
        except TunnelError as error:
            tunnel.targets.pool.note_result(target, error)
            raise
        tunnel.targets.pool.note_result(target)

    return check_and_note


async def run_health_checks(tunnel: TunnelControl) -> None:
    """Check the targets of a listener at intervals, for ever; a listener with one target has no checks."""
    config = None
    while True:
        if config is not tunnel.config:  # also after a reload
            config = tunnel.config
            health = config.health_check
            checks = TargetChecks(tunnel, health.timeout)
        interval = health.interval or _RECOVERY_INTERVAL
        await trio.sleep(interval * (1 + _JITTER * random()))  # noqa: S311  # not a secret
        if tunnel.targets.only is None and tunnel.generation is not None:
            tunnel.targets.expired_services()
            await check_targets(tunnel, checks, only_unhealthy=not health.interval)


async def check_targets(tunnel: TunnelControl, checks: TargetChecks, *, only_unhealthy: bool = False) -> None:
    """Check all targets once, several at one time."""
    limiter = trio.CapacityLimiter(_MAX_CHECKS)

    async def check(target: PooledTarget) -> None:
        async with limiter:
            try:
                await checks.of(target)()
            except TunnelError as error:
                tunnel.targets.pool.note_failure(target, str(error))
            else:
                tunnel.targets.pool.note_success(target)

    async with trio.open_nursery() as nursery:
        for target in tunnel.targets.pool.targets:
            if not (only_unhealthy and target.is_healthy):
                nursery.start_soon(check, target)
