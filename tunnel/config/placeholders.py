"""Placeholders in a command's arguments for the address of a tunnel, such as `{port}`, and its environment variables."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from tunnel.errors import ConfigError

KEYS_OF_PORT = ("host", "port", "addr")
KEYS_OF_SOCKET = ("socket", "dir")
_PLACEHOLDER = re.compile(r"\{(?:([A-Za-z][A-Za-z0-9_]*)\.)?(host|port|addr|socket|dir)\}")

Values = Mapping[str, str]  # of each key


def check_placeholders(argv: Sequence[str], offered: Mapping[str, Collection[str]]) -> None:
    """Raise ConfigError for a placeholder without a value; `offered` has the keys of each target by its name, "" for none."""
    for argument in argv:
        for name, key in _PLACEHOLDER.findall(argument):
            keys = _of(name, offered)
            if keys is None:
                if not name:
                    names = ", ".join(f"{{{one}.{key}}}" for one in offered)
                    raise ConfigError(f"{{{key}}} names no target; expected one of {names}")
            elif key not in keys:
                why = "needs --unix SOCKET" if key in KEYS_OF_SOCKET else "is for a port, but --unix is given"
                shown = " or ".join(f"{{{name}{'.' if name else ''}{one}}}" for one in keys)
                raise ConfigError(f"{{{key}}} {why}; expected {shown}")


def fill_placeholders(argv: Iterable[str], targets: Mapping[str, Values]) -> list[str]:
    """The arguments with all placeholders replaced; other braces are left unchanged."""

    def fill(match: re.Match[str]) -> str:
        values = _of(match[1] or "", targets)
        return match[0] if values is None else values[match[2]]

    return [_PLACEHOLDER.sub(fill, argument) for argument in argv]


def environment_variables(targets: Mapping[str, Values]) -> dict[str, str]:
    """The same values as environment variables, with the target's name in capitals in front."""
    found = {}
    for name, values in targets.items():
        prefixes = {f"{name.upper()}_" if name else ""} | ({""} if len(targets) == 1 else set())
        found.update({f"{prefix}TUNNEL_{key.upper()}": value for prefix in prefixes for key, value in values.items()})
    return found


T = TypeVar("T")


def _of(name: str, targets: Mapping[str, T]) -> T | None:
    """The entry of a name; without a name, of the only target, or of the target without a name."""
    if not name and len(targets) == 1:
        return next(iter(targets.values()))
    return targets.get(name)
