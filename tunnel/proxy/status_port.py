"""Builds the status port of one proxy.

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

import trio

from tunnel import __version__
from tunnel.cli.redact import redact
from tunnel.config.model import ListenerConfig, NoIdentity, Status
from tunnel.http.client import parse_http_url
from tunnel.http.connection import HttpLimits
from tunnel.http.origin_policy import plan_origin_policy
from tunnel.http.server import HttpService, connection_limit
from tunnel.log import Category, Log, escape
from tunnel.net.address import TcpAddress
from tunnel.net.dial import open_target, open_through
from tunnel.net.sockets import port_number
from tunnel.proxy.state_reporter import StateReporter
from tunnel.proxy.tunnel import Tunnel
from tunnel.status.backend_health import Check, check_by_connecting, check_by_handshake, check_by_request, share
from tunnel.status.encoders import encode_json
from tunnel.status.endpoints import JSON, PROMETHEUS, Endpoints
from tunnel.status.exposition import PROMETHEUS_TYPE
from tunnel.status.pprof import Pprof
from tunnel.status.process_state import ProcessState
from tunnel.status.prometheus import encode_prometheus
from tunnel.status.snapshot import MetricsSource
from tunnel.status.status_document import Service
from tunnel.tls.engine import TlsEnd
from tunnel.tls.stream import TlsSource

_JSON_TYPE = "text/plain; charset=utf-8"  # as what Go sniffs it


def build_status_port(
    config: ListenerConfig,
    status: Status,
    prefix: str,
    tunnel: Tunnel,
    state_reporter: StateReporter,
    metrics: MetricsSource,
    stop: Callable[[], None],
    log: Log,
) -> HttpService:
    """Build the status port; raises ConfigError for an invalid target status URL."""
    endpoints = Endpoints(
        service=Service(str(config.listen or "-"), str(config.target), socket.gethostname(), __version__, _compiler()),
        read_state=partial(_review, tunnel, state_reporter),
        check=share(_build_check(config, tunnel)),
        encode_metrics={JSON: _json(prefix, metrics), PROMETHEUS: _prometheus(prefix, metrics)},
        shutdown=stop if status.has_shutdown else None,
        pprof=Pprof(redact(sys.argv), lambda: len(tunnel)) if status.has_pprof else None,
    )
    tls = TlsSource(lambda: _open_status_end(tunnel), tunnel.buffers) if _is_encrypted(config, status) else None
    if tls is None and isinstance(status.address.address, TcpAddress) and status.address.scheme != "http":
        log.write(f"warning: status port {escape(str(status.address))} serves plain HTTP: no certificate")
    return HttpService(
        endpoints.routes(),
        HttpLimits(header=config.connect_timeout),
        log.write,
        tls,
        connection_limit(),
        open_origin_policy=plan_origin_policy(status.allowed_hosts, is_encrypted=tls is not None),
        rate_limited_log=partial(tunnel.refusals.write, category=Category.OTHER),
        count_refusal=tunnel.counters.add_status_refusal,
        count_failure=tunnel.counters.add_reason,
    )


def _review(tunnel: Tunnel, state_reporter: StateReporter) -> ProcessState:
    """Return the current state, after checking whether the identity has expired."""
    tunnel.review()
    return state_reporter.state


def _compiler() -> str:
    return f"python{platform.python_version()}"


def _is_encrypted(config: ListenerConfig, status: Status) -> bool:
    """Whether the status port uses TLS: over TCP, unless its address is http:// or there is no certificate."""
    is_plain = status.address.scheme == "http" or isinstance(config.identity.source, NoIdentity)
    return isinstance(status.address.address, TcpAddress) and not is_plain


def _open_status_end(tunnel: Tunnel) -> TlsEnd | None:
    """Open a TLS end with the newest certificate, even if expired: the status port must stay reachable."""
    generation = tunnel.generation
    if generation is None or generation.status_context is None:
        return None
    return generation.status_context.open_end(tunnel.buffers)


def _build_check(config: ListenerConfig, tunnel: Tunnel) -> Check:
    def open_stream() -> Awaitable[trio.abc.HalfCloseableStream]:
        if config.outbound is not None and isinstance(config.target, TcpAddress):
            return open_through(config.outbound, config.target.host, port_number(config.target.port))
        return open_target(config.target)

    def open_end() -> TlsEnd | None:
        generation = tunnel.review()
        return generation.context.open_end(tunnel.buffers, tunnel.sni) if generation else None

    if config.target_status:
        return check_by_request(open_stream, parse_http_url(config.target_status), config.connect_timeout)
    if config.is_server:
        return check_by_connecting(open_stream, config.connect_timeout)
    return check_by_handshake(open_stream, TlsSource(open_end, tunnel.buffers), config.connect_timeout)


def _json(prefix: str, metrics: MetricsSource) -> Callable[[], Awaitable[tuple[str, bytes]]]:
    async def encode() -> tuple[str, bytes]:
        return _JSON_TYPE, encode_json(metrics.snapshot(), prefix, socket.gethostname(), time.time())

    return encode


def _prometheus(prefix: str, metrics: MetricsSource) -> Callable[[], Awaitable[tuple[str, bytes]]]:
    async def encode() -> tuple[str, bytes]:
        # On a thread: it counts the process' descriptors one by one, of which there may be many thousands.
        body = await trio.to_thread.run_sync(encode_prometheus, metrics.snapshot(), prefix)
        return PROMETHEUS_TYPE, body

    return encode
