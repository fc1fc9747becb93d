"""`tunnel dev`: serve a Workload API for development and tests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping
from datetime import timedelta

from tunnel.cli.command import Arguments, Command, Group, option, repeated, switch
from tunnel.config.dev_model import KEY_TYPES, DevConfig, Entry, Issuing, check_local
from tunnel.config.values import (
    default_of,
    format_duration,
    format_mode,
    one_of,
    parse_domain,
    parse_id,
    parse_limit,
    parse_mode,
    parse_positive_duration,
)
from tunnel.errors import ConfigError, invalid_value
from tunnel.lazy_dataclass import dataclass
from tunnel.spiffe.endpoint import WorkloadEndpoint, parse_endpoint
from tunnel.spiffe.ids import SCHEME, SpiffeId, TrustDomain

DEFAULT_ID = Entry(SpiffeId(TrustDomain("example.org"), "/workload"))
_DETAIL = """\
For development and tests only: every process that can open the socket gets the keys.

Serves the SPIFFE Workload API (the profiles for X.509-SVIDs and for JWT-SVIDs) as a SPIRE agent
does. Its CAs exist in memory only, until the process ends. Prints the SPIFFE_ENDPOINT_SOCKET for
the workloads.

Examples:
  tunnel dev
  tunnel dev --socket unix:///tmp/a.sock --id spiffe://a.test/db,dns=db.a.test --ttl 10s --rotate 3s
  tunnel dev --id unix:///tmp/a.sock=spiffe://a.test/x --id unix:///tmp/b.sock=spiffe://b.test/y \\
      --federate a.test,b.test
