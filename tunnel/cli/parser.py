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

_TEXTS = ("help-man", "help-custom-man", "completion-script-bash", "completion-script-zsh")  # of kingpin's, in every line
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
    is_secret: bool = False  # nobody else may see the value
    short: str = ""  # of a boolean: one letter, written `-v`


def switch(name: str, help: str, *, default: bool = False, hidden: bool = False, short: str = "") -> Flag[bool]:
    """A boolean: `--name` sets it, `--no-name` clears it, and so does `-n` set it where there is a short form."""
    return Flag(name, help, None, default, is_hidden=hidden, short=short)


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
    secret: bool = False,
) -> Flag[T | D]:
    """A flag with a value and a default; of several spellings the last on the line wins."""
    return Flag(name, help, parse, default, placeholder, env, aliases, is_hidden=hidden, is_secret=secret)


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


def word(name: str, help: str, parse: Callable[[str], T], *, default: Any = None, required: bool = True) -> Flag[T]:
    """What stands by itself in a line and not behind a flag; `name` is how the help shows it, `HOST:PORT` for instance."""
    return Flag(name, help, parse, default, name, is_required=required)


def words(name: str, help: str, parse: Callable[[str], T]) -> Flag[tuple[T, ...]]:
    """The last of what stands by itself, any number of times and maybe never."""
    return Flag(name, help, parse, (), name, is_repeated=True)


@dataclass(frozen=True)
class Group:
    """Flags that belong together, for whoever reads the help."""

    title: str
    flags: tuple[Flag[Any], ...]


@dataclass(frozen=True)
class Command:
    """A word of the command line, or two for one of a family (`svid fetch`), with what may follow."""

    name: str
    summary: str
    groups: tuple[Group, ...] = ()
    detail: str = ""
    words: tuple[Flag[Any], ...] = ()  # that stand by themselves, in this order
    rest: str = ""  # what must stand behind a lone `--` and is not ours, as the help shows it: `COMMAND [ARG...]`
    is_rest_optional: bool = False
    lines: str = ""  # what takes the whole rest of the line from the first word on, as the help shows it
    failure: int = 1  # the exit code when it cannot be carried out

    @property
    def flags(self) -> tuple[Flag[Any], ...]:
        """All of them."""
        return tuple(flag for group in self.groups for flag in group.flags)


class Arguments:
    """The values of one command line, asked for by the flag itself."""

    def __init__(self, values: Mapping[Flag[Any], Any], given: Collection[Flag[Any]] = (), rest: Sequence[str] = ()) -> None:
        self._values = values
        self._given = frozenset(given)
        self.rest = tuple(rest)  # what is another program's, or another line of ours

    def __getitem__(self, flag: Flag[T]) -> T:
        return cast(T, self._values[flag])

    def is_given(self, flag: Flag[Any]) -> bool:
        """Whether the line itself has the flag, rather than the environment or nobody."""
        return flag in self._given

    def amended(self, changes: Mapping[Flag[Any], Any], defaults: Collection[Flag[Any]] = ()) -> Arguments:
        """These for another command: with other values, and with the default of each flag that the line could not name."""
        return Arguments({**{flag: flag.default for flag in defaults}, **self._values, **changes}, self._given, self.rest)


@dataclass(frozen=True)
class Parsed:
    """A command line that was understood."""

    command: Command
    arguments: Arguments


class LineError(ConfigError):
    """A line that is wrong, and the command that it is about as far as that is known."""

    def __init__(self, message: str, command: Command | None) -> None:
        super().__init__(message)
        self.command = command


class HelpWanted(Exception):
    """The line asks for help: on one command, on a family, or on all; long, with the flags of every command."""

    def __init__(self, command: Command | None, *, family: str = "", is_long: bool = False) -> None:
        super().__init__()
        self.command = command
        self.family = family
        self.is_long = is_long


class VersionWanted(Exception):
    """The line asks for the version."""


