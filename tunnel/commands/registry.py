"""The commands by the words they begin with, each loaded only when a line needs it.

To load every table takes most of the time of a short start, so a line that begins with a command loads that command's module
only; help, completion and manual pages load all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Final

from tunnel import __version__
from tunnel.cli.command import Arguments, Command, Program

Run = Callable[[Command, Arguments, MutableMapping[str, str]], int]

PROGRAM: Final = "tunnel"
ABOUT: Final = (
    "Gives a plain TCP service or client a SPIFFE identity: mutual TLS on the network, plain TCP on this machine, and only "
    "peers that an access rule names can connect."
)
HELP: Final = Command("help", "Print help on a command.")
FAMILIES: Mapping[str, str] = {  # the description of commands with the same first word
    "access": "Access lists: which rule decides on a peer.",
    "check": "Checks before a start: the identity, the access rules, and the connection to the other side.",
    "config": "Configuration files of `tunnel serve`: check, show, describe and make them.",
    "svid": "SVIDs for programs without a proxy: X.509-SVIDs (fetch, watch, show) and JWT-SVIDs (jwt), and their verification.",
}
# One line per module of this package, in the order of the help: its name, and the first words of its commands. The module has
# the tuple COMMANDS, and a function `run` that runs each of them.
MODULES: Mapping[str, tuple[str, ...]] = {
    "proxy.command": ("server", "client"),
    "exec.command": ("exec",),
    "connect": ("connect",),
    "serve": ("serve",),
    "run.command": ("run",),
    "check": ("check",),
    "access": ("access",),
    "config.command": ("config",),
    "config.convert": ("config",),
    "svid.fetch": ("svid",),
    "svid.watch": ("svid",),
    "svid.show": ("svid",),
    "svid.jwt": ("svid",),
    "svid.jwt_bundles": ("svid",),
    "svid.jwt_verify": ("svid",),
    "svid.verify": ("svid",),
    "health": ("health",),
    "overview.status": ("status",),
    "overview.top": ("top",),
    "demo.command": ("demo",),
    "dev.command": ("dev",),
    "completion": ("completion",),
    "man": ("man",),
}


@cache
def load_commands() -> tuple[Command, ...]:
    """Every command."""
    return (*(command for name in MODULES for command in _commands_of(_load(name))), HELP)


def load_commands_of(word: str) -> tuple[Command, ...]:
    """The commands of the modules that have one beginning with this word; none if no module has."""
    return tuple(command for name, words in MODULES.items() if word in words for command in _commands_of(_load(name)))


def load_run(command: Command) -> Run:
    """The function that runs this command."""
    word = command.name.split()[0]
    modules = (_load(name) for name, words in MODULES.items() if word in words)
    run: Run = next(module for module in modules if command in _commands_of(module)).run
    return run


def load_program() -> Program:
    """All commands, with the name, version and description of the program."""
    from tunnel.commands.proxy.command import GLOBAL_FLAGS

    return Program(PROGRAM, __version__, ABOUT, load_commands(), GLOBAL_FLAGS)


def _load(name: str) -> ModuleType:
    return import_module(f"{__package__}.{name}")


def _commands_of(module: ModuleType) -> tuple[Command, ...]:
    commands: tuple[Command, ...] = module.COMMANDS
    return commands
