"""The texts of `--help`, made from the declarations of commands."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from tunnel.cli.command import Command, Flag

_WIDTH = 96
_COLUMN = 34


def usage(program: str, about: str, commands: Sequence[Command]) -> str:
    """The help on the program, or on a family of commands."""
    lines = [f"usage: {program} COMMAND [FLAGS]", "", *textwrap.wrap(about, _WIDTH), "", "Commands:"]
    column = max(len(command.name) for command in commands) + 4
    for command in commands:
        lines += _entry(f"  {command.name}", command.summary, column)
    more = (
        f"'{program.split()[0]} help COMMAND' prints help on a command. '@FILE' stands for the lines of a file, one argument "
        "per line."
    )
    lines += ["", *textwrap.wrap(more, _WIDTH)]
    return "\n".join(lines) + "\n"


def long_usage(program: str, about: str, commands: Sequence[Command]) -> str:
    """The help on the program and then on each command."""
    return "\n".join([usage(program, about, commands), *(command_usage(program, command) for command in commands)])


def command_usage(program: str, command: Command) -> str:
    """The help on one command."""
    lines = [f"usage: {program} {command_line(command)}", "", *textwrap.wrap(command.summary, _WIDTH)]
    if command.detail:
        lines += ["", command.detail.rstrip()]
    if command.positionals:
        lines.append("")
        for positional in command.positionals:
            lines += _entry(f"  {positional.name}", positional.help, _COLUMN)
    for group in command.groups:
        lines += ["", f"{group.title}:"]
        for flag in group.flags:
            if not flag.is_hidden:
                lines += _entry(f"  {_spelling(flag)}", flag.help + _source(flag), _COLUMN)
    return "\n".join(lines) + "\n"


def command_line(command: Command) -> str:
    """The synopsis of a command: what is required, in order."""
    needed = (f"--{flag.name} {flag.placeholder}" for flag in command.flags if flag.is_required)
    positionals = (one.name if one.is_required else f"[{one.name}{_dots(one)}]" for one in command.positionals)
    return " ".join([command.name, *needed, "[FLAGS]", *positionals, *_rest(command)])


def _rest(command: Command) -> list[str]:
    if command.rest:
        return [f"[-- {command.rest}]" if command.is_rest_optional else f"-- {command.rest}"]
    return [command.lines] if command.lines else []


def _dots(positional: Flag[Any]) -> str:
    return "..." if positional.is_repeated else ""


def _spelling(flag: Flag[Any]) -> str:
    if flag.parse is not None:
        return f"--{flag.name} {flag.placeholder}"
    return f"-{flag.short}, --{flag.name}" if flag.short else f"--[no-]{flag.name}"


def _source(flag: Flag[Any]) -> str:
    return f" [${flag.env}]" if flag.env else ""


def _entry(head: str, text: str, column: int) -> list[str]:
    body = textwrap.wrap(text, _WIDTH - column, break_on_hyphens=False)  # a flag's name stays whole
    if len(head) + 2 > column:
        return [head, *(" " * column + line for line in body)]
    return [head.ljust(column) + body[0], *(" " * column + line for line in body[1:])]
