"""The flags of `tunnel svid jwt`, `svid jwt bundles` and `svid jwt verify`, and the frozen configurations they make.

Knows which of them go together; must not open a file or ask anyone, but for the number of a named group.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from tunnel.cli.parser import Arguments, Command, Flag, Group, option, repeated, required, switch, word
from tunnel.commands.proxy.source import API_ADDRESS, SPIFFE_HINT, SPIFFE_ID, USE_API, WAIT
from tunnel.commands.svid.command import parse_group
from tunnel.config.model import WorkloadApi
from tunnel.config.values import or_none, parse_mode
from tunnel.errors import ConfigError, SpiffeIdError
from tunnel.spiffe.endpoint import ENVIRONMENT
from tunnel.spiffe.ids import TrustDomain, parse_trust_domain
from tunnel.spiffe.selection import Selection

STDIN = "-"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]*")
_DEFAULT_MODE, _DEFAULT_BUNDLES_MODE = 0o600, 0o644


@dataclass(frozen=True, slots=True)
class KeptFile:
    """The file that holds what was fetched."""

    path: str
    mode: int
    group: int | None  # its number; None leaves it to the system
    is_kept_fresh: bool


@dataclass(frozen=True, slots=True)
class JwtConfig:
    """One token, printed or kept in a file."""

    source: WorkloadApi
    audience: tuple[str, ...]
    file: KeptFile | None = None
    is_decoded: bool = False
    is_json: bool = False


@dataclass(frozen=True, slots=True)
class BundlesConfig:
    """The JWT bundles, printed or kept in a file."""

    source: WorkloadApi
    file: KeptFile | None = None
    is_json: bool = False


@dataclass(frozen=True, slots=True)
class NamedBundle:
    """A file with a bundle, and the one trust domain that it is for."""

    path: str
    trust_domain: TrustDomain


@dataclass(frozen=True, slots=True)
class JwtVerifyConfig:
    """One token to be judged: by the Workload API, or here by its bundles or by a file's."""

    path: str
    audience: str
    source: WorkloadApi | None
    is_local: bool
    bundle: NamedBundle | None
    is_json: bool


def parse_audience(text: str) -> str:
    """One audience: whatever its reader calls itself."""
    if not text or not text.isprintable():
        raise ConfigError(f"{text!a} is no audience: the name by which the reader of the token knows itself is wanted")
    return text


def parse_bundle(text: str) -> NamedBundle:
    """`TRUST-DOMAIN=FILE`: what is in the file vouches for that trust domain and no other; raises ConfigError."""
    name, _, path = text.partition("=")
    try:
        trust_domain = parse_trust_domain(name) if path else None
    except SpiffeIdError as error:
        raise ConfigError(f"{text!a} does not say whose bundle it is: {error}; as in example.org=FILE") from error
    if trust_domain is None:
        raise ConfigError(f"{text!a} does not say whose bundle it is: TRUST-DOMAIN=FILE is wanted, as in example.org=FILE")
    return NamedBundle(path, trust_domain)


def parse_token_path(text: str) -> str:
    """A file with a token; the token itself is refused, and not repeated."""
    if _TOKEN.fullmatch(text):
        raise ConfigError(
            "this looks like the token itself, and every user of this machine can read a command line: "
            "give a file, or - for standard input"
        )
    return text


def _parse_out(text: str) -> str:
    if not text or "\0" in text or text.endswith("/"):
        raise ConfigError(f"{text!a} is no file")
    return text


def _parse_secret_mode(text: str) -> int:
    mode = parse_mode(text)
    if mode & 0o007:
        raise ConfigError(f"{text!a} lets everybody on this machine at the token; share it by --group and 0640")
    return mode


