"""`tunnel health`: query a status port; exit 0 if the proxy is healthy.

Made to start fast: only the standard library is loaded.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile, pairwise, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from tunnel.cli.command import Arguments, Command, Group, option, positional, switch
from tunnel.cli.output import print_output
from tunnel.cli.parser import expand_files
from tunnel.config.status_url import READY_PATH, STATUS_PATH, StatusUrl, parse_path, parse_status_url
from tunnel.config.values import default_of, or_none, parse_positive_duration, parse_text
from tunnel.errors import ConfigError, TargetError, TargetFault, TunnelError, describe_os_error
from tunnel.log import one_line
from tunnel.net.address import Address, TcpAddress

if TYPE_CHECKING:  # loaded when the line is known to be valid
    import ssl

    from tunnel.status.client import StatusAnswer

_MAX_LINE = 500  # characters: an answer can have any length


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """One query; the timeout is in seconds, for all of it."""

    url: StatusUrl
    cacert: str = ""
    timeout: float = 5.0
    is_quiet: bool = False
    is_json: bool = False


ADDRESS = positional(
    "ADDR",
    "Status port: the value of the proxy's --status, [http://|https://]HOST:PORT or unix:PATH, for TCP with a /PATH if it is "
    "not /_status. Of a health port, with the path /readyz",
    parse_status_url,
    required=False,
    default_text="every status port and health port of process 1, for use in a container",
)
TIMEOUT = option(
    "timeout",
    "Maximum time for the query",
    parse_positive_duration,
    default_of(HealthConfig, "timeout"),
    placeholder="TIME",
)
CACERT = option(
    "cacert",
    "Require a certificate of a CA in this PEM file; its name is not verified, because it is an SVID",
    parse_text,
    "",
    placeholder="FILE",
)
PATH = option(
    "path",
    "Path to query, also at a Unix socket; status 200 then means healthy. For other endpoints, such as /readyz of --health or "
    "/ready of 'tunnel svid watch --health'",
    or_none(parse_path),
    None,
    placeholder="PATH",
    default_text=STATUS_PATH,
)
JSON = switch("json", "Print the status document, healthy or not")
QUIET = switch("quiet", "Print nothing: only the exit code is the result", short="q")

COMMAND = Command(
    "health",
    "Query a status port; exit 0 if healthy, else 1.",
    (Group("Flags", (PATH, TIMEOUT, CACERT, JSON, QUIET)),),
    """\
For probes and health checks in images without a shell and without curl. Healthy means that the
status port answers 200 and its document has "ok": true: the proxy accepts connections and its
backend answers. If not, one line on standard error has the reason.

HOST:PORT without a scheme is queried over HTTPS, as the proxy serves it, and over HTTP if the port
answers in plain HTTP. The proxy's own certificate is verified only with --cacert; without --cacert
only a loopback address is queried over HTTPS. The name in the certificate is never verified.

Without an address the command queries every status port in the command line of process 1, and in
the configuration files that it names, and every health port, there with the path /readyz?target: in
a container this is the proxy, also under an init such as tini. A proxy with neither has nothing to
query, and is healthy as long as it runs.

Examples:
  tunnel health
  tunnel health localhost:6060
  tunnel health http://127.0.0.1:6060 --timeout 2s
  tunnel health http://127.0.0.1:6061/readyz
  tunnel health unix:/run/tunnel/status.sock --json
  tunnel health https://db.example.org:6060 --cacert bundle.pem --quiet
