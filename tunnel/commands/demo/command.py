"""`tunnel demo`: show a connection from end to end with real processes on this machine."""

from __future__ import annotations

from collections.abc import MutableMapping

from tunnel.cli.command import Arguments, Command, Group, option
from tunnel.config.values import default_of, parse_positive_duration
from tunnel.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """The time between two rotations of the demonstration, in seconds."""

    rotate: float = 2.0


ROTATE = option(
    "rotate",
    "Interval between rotations of the identities",
    parse_positive_duration,
    default_of(DemoConfig, "rotate"),
    placeholder="TIME",
)

COMMAND = Command(
    "demo",
    "Show two proxies with SPIFFE identities on this machine: a connection, a rotation and a refused client.",
    (Group("Flags", (ROTATE,)),),
    "Needs no other service and leaves nothing behind: the identities come from 'tunnel dev'.",
)
COMMANDS = (COMMAND,)


def build(arguments: Arguments) -> DemoConfig:
    """The configuration."""
    return DemoConfig(arguments[ROTATE])


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Run the demonstration; 0 if every step succeeded, else 1 with one line on standard error."""
    from tunnel.commands.demo.run import show_demo

    return show_demo(build(arguments))
