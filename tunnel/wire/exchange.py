"""Which protocol an outbound proxy speaks.

Knows the schemes and their exchanges; must not know sockets.
"""

from __future__ import annotations

from tunnel.errors import ConfigError
from tunnel.wire.outbound import Exchange, OutboundProxy
from tunnel.wire.socks5 import Socks5Exchange


def open_exchange(proxy: OutboundProxy, host: str, port: int) -> Exchange:
    """A new exchange that asks for the target; raises ConfigError for one that the proxy cannot be asked for."""
    if not host:
        raise ConfigError(f"a target behind proxy {proxy} needs a host")
    if proxy.scheme != "http":
        return Socks5Exchange(proxy, host, port)
    from tunnel.wire.connect import ConnectExchange  # with h11, which few need: the first exchange is opened at start

    return ConnectExchange(proxy, host, port)
