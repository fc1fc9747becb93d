"""Lines of text with a style, as plain text or with the escape sequences of a terminal (ECMA-48, 8.3.117)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from tunnel.lazy_dataclass import dataclass


class LineStyle(Enum):
    """What a line is."""

    PLAIN = "plain"
    TITLE = "title"
    HEADER = "header"
    GOOD = "good"
    BAD = "bad"
    WARNING = "warning"
    DIM = "dim"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of printable ASCII."""

    text: str
    style: LineStyle = LineStyle.PLAIN


_PLAIN: Mapping[LineStyle, str] = {LineStyle.TITLE: "1", LineStyle.HEADER: "4", LineStyle.BAD: "1"}  # bold, underlined
_COLOURED: Mapping[LineStyle, str] = {
    **_PLAIN,
    LineStyle.GOOD: "32",
    LineStyle.BAD: "1;31",
    LineStyle.WARNING: "33",
    LineStyle.DIM: "2",
}


def encode_line(line: Line, *, has_colour: bool = True) -> str:
    """The line for a terminal; without colour, only bold and underlined are used."""
    code = (_COLOURED if has_colour else _PLAIN).get(line.style)
    return f"\x1b[{code}m{line.text}\x1b[0m" if code and line.text else line.text


def wants_colour(environ: Mapping[str, str]) -> bool:
    """Whether a terminal gets colours (https://no-color.org)."""
    return not environ.get("NO_COLOR") and not is_dumb(environ)


def is_dumb(environ: Mapping[str, str]) -> bool:
    """Whether the terminal understands no escape sequences."""
    return environ.get("TERM", "dumb") == "dumb"
