"""The line of every key and element of a TOML document, which `tomllib` does not tell.

The scanner runs before `tomllib` and limits the depth of keys and values, because `tomllib` recurses for each level of a value
and needs quadratic time for a long dotted key. It does not judge the syntax: at text that is not TOML it stops, and the error
is that of `tomllib`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from contextlib import suppress

from tunnel.errors import ConfigError

TomlPath = tuple[str | int, ...]  # names of keys, and indexes of elements
Lines = dict[TomlPath, int]

MAX_DEPTH = 16  # names of a dotted key, and levels of a value

_BLANK = re.compile(r"[ \t]*")
_BLANK_LINES = re.compile(r"(?:[ \t\n]++|#[^\n]*+)*+")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(  # atomic, so that a long text costs no memory; *+ fails in Python 3.11.2 if there is a lookahead in it
    r'"""(?P<long_basic>(?>(?:[^\\"]++|\\.|"(?!""))*))"""(?:"{0,2})'
    r"|'''(?P<long_literal>(?>(?:[^']++|'(?!''))*))'''(?:'{0,2})"
    r'|"(?P<basic>(?>(?:[^\\"\n]++|\\.)*))"'
    r"|'(?P<literal>[^'\n]*+)'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]+")
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


class NestingError(ConfigError):
    """A document is nested too deeply."""

    def __init__(self, line: int) -> None:
        super().__init__(f"nested too deeply; expected at most {MAX_DEPTH} levels")
        self.line = line


class _NotToml(Exception):
    """The text is not TOML at this position."""


def scan_lines(text: str) -> Lines:
    """The line, from 1, of each table, key and element; incomplete if the text is not TOML. Raises NestingError."""
    scanner = _Scanner(text)
    with suppress(_NotToml):
        scanner.scan_document()
    return scanner.lines


class _Scanner:
    """The position in one document, and the lines found so far."""

    def __init__(self, text: str) -> None:
        self.lines: Lines = {(): 1}
        self._text = text
        self._at = 0
        self._starts = [match.end() for match in re.finditer("\n", text)]
        self._sizes: dict[TomlPath, int] = {}  # of arrays of tables

    def scan_document(self) -> None:
        """Scan line after line: headers of tables, and keys with their values."""
        table: TomlPath = ()
        while self._skip(_BLANK_LINES):
            if self._text.startswith("[", self._at):
                table = self._scan_header()
            else:
                self._scan_pair(table)
            self._skip(_BLANK)
            if self._at < len(self._text) and self._text[self._at] not in "#\n":
                raise _NotToml

    def _scan_header(self) -> TomlPath:
        is_array = self._text.startswith("[[", self._at)
        line = self._line()
        self._at += 2 if is_array else 1
        *parents, last = self._scan_key()
        self._expect("]]" if is_array else "]")
        path: TomlPath = ()
        for name in parents:
            path = self._newest((*path, name), line)
        path = (*path, last)
        if not is_array:
            return self._newest(path, line, is_own=True)
        index = self._sizes.get(path, 0)
        self._sizes[path] = index + 1
        self.lines.setdefault(path, line)
        self.lines[*path, index] = line
        return (*path, index)

    def _newest(self, path: TomlPath, line: int, *, is_own: bool = False) -> TomlPath:
        """The path of a table; of an array of tables, that of its last element."""
        if path in self._sizes:
            return (*path, self._sizes[path] - 1)
        if is_own:
            self.lines[path] = line
        self.lines.setdefault(path, line)
        return path

    def _scan_pair(self, table: TomlPath) -> None:
        line = self._line()
        path = table
        for name in self._scan_key():
            path = (*path, name)
            self.lines.setdefault(path, line)
        self._expect("=")
        self._skip(_BLANK)
        self._scan_value(path, MAX_DEPTH)

    def _scan_key(self) -> list[str]:
        names: list[str] = []
        while True:
            self._skip(_BLANK)
            names.append(self._scan_name())
            if len(names) > MAX_DEPTH:
                raise NestingError(self._line())
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return names
            self._at += 1

    def _scan_name(self) -> str:
        bare = _BARE.match(self._text, self._at)
        if bare:
            self._at = bare.end()
            return bare[0]
        string = _STRING.match(self._text, self._at)
        if not string or string.lastgroup not in ("basic", "literal"):
            raise _NotToml
        self._at = string.end()
        return string["literal"] if string.lastgroup == "literal" else _ESCAPE.sub(_unescape, string["basic"])

    def _scan_value(self, path: TomlPath, depth: int) -> None:
        if not depth:
            raise NestingError(self._line())
        first = self._text[self._at : self._at + 1]
        if first == "[":
            self._scan_array(path, depth - 1)
        elif first == "{":
            self._scan_inline_table(path, depth - 1)
        else:
            match = (_STRING if first and first in "\"'" else _SCALAR).match(self._text, self._at)
            if not match:
                raise _NotToml
            self._at = match.end()

    def _scan_array(self, path: TomlPath, depth: int) -> None:
        self._at += 1
        index = 0
        while self._skip(_BLANK_LINES) and not self._text.startswith("]", self._at):
            self.lines[*path, index] = self._line()
            self._scan_value((*path, index), depth)
            self._skip(_BLANK_LINES)
            if not self._text.startswith(",", self._at):
                break
            self._at += 1
            index += 1
        self._expect("]")

    def _scan_inline_table(self, path: TomlPath, depth: int) -> None:
        self._at += 1
        self._skip(_BLANK_LINES)
        while not self._text.startswith("}", self._at):
            line = self._line()
            inner = path
            for name in self._scan_key():
                inner = (*inner, name)
                self.lines.setdefault(inner, line)
            self._expect("=")
            self._skip(_BLANK)
            self._scan_value(inner, depth)
            self._skip(_BLANK_LINES)
            if not self._text.startswith(",", self._at):
                break
            self._at += 1
            self._skip(_BLANK_LINES)
        self._expect("}")

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        """Move behind the pattern, which can be empty; whether text is left."""
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at < len(self._text)

    def _expect(self, sign: str) -> None:
        self._skip(_BLANK)
        if not self._text.startswith(sign, self._at):
            raise _NotToml
        self._at += len(sign)

    def _line(self) -> int:
        return bisect_right(self._starts, self._at) + 1


def _unescape(match: re.Match[str]) -> str:
    kind = match[1]
    if kind[0] in "uU":
        try:
            return chr(int(kind[1:] or "x", 16))
        except (ValueError, OverflowError):
            raise _NotToml from None
    if kind not in _ESCAPES:
        raise _NotToml
    return _ESCAPES[kind]
