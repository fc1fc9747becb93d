"""The command-line parser, with kingpin's grammar as in ghostunnel.

Flags cannot be abbreviated, booleans take no value, `--no-x` clears, `@file` stands for the lines of a file, `--` ends the
flags. Messages about the grammar are kingpin's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tunnel.cli.command import Arguments, Command, Flag
from tunnel.errors import ConfigError
from tunnel.lazy_dataclass import dataclass, field

T = TypeVar("T")

# kingpin's flags that print a text made from the declarations; accepted in every line.
_TEXT_FLAGS = ("help-man", "help-custom-man", "completion-script-bash", "completion-script-zsh")
_SIMILARITY = 0.8  # of a suggestion: one or two letters differ


@dataclass(frozen=True)
class Parsed:
    """A parsed command line."""

    command: Command
    arguments: Arguments


class UsageError(ConfigError):
    """A command line that cannot be parsed; `command` is None if it is unknown too."""

    def __init__(self, message: str, command: Command | None) -> None:
        super().__init__(message)
        self.command = command


class HelpRequested(Exception):
    """The line requests help on one command, on a family of commands, or on the program; long: with all flags."""

    def __init__(self, command: Command | None, *, family: str = "", is_long: bool = False) -> None:
        super().__init__()
        self.command = command
        self.family = family
        self.is_long = is_long


class VersionRequested(Exception):
    """The line requests the version."""


class TextRequested(Exception):
    """The line requests a text by one of kingpin's flags, `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def parse_command_line(
    argv: Sequence[str],
    commands: Sequence[Command],
    environ: Mapping[str, str],
    *,
    global_flags: Sequence[Flag[Any]] = (),
    expands_files: bool = True,
) -> Parsed:
    """The command and its values; `global_flags` can also stand before the command.

    `expands_files` is false for a part of a line whose files (`@file`) are expanded already. Raises UsageError, HelpRequested,
    VersionRequested and TextRequested.
    """
    line = _LineParser(expand_files(argv) if expands_files else iter(argv), commands, global_flags)
    try:
        return line.parse(environ)
    except ConfigError as error:
        raise UsageError(str(error), line.command) from error


def parse_value(parse: Callable[[str], T] | None, text: str, name: str) -> T:
    """The parsed text; raises ConfigError that begins with `name`, of a flag, an argument or an environment variable."""
    assert parse is not None
    try:
        return parse(text)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


