"""Which commands there are, and which module of this package has the table of each.

Knows the first words of a line; must not know what any command means. To load the tables of all is most of a start that does
little, so a line that begins with a command has no other's loaded; help, completion and manual pages are made from all.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Final

from tunnel.config.parser import Command

HELP: Final = Command("help", "Tell more on a command.")
FAMILIES: Mapping[str, str] = {  # what is told of commands that share their first word
    "check": "A diagnosis before anything is started: is there an identity, whom do the rules admit, does the other side "
    "answer.",
    "svid": "The identity itself, for programs that need no proxy: X.509 by fetch, watch and show, tokens by jwt. verify says "
    "which rules a certificate keeps, and jwt verify which a token does.",
}
# Each module has its tables under COMMANDS; in the order in which help shows them, with the words that they begin with.
_HOMES: Mapping[str, tuple[str, ...]] = {
    "proxy": ("server", "client"),
    "exec": ("exec",),
    "connect": ("connect",),
    "run": ("run",),
    "check": ("check",),
    "svid": ("svid",),
    "svid_jwt": ("svid",),
    "svid_verify": ("svid",),
    "health": ("health",),
    "demo": ("demo",),
    "dev": ("dev",),
    "texts": ("completion", "man"),
}


@cache
def load_commands() -> tuple[Command, ...]:
    """Every command there is."""
    return (*(command for home in _HOMES for command in _tables_of(home)), HELP)


def load_commands_of(word: str) -> tuple[Command, ...]:
    """Those that begin with this word, perhaps with neighbours from the same modules; none if there are none."""
    return tuple(command for home, words in _HOMES.items() if word in words for command in _tables_of(home))


def _tables_of(home: str) -> tuple[Command, ...]:
    commands: tuple[Command, ...] = import_module(f"tunnel.config.{home}").COMMANDS
    return commands
