"""The way to the target: where to dial, and what to ask for there.

Knows targets and outbound proxies; must not know connections. With a proxy it is the proxy's name that we resolve, never
the target's.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.errors import ConfigError
from tunnel.net.address import Address, UnixAddress
from tunnel.net.sockets import port_number
from tunnel.proxy.settings import Settings
from tunnel.wire.exchange import open_exchange
from tunnel.wire.outbound import Exchange, OutboundProxy


@dataclass(frozen=True, slots=True)
class ViaProxy:
    """A proxy, and the target to ask it for."""

    proxy: OutboundProxy
    host: str
    port: int

    def open_exchange(self) -> Exchange:
        """What is to be said on a new connection to the proxy."""
        return open_exchange(self.proxy, self.host, self.port)

    def __str__(self) -> str:
        return f"proxy {self.proxy}"


@dataclass(frozen=True, slots=True)
class Route:
    """Where to dial, and the detour if this is not the target itself."""

    address: Address
    via_proxy: ViaProxy | None = None


def plan_route(settings: Settings) -> Route:
    """The way of every connection; raises ConfigError or TargetError for a target that no proxy can be asked for."""
    target, proxy = settings.target, settings.outbound
    if proxy is None:
        return Route(target)
    if isinstance(target, UnixAddress):
        raise ConfigError(f"{target} cannot be reached through a proxy: a target of HOST:PORT is wanted")
    via_proxy = ViaProxy(proxy, target.host, port_number(target.port))
    via_proxy.open_exchange()  # what cannot be asked for is said now and not at the first connection
    return Route(proxy.address, via_proxy)
