"""`tunnel completion` and `tunnel man`, and kingpin's flags for the same: texts made from the tables of all commands.

Knows which text is asked for and where it goes; must not know what is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunnel.commands.output import show
from tunnel.config import completion, man, shells, texts
from tunnel.config.parser import Arguments, Command
from tunnel.config.texts import Program
from tunnel.errors import ConfigError, words_of


def run(program: Program, command: Command, arguments: Arguments) -> int:
    """Print what a line asks for, or write it; raises ConfigError."""
    if command is texts.COMPLETION:
        return _print(shells.SCRIPTS[arguments[texts.SHELL]](program.name, _contexts(program)))
    words, out = arguments[texts.TOPIC], arguments[texts.OUT]
    topic = " ".join(words)
    if out:
        if topic:
            raise ConfigError(f"--out writes every page: leave {topic!a} or --out away")
        return _write_pages(program, Path(out))
    return _print(_page(program, topic))


def run_flag(program: Program, name: str) -> int:
    """Print what one of kingpin's flags asks for."""
    if name in ("help-man", "help-custom-man"):
        return _print(man.long_page(program))
    return _print(shells.SCRIPTS[name.rpartition("-")[2]](program.name, _contexts(program)))


def print_candidates(program: Program, words: Sequence[str]) -> int:
    """Print what the last of these words may become, one a line."""
    return _print("".join(f"{word}\n" for word in completion.candidates(_contexts(program), words)))


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
        raise ConfigError(f"--out: cannot write to {str(folder)!a}: {words_of(error)}") from error
    return 0


def _print(text: str) -> int:
    show(text)
    return 0
