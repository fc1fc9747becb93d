"""`tunnel svid show`: print the X.509-SVIDs and bundles that the Workload API gives this process."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from datetime import UTC, datetime

from tunnel.cli.command import Arguments, Command, Group, switch
from tunnel.cli.output import print_if_interactive, print_message, print_output
from tunnel.commands.proxy.source import SELECTION, WAIT, build_api, build_selection
from tunnel.config.svid_model import ShowConfig
from tunnel.errors import ConfigError, TunnelError

JSON = switch("json", "Print one JSON object")
PEM = switch("pem", "Print the certificate chain as PEM; never the key")

COMMAND = Command(
    "svid show",
    "Print the X.509-SVIDs and bundles that the Workload API gives this process.",
    (Group("Identity: all that are offered, unless one is selected", (*SELECTION, WAIT)), Group("Output", (JSON, PEM))),
    """\
An agent identifies the calling process: another user, container or program can get other SVIDs.

Examples:
  tunnel svid show --use-workload-api-addr unix:///run/spire/agent.sock
  tunnel svid show --spiffe-hint web --pem
""",
)
COMMANDS = (COMMAND,)


def build(arguments: Arguments) -> ShowConfig:
    """The configuration; raises ConfigError."""
    if arguments[JSON] and arguments[PEM]:
        raise ConfigError("--json and --pem are mutually exclusive")
    return ShowConfig(build_api(arguments, WAIT, build_selection(arguments)), arguments[JSON], arguments[PEM])


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Print the identities; 0, or 1 with one line on standard error. Raises ConfigError for a wrong line."""
    config = build(arguments)
    try:
        print_output(_describe(config))
    except TunnelError as error:
        print_message(f"error: {error}")
        return 1
    return 0


def _describe(config: ShowConfig) -> str:
    from tunnel.svid.fetch import run_with_identity
    from tunnel.svid.report import choose_svids, describe_update, report_update
    from tunnel.svid.update_files import encode_certificates

    is_open = config.source.selection.is_open()
    first = run_with_identity(config.source, print_if_interactive, wants_all=is_open)
    svids = choose_svids(first.context, first.credentials.svid, is_open=is_open)
    if config.is_pem:
        return b"".join(encode_certificates(one.chain) for one in svids).decode()
    if config.is_json:
        return json.dumps(report_update(svids, first.context), indent=2) + "\n"
    return describe_update(svids, first.context, datetime.now(UTC))
