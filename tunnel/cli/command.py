"""Declarations of commands and their flags, and the values of one command line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

from tunnel.config.values import format_duration
from tunnel.lazy_dataclass import dataclass

T = TypeVar("T")
D = TypeVar("D")


@dataclass(frozen=True, eq=False)
class Flag(Generic[T]):
    """One flag or positional argument; `T` is the type of its value in `Arguments`."""

    name: str
    summary: str  # without the default
    parse: Callable[[str], Any] | None  # None: a boolean
    default: Any
    placeholder: str = "VALUE"
    env: str = ""
    aliases: tuple[str, ...] = ()
    is_required: bool = False
    is_repeated: bool = False
    is_hidden: bool = False
    is_secret: bool = False  # the value is not shown in a command line
    short: str = ""  # of a boolean: one letter, written `-v`
    default_text: str = ""  # the default as the help shows it, "" for none

    @property
    def help(self) -> str:
        """The help text: the summary, with the default in parentheses."""
        return f"{self.summary} (default {self.default_text})" if self.default_text else self.summary


def switch(name: str, summary: str, *, default: bool = False, hidden: bool = False, short: str = "") -> Flag[bool]:
    """A boolean: `--name` sets it and `--no-name` clears it; `-n` sets it if there is a short form."""
    return Flag(name, summary, None, default, is_hidden=hidden, short=short)


def option(
    name: str,
    summary: str,
    parse: Callable[[str], T],
    default: D,
    *,
    placeholder: str,
    default_text: str = "",
    zero: str = "",
    env: str = "",
    aliases: tuple[str, ...] = (),
    hidden: bool = False,
    secret: bool = False,
) -> Flag[T | D]:
    """A flag with a value and a default; the last spelling on the line wins.

    The help shows the default as `default_text` if that is given, else by its type; `zero` is the meaning of 0.
    """
    shown = default_text or _describe_default(default, zero)
    return Flag(
        name, summary, parse, default, placeholder, env, aliases, is_hidden=hidden, is_secret=secret, default_text=shown
    )


def _describe_default(default: object, zero: str) -> str:
    """The default as the help shows it; every float is a duration in seconds."""
    if default is None or isinstance(default, bool | tuple):
        return ""
    text = format_duration(default) if isinstance(default, float) else str(default)
    if not zero:
        return text
    return f"0 for {zero}" if not default else f"{text}, 0 for {zero}"


def required(name: str, summary: str, parse: Callable[[str], T], *, placeholder: str) -> Flag[T]:
    """A flag that must be given."""
    return Flag(name, summary, parse, None, placeholder, is_required=True)


def repeated(
    name: str,
    summary: str,
    parse: Callable[[str], T],
    *,
    placeholder: str,
    default_text: str = "",
    aliases: tuple[str, ...] = (),
    hidden: bool = False,
) -> Flag[tuple[T, ...]]:
    """A flag that can be repeated; the values keep their order."""
    return Flag(
        name,
        summary,
        parse,
        (),
        placeholder,
        aliases=aliases,
        is_repeated=True,
        is_hidden=hidden,
        default_text=default_text,
    )


def positional(
    name: str, summary: str, parse: Callable[[str], T], *, default: Any = None, required: bool = True, default_text: str = ""
) -> Flag[T]:
    """A positional argument; `name` is how the help shows it, such as `HOST:PORT`."""
    return Flag(name, summary, parse, default, name, is_required=required, default_text=default_text)


def positionals(name: str, summary: str, parse: Callable[[str], T], *, default_text: str = "") -> Flag[tuple[T, ...]]:
    """The last positional argument, any number of times."""
    return Flag(name, summary, parse, (), name, is_repeated=True, default_text=default_text)


@dataclass(frozen=True)
class Group:
    """Flags that the help shows under one title."""

    title: str
    flags: tuple[Flag[Any], ...]


@dataclass(frozen=True)
class Command:
    """One command: its name (of one or several words, such as `svid fetch`) and what can follow it."""

    name: str
    summary: str
    groups: tuple[Group, ...] = ()
    detail: str = ""
    positionals: tuple[Flag[Any], ...] = ()  # in this order
    rest: str = ""  # another program's command line after `--`, as the help shows it: `COMMAND [ARG...]`
    is_rest_optional: bool = False
    lines: str = ""  # command lines that take the rest of the line from the first positional on, as the help shows them
    failure: int = 1  # the exit code if the command cannot be carried out

    @property
    def flags(self) -> tuple[Flag[Any], ...]:
        """The flags of all groups."""
        return tuple(flag for group in self.groups for flag in group.flags)


@dataclass(frozen=True)
class Program:
    """All commands; `global_flags` can also stand before a command."""

    name: str
    version: str
    about: str
    commands: Sequence[Command]
    global_flags: Sequence[Flag[Any]] = ()

    @property
    def documented(self) -> list[Command]:
        """The commands that have a manual page."""
        return [command for command in self.commands if command.name != "help"]


class Arguments:
    """The values of one command line, by flag."""

    def __init__(self, values: Mapping[Flag[Any], Any], given: Collection[Flag[Any]] = (), rest: Sequence[str] = ()) -> None:
        self._values = values
        self._given = frozenset(given)
        self.rest = tuple(rest)  # see Command.rest and Command.lines

    def __getitem__(self, flag: Flag[T]) -> T:
        return cast(T, self._values[flag])

    def is_given(self, flag: Flag[Any]) -> bool:
        """Whether the line itself has the flag: not the environment, not the default."""
        return flag in self._given

    def amended(self, changes: Mapping[Flag[Any], Any], defaults: Collection[Flag[Any]] = ()) -> Arguments:
        """A copy with other values, and with the default of each of `defaults` that has no value."""
        return Arguments({**{flag: flag.default for flag in defaults}, **self._values, **changes}, self._given, self.rest)