AUDIENCE = repeated(
    "audience",
    "Whom the token is for, as that service knows itself. May be given several times, for one token that all of them take: "
    "each of them could then use it with the others.",
    parse_audience,
    placeholder="NAME",
)
OUT = option("out", "Write the token to this file, in one step.", or_none(_parse_out), None, placeholder="FILE")
WATCH = switch("watch", "Keep the file fresh, until SIGTERM: a new token at half of the life of the old one.")
MODE = option(
    "mode",
    "Permissions of the file; default 0600. Never readable by everybody.",
    _parse_secret_mode,
    _DEFAULT_MODE,
    placeholder="MODE",
)
GROUP = option(
    "group", "The group of the file, by name or number; default the system's choice.", parse_group, None, placeholder="GROUP"
)
DECODE = switch("decode", "Show what the token says in the place of the token, and not the token.")
JSON = switch(
    "json", "Print JSON, with the token unless --decode is given; with --out an object for each event, without the token."
)

COMMAND = Command(
    "svid jwt",
    "Fetch a JWT-SVID, a token that says who we are to one audience.",
    (
        Group("Whom it is for", (AUDIENCE,)),
        Group("Which identity", (USE_API, API_ADDRESS, SPIFFE_ID, SPIFFE_HINT, WAIT)),
        Group("A file with it", (OUT, WATCH, MODE, GROUP)),
        Group("What it prints", (DECODE, JSON)),
    ),
    """\
The token is printed on standard output, alone. It is a secret: whoever has it is you, to that
audience and until it ends. Where both sides can, use mutual TLS, whose key never travels.

Examples:
  tunnel svid jwt --audience reports --decode
  printf 'Authorization: Bearer %s' "$(tunnel svid jwt --audience reports)" |
      curl -H @- https://reports.example.org/
  tunnel svid jwt --audience reports --out /run/token --watch
""",
)

BUNDLES_OUT = option("out", "Write them to this file, in one step.", or_none(_parse_out), None, placeholder="FILE")
BUNDLES_WATCH = switch("watch", "Keep the file fresh, until SIGTERM: the Workload API is asked once a minute.")
BUNDLES_MODE = option(
    "mode",
    "Permissions of the file; default 0644, as they are public keys.",
    parse_mode,
    _DEFAULT_BUNDLES_MODE,
    placeholder="MODE",
)
BUNDLES_JSON = switch("json", "With --out, print a JSON object for each event; what is printed without it is JSON anyway.")

BUNDLES = Command(
    "svid jwt bundles",
    "Fetch the JWT bundles, the keys by which tokens are checked.",
    (
        Group("Where from", (USE_API, API_ADDRESS, WAIT)),
        Group("A file with them", (BUNDLES_OUT, BUNDLES_WATCH, BUNDLES_MODE, GROUP)),
        Group("What it prints", (BUNDLES_JSON,)),
    ),
    """\
One JSON object: by the name of each trust domain, its JWKS in base64, as spiffe-helper writes it.
Check a token by the keys of its own trust domain, and by no others.

Examples:
  tunnel svid jwt bundles --out /run/app/bundles.json --watch
  tunnel svid jwt bundles | jq -r '.["example.org"] | @base64d' > bundle.json
  tunnel svid jwt verify token.jwt --audience reports --bundle example.org=bundle.json
""",
)

TOKEN_FILE = word(
    "TOKEN-FILE", "The file with the token; default -, standard input.", parse_token_path, default=STDIN, required=False
)
VERIFY_AUDIENCE = required(
    "audience", "Who reads the token: it is good only if it is meant for this one.", parse_audience, placeholder="NAME"
)
LOCAL = switch("local", "Judge it on this machine, by the JWT bundles of the Workload API; needs the extra 'jwt' (PyJWT).")
BUNDLE = option(
    "bundle",
    "Judge it on this machine, by the JWKS in this file, and ask nobody. A JWKS does not say whose it is, so name its trust "
    "domain, as in example.org=bundle.json.",
    or_none(parse_bundle),
    None,
    placeholder="DOMAIN=FILE",
)
VERIFY_JSON = switch("json", "Print one JSON object.")