""",
    positionals=(ADDRESS,),
)
COMMANDS = (COMMAND,)


def status_ports(argv: Sequence[str]) -> tuple[StatusUrl, ...]:
    """The status and health ports in a command line of this program and in its configuration files; raises ConfigError."""
    line = list(dropwhile(lambda word: os.path.basename(word) != "tunnel", argv))  # behind an interpreter or an init
    if not line:
        raise ConfigError("ADDR is missing: process 1 is not tunnel, so it has no known status port")
    words = list(takewhile(lambda word: word != "--", expand_files(line)))
    files = _values_of("--config", words)
    status = [*_values_of("--status", words), *_addresses_in(files, "status")]
    health = [*_values_of("--health", words), *_addresses_in(files, "health")]
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


def build(arguments: Arguments, own: StatusUrl | None = None) -> HealthConfig:
    """The query of the address in the line, or of `own`, an address of this machine; raises ConfigError."""
    url, cacert, path = own or arguments[ADDRESS], arguments[CACERT], arguments[PATH]
    if path and url.path != STATUS_PATH:
        raise ConfigError(f"--path {path} and {url} name two paths; expected one of them")
    url = replace(url, path=path or url.path)
    if cacert and url.scheme == "http":
        raise ConfigError(f"--cacert has no effect: {url} is plain HTTP")
    if not cacert and url.scheme != "http" and not own and not _is_this_machine(url.address):
        raise ConfigError(f"{url} is not on loopback; expected --cacert FILE to verify it, or http:// if it is plain HTTP")
    return HealthConfig(url, cacert, arguments[TIMEOUT], arguments[QUIET], arguments[JSON])


def _is_this_machine(address: Address) -> bool:
    """Whether a connection to this address stays on this machine; 0.0.0.0 and :: do."""
    if not isinstance(address, TcpAddress) or address.host in ("", "localhost"):
        return True
    try:
        ip = ipaddress.ip_address(address.host)
    except ValueError:
        return False
    return ip.is_loopback or ip.is_unspecified


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Query the ports; 0 if all are healthy, else 1 with one line. Raises ConfigError."""
    if arguments[ADDRESS]:
        return _query(build(arguments))
    own = status_ports(_first_process())
    if not own and not arguments[QUIET]:
        print_output("process 1 has neither --status nor --health: nothing to query\n")
    return max((_query(build(arguments, url)) for url in own), default=0)


def _first_process() -> list[str]:
    try:
        return os.fsdecode(Path("/proc/1/cmdline").read_bytes()).rstrip("\0").split("\0")
    except OSError as error:
        raise ConfigError(f"cannot read the command line of process 1: {describe_os_error(error)}") from error


def _query(config: HealthConfig) -> int:
    from tunnel.status.client import open_client_context

    trust = open_client_context(config.cacert)
    try:
        answer = _ask_with_timeout(config, trust)
    except TunnelError as error:
        return _report_fault(config, str(error))
    fault = answer.problem(config.url.path)
    if config.is_json:
        print_output(f"{json.dumps(answer.document)}\n" if answer.document is not None else "")
    elif not fault and not config.is_quiet:
        print_output(one_line(answer.summary()[:_MAX_LINE]) + "\n")
    return _report_fault(config, fault) if fault else 0


def _report_fault(config: HealthConfig, why: str) -> int:
    if not config.is_quiet:
        sys.stderr.write(f"{one_line(f'tunnel health: {config.url}: {why}'[:_MAX_LINE])}\n")
    return 1


def _ask_with_timeout(config: HealthConfig, trust: ssl.SSLContext) -> StatusAnswer:
    """The answer; raises TunnelError, at the latest after the timeout.

    In a thread, because a resolver and an answer that comes byte by byte cannot be limited otherwise. The thread ends with the
    process.
    """
    from tunnel.status.client import query_status

    found: list[StatusAnswer | TunnelError] = []

    def work() -> None:
        try:
            found.append(query_status(config.url, trust, config.timeout))
        except TunnelError as error:
            found.append(error)

    asking = threading.Thread(target=work, daemon=True)
    asking.start()
    asking.join(config.timeout)
    if not found:
        raise TargetError(TargetFault.TIMEOUT, f"no answer within {config.timeout:g}s")
    if isinstance(found[0], TunnelError):
        raise found[0]
    return found[0]
