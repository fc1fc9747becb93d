"""Builds a status port.

Imported only if the configuration has a status port. Import everything at the top: later there may be no free descriptor for
loading a module.
"""

from __future__ import annotations

import platform
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import trio

from tunnel import __version__
from tunnel.cli.redact import redact
from tunnel.config.model import ListenerConfig
from tunnel.http.connection import HttpLimits
from tunnel.http.origin_policy import plan_origin_policy
from tunnel.http.server import HttpService, connection_limit
from tunnel.log import Category, Log, escape
from tunnel.net.address import TcpAddress
from tunnel.proxy.health_port import check_listeners
from tunnel.proxy.monitor_scope import MonitorScope
from tunnel.proxy.monitoring import MonitorPlan
from tunnel.proxy.overview_source import OverviewSource
from tunnel.proxy.process_facts import FactsReader
from tunnel.status.backend_health import Check
from tunnel.status.encoders import encode_json
from tunnel.status.endpoints import JSON, PROMETHEUS, EncodeOwnMetrics, Endpoints
from tunnel.status.exposition import PROMETHEUS_TYPE
from tunnel.status.openmetrics import MetricsFormat
from tunnel.status.openmetrics import encode_metrics as encode_own_metrics
from tunnel.status.pprof import Pprof
from tunnel.status.prometheus import encode_prometheus
from tunnel.status.snapshot import MetricsSource
from tunnel.status.status_document import Service
from tunnel.tls.stream import TlsSource

_JSON_TYPE = "text/plain; charset=utf-8"  # as what Go sniffs it


class StatusRequests(Protocol):
    """What the status port can request of the process."""

    def request_shutdown(self) -> None:
        """Request the drain."""

    async def reload(self) -> str:
        """Reload; return the error, "" after success."""


def build_status_port(
    plan: MonitorPlan,
    scope: MonitorScope,
    metrics: MetricsSource,
    check_of: Callable[[ListenerConfig], Check],
    requests: StatusRequests,
    log: Log,
) -> HttpService:
    """Build the status port; raises ConfigError for an invalid target status URL."""
    status, prefix = plan.monitor.status, plan.monitor.metrics.prefix
    assert status is not None
    for listener in scope.listeners():  # now: later there may be no free descriptor
        check_of(listener.config)
    overview, page, record = OverviewSource(scope, socket.gethostname()), None, None
    if status.has_ui:
        from tunnel.proxy.page_source import open_page

        page, record = open_page(scope, overview)
    endpoints = Endpoints(
        service=Service(socket.gethostname(), __version__, _compiler()),
        read_state=scope.state,
        check=partial(check_listeners, scope, check_of),
        encode_metrics={JSON: _json(prefix, metrics), PROMETHEUS: _prometheus(prefix, metrics)},
        encode_own_metrics=_own_metrics(FactsReader(scope, plan.monitor.metrics.peers)),
        overview=overview.encode,
        page=page,
        shutdown=requests.request_shutdown if status.has_shutdown else None,
        reload=requests.reload if status.has_reload else None,
        pprof=Pprof(redact(sys.argv), scope.connections) if status.has_pprof else None,
    )
    tls = TlsSource(scope.open_status_end, scope.process.shared.buffers) if plan.is_encrypted else None
    if tls is None and isinstance(status.address.address, TcpAddress) and status.address.scheme != "http":
        log.write(f"warning: status port {escape(str(status.address))} serves plain HTTP: no certificate")
    counters = scope.process.counters
    return HttpService(
        endpoints.routes(),
        HttpLimits(header=scope.request_timeout()),
        log.write,
        tls,
        connection_limit(),
        open_origin_policy=plan_origin_policy(status.allowed_hosts, is_encrypted=tls is not None),
        rate_limited_log=partial(scope.process.shared.refusals.write, category=Category.OTHER),
        count_refusal=counters.add_status_refusal,
        count_failure=counters.add_reason,
        background=record,
    )


def _compiler() -> str:
    return f"python{platform.python_version()}"


def _json(prefix: str, metrics: MetricsSource) -> Callable[[], Awaitable[tuple[str, bytes]]]:
    async def encode_on_thread() -> tuple[str, bytes]:
        # On a thread: with 200 listeners it takes more than 10 ms.
        encode = partial(encode_json, metrics.snapshot(), prefix, socket.gethostname(), time.time())
        return _JSON_TYPE, await trio.to_thread.run_sync(encode)

    return encode_on_thread


def _prometheus(prefix: str, metrics: MetricsSource) -> Callable[[], Awaitable[tuple[str, bytes]]]:
    async def encode() -> tuple[str, bytes]:
        # On a thread: it counts the process' descriptors one by one, of which there may be many thousands.
        body = await trio.to_thread.run_sync(encode_prometheus, metrics.snapshot(), prefix)
        return PROMETHEUS_TYPE, body

    return encode


def _own_metrics(reader: FactsReader) -> EncodeOwnMetrics:
    async def encode_on_thread(chosen: MetricsFormat) -> bytes:
        return await trio.to_thread.run_sync(encode_own_metrics, reader.read(), chosen)

    return encode_on_thread
