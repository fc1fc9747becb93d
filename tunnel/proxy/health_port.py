"""Builds a health port, and checks targets for the ports of the process.

Imported only if the configuration has a status port or a health port. Import everything at the top: later there may be no free
descriptor for loading a module. Import nothing that only a status port needs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

import trio

from tunnel.config.model import ListenerConfig
from tunnel.errors import TunnelError
from tunnel.http.connection import HttpLimits
from tunnel.http.origin_policy import plan_origin_policy
from tunnel.http.server import HttpService, connection_limit
from tunnel.log import Category, Log
from tunnel.proxy.monitor_scope import MonitorScope
from tunnel.proxy.monitoring import MonitorPlan
from tunnel.status.backend_health import Check
from tunnel.status.health_endpoints import HealthEndpoints

_MAX_CONNECTIONS = 64  # few probes; the status port has its own limit
_MAX_CHECKS = 16  # at one time
_CHECK_PAUSE = 0.005  # seconds


def build_health_port(
    plan: MonitorPlan, scope: MonitorScope, check_of: Callable[[ListenerConfig], Check], log: Log
) -> HttpService:
    """Build the health port; raises ConfigError for an invalid target status URL."""
    health, process = plan.monitor.health, scope.process
    assert health is not None
    for listener in scope.listeners():  # now: later there may be no free descriptor
        check_of(listener.config)
    return HttpService(
        HealthEndpoints(scope.state, partial(check_listeners, scope, check_of)).respond,
        HttpLimits(header=scope.request_timeout()),
        log.write,
        max_connections=min(_MAX_CONNECTIONS, connection_limit()),
        open_origin_policy=plan_origin_policy(health.allowed_hosts, is_encrypted=False),
        rate_limited_log=partial(process.shared.refusals.write, category=Category.OTHER),
        count_refusal=process.counters.add_status_refusal,
        count_failure=process.counters.add_reason,
    )


async def check_listeners(
    scope: MonitorScope, check_of: Callable[[ListenerConfig], Check], names: Collection[str]
) -> dict[str, str]:
    """Check the targets of listeners; return the error of each one that has no healthy target.

    At most `_MAX_CHECKS` are in progress at one time. While none of them ends, one more begins after each `_CHECK_PAUSE`, so
    that targets that do not answer do not delay the document.
    """
    errors: dict[str, str] = {}
    slots = trio.Semaphore(_MAX_CHECKS)

    async def check(config: ListenerConfig, has_slot: bool) -> None:
        try:
            await check_of(config)()
        except TunnelError as error:
            errors[config.name] = str(error)
        finally:
            if has_slot:
                slots.release()

    async with trio.open_nursery() as nursery:
        for config in [one.config for one in scope.listeners() if one.name in names]:
            has_slot = False
            with trio.move_on_after(_CHECK_PAUSE):
                await slots.acquire()
                has_slot = True
            nursery.start_soon(check, config, has_slot)
    return errors
