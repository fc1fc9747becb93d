"""Configuration files read from disk, as plain values with the line of each key."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence

from tunnel.config.file.positions import NestingError, scan_lines
from tunnel.config.file.problem import Place, Problem, Problems, SourceFile
from tunnel.errors import ConfigError, describe_os_error
from tunnel.lazy_dataclass import dataclass

MAX_FILE_BYTES = 4 * 2**20
MAX_FILES = 1000
_SUFFIX = ".toml"
_SYNTAX_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")

_TWICE = "defined twice in this file, or as both [TABLE] and [[TABLE]]"
_SYNTAX_TEXTS = {  # in place of those of `tomllib`
    "Cannot overwrite a value": _TWICE,
    "Cannot declare": _TWICE,
    "Cannot mutate immutable namespace": "this table or list is complete; expected its keys in one place",
    "Invalid value": 'invalid value; expected a "string" in quotes, a number, true, false, a [list] or a { table }',
    "Expected newline or end of document after a statement": "text after a value; expected a new line, or quotes around text",
}


@dataclass(frozen=True, slots=True)
class Document:
    """The top table of one file."""

    file: SourceFile
    values: Mapping[str, object]

    def place(self, found: Problems) -> Place:
        """The place of the top table."""
        return Place(self.file, (), found)


class _FileError(ConfigError):
    """A file cannot be read, at a line and column if it is a mistake in its text."""

    def __init__(self, problem: str, line: int = 0, column: int = 0) -> None:
        super().__init__(problem)
        self.line, self.column = line, column


def read_documents(paths: Sequence[str | os.PathLike[str]], found: Problems) -> list[Document]:
    """The documents of these files, and of the `*.toml` files in these directories; the others are reported."""
    documents = []
    for path in paths:
        name = os.fspath(path)
        try:
            documents += [document for file in _files_of(name) if (document := _read_document(file, found))]
        except _FileError as error:
            found.errors.append(Problem(name, 0, "", str(error)))
    return documents


def parse_document(text: str, file_name: str) -> Document:
    """The document in a text; raises ConfigError with the line and the column if they are known."""
    text = text.replace("\r\n", "\n")
    try:
        lines = scan_lines(text)
        values = tomllib.loads(text)
    except NestingError as error:
        raise _FileError(str(error), error.line) from error
    except RecursionError:
        raise _FileError("nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(str(error), text) from error
    except ValueError as error:
        raise _FileError("invalid TOML: a number with too many digits") from error
    return Document(SourceFile(file_name, os.path.dirname(file_name), lines), values)


def _files_of(name: str) -> Iterator[str]:
    if not os.path.isdir(name):
        return iter((name,))
    try:
        entries = sorted(entry for entry in os.listdir(name) if entry.endswith(_SUFFIX) and not entry.startswith("."))
    except OSError as error:
        raise _FileError(f"cannot read the directory: {describe_os_error(error)}") from error
    if not entries:
        raise _FileError(f"no configuration in this directory; expected files with names that end in {_SUFFIX}")
    if len(entries) > MAX_FILES:
        raise _FileError(f"{len(entries)} files in this directory; expected at most {MAX_FILES}")
    return iter(os.path.join(name, entry) for entry in entries)


def _read_document(name: str, found: Problems) -> Document | None:
    try:
        return parse_document(read_text(name), name)
    except _FileError as error:
        found.errors.append(Problem(name, error.line, "", str(error), error.column))
        return None


def read_text(name: str) -> str:
    """The text of a configuration file; raises ConfigError."""
    try:
        with open(name, "rb") as file:
            blob = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _FileError(f"cannot read the file: {describe_os_error(error)}") from error
    except ValueError:  # a NUL character
        raise _FileError("invalid file name") from None
    if len(blob) > MAX_FILE_BYTES:
        raise _FileError(f"the file is too large; expected at most {MAX_FILE_BYTES} bytes")
    try:
        return blob.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = blob.count(b"\n", 0, error.start) + 1
        raise _FileError("invalid text: not UTF-8; expected TOML in UTF-8", line) from None


def _syntax_error(message: str, text: str) -> _FileError:
    place = _SYNTAX_PLACE.search(message)
    line, column = (int(place[1]), int(place[2])) if place and place[1] else _end_of(text)
    if place:
        message = message[: place.start()]
    text = _SYNTAX_TEXTS.get(message.partition(" (")[0], f"{message[:1].lower()}{message[1:]}")
    return _FileError(f"invalid TOML: {text}", line, column)


def _end_of(text: str) -> tuple[int, int]:
    return text.count("\n") + 1, len(text) - text.rfind("\n")