VERIFY = Command(
    "svid jwt verify",
    "Say whether a token is a good JWT-SVID for an audience, and which rule it breaks if not.",
    (
        Group("Who reads it", (VERIFY_AUDIENCE,)),
        Group("Who judges it: the Workload API, if nothing is chosen", (USE_API, API_ADDRESS, WAIT, LOCAL, BUNDLE)),
        Group("How", (VERIFY_JSON,)),
    ),
    """\
Ends with 0 for a good token and with 1 for any other. On this machine every rule is shown with the
section of the standard that it comes from.

Examples:
  tunnel svid jwt --audience reports | tunnel svid jwt verify --audience reports
  tunnel svid jwt verify token.jwt --audience reports --local
  tunnel svid jwt verify token.jwt --audience reports --bundle example.org=bundle.json
""",
    (TOKEN_FILE,),
)
COMMANDS = (COMMAND, BUNDLES, VERIFY)


def build_jwt(arguments: Arguments) -> JwtConfig:
    """The configuration that a line of `svid jwt` means; raises ConfigError."""
    audience, path = arguments[AUDIENCE], arguments[OUT]
    if not audience:
        raise ConfigError("--audience is missing: whom the token is for, as that service knows itself")
    if len(set(audience)) < len(audience):
        raise ConfigError("one --audience is given twice")
    if path is None:
        _refuse_without_out(arguments, WATCH, MODE, GROUP)
    elif arguments[DECODE]:
        raise ConfigError("--decode shows what a token says and --out writes the token: give one of them")
    file = KeptFile(path, arguments[MODE], arguments[GROUP], arguments[WATCH]) if path is not None else None
    selection = Selection(arguments[SPIFFE_ID], arguments[SPIFFE_HINT])
    return JwtConfig(_build_api(arguments, selection), audience, file, arguments[DECODE], arguments[JSON])


def build_bundles(arguments: Arguments) -> BundlesConfig:
    """The configuration that a line of `svid jwt bundles` means; raises ConfigError."""
    path = arguments[BUNDLES_OUT]
    if path is None:
        _refuse_without_out(arguments, BUNDLES_WATCH, BUNDLES_MODE, GROUP)
    is_kept = arguments[BUNDLES_WATCH]
    file = KeptFile(path, arguments[BUNDLES_MODE], arguments[GROUP], is_kept) if path is not None else None
    return BundlesConfig(_build_api(arguments, Selection()), file, arguments[BUNDLES_JSON])


def build_verify(arguments: Arguments) -> JwtVerifyConfig:
    """The configuration that a line of `svid jwt verify` means; raises ConfigError."""
    bundle = arguments[BUNDLE]
    if bundle is not None and arguments[LOCAL]:
        raise ConfigError("--bundle and --local name two sources of keys: give one of them")
    return JwtVerifyConfig(
        arguments[TOKEN_FILE],
        arguments[VERIFY_AUDIENCE],
        _build_api(arguments, Selection()) if bundle is None else None,
        arguments[LOCAL],
        bundle,
        arguments[VERIFY_JSON],
    )


def _build_api(arguments: Arguments, selection: Selection) -> WorkloadApi:
    endpoint = arguments[API_ADDRESS]
    if endpoint is None:
        raise ConfigError(f"no Workload API to ask: give --use-workload-api-addr ADDR, or set {ENVIRONMENT}")
    return WorkloadApi(endpoint, arguments[WAIT], selection)


def _refuse_without_out(arguments: Arguments, *flags: Flag[Any]) -> None:
    for flag in flags:
        if arguments.is_given(flag):
            raise ConfigError(f"--{flag.name} needs --out FILE: it is about that file")


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Carry out one line; the exit code. Raises ConfigError for a wrong line."""
    from tunnel.commands.svid.jwt_run import run

    return run(command, arguments, environ)
