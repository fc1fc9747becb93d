"""The route to the target: direct, or via an outbound proxy, which then resolves the target's name."""

from __future__ import annotations

from tunnel.config.model import ListenerConfig
from tunnel.errors import ConfigError
from tunnel.lazy_dataclass import dataclass
from tunnel.net.address import Address, UnixAddress
from tunnel.net.sockets import port_number
from tunnel.wire.outbound import Exchange, OutboundProxy, open_exchange


@dataclass(frozen=True, slots=True)
class ViaProxy:
    """An outbound proxy, and the target to request from it."""

    proxy: OutboundProxy
    host: str
    port: int

    def open_exchange(self) -> Exchange:
        """Create the exchange for a new connection to the proxy."""
        return open_exchange(self.proxy, self.host, self.port)

    def __str__(self) -> str:
        return f"proxy {self.proxy}"


@dataclass(frozen=True, slots=True)
class Route:
    """The address to dial, and the request to send there if it is a proxy."""

    address: Address
    target_name: str  # the target as it is configured, or as an SRV record has it
    via_proxy: ViaProxy | None = None
    sni: str = ""  # the server name that a client sends

    @property
    def proxy_name(self) -> str:
        """The name of the proxy in log lines, "" without a proxy."""
        return str(self.via_proxy) if self.via_proxy is not None else ""


def plan_route(config: ListenerConfig, target: Address) -> Route:
    """Return the route to a target; raises ConfigError or TargetError if a proxy cannot reach it."""
    proxy = config.outbound
    if proxy is None:
        return Route(target, str(target), sni=config.sni_for(target))
    if isinstance(target, UnixAddress):
        raise ConfigError(f"{target} cannot be reached through a proxy; expected a target HOST:PORT")
    via_proxy = ViaProxy(proxy, target.host, port_number(target.port))
    via_proxy.open_exchange()  # fail now if the target is invalid for the proxy, not at the first connection
    return Route(proxy.address, str(target), via_proxy, config.sni_for(target))
