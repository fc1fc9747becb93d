"""How one tunnel behaves.

Knows the limits and the target as values; must not know flags or connections.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field

from tunnel.config.model import ProxyConfig
from tunnel.net.address import Address, TcpAddress
from tunnel.wire.outbound import OutboundProxy
from tunnel.wire.proxy_v2 import HeaderMode


@dataclass(frozen=True, slots=True)
class Settings:
    """How one tunnel behaves; durations in seconds, 0 for a limit that is off."""

    is_server: bool
    target: Address
    host: str = ""  # of the server that a client wants; "" for the target's
    connect_timeout: float = 10.0
    close_timeout: float = 60.0
    max_conn_lifetime: float = 0.0
    max_concurrent_conns: int = 0
    max_handshakes: int = 0  # at one time, of a server
    outbound: OutboundProxy | None = None  # through which a client reaches its target
    header: HeaderMode | None = None  # what a server tells its backend before the payload
    only_user: int | None = None  # the user ID whose processes alone may connect; None for whoever can reach us
    server_name: str = field(init=False)  # the SNI that a client sends, "" for none

    def __post_init__(self) -> None:
        object.__setattr__(self, "server_name", "" if self.is_server else _server_name(self.host, self.target))


def settings_of(config: ProxyConfig) -> Settings:
    """What a configuration says of the tunnel's behaviour."""
    return Settings(
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
        only_user=os.geteuid() if config.is_private else None,  # as sockets have it
    )


def _server_name(host: str, target: Address) -> str:
    """The server's host, unless that is an address (RFC 6066, section 3)."""
    name = host or (target.host if isinstance(target, TcpAddress) else "")
    try:
        ipaddress.ip_address(name[1:-1] if name.startswith("[") else name)
    except ValueError:
        return name.rstrip(".")  # absolute for the resolver, never so in TLS
    return ""
