"""What may come next in a command line: the tables of flags as a graph, for shells.

Knows where a word leads and what a flag takes; must not know any shell (`shells.py` writes it down for each). Made from the
tables that the grammar reads, so that nothing is offered which would be refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunnel.cli.command import Command, Flag
from tunnel.config.values import OneOf

ROOT = "-"  # the context of a line in which there is no command yet; no command can have this name
REST = "--"  # the context behind a lone `--`: another program's line
_END = "---"  # the same where no other program is wanted
_FILES, _FOLDERS = ("FILE", "CERT"), ("DIR",)  # ends of placeholders whose values are in the file system
_LINES = ("server", "client")  # what the lines of a command that has several may begin with
_CLAUSE = re.compile(r"[.:;](?: |$)")

Kind = Literal["any", "file", "dir", "command"]


@dataclass(frozen=True, slots=True)
class ValueHint:
    """What a shell can know of a value before it is there."""

    kind: Kind
    words: tuple[str, ...] = ()  # of a fixed choice, all of them


@dataclass(frozen=True, slots=True)
class Word:
    """A word that may come next, and the context behind it."""

    text: str
    help: str
    to: str


@dataclass(frozen=True, slots=True)
class Spelling:
    """One way of writing a flag; None takes no value. What is hidden is understood and never offered."""

    text: str
    help: str
    value: ValueHint | None
    is_hidden: bool


@dataclass(frozen=True, slots=True)
class Context:
    """A place in a line; any word that is not named leads to `onward`, and is a `place`."""

    name: str
    words: tuple[Word, ...] = ()
    flags: tuple[Spelling, ...] = ()
    place: ValueHint | None = None
    onward: str = ""

    def shown_words(self) -> tuple[tuple[str, str], ...]:
        """What is offered with a few words on each, where no dash has been written yet."""
        seen = [(word.text, word.help) for word in self.words if word.text != REST]
        return (*seen, *((word, "") for word in (self.place.words if self.place else ())))

    def shown_flags(self) -> tuple[tuple[str, str], ...]:
        """What is offered behind a dash, and where there is nothing else."""
        return tuple((flag.text, flag.help) for flag in self.flags if not flag.is_hidden)

    def step(self, word: str) -> tuple[str, ValueHint | None]:
        """The context behind a word, and the value that has to come first if the word is a flag that takes one."""
        value = next((flag.value for flag in self.flags if flag.text == word), None)
        to = next((known.to for known in self.words if known.text == word), "")
        if to or word.startswith("-"):
            return to or self.name, value
        return self.onward or self.name, None


def build_contexts(commands: Sequence[Command], global_flags: Iterable[Flag[Any]]) -> dict[str, Context]:
    """All contexts by name, the first is the root."""
    found = [Context(ROOT, _members("", commands), (*_spellings(global_flags), _LONG, _VERSION, _HELP))]
    found += [Context(family, _members(family, commands), (_HELP,)) for family in _families(commands)]
    for command in commands:
        found += _contexts_of(command, commands)
    found += [Context(REST, place=ValueHint("command")), Context(_END)]
    return {context.name: context for context in found}


def candidates(contexts: Mapping[str, Context], words: Sequence[str]) -> list[str]:
    """What the last of these words may become; a file's name is the shell's own work."""
    *before, current = words or [""]
    context, value = contexts[ROOT], None
    for word in before:
        if value is not None:
            value = None  # this word is it
            continue
        to, value = context.step(word)
        context = contexts[to]
    name, equals, _ = current.partition("=")
    if value is None and equals and name.startswith("--"):
        value, prefix = context.step(name)[1], f"{name}="
        return [prefix + word for word in (value.words if value else ()) if (prefix + word).startswith(current)]
    if value is None:
        shown = () if current.startswith("-") else context.shown_words()
        is_bare = not shown and (context.place is None or context.place.kind == "any")
        if current.startswith("-") or is_bare:
            shown = context.shown_flags()
        return [text for text, _ in shown if text.startswith(current)]
    return [word for word in value.words if word.startswith(current)]


def _contexts_of(command: Command, commands: Sequence[Command]) -> Iterator[Context]:
    flags = (*_spellings(command.flags), _HELP)
    behind = (Word(REST, "", REST if command.rest or command.lines else _END),)
    if command.lines:
        kinds = [known for known in commands if known.name in _LINES]
        starts = tuple(Word(known.name, _clause(known.summary), f"{command.name} {known.name}") for known in kinds)
        yield Context(command.name, (*starts, *behind), flags)
        yield Context(f"{command.name} +", starts)
        more = Word("+", "One more proxy", f"{command.name} +")
        for known in kinds:
            yield Context(f"{command.name} {known.name}", (more, *behind), _spellings(known.flags))
    elif command.name == "help" or any(place.name == "COMMAND" for place in command.positionals):
        yield from _naming(command.name, flags, commands)
    else:
        yield from _places(command, commands, flags, behind)


def _places(
    command: Command, commands: Sequence[Command], flags: tuple[Spelling, ...], behind: tuple[Word, ...]
) -> Iterator[Context]:
    """One context for each word that has to stand by itself, and the one behind the last."""
    members = _members(command.name, commands)
    names = [command.name, *(f"{command.name} #{number}" for number, _ in enumerate(command.positionals, 1))]
    for name, place, onward in zip(names, (*command.positionals, None), (*names[1:], ""), strict=True):
        words = (*members, *behind) if name == command.name else behind
        is_last = place is None or place.is_repeated
        yield Context(name, words, flags, _value(place) if place else None, "" if is_last else onward)


def _naming(name: str, flags: tuple[Spelling, ...], commands: Sequence[Command]) -> Iterator[Context]:
    """The contexts behind a command that is told another one's name, word by word."""
    named = [command for command in commands if command.name != "help"]
    yield Context(name, _members("", named, f"{name} "), flags)
    for known in (*_families(named), *(command.name for command in named)):
        yield Context(f"{name} {known}", _members(known, named, f"{name} "), flags)


def _families(commands: Sequence[Command]) -> list[str]:
    """The words that several commands begin with and that are none by themselves."""
    names = [command.name for command in commands]
    begun = {" ".join(name.split()[:count]) for name in names for count in range(1, len(name.split()))}
    return sorted(begun - set(names))


def _members(family: str, commands: Sequence[Command], before: str = "") -> tuple[Word, ...]:
    """The words that may follow those of a family, or begin a line; `before` is what the context behind begins with."""
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
        told, value = _clause(flag.help), _value(flag) if flag.parse is not None else None
        found.append(Spelling(f"--{flag.name}", told, value, flag.is_hidden))
        found += [Spelling(f"--{alias}", told, value, True) for alias in flag.aliases]
        if flag.parse is None:
            found.append(Spelling(f"--no-{flag.name}", f"Not: {told}", None, flag.is_hidden))
        if flag.short:
            found.append(Spelling(f"-{flag.short}", told, None, flag.is_hidden))
    return tuple(found)


def _value(flag: Flag[Any]) -> ValueHint:
    if isinstance(flag.parse, OneOf):
        return ValueHint("any", tuple(word for word in flag.parse.words if word))
    return ValueHint("file" if flag.placeholder.endswith(_FILES) else "dir" if flag.placeholder.endswith(_FOLDERS) else "any")


def _clause(text: str) -> str:
    """The beginning of a help text, short enough to stand beside a candidate."""
    return _CLAUSE.split(text, maxsplit=1)[0]


_HELP = Spelling("--help", "Tell more", None, False)
_LONG = Spelling("--help-long", "Tell all", None, False)
_VERSION = Spelling("--version", "Tell the version", None, False)
