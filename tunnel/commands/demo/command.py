"""The flags of `tunnel demo`.

Knows how long the demonstration takes; must not know what it shows.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass

from tunnel.cli.parser import Arguments, Command, Group, option
from tunnel.config.values import parse_positive_duration


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """How fast identities change in the demonstration, in seconds."""

    rotate: float


ROTATE = option(
    "rotate", "Time between rotations of the identities; default 2s.", parse_positive_duration, 2.0, placeholder="TIME"
)

COMMAND = Command(
    "demo",
    "Show it all on this machine in a few seconds: two identities, a tunnel, a rotation, a stranger who is refused.",
    (Group("Flags", (ROTATE,)),),
    "Nothing is needed and nothing is left behind: the identities come from a throw-away Workload API.",
)
COMMANDS = (COMMAND,)


def build(arguments: Arguments) -> DemoConfig:
    """The configuration that a command line means."""
    return DemoConfig(arguments[ROTATE])


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Carry out one line; the exit code. Raises ConfigError for a wrong line."""
    from tunnel.commands.demo.run import run

    return run(command, arguments, environ)
