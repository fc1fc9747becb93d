"""The health check of a listener's target, as the status port reports it."""

from __future__ import annotations

from collections.abc import Awaitable

import trio

from tunnel.config.model import ListenerConfig
from tunnel.http.client import parse_http_url
from tunnel.net.address import TcpAddress
from tunnel.net.dial import open_target, open_through
from tunnel.net.sockets import port_number
from tunnel.proxy.tunnel import Tunnel
from tunnel.status.backend_health import Check, check_by_connecting, check_by_handshake, check_by_request
from tunnel.tls.engine import TlsEnd
from tunnel.tls.stream import TlsSource


def build_check(tunnel: Tunnel, config: ListenerConfig) -> Check:
    """Build the check: a connection for a server, a handshake for a client, or a request; raises ConfigError."""

    def open_stream() -> Awaitable[trio.abc.HalfCloseableStream]:
        if config.outbound is not None and isinstance(config.target, TcpAddress):
            return open_through(config.outbound, config.target.host, port_number(config.target.port))
        return open_target(config.target)

    def open_end() -> TlsEnd | None:
        generation = tunnel.review()
        return generation.context.open_end(tunnel.buffers, config.sni) if generation else None

    if config.target_status:
        return check_by_request(open_stream, parse_http_url(config.target_status), config.connect_timeout)
    if config.is_server:
        return check_by_connecting(open_stream, config.connect_timeout)
    return check_by_handshake(open_stream, TlsSource(open_end, tunnel.buffers), config.connect_timeout)
