"""The command line of `tunnel exec`.

Knows its flags, and which of them speak of which target; must not know how a tunnel is opened. Each target is a line of
`tunnel client` in the end, so that what is refused there is refused here in the same words.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunnel.cli.parser import Arguments, Command, Flag, Group, repeated
from tunnel.commands.client_flags import IDENTITY, LIMITS, VERBOSE, as_client
from tunnel.commands.proxy import command as proxy
from tunnel.commands.proxy.access import VERIFY
from tunnel.config.model import ProxyConfig
from tunnel.config.placeholders import KEYS_OF_PORT, KEYS_OF_SOCKET, check_places
from tunnel.config.values import parse_text
from tunnel.errors import ConfigError
from tunnel.net.address import Address, TcpAddress, parse_address

_NAMED = re.compile(r"([A-Za-z][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_OWN_PORT = TcpAddress("127.0.0.1", "0")


def _of_target(flag: Flag[Any]) -> Flag[Any]:
    """The flag of a client, which may say for which target it is."""
    return repeated(flag.name, flag.help, parse_text, placeholder=flag.placeholder, aliases=flag.aliases, hidden=flag.is_hidden)


TARGET = repeated(
    "target",
    "A server to reach: HOST:PORT or unix:PATH. May be repeated, each but one with a name: NAME=HOST:PORT.",
    parse_text,
    placeholder="[NAME=]ADDR",
)
UNIX = repeated(
    "unix",
    "Listen on a Unix socket of this name, in a directory of its own, in the place of a port: .s.PGSQL.5432 for instance. "
    "May be repeated, once for each target.",
    parse_text,
    placeholder="[NAME=]SOCKET",
)
_CLIENTS = {flag: _of_target(flag) for flag in (*VERIFY.admitting(), proxy.SERVER_NAME) if flag.parse is not None}

COMMAND = Command(
    "exec",
    "Run a command that reaches a server through an authenticated connection.",
    (
        Group("Where to", (TARGET, UNIX, _CLIENTS[proxy.SERVER_NAME], proxy.PROXY)),
        Group(
            "Which server is meant: at least one of these, joined by or; for one of several targets NAME=...",
            (*(_CLIENTS[flag] for flag in VERIFY.admitting() if flag in _CLIENTS), VERIFY.any),
        ),
        IDENTITY,
        LIMITS,
        Group("The process", (VERBOSE, proxy.DISABLE_LANDLOCK)),
    ),
    """\
Each target gets a port of this machine's loopback, which only processes of your own user may
use. In the command's arguments {host}, {port} and {addr} stand for it, with --unix {socket} and
{dir}; of a target with a name {NAME.port}. The environment has the same: TUNNEL_HOST,
TUNNEL_PORT, TUNNEL_ADDR, TUNNEL_SOCKET, TUNNEL_DIR, and for a target with a name NAME_TUNNEL_PORT
and so on, in capitals. Other braces are left alone.

It ends as the command ends: with its code, with 128+N if signal N ended it; 125 when no tunnel
could be opened, 126 and 127 when the command cannot be run or found. It is silent unless
something goes wrong, which is said when it ends.

Examples:
  tunnel exec --target cache.example.org:8443 --verify-id spiffe://example.org/cache \\
      -- redis-cli -p {port} PING
  tunnel exec --target db.example.org:8443 --verify-id spiffe://example.org/db \\
      --unix .s.PGSQL.5432 -- psql -h {dir} -U app orders
  tunnel exec --target a=old.example.org:8443 --verify-uri a=spiffe://example.org/old \\
      --target b=new.example.org:8443 --verify-uri b=spiffe://example.org/new \\
      -- ./copy {a.port} {b.port}
