"""`tunnel completion` and `tunnel man`: texts made from the declarations of all commands."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from pathlib import Path

from tunnel.cli import completion, man, shells
from tunnel.cli.command import Arguments, Command, Group, Program, option, positional, positionals
from tunnel.cli.output import print_output
from tunnel.commands.registry import load_program
from tunnel.config.values import one_of, parse_text
from tunnel.errors import ConfigError, describe_os_error

SHELLS = ("bash", "zsh", "fish")

SHELL = positional("SHELL", "bash, zsh or fish", one_of(*SHELLS))
COMPLETION = Command(
    "completion",
    "Print a completion script for a shell: commands, flags, choices and file names.",
    (),
    """\
The script is complete: it runs no program during completion. Print it again after an update of
tunnel.

Examples:
  tunnel completion bash > /etc/bash_completion.d/tunnel
  tunnel completion zsh > /usr/local/share/zsh/site-functions/_tunnel
  tunnel completion fish > ~/.config/fish/completions/tunnel.fish
  source <(tunnel completion bash)
""",
    positionals=(SHELL,),
)

TOPIC = positionals("COMMAND", "Command of the page, one word or several", parse_text, default_text="the page on the program")
OUT = option("out", "Write all pages to this directory, such as a man1 directory", parse_text, "", placeholder="DIR")
MAN = Command(
    "man",
    "Print a manual page, or write all manual pages to a directory.",
    (Group("Flags", (OUT,)),),
    """\
Examples:
  tunnel man server | man -l -
  tunnel man --out /usr/local/share/man/man1
""",
    positionals=(TOPIC,),
)
COMMANDS = (COMPLETION, MAN)


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Print or write the requested text; raises ConfigError."""
    program = load_program()
    if command is COMPLETION:
        return _print(shells.SCRIPTS[arguments[SHELL]](program.name, _contexts(program)))
    words, out = arguments[TOPIC], arguments[OUT]
    topic = " ".join(words)
    if out:
        if topic:
            raise ConfigError(f"--out writes all pages; expected {topic!a} or --out, not both")
        return _write_pages(program, Path(out))
    return _print(_page(program, topic))


def run_flag(name: str) -> int:
    """Print the text of one of kingpin's flags."""
    program = load_program()
    if name in ("help-man", "help-custom-man"):
        return _print(man.long_page(program))
    return _print(shells.SCRIPTS[name.rpartition("-")[2]](program.name, _contexts(program)))


def print_candidates(words: Sequence[str]) -> int:
    """Print the completions of the last word, one per line."""
    return _print("".join(f"{word}\n" for word in completion.candidates(_contexts(load_program()), words)))


def _contexts(program: Program) -> dict[str, completion.Context]:
    return completion.build_contexts(program.commands, program.global_flags)


def _page(program: Program, topic: str) -> str:
    """The page with the name of a command, or with the name that `man` itself takes."""
    if topic in ("", program.name):
        return man.whole_page(program)
    for command in program.documented:
        if topic in (command.name, man.page_name(program, command)):
            return man.command_page(program, command)
    names = [command.name for command in program.documented]
    begun = [name for name in names if name.startswith(f"{topic} ")]
    raise ConfigError(f"no manual page {topic!a}; expected one of: {', '.join(begun or names)}")


def _write_pages(program: Program, directory: Path) -> int:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, page in man.all_pages(program):
            (directory / name).write_text(page, encoding="ascii")
    except OSError as error:
        raise ConfigError(f"--out: cannot write to {str(directory)!a}: {describe_os_error(error)}") from error
    return 0


def _print(text: str) -> int:
    print_output(text)
    return 0
