"""The command lines of `tunnel completion` and `tunnel man`: what is made from the tables of all others.

Knows the names of shells and where a page may be written; must not know what the texts say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunnel.config.parser import Command, Flag, Group, option, word, words
from tunnel.config.values import one_of, parse_text


@dataclass(frozen=True)
class Program:
    """All that the texts are made from; `early` flags may also stand before a command."""

    name: str
    version: str
    about: str
    commands: Sequence[Command]
    early: Sequence[Flag[Any]] = ()

    @property
    def explained(self) -> list[Command]:
        """The commands that there is something to read on."""
        return [command for command in self.commands if command.name != "help"]


SHELLS = ("bash", "zsh", "fish")

SHELL = word("SHELL", "bash, zsh or fish.", one_of(*SHELLS))
COMPLETION = Command(
    "completion",
    "Print a completion script for a shell: commands, flags, choices and file names.",
    (),
    """\
The script is whole: nothing is run while you type. Make it again after an update.

Examples:
  tunnel completion bash > /etc/bash_completion.d/tunnel
  tunnel completion zsh > /usr/local/share/zsh/site-functions/_tunnel
  tunnel completion fish > ~/.config/fish/completions/tunnel.fish
  source <(tunnel completion bash)
""",
    words=(SHELL,),
)

TOPIC = words("COMMAND", "The command to tell of, in one word or several; without one, the whole.", parse_text)
OUT = option(
    "out", "Write every page into this directory, as man looks for them in a folder man1.", parse_text, "", placeholder="DIR"
)
MAN = Command(
    "man",
    "Print a manual page, or write all of them into a directory.",
    (Group("Flags", (OUT,)),),
    """\
Examples:
  tunnel man server | man -l -
  tunnel man --out /usr/local/share/man/man1
""",
    words=(TOPIC,),
)
COMMANDS = (COMPLETION, MAN)
