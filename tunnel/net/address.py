"""Where to listen and where to dial, as text and as value.

Knows ghostunnel's grammar of addresses; must not resolve or open anything. "Local" is a test of the text, on purpose: what
a name resolves to may change after the check.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.errors import ConfigError

_LOCAL = ("unix:", "systemd:", "launchd:", "127.0.0.1:", "[::1]:", "localhost:")
_MAX_UNIX_PATH = 107  # sun_path has 108 bytes, one for the final NUL (unix(7))


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host, which may be empty or a name, and a port, which may be a service's name."""

    host: str
    port: str

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A path, or an abstract name that begins with `@`."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """`HOST:PORT` or `unix:PATH`; raises ConfigError."""
    if text.startswith("unix:"):
        return _parse_unix(text)
    if text.startswith(("systemd:", "launchd:")):
        raise ConfigError(f"{text!a}: sockets handed over by a service manager are not offered by this version")
    host, colon, port = text.rpartition(":")
    if not colon or not port:
        raise ConfigError(f"{text!a} has no port; HOST:PORT or unix:PATH is wanted")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"{text!a} has too many colons; an IPv6 address stands in brackets, [::1]:PORT")
    if not text.isprintable() or any(sign in host for sign in "[]/ "):
        raise ConfigError(f"{text!a} has no host that is one; HOST:PORT or unix:PATH is wanted")
    if port.isascii() and port.isdigit() and int(port) > 65535:
        raise ConfigError(f"{text!a}: a port is at most 65535")
    return TcpAddress(host, port)


def is_local(text: str) -> bool:
    """Whether an address names this machine by its spelling alone."""
    return text.startswith(_LOCAL)


def _parse_unix(text: str) -> UnixAddress:
    path = text.removeprefix("unix:")
    if not path or "\0" in path:
        raise ConfigError(f"{text!a} names no socket; unix:PATH is wanted")
    if path.startswith("//"):
        raise ConfigError(f"{text!a} is written like a URL; unix:PATH is wanted, such as unix:/{path.lstrip('/')}")
    if len(path.encode("utf-8", "surrogateescape")) > _MAX_UNIX_PATH:
        raise ConfigError(f"{text!a}: a socket's path has at most {_MAX_UNIX_PATH} bytes")
    return UnixAddress(path)
