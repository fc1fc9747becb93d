"""The settings of one tunnel: target and limits."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field

from tunnel.config.model import ProxyConfig
from tunnel.config.values import default_of
from tunnel.net.address import Address, TcpAddress
from tunnel.wire.outbound import OutboundProxy
from tunnel.wire.proxy_v2 import HeaderMode


@dataclass(frozen=True, slots=True)
class TunnelSettings:
    """Target and limits of one tunnel; durations in seconds, 0 for no limit."""

    is_server: bool
    target: Address
    host: str = ""  # of the server that a client expects; "" for the target's
    connect_timeout: float = default_of(ProxyConfig, "connect_timeout")
    close_timeout: float = default_of(ProxyConfig, "close_timeout")
    max_conn_lifetime: float = default_of(ProxyConfig, "max_conn_lifetime")
    max_concurrent_conns: int = default_of(ProxyConfig, "max_concurrent_conns")
    max_handshakes: int = 0  # at one time, of a server
    outbound: OutboundProxy | None = None  # of a client
    header: HeaderMode | None = None  # the PROXY header that a server sends to its target
    only_user: int | None = None  # the only user ID that may connect; None for any
    server_name: str = field(init=False)  # the SNI that a client sends, "" for none

    def __post_init__(self) -> None:
        object.__setattr__(self, "server_name", "" if self.is_server else _server_name(self.host, self.target))


def tunnel_settings(config: ProxyConfig) -> TunnelSettings:
    """Return the settings for a configuration."""
    return TunnelSettings(
        is_server=config.is_server,
        target=config.target,
        host=config.host,
        outbound=config.outbound,
        header=config.header_mode,
        connect_timeout=config.connect_timeout,
        close_timeout=config.close_timeout,
        max_conn_lifetime=config.max_conn_lifetime,
        max_concurrent_conns=config.max_concurrent_conns,
        max_handshakes=config.max_handshakes,
        only_user=os.geteuid() if config.is_private else None,  # sockets have the effective user ID
    )


def _server_name(host: str, target: Address) -> str:
    """Return the host for the SNI, or "" if it is an IP address (RFC 6066, section 3)."""
    name = host or (target.host if isinstance(target, TcpAddress) else "")
    try:
        ipaddress.ip_address(name[1:-1] if name.startswith("[") else name)
    except ValueError:
        return name.rstrip(".")  # the dot marks a name as absolute for the resolver only
    return ""
