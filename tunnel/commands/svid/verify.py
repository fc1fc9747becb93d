"""`tunnel svid verify`: check a certificate against each rule of the X509-SVID standard."""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tunnel.cli.command import Arguments, Command, Group, option, positional, switch
from tunnel.cli.output import print_output
from tunnel.commands.proxy.source import API_ADDRESS, USE_API, WAIT, build_api
from tunnel.commands.svid.output_file import open_calls
from tunnel.config.svid_model import SvidVerifyConfig, parse_bundle_file
from tunnel.config.values import or_none, parse_name, parse_text
from tunnel.errors import ConfigError, IdentityError
from tunnel.spiffe.selection import Selection

if TYPE_CHECKING:  # loaded when the line is known to be valid
    from tunnel.check.rule_report import RuleReport
    from tunnel.check.x509_svid import PathTrust

CERT = positional("CERT", "Certificate, followed by its intermediates: PEM, DER, or - for standard input", parse_name)
KEY = option("key", "Also check that this private key (PEM) is the certificate's", parse_text, "", placeholder="FILE")
BUNDLE = option(
    "bundle",
    "Verify the certification path with the CA certificates in this PEM file, without the Workload API. They are trusted for "
    "the named trust domain only, as in example.org=bundle.pem",
    or_none(parse_bundle_file),
    None,
    placeholder="DOMAIN=FILE",
)
JSON = switch("json", "Print one JSON object")

COMMAND = Command(
    "svid verify",
    "Check a certificate against each rule of the X509-SVID standard.",
    (
        Group("Trust and key", (USE_API, API_ADDRESS, WAIT, BUNDLE, KEY)),
        Group("Output", (JSON,)),
    ),
    """\
The certification path is verified with the Workload API's bundle for the trust domain of the
certificate, if there is an address, or with --bundle; without either only the other rules are
checked, which the last line states. 'tunnel server' and 'tunnel client' admit a peer by the same
rules. Exit code: 0 if no rule is broken, else 1.

Examples:
  tunnel svid verify svid.pem
  tunnel svid verify svid.pem --key svid_key.pem --bundle example.org=bundle.pem
  openssl s_client -connect host:8443 -showcerts </dev/null 2>/dev/null | tunnel svid verify -
""",
    (CERT,),
)
COMMANDS = (COMMAND,)


def build(arguments: Arguments) -> SvidVerifyConfig:
    """The configuration; raises ConfigError."""
    endpoint, bundle = arguments[API_ADDRESS], arguments[BUNDLE]
    if bundle is not None and (arguments.is_given(API_ADDRESS) or arguments[USE_API]):
        raise ConfigError("--bundle and the Workload API are mutually exclusive: each names the trusted CAs")
    if arguments[CERT] == arguments[KEY] == "-":
        raise ConfigError("CERT and --key cannot both be standard input")
    is_by_api = bundle is None and (arguments[USE_API] or endpoint is not None)
    source = build_api(arguments, WAIT, Selection()) if is_by_api else None
    return SvidVerifyConfig(arguments[CERT], arguments[KEY], bundle, source, arguments[JSON])


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Print the report; 0 if no rule is broken, else 1. Raises TunnelError for a wrong line or an unreadable file."""
    config = build(arguments)
    from tunnel.check.svid_files import read_path, read_public_key
    from tunnel.check.x509_svid import conclusion, examine_certificate

    path = read_path(config.path)
    key = read_public_key(config.key_path) if config.key_path else None
    report = examine_certificate(path, datetime.now(UTC), _load_trust(config), key)
    return print_report(report, "" if report.broken else conclusion(report), is_json=config.is_json)


def print_report(report: RuleReport, conclusion: str, *, is_json: bool) -> int:
    """Print all findings; the exit code. `conclusion` is the last line if no rule is broken."""
    print_output(report.encode_json() if is_json else report.encode_text(conclusion))
    return 1 if report.broken else 0


def _load_trust(config: SvidVerifyConfig) -> PathTrust:
    """The bundles for the certification path; if the Workload API does not answer, that is reported as a broken rule."""
    from tunnel.check.svid_files import read_authorities
    from tunnel.check.x509_svid import PathTrust

    if config.bundle is not None:
        return PathTrust(read_authorities(config.bundle.path, config.bundle.trust_domain), f"from {config.bundle.path}")
    if config.source is None:
        return PathTrust(None, "neither --bundle nor a Workload API address is set", is_required=False)
    try:
        bundles = open_calls(config.source).fetch_x509_bundles()
    except IdentityError as error:
        return PathTrust(None, str(error))
    return PathTrust(bundles, f"from the Workload API at {config.source.endpoint}")