class TextWanted(Exception):
    """The line asks for a text that is made from the tables, by the name of a flag of kingpin's."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def parse_command_line(
    argv: Sequence[str],
    commands: Sequence[Command],
    environ: Mapping[str, str],
    *,
    early: Sequence[Flag[Any]] = (),
    has_files: bool = True,
) -> Parsed:
    """The command and its values; `early` flags may also stand before the command.

    Of a line that is a part of another one, the files (`@file`) have been read already. Raises LineError for a line that is
    wrong, HelpWanted, VersionWanted and TextWanted for one that asks.
    """
    line = _Line(expand_files(argv) if has_files else iter(argv), commands, early)
    try:
        return line.parse(environ)
    except ConfigError as error:
        raise LineError(str(error), line.command) from error


@dataclass
class _Line:
    """One reading of one command line; the state is what has been seen so far."""

    tokens: Iterator[str]
    commands: Sequence[Command]
    early: Sequence[Flag[Any]]
    command: Command | None = None
    family: str = ""  # the words so far, while they are only the beginning of a command's name
    given: dict[Flag[Any], Any] = field(default_factory=dict)
    spellings: list[tuple[Flag[Any], str]] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)

    def parse(self, environ: Mapping[str, str]) -> Parsed:
        for token in self.tokens:
            if token == "--":
                self._take_rest()
            elif token.startswith("--"):
                self._take_flag(token[2:], self.tokens)
            elif token.startswith("-") and token != "-":
                self._take_short(token)
            else:
                self._take_word(token)
        if self.command is None:
            raise HelpWanted(None, family=self.family)
        return Parsed(self.command, Arguments(self._finish(self.command, environ), self.given, self.rest))

    def _take_rest(self) -> None:
        for token in self.tokens:
            if self.command is not None and self.command.rest:
                self.rest.append(token)
            else:
                self._take_word(token)

    def _take_word(self, word: str) -> None:
        name = f"{self.command.name if self.command else self.family} {word}".strip()
        found = next((command for command in self.commands if command.name == name), None)
        if found is not None:
            self.command, self.family = found, ""
        elif any(command.name.startswith(f"{name} ") for command in self.commands):
            self.command, self.family = None, name
        elif self.command is None:
            raise ConfigError(f'expected command but got "{name}"{_meant(name, "", [known.name for known in self.commands])}')
        elif self.command.name == "help":
            self._help(word)
        elif self.command.lines:
            self.rest += [word, *self.tokens]
        else:
            self._store(self._next_place(self.command, word), word)

    def _help(self, word: str) -> None:
        """Take the words behind `help` for a line of their own, which asks for itself."""
        inner = _Line(iter([word, *self.tokens]), self.commands, self.early)
        for token in inner.tokens:
            inner._take_word(token)
        raise HelpWanted(inner.command, family=inner.family)

    def _next_place(self, command: Command, word: str) -> Flag[Any]:
        place = next((place for place in command.words if place.is_repeated or place not in self.given), None)
        if place is None:
            where = f", the command to run stands behind a lone --: -- {word} ..." if command.rest else ""
            raise ConfigError(f"unexpected {word}{where}")
        return place

    def _take_short(self, token: str) -> None:
        known = [*(self.command.flags if self.command else ()), *self.early]
        flag = next((flag for flag in known if flag.short and token == f"-{flag.short}"), None)
        if flag is None:
            raise ConfigError(f"unknown short flag '{token[:2]}'")
        if (flag, flag.name) in self.spellings:
            raise ConfigError(f"flag '{flag.name}' cannot be repeated")
        self.spellings.append((flag, flag.name))
        self._store(flag, True)

    def _take_flag(self, text: str, tokens: Iterator[str]) -> None:
        name, equals, value = text.partition("=")
        if name == "help" and not equals:
            raise HelpWanted(self.command)
        if name == "help-long" and not equals:
            raise HelpWanted(None, is_long=True)
        if name == "version" and not equals:
            raise VersionWanted
        if name in _TEXTS and not equals:
            raise TextWanted(name)
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
        known = [*(self.command.flags if self.command else ()), *self.early]
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
        values = {flag: flag.default for flag in (*command.flags, *command.words)}
        for flag in command.flags:
            text = environ.get(flag.env, "") if flag.env else ""
            if text and flag not in self.given:
                values[flag] = _parse_value(flag, text, flag.env)
        values.update(self.given)
        for place in command.words:
            if place in self.given and place.is_repeated:
                values[place] = tuple(_parse_value(place, text, place.name) for text in self.given[place])
            elif place in self.given:
                values[place] = _parse_value(place, self.given[place], place.name)
            elif place.is_required:
                raise ConfigError(f"{place.name} is missing: {place.help.rstrip('.')}")
        missing = [f"'--{flag.name}'" for flag in command.flags if flag.is_required and flag not in self.given]
        if missing:
            raise ConfigError(f"required flag(s) {', '.join(missing)} not provided")
        if (command.rest or command.lines) and not (self.rest or command.is_rest_optional):
            raise ConfigError(
                f"nothing to run: -- {command.rest} is missing" if command.rest else f"{command.lines} is missing"
            )
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


def expand_files(argv: Iterable[str]) -> Iterator[str]:
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
    except UnicodeDecodeError:  # its text quotes a byte
        raise ConfigError(f"cannot read arguments from {path!a}: it is not UTF-8") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read arguments from {path!a}: {error}") from error
    for line in lines:
        if line.strip() and not line.startswith("#"):
            yield line
