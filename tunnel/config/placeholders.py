"""What stands in a command's arguments for where a tunnel is open.

Knows the braces and the names of variables; must not know commands or tunnels.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from tunnel.errors import ConfigError

KEYS_OF_PORT = ("host", "port", "addr")
KEYS_OF_SOCKET = ("socket", "dir")
_PLACE = re.compile(r"\{(?:([A-Za-z][A-Za-z0-9_]*)\.)?(host|port|addr|socket|dir)\}")

Values = Mapping[str, str]  # what each key stands for


def check_places(argv: Sequence[str], offered: Mapping[str, Collection[str]]) -> None:
    """Raise ConfigError for a place that will stay empty; `offered` are the keys of each target by its name, "" for none."""
    for argument in argv:
        for name, key in _PLACE.findall(argument):
            keys = _of(name, offered)
            if keys is None:
                if not name:
                    names = ", ".join(f"{{{one}.{key}}}" for one in offered)
                    raise ConfigError(f"{{{key}}} says not which target is meant: write {names}")
            elif key not in keys:
                why = (
                    "is for a Unix socket: say --unix SOCKET" if key in KEYS_OF_SOCKET else "is for a port, and --unix is given"
                )
                shown = " or ".join(f"{{{name}{'.' if name else ''}{one}}}" for one in keys)
                raise ConfigError(f"{{{key}}} {why}; here {shown} can be used")


def fill_places(argv: Iterable[str], targets: Mapping[str, Values]) -> list[str]:
    """The arguments with every place filled; other braces are left alone."""

    def fill(match: re.Match[str]) -> str:
        values = _of(match[1] or "", targets)
        return match[0] if values is None else values[match[2]]

    return [_PLACE.sub(fill, argument) for argument in argv]


def variables(targets: Mapping[str, Values]) -> dict[str, str]:
    """The environment's names for the same; a target's name stands in front, in capitals."""
    found = {}
    for name, values in targets.items():
        prefixes = {f"{name.upper()}_" if name else ""} | ({""} if len(targets) == 1 else set())
        found.update({f"{prefix}TUNNEL_{key.upper()}": value for prefix in prefixes for key, value in values.items()})
    return found


T = TypeVar("T")


def _of(name: str, targets: Mapping[str, T]) -> T | None:
    """What belongs to a name; without one to the only target, or to the one that has none."""
    if not name and len(targets) == 1:
        return next(iter(targets.values()))
    return targets.get(name)
