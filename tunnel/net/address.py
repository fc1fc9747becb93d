"""Where to listen and where to dial, as text and as value.

Knows ghostunnel's grammar of addresses; must not resolve or open anything. "Local" is a test of the text, on purpose: what
a name resolves to may change after the check. What a service manager hands over can be listened on and never dialled: that
is a difference of types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunnel.errors import ConfigError
from tunnel.log import escape
from tunnel.unix_path import check_unix_path

_LOCAL = ("unix:", "systemd:", "launchd:", "127.0.0.1:", "[::1]:", "localhost:")
_SCHEMES: tuple[Literal["http", "https"], ...] = ("http", "https")


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host, which may be empty or a name, and a port, which may be a service's name."""

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
    """A socket that systemd has opened, by the name that its unit gives it (`FileDescriptorName=`)."""

    name: str

    def __str__(self) -> str:
        return f"systemd:{self.name}"


@dataclass(frozen=True, slots=True)
class LaunchdAddress:
    """A socket of macOS's service manager: can be written, and is refused when it is to be opened."""

    name: str

    def __str__(self) -> str:
        return f"launchd:{self.name}"


Address = TcpAddress | UnixAddress
ListenAddress = Address | SystemdAddress | LaunchdAddress


@dataclass(frozen=True, slots=True)
class StatusAddress:
    """Where the status port listens, and the scheme that was asked for, if any."""

    address: ListenAddress
    scheme: Literal["http", "https", ""]

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}" if self.scheme else str(self.address)


def parse_address(text: str) -> Address:
    """`HOST:PORT` or `unix:PATH`, where one can dial; raises ConfigError."""
    address = parse_listen_address(text)
    if isinstance(address, SystemdAddress | LaunchdAddress):
        raise ConfigError(f"{text!a} is a socket to listen on: HOST:PORT or unix:PATH is wanted here")
    return address


def parse_listen_address(text: str) -> ListenAddress:
    """`HOST:PORT`, `unix:PATH`, `systemd:NAME` or `launchd:NAME`; raises ConfigError."""
    kind, _, rest = text.partition(":")
    if kind == "unix":
        return _parse_unix(text)
    if kind in ("systemd", "launchd"):
        if not rest or not rest.isprintable():
            raise ConfigError(f"{text!a} names no socket; {kind}:NAME is wanted")
        return SystemdAddress(rest) if kind == "systemd" else LaunchdAddress(rest)
    return _parse_tcp(text)


def parse_status_address(text: str) -> StatusAddress:
    """An address to listen on, for TCP with `http://` or `https://` in front if need be; raises ConfigError."""
    for scheme in _SCHEMES:
        prefix = f"{scheme}://"
        if text.startswith(prefix):
            address = parse_listen_address(text.removeprefix(prefix))
            if not isinstance(address, TcpAddress):
                raise ConfigError(f"{text!a}: {prefix} goes with HOST:PORT only; other sockets speak HTTP, write {address}")
            return StatusAddress(address, scheme)
    return StatusAddress(parse_listen_address(text), "")


def join_host_port(host: str, port: str | int) -> str:
    """`HOST:PORT`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_local(text: str) -> bool:
    """Whether an address names this machine by its spelling alone."""
    return text.startswith(_LOCAL)


def _parse_unix(text: str) -> UnixAddress:
    path = text.removeprefix("unix:")
    if not path or "\0" in path:
        raise ConfigError(f"{text!a} names no socket; unix:PATH is wanted")
    if path.startswith("//"):
        raise ConfigError(f"{text!a} is written like a URL; unix:PATH is wanted, such as unix:/{path.lstrip('/')}")
    try:
        check_unix_path(path)
    except ConfigError as error:
        raise ConfigError(f'invalid address "{escape(text)}": {error}') from error
    return UnixAddress(path)


def _parse_tcp(text: str) -> TcpAddress:
    host, colon, port = text.rpartition(":")
    if not colon or not port:
        raise ConfigError(f"{text!a} has no port; HOST:PORT or unix:PATH is wanted")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"{text!a} has too many colons; an IPv6 address stands in brackets, [::1]:PORT")
    if not text.isprintable() or any(sign in host for sign in "[]/ "):
        raise ConfigError(f"{text!a} has no host that is one; HOST:PORT or unix:PATH is wanted")
    if any(sign in port for sign in "[]/ "):
        raise ConfigError(f"{text!a} has no port that is one; HOST:PORT is wanted, and nothing behind it")
    if port.isascii() and port.isdigit() and int(port) > 65535:
        raise ConfigError(f"{text!a}: a port is at most 65535")
    return TcpAddress(host, port)
