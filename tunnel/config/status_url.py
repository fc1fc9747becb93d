"""The address of a status port as a client names it."""

from __future__ import annotations

import re
from typing import Literal

from tunnel.errors import invalid_value
from tunnel.lazy_dataclass import dataclass
from tunnel.net.address import Address, LaunchdAddress, SystemdAddress, TcpAddress, parse_status_address

STATUS_PATH = "/_status"
READY_PATH = "/readyz?target"  # of a health port: what /_status answers at a status port

_TCP = re.compile(r"((?:\w+://)?[^/]*)(/.*)?", re.DOTALL)  # scheme and address, then the path
_PATH = re.compile(r"/[!-~]*")  # of a request line


@dataclass(frozen=True, slots=True)
class StatusUrl:
    """A status port and a path; "" as the scheme is that of the proxy's `--status`: HTTPS if it can."""

    scheme: Literal["http", "https", ""]
    address: Address
    path: str = STATUS_PATH

    def __str__(self) -> str:
        place = f"{self.scheme}://{self.address}" if self.scheme and isinstance(self.address, TcpAddress) else str(self.address)
        if self.path == STATUS_PATH:
            return place
        return place + (self.path if isinstance(self.address, TcpAddress) else f" {self.path}")


def parse_status_url(text: str) -> StatusUrl:
    """`[http://|https://]HOST:PORT[/PATH]`, `unix:PATH` or `unix:///PATH`; raises ConfigError."""
    if text.startswith("unix:"):
        place, path = re.sub("^unix:///", "unix:/", text), ""
    else:
        found = _TCP.fullmatch(text)
        place, path = found.groups("") if found else (text, "")
    status = parse_status_address(place)
    if isinstance(status.address, SystemdAddress | LaunchdAddress):
        raise invalid_value("address", text, "can only be listened on", "HOST:PORT or unix:PATH, as in its unit")
    is_plain = not isinstance(status.address, TcpAddress)  # a Unix socket is on this machine
    return StatusUrl(
        "http" if is_plain else status.scheme, status.address, parse_path(path) if path not in ("", "/") else STATUS_PATH
    )


def parse_path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise invalid_value("path", text, expected="/ and then printable ASCII without spaces")
    return text
