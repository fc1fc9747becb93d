"""`tunnel completion` and `tunnel man`: texts made from the tables of all commands."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from pathlib import Path

from tunnel.cli import completion, man, shells
from tunnel.cli.help import Program
from tunnel.cli.output import show
from tunnel.cli.parser import Arguments, Command, Group, option, word, words
from tunnel.commands.registry import load_program
from tunnel.config.values import one_of, parse_text
from tunnel.errors import ConfigError, describe_os_error

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


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Print what a line asks for, or write it; raises ConfigError."""
    program = load_program()
    if command is COMPLETION:
        return _print(shells.SCRIPTS[arguments[SHELL]](program.name, _contexts(program)))
    words, out = arguments[TOPIC], arguments[OUT]
    topic = " ".join(words)
    if out:
        if topic:
            raise ConfigError(f"--out writes every page: leave {topic!a} or --out away")
        return _write_pages(program, Path(out))
    return _print(_page(program, topic))


def run_flag(name: str) -> int:
    """Print what one of kingpin's flags asks for."""
    program = load_program()
    if name in ("help-man", "help-custom-man"):
        return _print(man.long_page(program))
    return _print(shells.SCRIPTS[name.rpartition("-")[2]](program.name, _contexts(program)))


def print_candidates(words: Sequence[str]) -> int:
    """Print what the last of these words may become, one a line."""
    return _print("".join(f"{word}\n" for word in completion.candidates(_contexts(load_program()), words)))


def _contexts(program: Program) -> dict[str, completion.Context]:
    return completion.build_contexts(program.commands, program.early)


def _page(program: Program, topic: str) -> str:
    """By the command's name, or by the page's, as `man` itself is asked."""
    if topic in ("", program.name):
        return man.whole_page(program)
    for command in program.explained:
        if topic in (command.name, man.page_name(program, command)):
            return man.command_page(program, command)
    names = [command.name for command in program.explained]
    begun = [name for name in names if name.startswith(f"{topic} ")]
    raise ConfigError(f"{topic!a} has no page, these have: {', '.join(begun or names)}")


def _write_pages(program: Program, folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, page in man.all_pages(program):
            (folder / name).write_text(page, encoding="ascii")
    except OSError as error:
        raise ConfigError(f"--out: cannot write to {str(folder)!a}: {describe_os_error(error)}") from error
    return 0


def _print(text: str) -> int:
    show(text)
    return 0
