"""`tunnel top`: the overview of a proxy, live in a terminal."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping

from tunnel.cli.command import Arguments, Command, Group, option
from tunnel.commands.overview.query import ADDRESS, LISTENER, build_overview_query
from tunnel.commands.overview.styled import is_dumb, wants_colour
from tunnel.commands.status_query import CACERT, MAX_LINE, TIMEOUT
from tunnel.config.values import parse_positive_duration
from tunnel.errors import ConfigError, TunnelError, invalid_value
from tunnel.log import one_line

_SHORTEST = 0.1  # seconds


def parse_interval(text: str) -> float:
    """Seconds between two queries; raises ConfigError."""
    seconds = parse_positive_duration(text)
    if seconds < _SHORTEST:
        raise invalid_value("interval", text, "too short", "100ms or longer")
    return seconds


INTERVAL = option("interval", "Time between two queries", parse_interval, 1.0, placeholder="TIME")

COMMAND = Command(
    "top",
    "Show listeners, peers and recent refusals of a proxy, live in a terminal.",
    (Group("Flags", (INTERVAL, LISTENER, TIMEOUT, CACERT)),),
    """\
The same as 'tunnel status', with rates, until you quit. It queries the status port again and again,
changes nothing, and works over ssh and in tmux. If the proxy does not answer, the last numbers stay
with the time of the last answer, and the query is repeated, after 5 seconds at most.

Keys: q quits, Tab selects a table, Up, Down, PgUp, PgDn, Home and End scroll it, s sorts it by the
next column, r reverses the order, p pauses, ? shows all keys.

Standard input and output must be a terminal that understands the escape sequences of a VT100. In a
script or with TERM=dumb, use 'tunnel status'.

Examples:
  tunnel top http://127.0.0.1:6060
  tunnel top unix:/run/tunnel/status.sock --interval 5s
  ssh -t db.example.org tunnel top localhost:6060
""",
    positionals=(ADDRESS,),
)
COMMANDS = (COMMAND,)


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Show the overview until the user quits; 1 if the proxy does not answer at the start. Raises ConfigError."""
    place, query = build_overview_query(arguments)
    if is_dumb(environ):
        raise ConfigError('TERM is "dumb" or not set; expected a terminal with a screen, or use tunnel status')
    for name, stream in (("input", sys.stdin), ("output", sys.stdout)):
        if stream is None or not stream.isatty():
            raise ConfigError(f"standard {name} is no terminal; expected one, or use tunnel status")
    from tunnel.commands.overview.run import TopConfig, query_overview, run_top
    from tunnel.commands.overview.terminal import Terminal

    config = TopConfig(place, arguments[LISTENER], query, arguments[INTERVAL])
    try:
        first = query_overview(config)
    except ConfigError:
        raise
    except TunnelError as error:
        sys.stderr.write(f"{one_line(f'tunnel top: {place}: {error}'[:MAX_LINE])}\n")
        return 1
    terminal = Terminal(sys.stdin.fileno(), sys.stdout.fileno(), has_colour=wants_colour(environ))
    return run_top(config, terminal, first)
