"""Completion of a command line: a graph of contexts made from the declarations of commands.

`shells.py` writes the graph as a script for each shell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from tunnel.cli.command import Command, Flag
from tunnel.config.values import OneOf
from tunnel.lazy_dataclass import dataclass

ROOT = "-"  # the context before the command; no command can have this name
REST = "--"  # the context after `--`: another program's command line
_END = "---"  # the context after `--` if the command runs no other program
_FILES, _FOLDERS = ("FILE", "CERT"), ("DIR",)  # suffixes of placeholders of paths
_LINES = ("server", "client")  # the first words of the lines in a command with several lines
_CLAUSE = re.compile(r"[.:;](?: |$)")

Kind = Literal["any", "file", "dir", "command"]


@dataclass(frozen=True, slots=True)
class ValueHint:
    """How a shell can complete a value."""

    kind: Kind
    words: tuple[str, ...] = ()  # the values of a fixed choice


@dataclass(frozen=True, slots=True)
class Word:
    """A word that can come next, and the context behind it."""

    text: str
    help: str
    to: str


@dataclass(frozen=True, slots=True)
class Spelling:
    """One spelling of a flag; `value` is None for a flag without a value. A hidden spelling is parsed and never offered."""

    text: str
    help: str
    value: ValueHint | None
    is_hidden: bool


@dataclass(frozen=True, slots=True)
class Context:
    """A position in a line: the words and flags that can come next.

    Any other word is the `positional` argument, and leads to the context `onward`.
    """

    name: str
    words: tuple[Word, ...] = ()
    flags: tuple[Spelling, ...] = ()
    positional: ValueHint | None = None
    onward: str = ""

    def offered_words(self) -> tuple[tuple[str, str], ...]:
        """The words to offer, each with a short description, if the current word does not begin with a dash."""
        seen = [(word.text, word.help) for word in self.words if word.text != REST]
        return (*seen, *((word, "") for word in (self.positional.words if self.positional else ())))

    def offered_flags(self) -> tuple[tuple[str, str], ...]:
        """The flags to offer, each with a short description, if the current word begins with a dash or there are no words."""
        return tuple((flag.text, flag.help) for flag in self.flags if not flag.is_hidden)

    def step(self, word: str) -> tuple[str, ValueHint | None]:
        """The context behind a word, and the value that comes first if the word is a flag with a value."""
        value = next((flag.value for flag in self.flags if flag.text == word), None)
        to = next((known.to for known in self.words if known.text == word), "")
        if to or word.startswith("-"):
            return to or self.name, value
        return self.onward or self.name, None


def build_contexts(commands: Sequence[Command], global_flags: Iterable[Flag[Any]]) -> dict[str, Context]:
    """All contexts by name; the first is the root."""
    found = [Context(ROOT, _members("", commands), (*_spellings(global_flags), _LONG, _VERSION, _HELP))]
    found += [Context(family, _members(family, commands), (_HELP,)) for family in _families(commands)]
    for command in commands:
        found += _contexts_of(command, commands)
    found += [Context(REST, positional=ValueHint("command")), Context(_END)]
    return {context.name: context for context in found}


def candidates(contexts: Mapping[str, Context], words: Sequence[str]) -> list[str]:
    """The completions of the last of these words, without file names, which the shell completes itself."""
    *before, current = words or [""]
    context, value = contexts[ROOT], None
    for word in before:
        if value is not None:
            value = None  # this word is the value
            continue
        to, value = context.step(word)
        context = contexts[to]
    name, equals, _ = current.partition("=")
    if value is None and equals and name.startswith("--"):
        value, prefix = context.step(name)[1], f"{name}="
        return [prefix + word for word in (value.words if value else ()) if (prefix + word).startswith(current)]
    if value is None:
        offered = () if current.startswith("-") else context.offered_words()
        has_only_flags = not offered and (context.positional is None or context.positional.kind == "any")
        if current.startswith("-") or has_only_flags:
            offered = context.offered_flags()
        return [text for text, _ in offered if text.startswith(current)]
    return [word for word in value.words if word.startswith(current)]


def _contexts_of(command: Command, commands: Sequence[Command]) -> Iterator[Context]:
    flags = (*_spellings(command.flags), _HELP)
    separator = (Word(REST, "", REST if command.rest or command.lines else _END),)
    if command.lines:
        kinds = [known for known in commands if known.name in _LINES]
        starts = tuple(Word(known.name, _clause(known.summary), f"{command.name} {known.name}") for known in kinds)
        yield Context(command.name, (*starts, *separator), flags)
        yield Context(f"{command.name} +", starts)
        more = Word("+", "One more proxy", f"{command.name} +")
        for known in kinds:
            yield Context(f"{command.name} {known.name}", (more, *separator), _spellings(known.flags))
    elif command.name == "help" or any(positional.name == "COMMAND" for positional in command.positionals):
        yield from _command_name_contexts(command.name, flags, commands)
    else:
        yield from _positional_contexts(command, commands, flags, separator)


def _positional_contexts(
    command: Command, commands: Sequence[Command], flags: tuple[Spelling, ...], separator: tuple[Word, ...]
) -> Iterator[Context]:
    """One context for each positional argument, and the one behind the last."""
    members = _members(command.name, commands)
    names = [command.name, *(f"{command.name} #{number}" for number, _ in enumerate(command.positionals, 1))]
    for name, positional, onward in zip(names, (*command.positionals, None), (*names[1:], ""), strict=True):
        words = (*members, *separator) if name == command.name else separator
        is_last = positional is None or positional.is_repeated
        yield Context(name, words, flags, _value(positional) if positional else None, "" if is_last else onward)


def _command_name_contexts(name: str, flags: tuple[Spelling, ...], commands: Sequence[Command]) -> Iterator[Context]:
    """The contexts behind a command whose argument is the name of another command, word by word."""
    named = [command for command in commands if command.name != "help"]
    yield Context(name, _members("", named, f"{name} "), flags)
    for known in (*_families(named), *(command.name for command in named)):
        yield Context(f"{name} {known}", _members(known, named, f"{name} "), flags)


def _families(commands: Sequence[Command]) -> list[str]:
    """The first words of several commands that are no command by themselves."""
    names = [command.name for command in commands]
    begun = {" ".join(name.split()[:count]) for name in names for count in range(1, len(name.split()))}
    return sorted(begun - set(names))


def _members(family: str, commands: Sequence[Command], before: str = "") -> tuple[Word, ...]:
    """The words that can follow a family, or begin a line; `before` is the prefix of the contexts behind them."""
    found: dict[str, Word] = {}
    start = f"{family} " if family else ""
    for command in commands:
        if command.name.startswith(start):
            word, *more = command.name.removeprefix(start).split()
            if not more or word not in found:
                found[word] = Word(word, f"{word} ..." if more else _clause(command.summary), f"{before}{start}{word}")
    return tuple(found.values())


def _spellings(flags: Iterable[Flag[Any]]) -> tuple[Spelling, ...]:
    found = []
    for flag in flags:
        description, value = _clause(flag.summary), _value(flag) if flag.parse is not None else None
        found.append(Spelling(f"--{flag.name}", description, value, flag.is_hidden))
        found += [Spelling(f"--{alias}", description, value, True) for alias in flag.aliases]
        if flag.parse is None:
            found.append(Spelling(f"--no-{flag.name}", f"Not: {description}", None, flag.is_hidden))
        if flag.short:
            found.append(Spelling(f"-{flag.short}", description, None, flag.is_hidden))
    return tuple(found)


def _value(flag: Flag[Any]) -> ValueHint:
    if isinstance(flag.parse, OneOf):
        return ValueHint("any", tuple(word for word in flag.parse.words if word))
    return ValueHint("file" if flag.placeholder.endswith(_FILES) else "dir" if flag.placeholder.endswith(_FOLDERS) else "any")


def _clause(text: str) -> str:
    """The first clause of a help text, as the description of a completion."""
    return _CLAUSE.split(text, maxsplit=1)[0]


_HELP = Spelling("--help", "Print help", None, False)
_LONG = Spelling("--help-long", "Print help on all commands", None, False)
_VERSION = Spelling("--version", "Print the version", None, False)
