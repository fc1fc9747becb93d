"""Help shows every flag that is not hidden, and fits a terminal."""

from __future__ import annotations

import pytest

from tunnel.cli.command import Command, Group, option, switch
from tunnel.cli.help import command_usage, usage
from tunnel.commands.registry import PROGRAM, load_commands

IDS = [command.name for command in load_commands()]


@pytest.mark.parametrize("command", load_commands(), ids=IDS)
def test_every_flag_that_is_not_hidden_is_in_its_commands_help(command: Command) -> None:
    text = command_usage(PROGRAM, command)
    for flag in command.flags:
        assert (f"--{flag.name}" in text or f"--[no-]{flag.name}" in text) != flag.is_hidden
        assert flag.is_hidden or not flag.env or f"[${flag.env}]" in text


@pytest.mark.parametrize("command", load_commands(), ids=IDS)
def test_required_flags_are_in_the_first_line(command: Command) -> None:
    first = command_usage(PROGRAM, command).splitlines()[0]
    assert first.startswith(f"usage: {PROGRAM} {command.name}")
    assert [f"--{flag.name}" in first for flag in command.flags] == [flag.is_required for flag in command.flags]


def test_every_command_is_in_the_help_on_all() -> None:
    text = usage(PROGRAM, "Does things.", load_commands())
    assert all(f"\n  {command.name} " in text for command in load_commands())


@pytest.mark.parametrize("text", [usage(PROGRAM, "x", load_commands()), *(command_usage(PROGRAM, c) for c in load_commands())])
def test_help_fits_a_wide_terminal_and_ends_with_one_newline(text: str) -> None:
    assert max(map(len, text.splitlines())) <= 100
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_a_hidden_flag_is_not_shown() -> None:
    seen = option("seen", "See.", str, "", placeholder="X", env="SEEN")
    command = Command("do", "Does.", (Group("Things", (seen, switch("unseen", "Not.", hidden=True))),))
    text = command_usage("tool", command)
    assert "\n\nThings:\n  --seen X" in text
    assert "[$SEEN]" in text
    assert "unseen" not in text
