"""The command line of `tunnel dev`.

Knows its flags and which of them go together; must not know what is done with them. Every mistake is one ConfigError, told
before anything is imported that starts threads or makes keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import timedelta

from tunnel.cli.parser import Arguments, Command, Group, option, repeated, switch
from tunnel.config.dev_model import KEY_TYPES, DevConfig, Entry, Issuing, check_local
from tunnel.config.values import one_of, parse_domain, parse_id, parse_limit, parse_mode, parse_positive_duration
from tunnel.errors import ConfigError
from tunnel.spiffe.endpoint import WorkloadEndpoint, parse_endpoint
from tunnel.spiffe.ids import SCHEME, SpiffeId, TrustDomain

DEFAULT_ID = Entry(SpiffeId(TrustDomain("example.org"), "/workload"))
_DETAIL = """\
For development and tests: every process that can open the socket is given the keys.

Serves the SPIFFE Workload API (the profiles for X.509-SVIDs and for JWT-SVIDs) as an agent of SPIRE
does, from authorities that are made at the start and forgotten at the end. Prints the
SPIFFE_ENDPOINT_SOCKET to give to workloads.

Examples:
  tunnel dev
  tunnel dev --socket unix:///tmp/a.sock --id spiffe://a.test/db,dns=db.a.test --ttl 10s --rotate 3s
  tunnel dev --id unix:///tmp/a.sock=spiffe://a.test/x --id unix:///tmp/b.sock=spiffe://b.test/y \\
      --federate a.test,b.test