""",
    rest="COMMAND [ARG...]",
    failure=125,
)
COMMANDS = (COMMAND,)


@dataclass(frozen=True, slots=True)
class Target:
    """One server and the name by which the command knows it, "" if that is none."""

    name: str
    config: ProxyConfig  # which listens on a port, unless there is a `socket`
    socket: str  # the name of a Unix socket in a directory to be made, "" for none


@dataclass(frozen=True, slots=True)
class ExecConfig:
    """What to open, and what to run."""

    targets: tuple[Target, ...]
    argv: tuple[str, ...]
    is_verbose: bool


def build(arguments: Arguments) -> ExecConfig:
    """What the line means; raises ConfigError."""
    addresses = _addresses(arguments[TARGET])
    targets = tuple(_build_target(arguments, name, address, tuple(addresses)) for name, address in addresses.items())
    check_places(arguments.rest, {target.name: KEYS_OF_SOCKET if target.socket else KEYS_OF_PORT for target in targets})
    return ExecConfig(targets, arguments.rest, arguments[VERBOSE])


def _addresses(texts: tuple[str, ...]) -> dict[str, Address]:
    if not texts:
        raise ConfigError("required flag(s) '--target' not provided")
    found: dict[str, Address] = {}
    for text in texts:
        name, address = _split(text)
        if name.upper() in map(str.upper, found):
            raise ConfigError(f"--target: {_two_of(name)}: give each but one a name of its own, NAME=HOST:PORT")
        try:
            found[name] = parse_address(address)
        except ConfigError as error:
            raise ConfigError(f"--target: {error}") from error
    return found


def _two_of(name: str) -> str:
    return f"two targets are called {name}" if name else "two targets have no name"


def _build_target(arguments: Arguments, name: str, address: Address, names: Sequence[str]) -> Target:
    changes = {flag: _value(flag, arguments[variant], name, names) for flag, variant in _CLIENTS.items()}
    if len(names) > 1 and arguments[VERIFY.any]:
        raise ConfigError(f"--{VERIFY.any.name} would let one server stand in for another: say for each target who is expected")
    try:
        config = proxy.build_client(as_client(arguments, changes), _OWN_PORT, address)
    except ConfigError as error:
        raise ConfigError(f"target {name}: {error}" if name else str(error)) from error
    return Target(name, replace(config, is_private=True), _socket_name(_texts_of(UNIX, arguments[UNIX], name, names)))


def _value(flag: Flag[Any], texts: tuple[str, ...], name: str, names: Sequence[str]) -> Any:
    """What the client's flag would have for this target."""
    assert flag.parse is not None
    mine = _texts_of(flag, texts, name, names)
    try:
        values = tuple(map(flag.parse, mine))
    except ConfigError as error:
        raise ConfigError(f"--{flag.name}: {error}") from error
    if flag.is_repeated:
        return values
    if len(values) > 1:
        raise ConfigError(f"flag '{flag.name}' cannot be repeated for one target")
    return values[0] if values else flag.default


def _texts_of(flag: Flag[Any], texts: tuple[str, ...], name: str, names: Sequence[str]) -> list[str]:
    """The values of a flag that speak of one target; raises ConfigError for one that speaks of none."""
    found = []
    for text in texts:
        whose, value = _split(text) if any(names) else ("", text)
        if whose not in names and (whose or len(names) > 1):
            known = ", ".join(f"{one}=" for one in names if one)
            raise ConfigError(f"--{flag.name} {text!a} says not which target is meant: write one of {known} in front")
        if whose == name or len(names) == 1:
            found.append(value)
    return found


def _split(text: str) -> tuple[str, str]:
    match = _NAMED.fullmatch(text)
    return (match[1], match[2]) if match else ("", text)


def _socket_name(texts: list[str]) -> str:
    if len(texts) > 1:
        raise ConfigError(f"flag '{UNIX.name}' cannot be repeated for one target")
    name = texts[0] if texts else ""
    if "/" in name or "\0" in name or name in (".", ".."):
        raise ConfigError(f"--{UNIX.name} {name!a} is no name of a file: the directory is made for it, {{dir}} stands for it")
    return name


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Carry out one line; the exit code. Raises ConfigError for a wrong line."""
    from tunnel.commands.exec.run import run

    return run(command, arguments, environ)
