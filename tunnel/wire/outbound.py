"""The outbound proxy of a client: where it is, and the shape of what is said to it.

Knows the URL that names one; must not know what is said (`connect`, `socks5`) or who carries it. A URL may hold a
password, or something that was meant as one, so no message shows more of it than the scheme.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Protocol
from urllib.parse import unquote

from tunnel.errors import ConfigError, TargetError, TargetFault, WireError, WireFault
from tunnel.ip_address import parse_ip_address
from tunnel.log import escape
from tunnel.net.address import TcpAddress

_DEFAULT_PORTS = {"http": 8080, "socks5": 1080, "socks5h": 1080}
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MAX_REPLY = 200  # characters of a proxy's text that are worth a line
_WANTED = "http://HOST:PORT, socks5://HOST:PORT or socks5h://HOST:PORT is wanted"


@dataclass(frozen=True, slots=True)
class OutboundProxy:
    """A proxy to ask for the target; its text never shows the credentials."""

    scheme: str
    host: str
    port: int
    username: str = field(default="", repr=False)  # some keep a token here
    password: str = field(default="", repr=False)

    @property
    def address(self) -> TcpAddress:
        """Where to dial."""
        return TcpAddress(self.host, str(self.port))

    @property
    def has_credentials(self) -> bool:
        return bool(self.username or self.password)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}"


@dataclass(frozen=True, slots=True)
class Reached:
    """The proxy has made the connection; `leftover` came behind its answer and is the target's."""

    leftover: bytes


class Exchange(Protocol):
    """What is said between us and a proxy, up to the first byte for the target."""

    def start(self) -> bytes:
        """What we say first."""

    def feed(self, data: bytes) -> bytes | Reached:
        """What to say to this, possibly nothing yet; raises TargetError when refused, WireError when not understood."""


def parse_outbound(text: str) -> OutboundProxy:
    """`SCHEME://[USER[:PASSWORD]@]HOST[:PORT]`, whose path, if any, means nothing; raises ConfigError."""
    scheme, mark, rest = text.partition("://")
    if not mark:
        raise ConfigError(f"proxy: unknown scheme: there is none; {_WANTED}")
    if (scheme := scheme.lower()) not in _DEFAULT_PORTS:
        raise ConfigError(f"proxy: unknown scheme: {escape(scheme)}; {_WANTED}")
    credentials, _, place = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")
    host, port = _parse_place(place, _DEFAULT_PORTS[scheme])
    if _BAD_PERCENT.search(credentials):
        raise ConfigError("proxy: a % in the credentials does not begin an escape such as %40; write it as %25")
    username, _, password = credentials.partition(":")
    proxy = OutboundProxy(scheme, host, port, _decode(username), _decode(password))
    _check_credentials(proxy)
    return proxy


def open_exchange(proxy: OutboundProxy, host: str, port: int) -> Exchange:
    """Return a new exchange that requests the target; raises ConfigError for a target that the protocol cannot express."""
    if not host:
        raise ConfigError(f"a target behind proxy {proxy} needs a host")
    # Loaded when needed: h11 is large, and both modules import this one. The first exchange is opened at start.
    if proxy.scheme == "http":
        from tunnel.wire.connect import ConnectExchange

        return ConnectExchange(proxy, host, port)
    from tunnel.wire.socks5 import Socks5Exchange

    return Socks5Exchange(proxy, host, port)


def feed_exchange(exchange: Exchange, data: bytes, proxy_name: str) -> bytes | Reached:
    """Return what to send next, or the outcome, after a read; no data is the end of the connection. Raises TargetError."""
    if not data:
        raise proxy_closed(proxy_name, "connection closed before the response")
    try:
        return exchange.feed(data)
    except WireError as error:
        raise TargetError(TargetFault.PROXY_RESPONSE, str(error)) from error


def proxy_closed(proxy_name: str, detail: str) -> TargetError:
    """The connection to the proxy ended before its response."""
    return TargetError(TargetFault.PROXY_CLOSED, f"{proxy_name}: {detail}")


def refused(proxy: OutboundProxy, reply: str) -> TargetError:
    """The proxy understood us and said no; `reply` is its text, which may be anything."""
    return TargetError(TargetFault.PROXY_REFUSED, f"proxy {proxy} refused: {escape(reply[:_MAX_REPLY])}")


def not_understood(proxy: OutboundProxy, why: str, fault: WireFault = WireFault.MALFORMED) -> WireError:
    """The proxy said something that is no answer."""
    return WireError(fault, f"proxy {proxy} is not understood: {escape(why[:_MAX_REPLY])}")


def _parse_place(place: str, default_port: int) -> tuple[str, int]:
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", place, re.DOTALL)
    if bracketed:
        host, port = bracketed[1].replace("%25", "%", 1), bracketed[2]  # RFC 6874: a scope's % is escaped
        if not isinstance(parse_ip_address(host), IPv6Address):
            raise ConfigError("proxy: what stands in brackets is not an IPv6 address")
    else:
        host, _, port = place.partition(":")
        if not host or not host.isprintable() or any(sign in host for sign in " []\\%") or ":" in port:
            raise ConfigError(f"proxy: the URL names no host that is one; {_WANTED}, an IPv6 address in brackets")
    if not port:
        return host, default_port
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) <= 65535:
        raise ConfigError("proxy: the port is not a number from 1 to 65535; are /, ? and # in the credentials escaped?")
    return host, int(port)


def _decode(text: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
        decoded.encode()  # what is no UTF-8 on the command line comes as surrogates
    except UnicodeError as error:
        raise ConfigError("proxy: the credentials are not UTF-8") from error
    return decoded


def _check_credentials(proxy: OutboundProxy) -> None:
    """What each protocol can carry: RFC 7617, section 2, and RFC 1929, section 2."""
    username, password = proxy.username, proxy.password
    if proxy.scheme == "http":
        if ":" in username:
            raise ConfigError("proxy: a username for HTTP cannot hold a colon")
        if any(ord(sign) < 0x20 or ord(sign) == 0x7F for sign in username + password):
            raise ConfigError("proxy: credentials for HTTP cannot hold control characters")
    elif proxy.has_credentials and not (0 < len(username.encode()) <= 255 and len(password.encode()) <= 255):
        raise ConfigError("proxy: SOCKS5 takes a username of 1 to 255 bytes and a password of at most 255")
