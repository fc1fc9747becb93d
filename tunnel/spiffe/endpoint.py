"""The address of a Workload API.

Knows the grammar of SPIFFE Workload Endpoint, section 2, and the mistakes people make with it; must not open anything:
whether a socket is there is found out by connecting, again and again.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from tunnel.errors import ConfigError
from tunnel.ip_address import parse_ip_address
from tunnel.unix_path import check_unix_path

ENVIRONMENT = "SPIFFE_ENDPOINT_SOCKET"
_PARTS = re.compile(
    r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*):(?:(?P<slashes>//)(?P<authority>[^/?#]*))?(?P<path>[^?#]*)(?P<rest>.*)",
    re.DOTALL,
)
_WANTED = "a Workload API address is unix:///absolute/path or tcp://IP:PORT"


@dataclass(frozen=True, slots=True)
class WorkloadEndpoint:
    """Where a Workload API listens: a Unix socket's path, or an IP address and a port."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"unix://{quote(os.fsencode(self.path))}" if self.path else f"tcp://{self.authority}"

    @property
    def authority(self) -> str:
        """`IP:PORT`, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> WorkloadEndpoint:
    """The endpoint that `text` names (Workload Endpoint 2); raises ConfigError that names the mistake."""
    if not text.isprintable() or " " in text:
        raise ConfigError(f"{text!a} has a blank or a control character; {_WANTED}")
    if text.startswith("/"):
        raise ConfigError(f"{text!a} is a bare path; did you mean unix://{text}")
    parts = _PARTS.fullmatch(text)
    if not parts or parts["scheme"] not in ("unix", "tcp"):
        raise ConfigError(f"{text!a} has no scheme that is known; {_WANTED}")
    if parts["rest"]:
        raise ConfigError(f"{text!a} has a query or a fragment; {_WANTED}")
    if "@" in (parts["authority"] or ""):
        raise ConfigError(f"{text!a} names a user; {_WANTED}")
    if parts["scheme"] == "unix":
        return _parse_unix(text, parts["authority"] or "", parts["path"])
    if not parts["slashes"]:
        raise ConfigError(f"{text!a} lacks its slashes; did you mean tcp://{parts['path']}")
    return _parse_tcp(text, parts["authority"], parts["path"])


def _parse_unix(text: str, authority: str, path: str) -> WorkloadEndpoint:
    if authority:
        raise ConfigError(f"{text!a} has two slashes where three are wanted; did you mean unix:///{authority}{path}")
    if not path.startswith("/"):
        raise ConfigError(f"{text!a} has no absolute path; did you mean unix:///{path}")
    if not path.strip("/"):
        raise ConfigError(f"{text!a} names no socket; {_WANTED}")
    return WorkloadEndpoint(path=_decode_path(text, path))


def _decode_path(text: str, path: str) -> str:
    """The file's name that a path of a URI stands for (RFC 3986, 2.1)."""
    if not re.fullmatch(r"([^%]|%[0-9A-Fa-f]{2})*", path):
        raise ConfigError(f"{text!a} has a percent sign without two hexadecimal digits; write %25 for a percent sign")
    raw = b"/" + unquote_to_bytes(path).lstrip(b"/")  # the kernel takes several slashes for one, gRPC does not
    if raw.endswith(b"/"):
        raise ConfigError(f"{text!a} ends with a slash, so it names a directory; expected the path of a socket in it")
    if b"\0" in raw:
        raise ConfigError(f"{text!a} has a null byte; {_WANTED}")
    if b"," in raw:
        raise ConfigError(f"{text!a} has a comma, which gRPC takes for the end of the path; use a link without one")
    try:
        check_unix_path(os.fsdecode(raw))
    except ConfigError as error:
        raise ConfigError(f'invalid address "{ascii(text)[1:-1]}": {error}') from None
    return os.fsdecode(raw)


def _parse_tcp(text: str, authority: str, path: str) -> WorkloadEndpoint:
    if path:
        raise ConfigError(f"{text!a} has a path; tcp://IP:PORT has none")
    host, colon, port = authority.rpartition(":")
    if not colon or host.count("[") != host.count("]") or (":" in host and not host.startswith("[")):
        raise ConfigError(f"{text!a} has no port; {_WANTED}")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    address = parse_ip_address(bare)
    if address is None:
        raise ConfigError(f"{text!a} names a host; the standard wants an IP address, such as tcp://127.0.0.1:{port}")
    if (address.version == 6) != host.startswith("["):
        raise ConfigError(f"{text!a}: an IPv6 address, and no other, stands in brackets")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ConfigError(f"{text!a} has no port from 1 to 65535")
    return WorkloadEndpoint(host=str(address), port=int(port))
