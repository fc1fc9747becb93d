"""`tunnel svid jwt bundles`: fetch the JWT bundles, printed or kept in a file."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING

from tunnel.cli.command import Arguments, Command, Group, switch
from tunnel.cli.output import print_message, print_output
from tunnel.commands.proxy.source import API_ADDRESS, USE_API, WAIT, build_api
from tunnel.commands.svid.output_file import GROUP, build_file, mode_option, open_calls, out_option, write_file
from tunnel.config.svid_model import JwtBundlesConfig
from tunnel.config.values import parse_mode
from tunnel.errors import IdentityError, OutputError
from tunnel.spiffe.selection import Selection

if TYPE_CHECKING:  # loaded when the line is known to be valid
    from tunnel.identity.workload_calls import WorkloadCalls
    from tunnel.svid.jwt_bundles import BundleDocument

OUT = out_option("Write the bundles to this file, replaced atomically")
WATCH = switch("watch", "Keep the file up to date until SIGTERM: query the Workload API once a minute")
MODE = mode_option(parse_mode, "Permissions of the file, which has public keys only", 0o644)
JSON = switch("json", "With --out, print one JSON object per event; without --out the output is JSON anyway")

COMMAND = Command(
    "svid jwt bundles",
    "Fetch the JWT bundles, the keys that verify tokens.",
    (
        Group("Workload API", (USE_API, API_ADDRESS, WAIT)),
        Group("File", (OUT, WATCH, MODE, GROUP)),
        Group("Output", (JSON,)),
    ),
    """\
Prints one JSON object: for the name of each trust domain its JWKS in base64, as spiffe-helper
writes it. Verify a token with the keys of its own trust domain only.

Examples:
  tunnel svid jwt bundles --out /run/app/bundles.json --watch
  tunnel svid jwt bundles | jq -r '.["example.org"] | @base64d' > bundle.json
  tunnel svid jwt verify token.jwt --audience reports --bundle example.org=bundle.json
""",
)
COMMANDS = (COMMAND,)


def build(arguments: Arguments) -> JwtBundlesConfig:
    """The configuration; raises ConfigError."""
    file = build_file(arguments, OUT, MODE, WATCH)
    return JwtBundlesConfig(build_api(arguments, WAIT, Selection()), file, arguments[JSON])


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Fetch the bundles; 0, or 1 with one line on standard error. Raises ConfigError for a wrong line."""
    config = build(arguments)
    from tunnel.svid.jwt_bundles import BundlesRefresher

    try:
        if config.file is None:
            return _print_bundles(config)
        return write_file(
            BundlesRefresher,
            _fetch,
            lambda document: document.text,
            config.file,
            source=config.source,
            is_json=config.is_json,
            environ=environ,
        )
    except (IdentityError, OutputError) as error:  # without the hint to --help, which does not help here
        print_message(f"error: {error}")
        return 1


def _print_bundles(config: JwtBundlesConfig) -> int:
    document = _fetch(open_calls(config.source), is_first=True)
    for warning in document.skipped:
        print_message(f"warning: {warning}")
    print_output(f"{document.text}\n")
    return 0


def _fetch(calls: WorkloadCalls, is_first: bool) -> BundleDocument:
    from tunnel.svid.jwt_bundles import build_document

    return build_document(calls.fetch_jwt_bundles())