@dataclass
class _LineParser:
    """The state of parsing one command line."""

    tokens: Iterator[str]
    commands: Sequence[Command]
    global_flags: Sequence[Flag[Any]]
    command: Command | None = None
    family: str = ""  # the words so far, if they are only the beginning of a command's name
    given: dict[Flag[Any], Any] = field(default_factory=dict)
    spellings: list[tuple[Flag[Any], str]] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)

    def parse(self, environ: Mapping[str, str]) -> Parsed:
        for token in self.tokens:
            if token == "--":
                self._parse_rest()
            elif token.startswith("--"):
                self._parse_flag(token[2:], self.tokens)
            elif token.startswith("-") and token != "-":
                self._parse_short(token)
            else:
                self._parse_word(token)
        if self.command is None:
            raise HelpRequested(None, family=self.family)
        return Parsed(self.command, Arguments(self._finish(self.command, environ), self.given, self.rest))

    def _parse_rest(self) -> None:
        if self.command is not None and self.command.lines:  # there are no lines in front of it
            self.rest += ["--", *self.tokens]
        for token in self.tokens:
            if self.command is not None and self.command.rest:
                self.rest.append(token)
            else:
                self._parse_word(token)

    def _parse_word(self, word: str) -> None:
        name = f"{self.command.name if self.command else self.family} {word}".strip()
        found = next((command for command in self.commands if command.name == name), None)
        if found is not None:
            self.command, self.family = found, ""
        elif any(command.name.startswith(f"{name} ") for command in self.commands):
            self.command, self.family = None, name
        elif self.command is None:
            raise ConfigError(f'expected command but got "{name}"{_suggest(name, "", [known.name for known in self.commands])}')
        elif self.command.name == "help":
            self._parse_help(word)
        elif self.command.lines:
            self.rest += [word, *self.tokens]
        else:
            self._store(self._next_positional(self.command, word), word)

    def _parse_help(self, word: str) -> None:
        """Parse the words behind `help` as a command."""
        inner = _LineParser(iter([word, *self.tokens]), self.commands, self.global_flags)
        for token in inner.tokens:
            inner._parse_word(token)
        raise HelpRequested(inner.command, family=inner.family)

    def _next_positional(self, command: Command, word: str) -> Flag[Any]:
        free = (positional for positional in command.positionals if positional.is_repeated or positional not in self.given)
        found = next(free, None)
        if found is None:
            hint = f"; expected the command to run after --: -- {word} ..." if command.rest else ""
            raise ConfigError(f"unexpected {word}{hint}")
        return found

    def _known_flags(self) -> list[Flag[Any]]:
        return [*(self.command.flags if self.command else ()), *self.global_flags]

    def _parse_short(self, token: str) -> None:
        flag = next((flag for flag in self._known_flags() if flag.short and token == f"-{flag.short}"), None)
        if flag is None:
            raise ConfigError(f"unknown short flag '{token[:2]}'")
        if (flag, flag.name) in self.spellings:
            raise ConfigError(f"flag '{flag.name}' cannot be repeated")
        self.spellings.append((flag, flag.name))
        self._store(flag, True)

    def _parse_flag(self, text: str, tokens: Iterator[str]) -> None:
        name, equals, value = text.partition("=")
        if name == "help" and not equals:
            raise HelpRequested(self.command)
        if name == "help-long" and not equals:
            raise HelpRequested(None, is_long=True)
        if name == "version" and not equals:
            raise VersionRequested
        if name in _TEXT_FLAGS and not equals:
            raise TextRequested(name)
        flag, is_negated = self._flag_named(name)
        if not flag.is_repeated and (flag, name.removeprefix("no-")) in self.spellings:
            raise ConfigError(f"flag '{name.removeprefix('no-')}' cannot be repeated")
        self.spellings.append((flag, name if flag.parse else flag.name))
        if flag.parse is None:
            if equals:
                raise ConfigError(f"unexpected {value}")
            self._store(flag, not is_negated)
            return
        if not equals:
            value = next(tokens, "-")
            if value.startswith("-"):
                raise ConfigError(f"expected argument for flag '--{name}'")
        self._store(flag, parse_value(flag.parse, value, f"--{name}"))

    def _flag_named(self, name: str) -> tuple[Flag[Any], bool]:
        """The flag, and whether it is negated."""
        known = self._known_flags()
        for flag in known:
            if name == flag.name or name in flag.aliases:
                return flag, False
            if flag.parse is None and name == f"no-{flag.name}":
                return flag, True
        visible = [flag.name for flag in known if not flag.is_hidden]
        raise ConfigError(f"unknown long flag '--{name}'{_suggest(name, '--', visible)}")

    def _store(self, flag: Flag[Any], value: Any) -> None:
        self.given[flag] = (*self.given.get(flag, ()), value) if flag.is_repeated else value

    def _finish(self, command: Command, environ: Mapping[str, str]) -> dict[Flag[Any], Any]:
        for flag, name in self.spellings:
            if flag not in command.flags:
                raise ConfigError(f"unknown long flag '--{name}' for {command.name}")
        values = {flag: flag.default for flag in (*command.flags, *command.positionals)}
        for flag in command.flags:
            text = environ.get(flag.env, "") if flag.env else ""
            if text and flag not in self.given:
                values[flag] = parse_value(flag.parse, text, flag.env)
        values.update(self.given)
        for positional in command.positionals:
            if positional in self.given and positional.is_repeated:
                texts = self.given[positional]
                values[positional] = tuple(parse_value(positional.parse, text, positional.name) for text in texts)
            elif positional in self.given:
                values[positional] = parse_value(positional.parse, self.given[positional], positional.name)
            elif positional.is_required:
                raise ConfigError(f"{positional.name} is missing: {positional.help}")
        missing = [f"'--{flag.name}'" for flag in command.flags if flag.is_required and flag not in self.given]
        if missing:
            raise ConfigError(f"required flag(s) {', '.join(missing)} not provided")
        if (command.rest or command.lines) and not (self.rest or command.is_rest_optional):
            raise ConfigError(f"nothing to run: {f'-- {command.rest}' if command.rest else command.lines} is missing")
        return values


def _suggest(word: str, dashes: str, known: Iterable[str]) -> str:
    """A suggestion to append to an error; "" if no known word is similar."""
    from difflib import get_close_matches  # loaded for a wrong line only

    return "".join(f", did you mean '{dashes}{near}'" for near in get_close_matches(word, list(known), 1, _SIMILARITY))


def expand_files(argv: Iterable[str]) -> Iterator[str]:
    """The arguments, with each `@file` before a `--` replaced by the lines of that file."""
    is_literal = False
    for argument in argv:
        is_literal = is_literal or argument == "--"
        if argument.startswith("@") and not is_literal:
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
