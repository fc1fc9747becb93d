"""The route to the target: directly, or via an outbound proxy. With a proxy, only the proxy's name is resolved here."""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.errors import ConfigError
from tunnel.net.address import Address, UnixAddress
from tunnel.net.sockets import port_number
from tunnel.proxy.settings import Settings
from tunnel.wire.outbound import Exchange, OutboundProxy, open_exchange


@dataclass(frozen=True, slots=True)
class ViaProxy:
    """A proxy, and the target to ask it for."""

    proxy: OutboundProxy
    host: str
    port: int

    def open_exchange(self) -> Exchange:
        """The exchange for a new connection to the proxy."""
        return open_exchange(self.proxy, self.host, self.port)

    def __str__(self) -> str:
        return f"proxy {self.proxy}"


@dataclass(frozen=True, slots=True)
class Route:
    """The address to dial, and what to ask there if it is a proxy."""

    address: Address
    target_name: str  # the target as it is configured
    via_proxy: ViaProxy | None = None

    @property
    def proxy_name(self) -> str:
        """The proxy as log lines show it, "" without one."""
        return str(self.via_proxy) if self.via_proxy is not None else ""


def plan_route(settings: Settings) -> Route:
    """The route of every connection; raises ConfigError or TargetError for a target that no proxy can be asked for."""
    target, proxy = settings.target, settings.outbound
    if proxy is None:
        return Route(target, str(target))
    if isinstance(target, UnixAddress):
        raise ConfigError(f"{target} cannot be reached through a proxy: a target of HOST:PORT is wanted")
    via_proxy = ViaProxy(proxy, target.host, port_number(target.port))
    via_proxy.open_exchange()  # fails now, and not at the first connection, for a target that cannot be asked for
    return Route(proxy.address, str(target), via_proxy)
