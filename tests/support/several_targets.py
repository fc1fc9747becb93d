"""A proxy whose configuration has several targets: a command line, changed by values in the environment."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.processes import Proxy, bare_environment, with_workers
from tests.support.workloads import CLIENT, SERVER, Workloads
from tunnel.net.address import TcpAddress

_VARIABLE = "TEST_TARGETS"
_ROOT = str(Path(__file__).parents[2])
# The program with other targets than those of its command line.
_PROGRAM = f"""
import json, os, sys
from tunnel.lazy_dataclass import replace
sys.path.insert(0, {_ROOT!r})
from tunnel.cli.main import main
from tunnel.commands.proxy import run
from tunnel.config.model import HealthCheck, NameResolution
from tunnel.net.address import parse_address, parse_target
given = json.loads(os.environ.pop("{_VARIABLE}"))
build = run.build

def changed(command, arguments):
    config = build(command, arguments)
    (listener,) = config.listeners
    server = parse_address(given["dns_server"]) if given["dns_server"] else None
    listener = replace(
        listener,
        targets=tuple(map(parse_target, given["targets"])),
        health_check=HealthCheck(interval=given["interval"]),
        resolution=NameResolution(dns_server=server),
    )
    return replace(config, listeners=(listener,))

run.build = changed
sys.exit(main(sys.argv[1:], os.environ))
"""


def start_with_targets(
    workloads: Workloads,
    mode: str,
    targets: Sequence[str],
    *flags: str,
    dns_server: TcpAddress | None = None,
    interval: float = 0.1,
) -> Proxy:
    """Start a server or a client with these targets, and with health checks at this interval."""
    spiffe_id, rules = (SERVER, ("--allow-id", CLIENT)) if mode == "server" else (CLIENT, ("--verify-id", SERVER))
    source = f"--use-workload-api-addr={workloads.sockets[spiffe_id]}"
    line = with_workers((mode, source, "--listen=127.0.0.1:0", "--target=localhost:1", *rules, *flags))
    given = {"targets": list(targets), "dns_server": str(dns_server or ""), "interval": interval}
    environ = {**bare_environment(), _VARIABLE: json.dumps(given)}
    return workloads.watch(Proxy([sys.executable, "-c", _PROGRAM, *line], environ=environ))
