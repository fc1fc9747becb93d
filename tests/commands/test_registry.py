"""Each command is registered, is found by its first word, and loads no other command."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from types import ModuleType

import tunnel.commands
from tunnel.cli.command import Command
from tunnel.commands.registry import HELP, load_commands, load_commands_of, load_run

ASK = """
import sys
from tunnel.commands.registry import load_commands_of
found = len(load_commands_of("health"))
others = [f"tunnel.commands.{name}" for name in ("proxy.access", "proxy.command", "svid.fetch", "dev.command")]
print(found, [name for name in others if name in sys.modules])
"""


def test_every_command_is_found_by_its_first_word() -> None:
    for command in load_commands():
        assert command is HELP or command in load_commands_of(command.name.split()[0])


def test_a_family_has_all_its_commands() -> None:
    words = {command.name.split()[0] for command in load_commands()}
    for word in words - {HELP.name}:
        family = {command for command in load_commands() if command.name.split()[0] == word}
        assert family <= set(load_commands_of(word))


def modules_of(package: ModuleType) -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield import_module(found.name)


def unregistered(modules: Iterable[ModuleType]) -> list[str]:
    """The commands that a module defines and the registry does not know."""
    known = {id(command) for command in load_commands()}
    found = [(module.__name__, value) for module in modules for value in vars(module).values() if isinstance(value, Command)]
    return [f"{name}: {command.name}" for name, command in found if id(command) not in known]


def test_every_command_that_a_module_defines_is_registered() -> None:
    assert unregistered(modules_of(tunnel.commands)) == []


def test_a_command_that_is_not_registered_is_found() -> None:
    module = ModuleType("tunnel.commands.new")
    module.COMMAND = Command("new", "Something new.")
    assert unregistered([module]) == ["tunnel.commands.new: new"]


def test_every_command_has_a_run_function() -> None:
    for command in load_commands():
        assert command is HELP or load_run(command).__module__.startswith("tunnel.commands.")


def test_an_unknown_word_has_no_commands() -> None:
    assert load_commands_of("heal") == load_commands_of("--help") == load_commands_of(HELP.name) == ()


def test_a_command_loads_no_other_command() -> None:
    asked = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, timeout=60, check=True)
    assert asked.stdout == "1 []\n"
