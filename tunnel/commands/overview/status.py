"""`tunnel status`: print the overview of a proxy once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import MutableMapping

from tunnel.cli.command import Arguments, Command, Group, switch
from tunnel.cli.output import print_output
from tunnel.commands.overview.query import ADDRESS, LISTENER, build_overview_query, document_of
from tunnel.commands.overview.report import describe_overview
from tunnel.commands.overview.styled import encode_line, wants_colour
from tunnel.commands.status_query import CACERT, MAX_LINE, TIMEOUT, ask
from tunnel.errors import ConfigError, TunnelError
from tunnel.log import one_line
from tunnel.status.overview_reading import parse_overview

JSON = switch("json", "Print the document of the status port, for scripts")

COMMAND = Command(
    "status",
    "Print listeners, identities, peers and recent refusals of a proxy.",
    (Group("Flags", (LISTENER, TIMEOUT, CACERT, JSON)),),
    """\
Queries /_overview of a status port and prints it once: whether the proxy is ready, its listeners
and targets, its identities with their expiry and last rotation, trust domains, peers, and recent
refusals, each with the access rule that would admit the peer. 'tunnel top' shows the same live.

The exit code is 0 if the proxy is ready, and 1 if it is not ready or does not answer. Unlike
'tunnel health', a target that is down does not change the exit code.

On a terminal, tables are cut to its width; in a pipe or a file, nothing is cut. NO_COLOR disables
colours. HTTPS and --cacert work as in 'tunnel health'.

Examples:
  tunnel status http://127.0.0.1:6060
  tunnel status unix:/run/tunnel/status.sock --listener redis
  tunnel status http://127.0.0.1:6060 --json | jq -r '.refusals[].flag'
""",
    positionals=(ADDRESS,),
)
COMMANDS = (COMMAND,)


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Print the overview; 0 if the proxy is ready, else 1. Raises ConfigError."""
    place, query = build_overview_query(arguments)
    try:
        document = document_of(ask(query), arguments[LISTENER])
        overview = parse_overview(document)
    except ConfigError:
        raise
    except TunnelError as error:
        sys.stderr.write(f"{one_line(f'tunnel status: {place}: {error}'[:MAX_LINE])}\n")
        return 1
    if arguments[JSON]:
        print_output(f"{json.dumps(document)}\n")
    else:
        has_colour = sys.stdout.isatty() and wants_colour(environ)
        lines = describe_overview(overview, _terminal_width())
        print_output("".join(f"{encode_line(line) if has_colour else line.text}\n" for line in lines))
    return 0 if overview.is_ready else 1


def _terminal_width() -> int | None:
    """The width of the terminal on standard output; None if it is none."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except OSError:
        return None
