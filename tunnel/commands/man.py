"""`tunnel man`: print a manual page or write all of them, and kingpin's flags for the same."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

from tunnel.cli import man
from tunnel.cli.command import Arguments, Command, Group, Program, option, positionals
from tunnel.cli.output import print_output
from tunnel.commands.registry import load_program
from tunnel.config.values import parse_text
from tunnel.errors import ConfigError, describe_os_error

TOPIC = positionals("COMMAND", "Command of the page, one word or several", parse_text, default_text="the page on the program")
OUT = option("out", "Write all pages to this directory, such as a man1 directory", parse_text, "", placeholder="DIR")
COMMAND = Command(
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
COMMANDS = (COMMAND,)


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Print a page, or write all pages; raises ConfigError."""
    words, out = arguments[TOPIC], arguments[OUT]
    topic = " ".join(words)
    program = load_program()
    if out and topic:
        raise ConfigError(f"--out writes all pages; expected {topic!a} or --out, not both")
    if out:
        _write_pages(program, Path(out))
    else:
        print_output(_page(program, topic))
    return 0


def print_long_page() -> int:
    """Print one page on all commands; the exit code."""
    print_output(man.long_page(load_program()))
    return 0


def _page(program: Program, topic: str) -> str:
    """The page on the program or a command; `topic` is a name as in `tunnel help` or as in man(1)."""
    if topic in ("", program.name):
        return man.whole_page(program)
    for command in program.documented:
        if topic in (command.name, man.page_name(program, command)):
            return man.command_page(program, command)
    names = [command.name for command in program.documented]
    begun = [name for name in names if name.startswith(f"{topic} ")]
    raise ConfigError(f"no manual page {topic!a}; expected one of: {', '.join(begun or names)}")


def _write_pages(program: Program, directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, page in man.all_pages(program):
            (directory / name).write_text(page, encoding="ascii")
    except OSError as error:
        raise ConfigError(f"--out: cannot write to {str(directory)!a}: {describe_os_error(error)}") from error