"""
_MAX_HINT_BYTES = 1024  # Workload API, section 5.2.1
_MAX_LIFE = timedelta(days=3650).total_seconds()
_MIN_INTERVAL = 0.1
_JWT_TTL = 300.0
_DNS_NAME = re.compile(r"(?:\*\.)?[a-zA-Z0-9_-]{1,63}(?:\.[a-zA-Z0-9_-]{1,63})*")
_MAX_DNS_NAME = 253  # RFC 1035, section 2.3.4, without the root


@dataclass(frozen=True, slots=True)
class _Placed:
    """An identity and the socket it was given for, if it was."""

    endpoint: WorkloadEndpoint | None
    entry: Entry


def _parse_local_endpoint(text: str) -> WorkloadEndpoint:
    endpoint = parse_endpoint(text)
    check_local(endpoint)
    return endpoint


def _parse_placed(text: str) -> _Placed:
    place, scheme, rest = text.partition(SCHEME)
    if not scheme or (place and not place.endswith("=")):
        raise ConfigError(f"{text!a} is not [ADDR=]spiffe://DOMAIN/PATH[,hint=HINT][,dns=NAME]...")
    spiffe_id, *options = (scheme + rest).split(",")
    entry = Entry(parse_id(spiffe_id), *_parse_options(options))
    return _Placed(_parse_local_endpoint(place[:-1]) if place else None, entry)


def _parse_options(options: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    hint, names = "", []
    for text in options:
        key, _, value = text.partition("=")
        if key == "hint" and value and not hint and len(value.encode()) <= _MAX_HINT_BYTES:
            hint = value
        elif key == "dns" and _DNS_NAME.fullmatch(value) and len(value) <= _MAX_DNS_NAME:
            names.append(value)
        else:
            raise ConfigError(f"{text!a} is neither one hint=HINT of at most {_MAX_HINT_BYTES} bytes nor dns=NAME")
    return hint, tuple(names)


def _parse_federation(text: str) -> frozenset[TrustDomain]:
    domains = frozenset(parse_domain(name) for name in text.split(","))
    if len(domains) < 2:
        raise ConfigError(f"{text!a} names one trust domain where two or more are wanted, as in a.test,b.test")
    return domains


def _parse_life(text: str) -> float:
    seconds = parse_positive_duration(text)
    if not 1 <= seconds <= _MAX_LIFE:
        raise ConfigError(f"{text!a} is not from 1s to {_MAX_LIFE / 3600:.0f}h: a certificate counts whole seconds")
    return seconds


def _parse_interval(text: str) -> float:
    seconds = parse_limit(text)
    if 0 < seconds < _MIN_INTERVAL:
        raise ConfigError(f"{text!a} is too often; at least {_MIN_INTERVAL:g}s, or 0 for never")
    return seconds


SOCKET = repeated(
    "socket",
    "Where to listen: unix:///PATH, or tcp://IP:PORT on loopback; default a socket in $XDG_RUNTIME_DIR or in a new private "
    "directory. The first one given has the IDs that name no address; one without any ID answers 'no identity issued'.",
    _parse_local_endpoint,
    placeholder="ADDR",
)
ID = repeated(
    "id",
    "A workload's identity, [ADDR=]spiffe://DOMAIN/PATH[,hint=HINT][,dns=NAME]...; default spiffe://example.org/workload. "
    "Several of one ADDR are handed out together, the first is the default one.",
    _parse_placed,
    placeholder="ID",
)
FEDERATE = repeated(
    "federate",
    "Trust domains, A,B[,C]..., whose workloads are given each other's bundles.",
    _parse_federation,
    placeholder="DOMAINS",
)
TTL = option("ttl", "How long an SVID is valid; default 1h.", _parse_life, 3600.0, placeholder="DURATION")
ROTATE = option(
    "rotate",
    "Time between renewals of the SVIDs, 0 for never; default half of --ttl.",
    _parse_interval,
    None,
    placeholder="TIME",
)
JWT_TTL = option(
    "jwt-ttl",
    "How long a JWT-SVID is valid; default 5m, but no longer than --ca-rotate, since its key leaves the bundle then.",
    _parse_life,
    None,
    placeholder="DURATION",
)
CA_TTL = option("ca-ttl", "How long an authority is valid; default 24h.", _parse_life, 86400.0, placeholder="DURATION")
CA_ROTATE = option(
    "ca-rotate",
    "Time between the steps of a change of authority (prepare, activate, drop the old one, and again), 0 for never; default a "
    "sixth of --ca-ttl.",
    _parse_interval,
    None,
    placeholder="TIME",
)
INTERMEDIATE = switch("intermediate", "Sign by an intermediate under a root, as SPIRE with an upstream authority does.")
SAME_SUBJECT = switch("same-subject", "Give the authorities of all trust domains one subject name, as older SPIRE does.")
KEY_TYPE = option(
    "key-type", f"Key of the SVIDs: {', '.join(KEY_TYPES)}; default ec-p256.", one_of(*KEY_TYPES), "ec-p256", placeholder="TYPE"
)
SOCKET_MODE = option(
    "socket-mode",
    "Mode of the Unix sockets, default 0600; who may write may have the keys.",
    parse_mode,
    0o600,
    placeholder="MODE",
)
VERBOSE = switch("verbose", "Print a line for every rotation.", short="v")

COMMAND = Command(
    "dev",
    "Serve a throw-away Workload API for development and tests.",
    (
        Group("Whom it serves", (SOCKET, SOCKET_MODE, ID, FEDERATE)),
        Group("How long things last", (TTL, ROTATE, JWT_TTL, CA_TTL, CA_ROTATE)),
        Group("What it makes, and says", (KEY_TYPE, INTERMEDIATE, SAME_SUBJECT, VERBOSE)),
    ),
    _DETAIL,
)
COMMANDS = (COMMAND,)


def build(arguments: Arguments, environ: Mapping[str, str]) -> DevConfig:
    """The configuration that a command line means; raises ConfigError for values that do not go together."""
    sockets = _place(arguments[SOCKET], arguments[ID])
    federations = arguments[FEDERATE]
    _check_federations(federations, sockets.values())
    ttl, ca_ttl = arguments[TTL], arguments[CA_TTL]
    rotate = _given_or(arguments[ROTATE], ttl / 2)
    ca_rotate = _given_or(arguments[CA_ROTATE], ca_ttl / 6)
    _check_times(ttl, rotate, ca_ttl, ca_rotate)
    return DevConfig(
        sockets=sockets,
        federations=federations,
        issuing=Issuing(
            ttl=timedelta(seconds=ttl),
            ca_ttl=timedelta(seconds=ca_ttl),
            jwt_ttl=timedelta(seconds=_jwt_ttl(arguments[JWT_TTL], ca_rotate)),
            key_type=arguments[KEY_TYPE],
            has_intermediate=arguments[INTERMEDIATE],
            has_same_subject=arguments[SAME_SUBJECT],
        ),
        rotate=rotate,
        ca_rotate=ca_rotate,
        socket_mode=arguments[SOCKET_MODE],
        is_verbose=arguments[VERBOSE],
        runtime_dir=environ.get("XDG_RUNTIME_DIR", ""),
    )


def _jwt_ttl(given: float | None, ca_rotate: float) -> float:
    """How long a token may live: one that was signed in the last moment of its key is good for one step more."""
    longest = max(ca_rotate, 1.0) if ca_rotate else _MAX_LIFE
    if given is not None and given > longest:
        raise ConfigError(f"--jwt-ttl {given:g}s is longer than --ca-rotate {ca_rotate:g}s: a token would outlive its key")
    return min(_JWT_TTL, longest) if given is None else given


def _given_or(value: float | None, default: float) -> float:
    return default if value is None else value


def _place(
    endpoints: tuple[WorkloadEndpoint, ...], ids: tuple[_Placed, ...]
) -> dict[WorkloadEndpoint | None, tuple[Entry, ...]]:
    """The entries of each socket, in the order of the command line."""
    first = endpoints[0] if endpoints else None
    sockets: dict[WorkloadEndpoint | None, tuple[Entry, ...]] = dict.fromkeys(endpoints, ())
    for placed in ids or (_Placed(None, DEFAULT_ID),):
        endpoint = placed.endpoint or first
        sockets[endpoint] = (*sockets.get(endpoint, ()), placed.entry)
    for entries in sockets.values():
        _check_entries(entries)
    return sockets


def _check_entries(entries: tuple[Entry, ...]) -> None:
    if len(set(entries)) < len(entries):
        raise ConfigError("the same --id is given twice for one socket")
    hints = [entry.hint for entry in entries if entry.hint]
    if len(set(hints)) < len(hints):  # Workload API, section 5.2.1: unique within a message
        raise ConfigError(f"one hint is given twice for one socket: {', '.join(hints)}")


def _check_federations(federations: Iterable[frozenset[TrustDomain]], sockets: Iterable[tuple[Entry, ...]]) -> None:
    known = {entry.spiffe_id.trust_domain for entries in sockets for entry in entries}
    unknown = sorted(domain for federation in federations for domain in federation - known)
    if unknown:
        raise ConfigError(f"--federate names {unknown[0]}, but no --id is in that trust domain")


def _check_times(ttl: float, rotate: float, ca_ttl: float, ca_rotate: float) -> None:
    if rotate >= ttl:
        raise ConfigError(f"--rotate {rotate:g}s is not shorter than --ttl {ttl:g}s: SVIDs would expire before their renewal")
    if ttl > ca_ttl:
        raise ConfigError(f"--ttl {ttl:g}s is longer than --ca-ttl {ca_ttl:g}s: no SVID outlives its authority")
    # Prepared at one step, an authority signs from the next to the fourth and is dropped at the fifth.
    if ca_rotate * 5 > ca_ttl:
        raise ConfigError(
            f"--ca-rotate {ca_rotate:g}s is more than a fifth of --ca-ttl {ca_ttl:g}s: an authority lives for five steps"
        )


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Carry out one line; the exit code. Raises ConfigError for a wrong line."""
    from tunnel.commands.dev.run import run

    return run(command, arguments, environ)
