"""Addresses to listen on and to dial: values and the parsers of their text form, which is ghostunnel's.

Nothing is resolved or opened here. `is_local` tests the text on purpose: what a name resolves to may change after the check.
A socket that a service manager passes can be listened on but not dialled, so it has a type of its own.
"""

from __future__ import annotations

import re
from typing import Literal

from tunnel.errors import ConfigError, invalid_value
from tunnel.ip_address import join_host_port
from tunnel.lazy_dataclass import dataclass
from tunnel.unix_path import check_unix_path

_LOCAL = ("unix:", "systemd:", "launchd:", "127.0.0.1:", "[::1]:", "localhost:")
_EXPECTED = "HOST:PORT or unix:PATH"
_SRV_NAME = re.compile(r"(?=.{1,253}\.?$)_[A-Za-z0-9-]{1,62}\._[A-Za-z0-9-]{1,62}(\.[A-Za-z0-9_-]{1,63})+\.?", re.ASCII)
_MAX_PORT = 65535
_SCHEMES: tuple[Literal["http", "https"], ...] = ("http", "https")


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host (an IP address, a name, or empty) and a port (a number or the name of a service)."""

    host: str
    port: str

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A path, or an abstract name that begins with `@`."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class SystemdAddress:
    """A socket opened by systemd, by its `FileDescriptorName=`."""

    name: str

    def __str__(self) -> str:
        return f"systemd:{self.name}"


@dataclass(frozen=True, slots=True)
class LaunchdAddress:
    """A socket of the service manager of macOS: it is parsed, and opening it is an error."""

    name: str

    def __str__(self) -> str:
        return f"launchd:{self.name}"


@dataclass(frozen=True, slots=True)
class SrvName:
    """The name of SRV records (RFC 2782), which give the hosts and ports to dial."""

    name: str

    def __str__(self) -> str:
        return f"srv:{self.name}"


Address = TcpAddress | UnixAddress
TargetAddress = Address | SrvName
ListenAddress = Address | SystemdAddress | LaunchdAddress


@dataclass(frozen=True, slots=True)
class StatusAddress:
    """The address of a status port, and its scheme if one is given."""

    address: ListenAddress
    scheme: Literal["http", "https", ""]

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}" if self.scheme else str(self.address)


def parse_address(text: str) -> Address:
    """Parse an address to dial, `HOST:PORT` or `unix:PATH`; raises ConfigError."""
    address = parse_listen_address(text)
    if isinstance(address, SystemdAddress | LaunchdAddress):
        raise invalid_value("address", text, "can only be listened on", _EXPECTED)
    return address


def parse_target(text: str) -> TargetAddress:
    """Parse a target, `HOST:PORT`, `unix:PATH` or `srv:_SERVICE._tcp.DOMAIN`; raises ConfigError."""
    if not text.startswith("srv:_"):  # else it is the host `srv` and a port
        return parse_address(text)
    name = text.removeprefix("srv:")
    if not _SRV_NAME.fullmatch(name):
        raise invalid_value("address", text, "invalid name of SRV records", "srv:_SERVICE._tcp.DOMAIN")
    return SrvName(name)


def parse_tcp_address(text: str) -> TcpAddress:
    """Parse `HOST:PORT`; raises ConfigError."""
    address = parse_address(text)
    if not isinstance(address, TcpAddress):
        raise invalid_value("address", text, "not a TCP address", "HOST:PORT")
    return address


def parse_listen_address(text: str) -> ListenAddress:
    """Parse an address to listen on, `HOST:PORT`, `unix:PATH`, `systemd:NAME` or `launchd:NAME`; raises ConfigError."""
    kind, _, rest = text.partition(":")
    if kind == "unix":
        return _parse_unix(text)
    if kind in ("systemd", "launchd"):
        if not rest or not rest.isprintable():
            raise invalid_value("address", text, "invalid name" if rest else "missing name", f"{kind}:NAME")
        return SystemdAddress(rest) if kind == "systemd" else LaunchdAddress(rest)
    return _parse_tcp(text)


def parse_status_address(text: str) -> StatusAddress:
    """Parse an address to listen on; a TCP address may have the prefix `http://` or `https://`. Raises ConfigError."""
    for scheme in _SCHEMES:
        prefix = f"{scheme}://"
        if text.startswith(prefix):
            address = parse_listen_address(text.removeprefix(prefix))
            if not isinstance(address, TcpAddress):
                raise invalid_value("address", text, f"{prefix} requires HOST:PORT", str(address))
            return StatusAddress(address, scheme)
    return StatusAddress(parse_listen_address(text), "")


def parse_health_address(text: str) -> ListenAddress:
    """Parse the address of a plain HTTP port; a TCP address may have the prefix `http://`. Raises ConfigError."""
    status = parse_status_address(text)
    if status.scheme == "https":
        raise invalid_value("address", text, "health is served in plain HTTP", f"http://{status.address}")
    return status.address


def is_local(text: str) -> bool:
    """Return whether the text of an address denotes this machine."""
    return text.startswith(_LOCAL)


def _parse_unix(text: str) -> UnixAddress:
    path = text.removeprefix("unix:")
    if not path or "\0" in path:
        raise invalid_value("address", text, "NUL character in path" if path else "missing path", "unix:PATH")
    if path.startswith("//"):
        raise invalid_value("address", text, "not a URL", f"unix:PATH, for example unix:/{path.lstrip('/')}")
    try:
        check_unix_path(path)
    except ConfigError as error:
        raise invalid_value("address", text, str(error)) from error
    return UnixAddress(path)


def _parse_tcp(text: str) -> TcpAddress:
    host, colon, port = text.rpartition(":")
    if not colon or not port:
        raise invalid_value("address", text, "missing port", _EXPECTED)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise invalid_value("address", text, "too many colons", "HOST:PORT, with an IPv6 address in brackets: [::1]:PORT")
    if not text.isprintable() or any(sign in host for sign in "[]/ "):
        raise invalid_value("address", text, "invalid host", _EXPECTED)
    if any(sign in port for sign in "[]/ "):
        raise invalid_value("address", text, "invalid port", _EXPECTED)
    if port.isascii() and port.isdigit() and int(port) > _MAX_PORT:
        raise invalid_value("address", text, "port out of range", f"0 to {_MAX_PORT}")
    return TcpAddress(host, port)
