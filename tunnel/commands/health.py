"""`tunnel health`: query a status port; exit 0 if the proxy is healthy.

Made to start fast: only the standard library is loaded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import MutableMapping

from tunnel.cli.command import Arguments, Command, Group, option, positional, switch
from tunnel.cli.output import print_output
from tunnel.commands.status_query import CACERT, MAX_LINE, TIMEOUT, StatusQuery, ask, build_query, own_status_ports
from tunnel.config.status_url import STATUS_PATH, StatusUrl, parse_path, parse_status_url
from tunnel.config.values import or_none
from tunnel.errors import ConfigError, TunnelError
from tunnel.lazy_dataclass import dataclass, replace
from tunnel.log import one_line


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """One query, and what is printed."""

    query: StatusQuery
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


def build(arguments: Arguments, own: StatusUrl | None = None) -> HealthConfig:
    """The query of the address in the line, or of `own`, an address of this machine; raises ConfigError."""
    url, path = own or arguments[ADDRESS], arguments[PATH]
    if path and url.path != STATUS_PATH:
        raise ConfigError(f"--path {path} and {url} name two paths; expected one of them")
    query = build_query(arguments, replace(url, path=path or url.path), is_own=own is not None)
    return HealthConfig(query, arguments[QUIET], arguments[JSON])


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Query the ports; 0 if all are healthy, else 1 with one line. Raises ConfigError."""
    if arguments[ADDRESS]:
        return _query(build(arguments))
    own = own_status_ports(has_health=True)
    if not own and not arguments[QUIET]:
        print_output("process 1 has neither --status nor --health: nothing to query\n")
    return max((_query(build(arguments, url)) for url in own), default=0)


def _query(config: HealthConfig) -> int:
    try:
        answer = ask(config.query)
    except TunnelError as error:
        return _report_fault(config, str(error))
    fault = answer.problem(config.query.url.path)
    if config.is_json:
        print_output(f"{json.dumps(answer.document)}\n" if answer.document is not None else "")
    elif not fault and not config.is_quiet:
        print_output(one_line(answer.summary()[:MAX_LINE]) + "\n")
    return _report_fault(config, fault) if fault else 0


def _report_fault(config: HealthConfig, why: str) -> int:
    if not config.is_quiet:
        sys.stderr.write(f"{one_line(f'tunnel health: {config.query.url}: {why}'[:MAX_LINE])}\n")
    return 1
