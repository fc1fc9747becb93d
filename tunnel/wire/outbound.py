"""The outbound proxy of a client: its URL, and the exchange of messages that opens a connection to the target.

A URL may contain a password, even if it is invalid, so messages contain only its scheme.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Protocol
from urllib.parse import unquote

from tunnel.errors import ConfigError, TargetError, TargetFault, WireError, WireFault
from tunnel.ip_address import parse_ip_address
from tunnel.lazy_dataclass import dataclass, field
from tunnel.log import escape
from tunnel.net.address import TcpAddress

_DEFAULT_PORTS = {"http": 8080, "socks5": 1080, "socks5h": 1080}
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MAX_REPLY = 200  # characters of a text from the proxy in a message
_EXPECTED = "expected http://HOST:PORT, socks5://HOST:PORT or socks5h://HOST:PORT"


@dataclass(frozen=True, slots=True)
class OutboundProxy:
    """An outbound proxy; its text never contains the credentials."""

    scheme: str
    host: str
    port: int
    username: str = field(default="", repr=False)  # some use a token here
    password: str = field(default="", repr=False)

    @property
    def address(self) -> TcpAddress:
        """The address to dial."""
        return TcpAddress(self.host, str(self.port))

    @property
    def has_credentials(self) -> bool:
        return bool(self.username or self.password)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}"


@dataclass(frozen=True, slots=True)
class Reached:
    """The proxy has connected to the target; `leftover` are bytes of the target after the response of the proxy."""

    leftover: bytes


class Exchange(Protocol):
    """The messages between us and a proxy, before the first byte for the target."""

    def start(self) -> bytes:
        """Return our first message."""

    def feed(self, data: bytes) -> bytes | Reached:
        """Return our next message, empty if more bytes are needed; raises TargetError if refused, else WireError."""


def parse_outbound(text: str) -> OutboundProxy:
    """Parse `SCHEME://[USER[:PASSWORD]@]HOST[:PORT]`; a path is ignored. Raises ConfigError."""
    scheme, mark, rest = text.partition("://")
    if not mark:
        raise ConfigError(f"proxy: missing scheme; {_EXPECTED}")
    if (scheme := scheme.lower()) not in _DEFAULT_PORTS:
        raise ConfigError(f"proxy: unknown scheme: {escape(scheme)}; {_EXPECTED}")
    credentials, _, place = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")
    host, port = _parse_place(place, _DEFAULT_PORTS[scheme])
    if _BAD_PERCENT.search(credentials):
        raise ConfigError("proxy: invalid percent-encoding in the credentials; expected %25 for a percent sign")
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
    """Return the error for a proxy that refuses the target; `reply` is untrusted text."""
    return TargetError(TargetFault.PROXY_REFUSED, f"proxy {proxy} refused: {escape(reply[:_MAX_REPLY])}")


def invalid_response(proxy: OutboundProxy, problem: str, fault: WireFault = WireFault.MALFORMED) -> WireError:
    """Return the error for a response that violates the protocol."""
    return WireError(fault, f"proxy {proxy}: invalid response: {escape(problem[:_MAX_REPLY])}")


def _parse_place(place: str, default_port: int) -> tuple[str, int]:
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", place, re.DOTALL)
    if bracketed:
        host, port = bracketed[1].replace("%25", "%", 1), bracketed[2]  # RFC 6874: the % of a zone is escaped
        if not isinstance(parse_ip_address(host), IPv6Address):
            raise ConfigError("proxy: not an IPv6 address in the brackets")
    else:
        host, _, port = place.partition(":")
        if not host or not host.isprintable() or any(sign in host for sign in " []\\%") or ":" in port:
            raise ConfigError(f"proxy: missing or invalid host; {_EXPECTED}, with an IPv6 address in brackets")
    if not port:
        return host, default_port
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) <= 65535:
        raise ConfigError("proxy: invalid port; expected 1 to 65535, and /, ? and # percent-encoded in the credentials")
    return host, int(port)


def _decode(text: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
        decoded.encode()  # bytes of the command line that are not UTF-8 are surrogates
    except UnicodeError as error:
        raise ConfigError("proxy: the credentials are not UTF-8") from error
    return decoded


def _check_credentials(proxy: OutboundProxy) -> None:
    """Check what each protocol can transmit: RFC 7617, section 2, and RFC 1929, section 2."""
    username, password = proxy.username, proxy.password
    if proxy.scheme == "http":
        if ":" in username:
            raise ConfigError("proxy: a username for HTTP cannot contain a colon")
        if any(ord(sign) < 0x20 or ord(sign) == 0x7F for sign in username + password):
            raise ConfigError("proxy: credentials for HTTP cannot contain control characters")
    elif proxy.has_credentials and not (0 < len(username.encode()) <= 255 and len(password.encode()) <= 255):
        raise ConfigError(
            "proxy: credentials for SOCKS5 too long; expected a username of 1 to 255 bytes and a password of at most 255"
        )
