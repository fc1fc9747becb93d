"""`tunnel svid jwt verify`: verify a JWT-SVID for an audience."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import MutableMapping
from typing import TYPE_CHECKING

from tunnel.cli.command import Arguments, Command, Group, option, positional, required, switch
from tunnel.cli.output import print_message
from tunnel.commands.proxy.source import API_ADDRESS, USE_API, WAIT, build_api
from tunnel.commands.svid.jwt import parse_audience
from tunnel.commands.svid.output_file import open_calls
from tunnel.commands.svid.verify import print_report
from tunnel.config.svid_model import BundleFile, JwtVerifyConfig, parse_bundle_file
from tunnel.config.values import or_none
from tunnel.errors import ConfigError, IdentityError, IdentityFault, OutputError
from tunnel.spiffe.selection import Selection

if TYPE_CHECKING:  # loaded when the line is known to be valid
    from tunnel.spiffe.jwks import JwtBundles

_STDIN = "-"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]*")


def parse_token_path(text: str) -> str:
    """Parse the path of a file with a token; a token in its place is refused, and not quoted."""
    if _TOKEN.fullmatch(text):
        raise ConfigError(
            "this is a token, and every user of this machine can read a command line; expected a file, or - for standard input"
        )
    return text


TOKEN_FILE = positional(
    "TOKEN-FILE",
    "File with the token, - for standard input",
    parse_token_path,
    default=_STDIN,
    required=False,
    default_text=_STDIN,
)
AUDIENCE = required("audience", "Audience that the token must have", parse_audience, placeholder="NAME")
LOCAL = switch("local", "Verify on this machine with the JWT bundles of the Workload API; needs the extra 'jwt' (PyJWT)")
BUNDLE = option(
    "bundle",
    "Verify on this machine with the JWKS in this file, without the Workload API. A JWKS does not name its trust domain, so "
    "name it, as in example.org=bundle.json",
    or_none(parse_bundle_file),
    None,
    placeholder="DOMAIN=FILE",
)
JSON = switch("json", "Print one JSON object")

COMMAND = Command(
    "svid jwt verify",
    "Verify a JWT-SVID for an audience, and report the rule that it breaks.",
    (
        Group("Audience", (AUDIENCE,)),
        Group("Verification (default by the Workload API)", (USE_API, API_ADDRESS, WAIT, LOCAL, BUNDLE)),
        Group("Output", (JSON,)),
    ),
    """\
Exit code: 0 for a valid token, else 1. With --local and --bundle the report has every rule with its
section of the standard.

Examples:
  tunnel svid jwt --audience reports | tunnel svid jwt verify --audience reports
  tunnel svid jwt verify token.jwt --audience reports --local
  tunnel svid jwt verify token.jwt --audience reports --bundle example.org=bundle.json
""",
    (TOKEN_FILE,),
)
COMMANDS = (COMMAND,)


def build(arguments: Arguments) -> JwtVerifyConfig:
    """The configuration; raises ConfigError."""
    bundle = arguments[BUNDLE]
    if bundle is not None and arguments[LOCAL]:
        raise ConfigError("--bundle and --local are mutually exclusive: each names the keys")
    return JwtVerifyConfig(
        arguments[TOKEN_FILE],
        arguments[AUDIENCE],
        build_api(arguments, WAIT, Selection()) if bundle is None else None,
        arguments[LOCAL],
        bundle,
        arguments[JSON],
    )


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Print the report; 0 for a valid token, else 1. Raises ConfigError for a wrong line."""
    config = build(arguments)
    try:
        return _verify(config)
    except (IdentityError, OutputError) as error:  # without the hint to --help, which does not help here
        print_message(f"error: {error}")
        return 1


def _verify(config: JwtVerifyConfig) -> int:
    is_local = config.is_local or config.bundle is not None
    if is_local:
        from tunnel.check.jwt_signature import require_library

        require_library()
    from tunnel.check.jwt_svid import conclusion, examine_by_workload_api, examine_token
    from tunnel.spiffe.jwt import Validation

    text = _read_token(config.path)
    validation = Validation(config.audience, time.time())
    if is_local:
        report = examine_token(text, validation, _load_bundles(config))
    else:
        assert config.source is not None
        report = examine_by_workload_api(text, validation, open_calls(config.source).validate_token)
    return print_report(report, "" if report.broken else conclusion(report, config.audience), is_json=config.is_json)


def _load_bundles(config: JwtVerifyConfig) -> JwtBundles:
    if config.bundle is None:
        assert config.source is not None
        return open_calls(config.source).fetch_jwt_bundles()
    return _read_bundle(config.bundle)


def _read_bundle(file: BundleFile) -> JwtBundles:
    from tunnel.keystore.files import prefix_errors, read_file
    from tunnel.spiffe.jwks import JwtBundles, parse_jwks

    document = read_file(file.path)
    with prefix_errors(file.path):
        return JwtBundles({file.trust_domain: parse_jwks(document)})


def _read_token(path: str) -> str:
    """The token in a file or on standard input, without white space around it; raises IdentityError."""
    from tunnel.keystore.files import read_file
    from tunnel.spiffe.jwt import MAX_TOKEN_BYTES

    if path == _STDIN:
        if sys.stdin.isatty():
            print_message("reading a token from standard input; end it with Ctrl-D")
        data = sys.stdin.buffer.read(MAX_TOKEN_BYTES + 3)
    else:
        data = read_file(path)
    text = data.decode("ascii", "replace").strip()
    where = "standard input" if path == _STDIN else ascii(path)
    if not text:
        raise IdentityError(IdentityFault.FILE, f"{where}: no token")
    if len(text) > MAX_TOKEN_BYTES:
        raise IdentityError(IdentityFault.OVER_LIMIT, f"{where}: token too long; expected at most {MAX_TOKEN_BYTES} bytes")
    return text
