"""Each command is found by its first word, and costs its own tables alone."""

from __future__ import annotations

import subprocess
import sys

from tunnel.config.commands import HELP, load_commands, load_commands_of

ASK = """
import sys
from tunnel.config.commands import load_commands_of
found = len(load_commands_of("health"))
print(found, [name for name in ("access", "proxy", "svid", "dev") if f"tunnel.config.{name}" in sys.modules])
"""


def test_every_command_is_found_by_its_first_word() -> None:
    for command in load_commands():
        assert command is HELP or command in load_commands_of(command.name.split()[0])


def test_a_family_is_found_whole() -> None:
    words = {command.name.split()[0] for command in load_commands()}
    for word in words - {HELP.name}:
        family = {command for command in load_commands() if command.name.split()[0] == word}
        assert family <= set(load_commands_of(word))


def test_a_word_that_is_no_command_begins_none() -> None:
    assert load_commands_of("heal") == load_commands_of("--help") == load_commands_of(HELP.name) == ()


def test_a_command_has_no_other_commands_tables_loaded() -> None:
    asked = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, timeout=60, check=True)
    assert asked.stdout == "1 []\n"
