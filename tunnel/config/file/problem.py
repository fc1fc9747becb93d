"""The mistakes in configuration files, collected so that all are reported at once, each with its place."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from tunnel.config.file.positions import Lines, TomlPath
from tunnel.errors import ConfigError, ConfigMistakes, hide_secrets, quote
from tunnel.lazy_dataclass import dataclass, field

MAX_PROBLEMS = 1000  # further ones are counted
_PRINTABLE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SIMILARITY = 0.6  # of a suggestion


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake or warning: the file as it was named, the line (0 if there is none), the key path, and the text."""

    file: str
    line: int
    key: str
    text: str
    column: int = 0  # of a syntax error

    def __str__(self) -> str:
        return self.describe()

    def describe(self, mark: str = "") -> str:
        """`FILE:LINE: MARK: KEY: TEXT`, without the parts that are empty."""
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        return ": ".join(part for part in (place, mark, self.key, self.text) if part)


class ConfigFileError(ConfigMistakes):
    """Configuration files are invalid; `problems` has every mistake, and the message has one line for each."""

    def __init__(self, problems: Iterable[Problem], warnings: Iterable[Problem] = ()) -> None:
        self.problems, self.warnings = tuple(problems), tuple(warnings)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file that was read: its name for messages, the folder of relative paths, and the lines of its keys."""

    name: str
    folder: str
    lines: Lines = field(repr=False)


@dataclass(slots=True)
class Problems:
    """The mistakes and warnings found so far."""

    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def error(self) -> ConfigFileError:
        """The exception with the mistakes."""
        return ConfigFileError(_arrange(self.errors), _arrange(self.warnings))

    def sorted_warnings(self) -> tuple[Problem, ...]:
        """The warnings in the order of files and lines."""
        return tuple(_arrange(self.warnings))


def _arrange(problems: list[Problem]) -> list[Problem]:
    """The problems in the order of files and lines, each once, and the number of those that are too many."""
    files = {file: index for index, file in enumerate(dict.fromkeys(problem.file for problem in problems))}
    ordered = sorted(dict.fromkeys(problems), key=lambda problem: (files[problem.file], problem.line))
    if len(ordered) <= MAX_PROBLEMS:
        return ordered
    return [*ordered[:MAX_PROBLEMS], Problem(ordered[-1].file, 0, "", f"{len(ordered) - MAX_PROBLEMS} more problems")]


@dataclass(frozen=True, slots=True)
class Place:
    """A key or an element in a file, where mistakes are reported."""

    file: SourceFile
    path: TomlPath
    found: Problems

    def __truediv__(self, step: str | int) -> Place:
        return Place(self.file, (*self.path, step), self.found)

    def refuse(self, problem: str | ConfigError) -> None:
        """Report a mistake here."""
        self.found.errors.append(self._problem(str(problem)))

    def warn(self, text: str) -> None:
        """Report a warning here."""
        self.found.warnings.append(self._problem(text))

    def line(self) -> int:
        """The line of this key, or of the nearest table around it that is in the file."""
        path = self.path
        while path not in self.file.lines and path:
            path = path[:-1]
        return self.file.lines.get(path, 1)

    def __str__(self) -> str:
        return f"{self.file.name}:{self.line()}"

    def _problem(self, text: str) -> Problem:
        return Problem(self.file.name, self.line(), format_path(self.path), hide_secrets(text))


def format_path(path: TomlPath) -> str:
    """A path as `server[0].target`: indexes count from 0 in each file."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            shown = step if _PRINTABLE_NAME.fullmatch(step) else quote(step[:64])
            text += f".{shown}" if text else shown
    return text


def suggest(name: str, known: Iterable[str]) -> tuple[str, str]:
    """`; did you mean NAME?` with the name for a near miss; else two empty texts."""
    close = difflib.get_close_matches(name[:64], list(known), 1, _SIMILARITY)
    return (f"; did you mean {close[0]}?", close[0]) if close else ("", "")