"""
_MAX_HINT_BYTES = 1024  # Workload API, section 5.2.1
_MAX_LIFE = timedelta(days=3650).total_seconds()
_MIN_INTERVAL = 0.1
_DNS_NAME = re.compile(r"(?:\*\.)?[a-zA-Z0-9_-]{1,63}(?:\.[a-zA-Z0-9_-]{1,63})*")
_MAX_DNS_NAME = 253  # RFC 1035, section 2.3.4, without the root


@dataclass(frozen=True, slots=True)
class _Placed:
    """An identity and its socket, if the line names one."""

    endpoint: WorkloadEndpoint | None
    entry: Entry


def _parse_local_endpoint(text: str) -> WorkloadEndpoint:
    endpoint = parse_endpoint(text)
    check_local(endpoint)
    return endpoint


def _parse_placed(text: str) -> _Placed:
    place, scheme, rest = text.partition(SCHEME)
    if not scheme or (place and not place.endswith("=")):
        raise invalid_value("identity", text, expected="[ADDR=]spiffe://DOMAIN/PATH[,hint=HINT][,dns=NAME]...")
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
            raise invalid_value("option", text, expected=f"dns=NAME, or one hint=HINT of at most {_MAX_HINT_BYTES} bytes")
    return hint, tuple(names)


def _parse_federation(text: str) -> frozenset[TrustDomain]:
    domains = frozenset(parse_domain(name) for name in text.split(","))
    if len(domains) < 2:
        raise invalid_value("federation", text, "one trust domain", "two or more, as in a.test,b.test")
    return domains


def _parse_life(text: str) -> float:
    seconds = parse_positive_duration(text)
    if not 1 <= seconds <= _MAX_LIFE:
        raise invalid_value("lifetime", text, expected=f"1s to {_MAX_LIFE / 3600:.0f}h")
    return seconds


def _parse_interval(text: str) -> float:
    seconds = parse_limit(text)
    if 0 < seconds < _MIN_INTERVAL:
        raise invalid_value("interval", text, "too short", f"at least {_MIN_INTERVAL:g}s, or 0 for never")
    return seconds


def _seconds(field: str) -> float:
    default: timedelta = default_of(Issuing, field)
    return default.total_seconds()


SOCKET = repeated(
    "socket",
    "Address to listen on: unix:///PATH, or tcp://IP:PORT on loopback. The first one has the IDs without an address; one "
    "without any ID answers 'no identity issued'; repeatable",
    _parse_local_endpoint,
    placeholder="ADDR",
    default_text="a socket in $XDG_RUNTIME_DIR or in a new private directory",
)
ID = repeated(
    "id",
    "Identity of a workload, [ADDR=]spiffe://DOMAIN/PATH[,hint=HINT][,dns=NAME]...; several of one ADDR are issued together, "
    "the first is the default identity; repeatable",
    _parse_placed,
    placeholder="ID",
    default_text=str(DEFAULT_ID.spiffe_id),
)
FEDERATE = repeated(
    "federate",
    "Trust domains, A,B[,C]..., whose workloads get the bundles of each other; repeatable",
    _parse_federation,
    placeholder="DOMAINS",
)
TTL = option("ttl", "Lifetime of an SVID", _parse_life, _seconds("ttl"), placeholder="DURATION")
ROTATE = option(
    "rotate",
    "Interval between renewals of the SVIDs, 0 for never",
    _parse_interval,
    None,
    placeholder="TIME",
    default_text="half of --ttl",
)
JWT_TTL = option(
    "jwt-ttl",
    "Lifetime of a JWT-SVID",
    _parse_life,
    None,
    placeholder="DURATION",
    default_text=f"{format_duration(_seconds('jwt_ttl'))}, at most --ca-rotate, because its key then leaves the bundle",
)
CA_TTL = option("ca-ttl", "Lifetime of a CA", _parse_life, _seconds("ca_ttl"), placeholder="DURATION")
CA_ROTATE = option(
    "ca-rotate",
    "Interval between the steps of a CA rotation (prepare, activate, drop the old CA, and again), 0 for never",
    _parse_interval,
    None,
    placeholder="TIME",
    default_text="a sixth of --ca-ttl",
)
INTERMEDIATE = switch("intermediate", "Sign by an intermediate CA under a root, as SPIRE with an upstream authority does")
SAME_SUBJECT = switch("same-subject", "Give the CAs of all trust domains one subject name, as older SPIRE does")
KEY_TYPE = option(
    "key-type",
    f"Key type of the SVIDs: {', '.join(KEY_TYPES)}",
    one_of(*KEY_TYPES),
    default_of(Issuing, "key_type"),
    placeholder="TYPE",
)
SOCKET_MODE = option(
    "socket-mode",
    "Mode of the Unix sockets; every user with write permission can get the keys",
    parse_mode,
    default_of(DevConfig, "socket_mode"),
    placeholder="MODE",
    default_text=format_mode(default_of(DevConfig, "socket_mode")),
)
VERBOSE = switch("verbose", "Print a line for every rotation", short="v")

COMMAND = Command(
    "dev",
    "Serve a Workload API for development and tests.",
    (
        Group("Sockets and identities", (SOCKET, SOCKET_MODE, ID, FEDERATE)),
        Group("Lifetimes", (TTL, ROTATE, JWT_TTL, CA_TTL, CA_ROTATE)),
        Group("Certificates and output", (KEY_TYPE, INTERMEDIATE, SAME_SUBJECT, VERBOSE)),
    ),
    _DETAIL,
)
COMMANDS = (COMMAND,)


def build(arguments: Arguments, environ: Mapping[str, str]) -> DevConfig:
    """The configuration; raises ConfigError for values that contradict each other."""
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
    """The lifetime of a token: one that is signed at the end of its key's use stays valid for one more step."""
    longest = max(ca_rotate, 1.0) if ca_rotate else _MAX_LIFE
    if given is not None and given > longest:
        raise ConfigError(f"--jwt-ttl {given:g}s is longer than --ca-rotate {ca_rotate:g}s: a token would outlive its key")
    return min(_seconds("jwt_ttl"), longest) if given is None else given


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
        raise ConfigError("--id: the same identity is given twice for one socket")
    hints = [entry.hint for entry in entries if entry.hint]
    if len(set(hints)) < len(hints):  # Workload API, section 5.2.1: unique within a message
        raise ConfigError(f"--id: a hint is given twice for one socket: {', '.join(hints)}")


def _check_federations(federations: Iterable[frozenset[TrustDomain]], sockets: Iterable[tuple[Entry, ...]]) -> None:
    known = {entry.spiffe_id.trust_domain for entries in sockets for entry in entries}
    unknown = sorted(domain for federation in federations for domain in federation - known)
    if unknown:
        raise ConfigError(f"--federate: no --id is in trust domain {unknown[0]}")


def _check_times(ttl: float, rotate: float, ca_ttl: float, ca_rotate: float) -> None:
    if rotate >= ttl:
        raise ConfigError(f"--rotate {rotate:g}s is not shorter than --ttl {ttl:g}s: SVIDs would expire before their renewal")
    if ttl > ca_ttl:
        raise ConfigError(f"--ttl {ttl:g}s is longer than --ca-ttl {ca_ttl:g}s: no SVID outlives its CA")
    # A CA is prepared at one step, signs from the next to the fourth, and is dropped at the fifth.
    if ca_rotate * 5 > ca_ttl:
        raise ConfigError(f"--ca-rotate {ca_rotate:g}s is too long; expected at most a fifth of --ca-ttl {ca_ttl:g}s")


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Serve until SIGTERM or SIGINT; raises ConfigError for a wrong line."""
    from tunnel.commands.dev.run import serve

    return serve(build(arguments, environ))
