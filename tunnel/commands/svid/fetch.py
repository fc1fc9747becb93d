"""`tunnel svid fetch`: write the X.509-SVID of this process to files, once."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import closing

from tunnel.cli.command import Arguments, Command, Group, switch
from tunnel.cli.output import print_if_interactive, print_message
from tunnel.commands.proxy.source import SELECTION, WAIT, build_api, build_selection
from tunnel.commands.svid.files import FILES, build_output, open_directory
from tunnel.config.svid_model import FetchConfig
from tunnel.errors import TunnelError

QUIET = switch("quiet", "Do not print what was written", short="q")
JSON = switch("json", "Print one JSON object per line on standard output instead of text")

COMMAND = Command(
    "svid fetch",
    "Write the X.509-SVID of this process to files, once.",
    (Group("Identity", (*SELECTION, WAIT)), FILES, Group("Output", (QUIET, JSON))),
    """\
All files of one update are replaced atomically: DIR/svid.pem is a link through DIR/..data, which
points to a directory with this update. A key on a disk can be copied, so put DIR in memory (tmpfs)
if possible, and use 'tunnel server' or 'tunnel client' if you need no files.

Examples:
  tunnel svid fetch --use-workload-api-addr unix:///run/spire/agent.sock --out /run/tls
  tunnel svid fetch --out /run/tls --cert-name tls.crt --key-name tls.key --bundle-name ca.crt \\
      --group postgres --key-mode 0640
""",
)
COMMANDS = (COMMAND,)


def build(arguments: Arguments) -> FetchConfig:
    """The configuration; raises ConfigError."""
    source = build_api(arguments, WAIT, build_selection(arguments))
    return FetchConfig(source, build_output(arguments), arguments[QUIET], arguments[JSON])


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Write the files; 0, or 1 with one line on standard error. Raises ConfigError for a wrong line."""
    config = build(arguments)
    from tunnel.svid.event_log import EventFormat, EventLog
    from tunnel.svid.fetch import run_fetch

    event_log = EventLog(EventFormat.JSON if config.is_json else EventFormat.PLAIN)
    try:
        with closing(open_directory(config.output, event_log)) as directory:
            run_fetch(config, directory, event_log, print_if_interactive)
    except TunnelError as error:
        print_message(f"error: {error}")
        return 1
    return 0
