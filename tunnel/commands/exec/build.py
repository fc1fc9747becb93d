"""The configuration of `tunnel exec`: each target is a line of `tunnel client`, so the same mistakes give the same errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tunnel.cli.command import Arguments, Flag
from tunnel.cli.parser import parse_value
from tunnel.commands.client_flags import VERBOSE, as_client
from tunnel.commands.exec.command import TARGET, TARGET_FLAGS, UNIX
from tunnel.commands.proxy.access import VERIFY
from tunnel.commands.proxy.build import build_client, build_process
from tunnel.config.model import ListenerConfig, ProcessConfig
from tunnel.config.placeholders import KEYS_OF_PORT, KEYS_OF_SOCKET, check_placeholders
from tunnel.errors import ConfigError, invalid_value
from tunnel.lazy_dataclass import dataclass, replace
from tunnel.net.address import Address, TcpAddress, parse_address

_NAMED = re.compile(r"([A-Za-z][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_OWN_PORT = TcpAddress("127.0.0.1", "0")


@dataclass(frozen=True, slots=True)
class ExecTarget:
    """One server; `name` is "" for the target without a name."""

    name: str
    config: ListenerConfig  # listens on a port, unless there is a `socket`
    socket: str  # the file name of a Unix socket in a private directory, "" for none


@dataclass(frozen=True, slots=True)
class ExecConfig:
    """The targets and the command."""

    targets: tuple[ExecTarget, ...]
    process: ProcessConfig  # without the listeners, whose addresses are known later
    argv: tuple[str, ...]
    is_verbose: bool


def build(arguments: Arguments) -> ExecConfig:
    """The configuration; raises ConfigError."""
    addresses = _parse_addresses(arguments[TARGET])
    targets = tuple(_build_target(arguments, name, address, tuple(addresses)) for name, address in addresses.items())
    check_placeholders(arguments.rest, {target.name: KEYS_OF_SOCKET if target.socket else KEYS_OF_PORT for target in targets})
    process = build_process(as_client(arguments), ())
    return ExecConfig(targets, process, arguments.rest, arguments[VERBOSE])


def _parse_addresses(texts: tuple[str, ...]) -> dict[str, Address]:
    """The address of each target by its name."""
    if not texts:
        raise ConfigError("required flag(s) '--target' not provided")
    found: dict[str, Address] = {}
    for text in texts:
        name, address = _split(text)
        if name.upper() in map(str.upper, found):
            problem = f"two targets are called {name}" if name else "two targets have no name"
            raise ConfigError(f"--{TARGET.name}: {problem}; expected a different NAME= for all but one target")
        found[name] = parse_value(parse_address, address, f"--{TARGET.name}")
    return found


def _build_target(arguments: Arguments, name: str, address: Address, names: Sequence[str]) -> ExecTarget:
    changes = {flag: _parse_flag(flag, arguments[variant], name, names) for flag, variant in TARGET_FLAGS.items()}
    if len(names) > 1 and arguments[VERIFY.any]:
        raise ConfigError(
            f"--{VERIFY.any.name} would accept one target's server for another target; expected an access rule for each target"
        )
    try:
        config = build_client(as_client(arguments, changes), _OWN_PORT, address, name or "client")
    except ConfigError as error:
        raise ConfigError(f"target {name}: {error}" if name else str(error)) from error
    socket = _parse_socket_name(_values_of(UNIX, arguments[UNIX], name, names))
    return ExecTarget(name, replace(config, is_private=True), socket)


def _parse_flag(flag: Flag[Any], texts: tuple[str, ...], name: str, names: Sequence[str]) -> Any:
    """The value of a client's flag for this target."""
    values = tuple(parse_value(flag.parse, text, f"--{flag.name}") for text in _values_of(flag, texts, name, names))
    if flag.is_repeated:
        return values
    if len(values) > 1:
        raise ConfigError(f"flag '{flag.name}' cannot be repeated for one target")
    return values[0] if values else flag.default


def _values_of(flag: Flag[Any], texts: tuple[str, ...], name: str, names: Sequence[str]) -> list[str]:
    """The values of a flag that are for one target; raises ConfigError for a value without a known target."""
    found = []
    for text in texts:
        owner, value = _split(text) if any(names) else ("", text)
        if owner not in names and (owner or len(names) > 1):
            known = ", ".join(f"{one}=" for one in names if one)
            raise ConfigError(f"--{flag.name}: {text!a} names no target; expected one of {known} in front")
        if owner == name or len(names) == 1:
            found.append(value)
    return found


def _split(text: str) -> tuple[str, str]:
    match = _NAMED.fullmatch(text)
    return (match[1], match[2]) if match else ("", text)


def _parse_socket_name(texts: list[str]) -> str:
    if len(texts) > 1:
        raise ConfigError(f"flag '{UNIX.name}' cannot be repeated for one target")
    name = texts[0] if texts else ""
    if "/" in name or "\0" in name or name in (".", ".."):
        error = invalid_value("file name", name, expected="a name without a directory, which {dir} stands for")
        raise ConfigError(f"--{UNIX.name}: {error}")
    return name
