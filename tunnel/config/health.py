"""The flags of `tunnel health`, and where a status port is asked.

Knows the spellings of an address and which may be asked without a proof of who answers; must not know HTTP.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile, pairwise, takewhile
from typing import Literal

from tunnel.config.parser import Arguments, Command, Group, expand_files, option, switch, word
from tunnel.config.values import or_none, parse_positive_duration, parse_text
from tunnel.errors import ConfigError
from tunnel.net.address import Address, LaunchdAddress, SystemdAddress, TcpAddress, parse_status_address

STATUS_PATH = "/_status"

_TCP = re.compile(r"((?:\w+://)?[^/]*)(/.*)?", re.DOTALL)  # with or without a scheme, and the path apart
_PATH = re.compile(r"/[!-~]*")  # what may stand in a request line


@dataclass(frozen=True, slots=True)
class StatusUrl:
    """A status port, and what to ask of it; without a scheme it is what a proxy makes of `--status`: HTTPS if it can."""

    scheme: Literal["http", "https", ""]
    address: Address
    path: str = STATUS_PATH

    def __str__(self) -> str:
        place = f"{self.scheme}://{self.address}" if self.scheme and isinstance(self.address, TcpAddress) else str(self.address)
        if self.path == STATUS_PATH:
            return place
        return place + (self.path if isinstance(self.address, TcpAddress) else f" {self.path}")


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """One question; the limit is in seconds and counts for all of it."""

    url: StatusUrl
    cacert: str
    timeout: float
    is_quiet: bool
    is_json: bool


def parse_status_url(text: str) -> StatusUrl:
    """`[http://|https://]HOST:PORT[/PATH]`, `unix:PATH` or `unix:///PATH`; raises ConfigError."""
    if text.startswith("unix:"):
        place, path = re.sub("^unix:///", "unix:/", text), ""
    else:
        found = _TCP.fullmatch(text)
        place, path = found.groups("") if found else (text, "")
    status = parse_status_address(place)
    if isinstance(status.address, SystemdAddress | LaunchdAddress):
        raise ConfigError(f"{text!a} is a socket to listen on: give what its unit listens on, HOST:PORT or unix:PATH")
    is_plain = not isinstance(status.address, TcpAddress)  # what reaches a Unix socket is of this machine
    return StatusUrl(
        "http" if is_plain else status.scheme, status.address, _parse_path(path) if path not in ("", "/") else STATUS_PATH
    )


def _parse_path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise ConfigError(f"{text!a} is no path: it begins with / and is printable ASCII without spaces")
    return text


WHERE = word(
    "ADDR",
    "The status port: what --status of the proxy says, [http://|https://]HOST:PORT or unix:PATH, and for TCP a /PATH behind "
    "it if another one than /_status is meant. Without it: every one that process 1 serves, for use in a container.",
    parse_status_url,
    required=False,
)
TIMEOUT = option("timeout", "Limit for the whole; default 5s.", parse_positive_duration, 5.0, placeholder="TIME")
CACERT = option(
    "cacert",
    "Want a certificate by an authority in this PEM file. Its name is not judged: it is an SVID, whose name is no host's.",
    parse_text,
    "",
    placeholder="FILE",
)
PATH = option(
    "path",
    f"What to ask for instead of {STATUS_PATH}, also at a Unix socket; a 200 is enough then. Made for the answers of other "
    "commands, /ready of 'tunnel svid watch --health' for one.",
    or_none(_parse_path),
    None,
    placeholder="PATH",
)
JSON = switch("json", "Print the status document that came, well or not.")
QUIET = switch("quiet", "Say nothing: the exit code is the answer.", short="q")

COMMAND = Command(
    "health",
    "Ask a status port how its proxy fares, and end with 0 if all is well, else with 1.",
    (Group("Flags", (PATH, TIMEOUT, CACERT, JSON, QUIET)),),
    """\
Made for probes and health checks in images that have no shell and no curl. Well means that the
status port answers 200 and its document says ok: the proxy accepts connections and its backend
answers. If not, one line on standard error says why.

HOST:PORT without a scheme is asked over HTTPS as the proxy serves it, and in plain HTTP if that is
what it speaks. The certificate there is the proxy's own and is not judged unless --cacert is
given; without it only a loopback address is asked over HTTPS. No name in it is judged in any case.

Without an address it asks what process 1 serves, as its command line says: in a container that is
the proxy itself, also under an init such as tini. A proxy without --status has nothing to ask, and
counts as well as long as it lives.

Examples:
  tunnel health
  tunnel health localhost:6060
  tunnel health http://127.0.0.1:6060 --timeout 2s
  tunnel health unix:/run/tunnel/status.sock --json
  tunnel health https://db.example.org:6060 --cacert bundle.pem --quiet
""",
    words=(WHERE,),
)
COMMANDS = (COMMAND,)


def status_ports(argv: Sequence[str]) -> tuple[StatusUrl, ...]:
    """What the proxies of a process of tunnel serve, by its command line; raises ConfigError if it is of another program."""
    line = list(dropwhile(lambda word: os.path.basename(word) != "tunnel", argv))  # behind an interpreter or an init
    if not line:
        raise ConfigError("ADDR is missing: process 1 is no tunnel whose status port could be asked, so say which")
    words = list(takewhile(lambda word: word != "--", expand_files(line)))
    found = [word.partition("=")[2] for word in words if word.startswith("--status=")]
    found += [value for word, value in pairwise(words) if word == "--status"]
    return tuple(map(parse_status_url, found))


def build(arguments: Arguments, own: StatusUrl | None = None) -> HealthConfig:
    """What a command line asks, of its address or of `own`, which is known to be of this machine; raises ConfigError."""
    url, cacert, path = own or arguments[WHERE], arguments[CACERT], arguments[PATH]
    if path and url.path != STATUS_PATH:
        raise ConfigError(f"--path {path} and {url} name two paths: leave one away")
    url = replace(url, path=path or url.path)
    if cacert and url.scheme == "http":
        raise ConfigError(f"--cacert has nothing to judge at {url}, which speaks plain HTTP")
    if not cacert and url.scheme != "http" and not own and not _is_this_machine(url.address):
        raise ConfigError(
            f"{url} is not on loopback: say --cacert FILE to know who answers, or http:// if that is what it speaks"
        )
    return HealthConfig(url, cacert, arguments[TIMEOUT], arguments[QUIET], arguments[JSON])


def _is_this_machine(address: Address) -> bool:
    """Whether a connection to it stays here; to connect to an address for all interfaces is to connect to oneself."""
    if not isinstance(address, TcpAddress) or address.host in ("", "localhost"):
        return True
    try:
        ip = ipaddress.ip_address(address.host)
    except ValueError:
        return False
    return ip.is_loopback or ip.is_unspecified
