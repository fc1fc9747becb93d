"""`tunnel health`: query a status port; exit 0 if the proxy is healthy."""

from __future__ import annotations

import ipaddress
import json
import os
import sys
import threading
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile, pairwise, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from tunnel.cli.output import show
from tunnel.cli.parser import Arguments, Command, Group, expand_files, option, switch, word
from tunnel.config.status_url import STATUS_PATH, StatusUrl, parse_path, parse_status_url
from tunnel.config.values import or_none, parse_positive_duration, parse_text
from tunnel.errors import ConfigError, TargetError, TargetFault, TunnelError, describe_os_error
from tunnel.log import one_line
from tunnel.net.address import Address, TcpAddress

if TYPE_CHECKING:  # loaded when the line is known to be a good one
    import ssl

    from tunnel.status.client import StatusAnswer


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """One question; the limit is in seconds and counts for all of it."""

    url: StatusUrl
    cacert: str
    timeout: float
    is_quiet: bool
    is_json: bool


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
    or_none(parse_path),
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


_WIDEST = 500  # characters of a line: what came may be of any length


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """0 if all is well, else 1 with a line why; raises ConfigError."""
    if arguments[WHERE]:
        return _judge(build(arguments))
    own = status_ports(_first_process())
    if not own and not arguments[QUIET]:
        show("process 1 has no --status: nothing to ask\n")
    return max((_judge(build(arguments, url)) for url in own), default=0)


def _first_process() -> list[str]:
    try:
        return os.fsdecode(Path("/proc/1/cmdline").read_bytes()).rstrip("\0").split("\0")
    except OSError as error:
        raise ConfigError(f"cannot see what process 1 serves: {describe_os_error(error)}") from error


def _judge(config: HealthConfig) -> int:
    from tunnel.status.client import open_client_context

    trust = open_client_context(config.cacert)
    try:
        answer = _ask_in_time(config, trust)
    except TunnelError as error:
        return _refuse(config, str(error))
    fault = answer.problem(config.url.path)
    if config.is_json:
        show(f"{json.dumps(answer.document)}\n" if answer.document is not None else "")
    elif not fault and not config.is_quiet:
        show(one_line(answer.summary()[:_WIDEST]) + "\n")
    return _refuse(config, fault) if fault else 0


def _refuse(config: HealthConfig, why: str) -> int:
    if not config.is_quiet:
        sys.stderr.write(f"{one_line(f'tunnel health: {config.url}: {why}'[:_WIDEST])}\n")
    return 1


def _ask_in_time(config: HealthConfig, trust: ssl.SSLContext) -> StatusAnswer:
    """The answer; raises TunnelError, after the limit at the latest.

    On a thread: neither a resolver nor an answer that comes byte by byte can be limited in another way. One that is left
    behind ends with the process.
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
