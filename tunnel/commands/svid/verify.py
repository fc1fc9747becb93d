"""The flags of `tunnel svid verify`, and the frozen configuration they make.

Knows which of them go together; must not open a file or ask anyone.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass

from tunnel.cli.parser import Arguments, Command, Group, option, switch, word
from tunnel.commands.proxy.source import API_ADDRESS, USE_API, WAIT
from tunnel.commands.svid.jwt import NamedBundle, parse_bundle
from tunnel.config.model import WorkloadApi
from tunnel.config.values import or_none, parse_name, parse_text
from tunnel.errors import ConfigError
from tunnel.spiffe.endpoint import ENVIRONMENT
from tunnel.spiffe.selection import Selection


@dataclass(frozen=True, slots=True)
class VerifyConfig:
    """One certificate to be judged, and by which bundle its path is checked if at all."""

    path: str
    key_path: str
    bundle: NamedBundle | None
    source: WorkloadApi | None
    is_json: bool


CERT = word("CERT", "The certificate, with its intermediates behind it: PEM, DER, or - for standard input.", parse_name)
KEY = option("key", "Say also whether this private key (PEM) is the certificate's.", parse_text, "", placeholder="FILE")
BUNDLE = option(
    "bundle",
    "Check the path by the authorities in this PEM file, and ask nobody. They vouch for the trust domain that is named, as in "
    "example.org=bundle.pem, and for no other.",
    or_none(parse_bundle),
    None,
    placeholder="DOMAIN=FILE",
)
JSON = switch("json", "Print one JSON object.")

COMMAND = Command(
    "svid verify",
    "Say of each rule of the X509-SVID standard whether a certificate keeps it.",
    (
        Group("What it is compared with", (USE_API, API_ADDRESS, WAIT, BUNDLE, KEY)),
        Group("How", (JSON,)),
    ),
    """\
The path is checked by the Workload API's bundle for the certificate's own trust domain when there
is an address, or by --bundle; without either the rules alone are asked, and the last line says so.
These are the same rules by which 'tunnel server' and 'tunnel client' admit a peer. Ends with 0 when
no rule is broken, else with 1.

Examples:
  tunnel svid verify svid.pem
  tunnel svid verify svid.pem --key svid_key.pem --bundle example.org=bundle.pem
  openssl s_client -connect host:8443 -showcerts </dev/null 2>/dev/null | tunnel svid verify -
""",
    (CERT,),
)
COMMANDS = (COMMAND,)


def build(arguments: Arguments) -> VerifyConfig:
    """The configuration that a line means; raises ConfigError."""
    endpoint, bundle = arguments[API_ADDRESS], arguments[BUNDLE]
    if bundle is not None and (arguments.is_given(API_ADDRESS) or arguments[USE_API]):
        raise ConfigError("--bundle and the Workload API are two sources of authorities: give one of them")
    if arguments[USE_API] and endpoint is None:
        raise ConfigError(f"no Workload API to ask: give --use-workload-api-addr ADDR, or set {ENVIRONMENT}")
    if arguments[CERT] == arguments[KEY] == "-":
        raise ConfigError("standard input cannot be both the certificate and the key")
    source = WorkloadApi(endpoint, arguments[WAIT], Selection()) if endpoint is not None and bundle is None else None
    return VerifyConfig(arguments[CERT], arguments[KEY], bundle, source, arguments[JSON])


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Carry out one line; the exit code. Raises ConfigError for a wrong line."""
    from tunnel.commands.svid.verify_run import run

    return run(command, arguments, environ)
