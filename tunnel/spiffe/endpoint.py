"""The address of a Workload API (SPIFFE Workload Endpoint, section 2)."""

from __future__ import annotations

import os
import re
from urllib.parse import quote, unquote_to_bytes

from tunnel.errors import ConfigError, invalid_value
from tunnel.ip_address import join_host_port, parse_ip_address
from tunnel.lazy_dataclass import dataclass
from tunnel.unix_path import check_unix_path

ENVIRONMENT = "SPIFFE_ENDPOINT_SOCKET"
_PARTS = re.compile(
    r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*):(?:(?P<slashes>//)(?P<authority>[^/?#]*))?(?P<path>[^?#]*)(?P<rest>.*)",
    re.DOTALL,
)
_EXPECTED = "unix:///PATH or tcp://IP:PORT"


@dataclass(frozen=True, slots=True)
class WorkloadEndpoint:
    """Where a Workload API listens: the path of a Unix socket, or an IP address and a port."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"unix://{quote(os.fsencode(self.path))}" if self.path else f"tcp://{self.authority}"

    @property
    def authority(self) -> str:
        """`IP:PORT`, an IPv6 address in brackets."""
        return join_host_port(self.host, self.port)


def parse_endpoint(text: str) -> WorkloadEndpoint:
    """Parse an address (Workload Endpoint 2); raises ConfigError."""
    if not text.isprintable() or " " in text:
        raise _invalid(text, "space or control character")
    if text.startswith("/"):
        raise _invalid(text, "missing scheme", f"unix://{text}")
    parts = _PARTS.fullmatch(text)
    if not parts or parts["scheme"] not in ("unix", "tcp"):
        raise _invalid(text, "unknown scheme" if parts else "missing scheme")
    if parts["rest"]:
        raise _invalid(text, "query or fragment")
    if "@" in (parts["authority"] or ""):
        raise _invalid(text, "user name")
    if parts["scheme"] == "unix":
        return _parse_unix(text, parts["authority"] or "", parts["path"])
    if not parts["slashes"]:
        raise _invalid(text, "missing slashes", f"tcp://{parts['path']}")
    return _parse_tcp(text, parts["authority"], parts["path"])


def _invalid(text: str, problem: str, expected: str = _EXPECTED) -> ConfigError:
    return invalid_value("Workload API address", text, problem, expected)


def _parse_unix(text: str, authority: str, path: str) -> WorkloadEndpoint:
    if authority:
        raise _invalid(text, "host in a unix URI", f"three slashes: unix:///{authority}{path}")
    if not path.startswith("/"):
        raise _invalid(text, "path is not absolute", f"unix:///{path or 'PATH'}")
    if not path.strip("/"):
        raise _invalid(text, "missing path")
    return WorkloadEndpoint(path=_decode_path(text, path))


def _decode_path(text: str, path: str) -> str:
    """Return the file name that the path of a URI stands for (RFC 3986, 2.1)."""
    if not re.fullmatch(r"([^%]|%[0-9A-Fa-f]{2})*", path):
        raise _invalid(text, "invalid percent-encoding", "two hexadecimal digits after each %, and %25 for a percent sign")
    raw = b"/" + unquote_to_bytes(path).lstrip(b"/")  # the kernel treats several slashes as one, gRPC does not
    if raw.endswith(b"/"):
        raise _invalid(text, "path of a directory", "the path of a socket")
    if b"\0" in raw:
        raise _invalid(text, "NUL byte in path")
    if b"," in raw:
        raise _invalid(text, "comma in path, where gRPC ends the path", "a symbolic link without a comma")
    try:
        check_unix_path(os.fsdecode(raw))
    except ConfigError as error:
        raise _invalid(text, str(error), "") from None
    return os.fsdecode(raw)


def _parse_tcp(text: str, authority: str, path: str) -> WorkloadEndpoint:
    if path:
        raise _invalid(text, "path in a tcp URI", "tcp://IP:PORT")
    host, colon, port = authority.rpartition(":")
    if not colon or host.count("[") != host.count("]") or (":" in host and not host.startswith("[")):
        raise _invalid(text, "missing port")
    address = parse_ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    if address is None:
        raise _invalid(text, "host is not an IP address", f"for example tcp://127.0.0.1:{port}")
    if (address.version == 6) != host.startswith("["):
        raise _invalid(text, "IPv4 address in brackets" if address.version == 4 else "IPv6 address without brackets")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise _invalid(text, "invalid port", "1 to 65535")
    return WorkloadEndpoint(host=str(address), port=int(port))
