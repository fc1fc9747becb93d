"""`tunnel svid jwt`: fetch a JWT-SVID, printed or kept in a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from tunnel.cli.command import Arguments, Command, Group, repeated, switch
from tunnel.cli.output import print_message, print_output
from tunnel.commands.proxy.source import SELECTION, WAIT, build_api, build_selection
from tunnel.commands.svid.output_file import GROUP, build_file, mode_option, open_calls, out_option, write_file
from tunnel.config.svid_model import JwtConfig, OutputFile
from tunnel.config.values import parse_secret_mode
from tunnel.errors import ConfigError, IdentityError, OutputError, invalid_value
from tunnel.log import one_line

if TYPE_CHECKING:  # loaded when the line is known to be valid
    from tunnel.identity.tokens import JwtSvid
    from tunnel.identity.workload_calls import WorkloadCalls

_TIMES = ("exp", "iat", "nbf")


def parse_audience(text: str) -> str:
    """One audience: the name that a service expects in its tokens."""
    if not text or not text.isprintable():
        raise invalid_value("audience", text, expected="the name that the receiving service expects")
    return text


AUDIENCE = repeated(
    "audience",
    "Audience of the token: the name that the receiving service expects. Repeatable for one token that several services "
    "accept; each of them can then use it with the others",
    parse_audience,
    placeholder="NAME",
)
OUT = out_option("Write the token to this file, replaced atomically")
WATCH = switch("watch", "Keep the file up to date until SIGTERM: renew the token after half of its lifetime")
MODE = mode_option(parse_secret_mode, "Permissions of the file, none for others", 0o600)
DECODE = switch("decode", "Print the claims of the token instead of the token")
JSON = switch("json", "Print JSON, with the token unless --decode is given; with --out one object per event, without the token")

COMMAND = Command(
    "svid jwt",
    "Fetch a JWT-SVID, a token that proves the identity of this process to one audience.",
    (
        Group("Audience", (AUDIENCE,)),
        Group("Identity", (*SELECTION, WAIT)),
        Group("File", (OUT, WATCH, MODE, GROUP)),
        Group("Output", (DECODE, JSON)),
    ),
    """\
Prints the token alone on standard output. It is a secret: until it expires, every program that has
it can act as this process for that audience. Prefer mutual TLS if both sides support it, because
its key is never sent.

Examples:
  tunnel svid jwt --audience reports --decode
  printf 'Authorization: Bearer %s' "$(tunnel svid jwt --audience reports)" |
      curl -H @- https://reports.example.org/
  tunnel svid jwt --audience reports --out /run/token --watch
""",
)
COMMANDS = (COMMAND,)


def build(arguments: Arguments) -> JwtConfig:
    """The configuration; raises ConfigError."""
    audience = arguments[AUDIENCE]
    if not audience:
        raise ConfigError("--audience is missing; expected the name that the receiving service expects")
    if len(set(audience)) < len(audience):
        raise ConfigError("--audience: an audience is given twice")
    file = build_file(arguments, OUT, MODE, WATCH)
    if file is not None and arguments[DECODE]:
        raise ConfigError("--decode and --out are mutually exclusive: --out writes the token")
    source = build_api(arguments, WAIT, build_selection(arguments))
    return JwtConfig(source, audience, file, arguments[DECODE], arguments[JSON])


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Fetch the token; 0, or 1 with one line on standard error. Raises ConfigError for a wrong line."""
    config = build(arguments)
    try:
        return _print_token(config) if config.file is None else _write_token(config, config.file, environ)
    except (IdentityError, OutputError) as error:  # without the hint to --help, which does not help here
        print_message(f"error: {error}")
        return 1


def _print_token(config: JwtConfig) -> int:
    from tunnel.time_format import describe_time

    svid = _fetch(config, open_calls(config.source))
    if config.is_json:
        print_output(_encode(svid, has_token=not config.is_decoded))
    else:
        print_output(_describe(svid) if config.is_decoded else f"{svid.token.text}\n")
    if not config.is_decoded and sys.stdout.isatty():
        audience = ", ".join(svid.audience)
        print_message(
            f"note: secret: until {describe_time(svid.expires_at)} this token authenticates as {svid.spiffe_id} to {audience}"
        )
    return 0


def _fetch(config: JwtConfig, calls: WorkloadCalls) -> JwtSvid:
    answer = calls.fetch_token(config.audience, config.source.selection)
    for failure in answer.skipped:
        print_message(f"warning: SVID skipped: {failure}")
    if answer.offered > 1 and config.source.selection.is_open():
        print_message(
            f"warning: {answer.offered} SVIDs offered and none selected by --spiffe-id or --spiffe-hint: "
            f"using the first valid one, {answer.svid.spiffe_id}, and the order of an agent's list is arbitrary"
        )
    return answer.svid


def _write_token(config: JwtConfig, file: OutputFile, environ: Mapping[str, str]) -> int:
    from tunnel.svid.jwt_token import TokenRefresher

    def fetch(calls: WorkloadCalls, is_first: bool) -> JwtSvid:
        return _fetch(config, calls) if is_first else calls.fetch_token(config.audience, config.source.selection).svid

    return write_file(
        TokenRefresher,
        fetch,
        lambda svid: svid.token.text,
        file,
        source=config.source,
        is_json=config.is_json,
        environ=environ,
    )


def _encode(svid: JwtSvid, *, has_token: bool) -> str:
    from tunnel.time_format import describe_time

    found: dict[str, Any] = {
        "spiffe_id": str(svid.spiffe_id),
        "hint": svid.hint,
        "audience": list(svid.audience),
        "expires_at": describe_time(svid.expires_at),
        "header": svid.token.header,
        "claims": svid.token.claims,
    }
    return json.dumps({**found, "token": svid.token.text} if has_token else found) + "\n"


def _describe(svid: JwtSvid) -> str:
    """Header and claims, one per line, with readable times."""
    from tunnel.time_format import describe_time

    lines = []
    for title, part in (("header", svid.token.header), ("claims", svid.token.claims)):
        lines.append(title)
        for name, value in part.items():
            is_time = title == "claims" and name in _TIMES and isinstance(value, int | float)
            shown = f"{value} ({describe_time(value)})" if is_time else value if isinstance(value, str) else json.dumps(value)
            lines.append(f"  {name}: {shown}")
    return "\n".join(one_line(line) for line in lines) + "\n"
