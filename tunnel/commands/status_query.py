"""Queries of a status port: the flags that name it, the rules for its address, and the answer within a time limit.

Shared by commands that start fast: only the standard library is loaded.
"""

from __future__ import annotations

import ipaddress
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import dropwhile, pairwise, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from tunnel.cli.command import Arguments, option
from tunnel.cli.parser import expand_files
from tunnel.config.status_url import READY_PATH, StatusUrl, parse_status_url
from tunnel.config.values import default_of, parse_positive_duration, parse_text
from tunnel.errors import ConfigError, TargetError, TargetFault, TunnelError, describe_os_error
from tunnel.lazy_dataclass import dataclass, replace
from tunnel.net.address import Address, TcpAddress

if TYPE_CHECKING:  # loaded when the line is known to be valid
    from tunnel.status.client import StatusAnswer

MAX_LINE = 500  # characters of one line about an answer, which can have any length


@dataclass(frozen=True, slots=True)
class StatusQuery:
    """One query; the timeout is in seconds, for all of it."""

    url: StatusUrl
    cacert: str = ""
    timeout: float = 5.0


TIMEOUT = option(
    "timeout",
    "Maximum time for the query",
    parse_positive_duration,
    default_of(StatusQuery, "timeout"),
    placeholder="TIME",
)
CACERT = option(
    "cacert",
    "Require a certificate of a CA in this PEM file; its name is not verified, because it is an SVID",
    parse_text,
    "",
    placeholder="FILE",
)


def build_query(arguments: Arguments, url: StatusUrl, *, is_own: bool = False) -> StatusQuery:
    """The query of this address, which is known to be one of this machine if `is_own`; raises ConfigError."""
    cacert = arguments[CACERT]
    if cacert and url.scheme == "http":
        raise ConfigError(f"--cacert has no effect: {url} is plain HTTP")
    if not cacert and url.scheme != "http" and not is_own and not _is_this_machine(url.address):
        raise ConfigError(f"{url} is not on loopback; expected --cacert FILE to verify it, or http:// if it is plain HTTP")
    return StatusQuery(url, cacert, arguments[TIMEOUT])


def _is_this_machine(address: Address) -> bool:
    """Whether a connection to this address stays on this machine; 0.0.0.0 and :: do."""
    if not isinstance(address, TcpAddress) or address.host in ("", "localhost"):
        return True
    try:
        ip = ipaddress.ip_address(address.host)
    except ValueError:
        return False
    return ip.is_loopback or ip.is_unspecified


def own_status_ports(*, has_health: bool = False) -> tuple[StatusUrl, ...]:
    """The status ports of process 1, which is the proxy in a container, perhaps with its health ports; raises ConfigError."""
    return status_ports(_first_process(), has_health=has_health)


def status_ports(argv: Sequence[str], *, has_health: bool = True) -> tuple[StatusUrl, ...]:
    """The status and health ports in a command line of this program and in its configuration files; raises ConfigError."""
    line = list(dropwhile(lambda word: os.path.basename(word) != "tunnel", argv))  # behind an interpreter or an init
    if not line:
        known = "process 1 is not tunnel, so it has no known status port"
        raise ConfigError(f"ADDR is missing: {known}; expected HOST:PORT or unix:PATH")
    words = list(takewhile(lambda word: word != "--", expand_files(line)))
    files = _values_of("--config", words)
    status = [*_values_of("--status", words), *_addresses_in(files, "status")]
    health = [*_values_of("--health", words), *_addresses_in(files, "health")] if has_health else []
    return (*map(parse_status_url, status), *(replace(parse_status_url(one), scheme="http", path=READY_PATH) for one in health))


def _values_of(flag: str, words: Sequence[str]) -> list[str]:
    found = [word.removeprefix(f"{flag}=") for word in words if word.startswith(f"{flag}=")]
    return found + [value for word, value in pairwise(words) if word == flag]


def _addresses_in(files: Sequence[str], kind: str) -> Iterator[str]:
    """The addresses of `status` or `health` ports in configuration files, also after mistakes in them; raises ConfigError."""
    from tunnel.config.file.document import read_documents
    from tunnel.config.file.problem import Problems

    found = Problems()
    documents = read_documents(files, found)
    if found.errors:
        raise found.error()
    for document in documents:
        monitors = document.values.get("monitor")
        for table in (document.values, *(monitors if isinstance(monitors, list) else ())):
            port = table.get(kind) if isinstance(table, Mapping) else None
            listen = port.get("listen") if isinstance(port, Mapping) else None
            if isinstance(listen, str):
                is_relative = re.match(r"unix:(?!/|@)", listen)
                yield f"unix:{os.path.join(document.file.folder, listen[5:])}" if is_relative else listen


def _first_process() -> list[str]:
    try:
        return os.fsdecode(Path("/proc/1/cmdline").read_bytes()).rstrip("\0").split("\0")
    except OSError as error:
        raise ConfigError(f"cannot read the command line of process 1: {describe_os_error(error)}") from error


def ask(query: StatusQuery) -> StatusAnswer:
    """The answer; raises ConfigError if `cacert` cannot be read, and another TunnelError at the latest after the timeout.

    In a thread, because a resolver cannot be limited otherwise. The thread ends with the process.
    """
    from tunnel.status.client import open_client_context, query_status

    trust = open_client_context(query.cacert)
    found: list[StatusAnswer | TunnelError] = []

    def work() -> None:
        try:
            found.append(query_status(query.url, trust, query.timeout))
        except TunnelError as error:
            found.append(error)

    asking = threading.Thread(target=work, daemon=True)
    asking.start()
    asking.join(query.timeout)
    if not found:
        raise TargetError(TargetFault.TIMEOUT, f"no answer within {query.timeout:g}s")
    if isinstance(found[0], TunnelError):
        raise found[0]
    return found[0]
