"""How one tunnel behaves.

Knows the limits and the target as values; must not know flags or connections.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.net.address import Address, TcpAddress
from tunnel.net.sockets import resolve_now


@dataclass(frozen=True, slots=True)
class Settings:
    """How one tunnel behaves; durations in seconds, 0 for a limit that is off."""

    is_server: bool
    target: Address
    connect_timeout: float = 10.0
    close_timeout: float = 60.0
    max_conn_lifetime: float = 0.0
    max_concurrent_conns: int = 0

    @property
    def server_name(self) -> str:
        """The SNI that a client sends: its target's host, unless that is an address (RFC 6066, section 3)."""
        is_name = not self.is_server and isinstance(self.target, TcpAddress) and resolve_now(self.target) is None
        host = self.target.host if isinstance(self.target, TcpAddress) else ""
        return host if is_name or host == "localhost" else ""
