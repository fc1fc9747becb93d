"""The grammar of the command line: tokens to typed values.

Knows how flags are written (ghostunnel's grammar, which is kingpin's); must not know any flag of ours. Nothing is
abbreviated, booleans take no value, `--no-x` clears, `@file` stands for the lines of a file, `--` ends the flags.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from tunnel.errors import ConfigError

T = TypeVar("T")
D = TypeVar("D")

_NEAR = 0.8  # how alike two words are when one is taken for a slip of the other: a letter or two


@dataclass(frozen=True, eq=False)
class Flag(Generic[T]):
    """One flag; `T` is what it means to the program when the line has been read."""

    name: str
    help: str
    parse: Callable[[str], Any] | None  # None: a boolean
    default: Any
    placeholder: str = "VALUE"
    env: str = ""
    aliases: tuple[str, ...] = ()
    is_required: bool = False
    is_repeated: bool = False
    is_hidden: bool = False


def switch(name: str, help: str, *, default: bool = False, hidden: bool = False) -> Flag[bool]:
    """A boolean: `--name` sets it, `--no-name` clears it."""
    return Flag(name, help, None, default, is_hidden=hidden)


def option(
    name: str,
    help: str,
    parse: Callable[[str], T],
    default: D,
    *,
    placeholder: str,
    env: str = "",
    aliases: tuple[str, ...] = (),
    hidden: bool = False,
) -> Flag[T | D]:
    """A flag with a value and a default; of several spellings the last on the line wins."""
    return Flag(name, help, parse, default, placeholder, env, aliases, is_hidden=hidden)


def required(name: str, help: str, parse: Callable[[str], T], *, placeholder: str) -> Flag[T]:
    """A flag that must be given."""
    return Flag(name, help, parse, None, placeholder, is_required=True)


def repeated(
    name: str,
    help: str,
    parse: Callable[[str], T],
    *,
    placeholder: str,
    aliases: tuple[str, ...] = (),
    hidden: bool = False,
) -> Flag[tuple[T, ...]]:
    """A flag that may be given several times; the values come in order."""
    return Flag(name, help, parse, (), placeholder, aliases=aliases, is_repeated=True, is_hidden=hidden)


@dataclass(frozen=True)
class Group:
    """Flags that belong together, for whoever reads the help."""

    title: str
    flags: tuple[Flag[Any], ...]


@dataclass(frozen=True)
class Command:
    """A word of the command line with the flags that may follow it."""

    name: str
    summary: str
    groups: tuple[Group, ...] = ()
    detail: str = ""

    @property
    def flags(self) -> tuple[Flag[Any], ...]:
        """All of them."""
        return tuple(flag for group in self.groups for flag in group.flags)


class Arguments:
    """The values of one command line, asked for by the flag itself."""

    def __init__(self, values: Mapping[Flag[Any], Any], given: Collection[Flag[Any]] = ()) -> None:
        self._values = values
        self._given = frozenset(given)

    def __getitem__(self, flag: Flag[T]) -> T:
        return cast(T, self._values[flag])

    def is_given(self, flag: Flag[Any]) -> bool:
        """Whether the line itself has the flag, rather than the environment or nobody."""
        return flag in self._given


@dataclass(frozen=True)
class Parsed:
    """A command line that was understood."""

    command: Command
    arguments: Arguments


class HelpWanted(Exception):
    """The line asks for help: on one command, or on all when there is none; long, with the flags of every command."""

    def __init__(self, command: Command | None, *, is_long: bool = False) -> None:
        super().__init__()
        self.command = command
        self.is_long = is_long


class VersionWanted(Exception):
    """The line asks for the version."""


def parse_command_line(
    argv: Sequence[str],
    commands: Sequence[Command],
    environ: Mapping[str, str],
    *,
    early: Sequence[Flag[Any]] = (),
) -> Parsed:
    """The command and its values; `early` flags may also stand before the command.

    Raises ConfigError for a line that is wrong, HelpWanted and VersionWanted for one that asks.
    """
    return _Line(argv, commands, early).parse(environ)


@dataclass
class _Line:
    """One reading of one command line; the state is what has been seen so far."""

    argv: Sequence[str]
    commands: Sequence[Command]
    early: Sequence[Flag[Any]]
    command: Command | None = None
    given: dict[Flag[Any], Any] = field(default_factory=dict)
    spellings: list[tuple[Flag[Any], str]] = field(default_factory=list)

    def parse(self, environ: Mapping[str, str]) -> Parsed:
        tokens = _expand_files(self.argv)
        for token in tokens:
            if token == "--":
                for rest in tokens:
                    self._take_word(rest)
            elif token.startswith("--"):
                self._take_flag(token[2:], tokens)
            elif token.startswith("-") and token != "-":
                raise ConfigError(f"unknown short flag '{token[:2]}'")
            else:
                self._take_word(token)
        if self.command is None:
            raise HelpWanted(None)
        return Parsed(self.command, Arguments(self._finish(self.command, environ), self.given))

    def _take_word(self, word: str) -> None:
        if self.command is not None:
            if self.command.name == "help":
                raise HelpWanted(self._command_named(word))
            raise ConfigError(f"unexpected {word}")
        self.command = self._command_named(word)

    def _command_named(self, word: str) -> Command:
        for command in self.commands:
            if command.name == word:
                return command
        raise ConfigError(f'expected command but got "{word}"{_meant(word, "", [command.name for command in self.commands])}')

    def _take_flag(self, text: str, tokens: Iterator[str]) -> None:
        name, equals, value = text.partition("=")
        if name == "help" and not equals:
            raise HelpWanted(self.command)
        if name == "help-long" and not equals:
            raise HelpWanted(None, is_long=True)
        if name == "version" and not equals:
            raise VersionWanted
        flag, negated = self._flag_named(name)
        if not flag.is_repeated and (flag, name.removeprefix("no-")) in self.spellings:
            raise ConfigError(f"flag '{name.removeprefix('no-')}' cannot be repeated")
        self.spellings.append((flag, name if flag.parse else flag.name))
        if flag.parse is None:
            if equals:
                raise ConfigError(f"unexpected {value}")
            self._store(flag, not negated)
            return
        if not equals:
            value = next(tokens, "-")
            if value.startswith("-"):
                raise ConfigError(f"expected argument for flag '--{name}'")
        self._store(flag, _parse_value(flag, value, f"--{name}"))

    def _flag_named(self, name: str) -> tuple[Flag[Any], bool]:
        known = [*self.early, *(self.command.flags if self.command else ())]
        for flag in known:
            if name == flag.name or name in flag.aliases:
                return flag, False
            if flag.parse is None and name == f"no-{flag.name}":
                return flag, True
        shown = [flag.name for flag in known if not flag.is_hidden]
        raise ConfigError(f"unknown long flag '--{name}'{_meant(name, '--', shown)}")

    def _store(self, flag: Flag[Any], value: Any) -> None:
        if flag.is_repeated:
            self.given[flag] = (*self.given.get(flag, ()), value)
        else:
            self.given[flag] = value

    def _finish(self, command: Command, environ: Mapping[str, str]) -> dict[Flag[Any], Any]:
        for flag, name in self.spellings:
            if flag not in command.flags:
                raise ConfigError(f"unknown long flag '--{name}' for {command.name}")
        values = {flag: flag.default for flag in command.flags}
        for flag in command.flags:
            text = environ.get(flag.env, "") if flag.env else ""
            if text and flag not in self.given:
                values[flag] = _parse_value(flag, text, flag.env)
        values.update(self.given)
        missing = [f"'--{flag.name}'" for flag in command.flags if flag.is_required and flag not in self.given]
        if missing:
            raise ConfigError(f"required flag(s) {', '.join(missing)} not provided")
        return values


def _meant(word: str, dashes: str, known: Iterable[str]) -> str:
    """What was probably meant, to be added to an error; "" where nothing is near."""
    from difflib import get_close_matches  # loaded only for a line that is wrong

    return "".join(f", did you mean '{dashes}{near}'" for near in get_close_matches(word, list(known), 1, _NEAR))


def _parse_value(flag: Flag[Any], text: str, where: str) -> Any:
    assert flag.parse is not None
    try:
        return flag.parse(text)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _expand_files(argv: Iterable[str]) -> Iterator[str]:
    """The arguments, with `@file` replaced by the lines of that file up to a `--`."""
    is_plain = False
    for argument in argv:
        is_plain = is_plain or argument == "--"
        if argument.startswith("@") and not is_plain:
            yield from _read_arguments(argument[1:])
        else:
            yield argument


def _read_arguments(path: str) -> Iterator[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"cannot read arguments from {path!a}: {error}") from error
    for line in lines:
        if line.strip() and not line.startswith("#"):
            yield line
