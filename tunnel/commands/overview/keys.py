"""Keys of a terminal: bytes to keys, and what each key changes in the view."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import assert_never

from tunnel.lazy_dataclass import dataclass, replace


class ScreenKey(Enum):
    """A key that has a meaning, or another one."""

    QUIT = "q"
    HELP = "?"
    PAUSE = "p"
    SORT = "s"
    REVERSE = "r"
    NEXT = "Tab"
    PREVIOUS = "Shift-Tab"
    UP = "Up"
    DOWN = "Down"
    PAGE_UP = "PgUp"
    PAGE_DOWN = "PgDn"
    FIRST = "Home"
    LAST = "End"
    REDRAW = "Ctrl-L"
    OTHER = "any key"  # without a meaning of its own


_FAR = 1 << 30  # lines: below the end of every table
_MAX_SEQUENCE = 16  # bytes of an escape sequence that is not complete yet
# An escape sequence (ECMA-48, 5.4), the one that VT100 cursor keys send in application mode, or one byte.
_INPUT = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO[@-~]|[\x00-\xff]", re.DOTALL)
_INCOMPLETE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")
_KEYS: Mapping[bytes, ScreenKey] = {
    **{b"q": ScreenKey.QUIT, b"Q": ScreenKey.QUIT, b"\x03": ScreenKey.QUIT, b"\x04": ScreenKey.QUIT},
    **{
        b"?": ScreenKey.HELP,
        b"h": ScreenKey.HELP,
        b"p": ScreenKey.PAUSE,
        b" ": ScreenKey.PAUSE,
        b"s": ScreenKey.SORT,
        b"r": ScreenKey.REVERSE,
    },
    **{b"\t": ScreenKey.NEXT, b"\x1b[Z": ScreenKey.PREVIOUS, b"\x0c": ScreenKey.REDRAW},
    **{
        b"\x1b[A": ScreenKey.UP,
        b"\x1bOA": ScreenKey.UP,
        b"k": ScreenKey.UP,
        b"\x1b[B": ScreenKey.DOWN,
        b"\x1bOB": ScreenKey.DOWN,
        b"j": ScreenKey.DOWN,
    },
    **{b"\x1b[5~": ScreenKey.PAGE_UP, b"\x1b[6~": ScreenKey.PAGE_DOWN},
    **dict.fromkeys((b"\x1b[H", b"\x1bOH", b"\x1b[1~", b"\x1b[7~"), ScreenKey.FIRST),
    **dict.fromkeys((b"\x1b[F", b"\x1bOF", b"\x1b[4~", b"\x1b[8~"), ScreenKey.LAST),
}


@dataclass(frozen=True, slots=True)
class TableView:
    """How one table is shown."""

    offset: int = 0  # of the first line that is shown
    order: int = 0  # of the orders of the table
    is_reversed: bool = False


@dataclass(frozen=True, slots=True)
class ScreenView:
    """What the user has chosen; `active` is the table that the keys are about."""

    tables: tuple[TableView, ...]
    active: int = 0
    is_paused: bool = False
    has_help: bool = False

    def with_table(self, table: TableView) -> ScreenView:
        """A view with another active table."""
        return replace(self, tables=(*self.tables[: self.active], table, *self.tables[self.active + 1 :]))


def parse_keys(data: bytes) -> tuple[tuple[ScreenKey, ...], bytes]:
    """The keys in the input, and the beginning of an escape sequence at its end."""
    incomplete = _INCOMPLETE.search(data)
    rest = data[incomplete.start() :] if incomplete else b""
    if len(rest) > _MAX_SEQUENCE:
        rest = b""
    complete = data[: incomplete.start() if incomplete else len(data)]
    return tuple(_KEYS.get(part, ScreenKey.OTHER) for part in _INPUT.findall(complete)), rest


def press(view: ScreenView, key: ScreenKey, page: int) -> ScreenView:
    """The view after a key; `page` is the number of lines that the active table shows."""
    if view.has_help and key is not ScreenKey.QUIT:
        return replace(view, has_help=False)
    table = view.tables[view.active]
    match key:
        case ScreenKey.HELP:
            return replace(view, has_help=True)
        case ScreenKey.PAUSE:
            return replace(view, is_paused=not view.is_paused)
        case ScreenKey.NEXT | ScreenKey.PREVIOUS:
            step = 1 if key is ScreenKey.NEXT else -1
            return replace(view, active=(view.active + step) % len(view.tables))
        case ScreenKey.SORT:
            return view.with_table(TableView(order=table.order + 1))
        case ScreenKey.REVERSE:
            return view.with_table(TableView(order=table.order, is_reversed=not table.is_reversed))
        case ScreenKey.UP | ScreenKey.DOWN | ScreenKey.PAGE_UP | ScreenKey.PAGE_DOWN | ScreenKey.FIRST | ScreenKey.LAST:
            return view.with_table(replace(table, offset=_scroll(table.offset, key, page)))
        case ScreenKey.QUIT | ScreenKey.REDRAW | ScreenKey.OTHER:  # they change nothing of the view
            return view
        case _:
            assert_never(key)


def _scroll(offset: int, key: ScreenKey, page: int) -> int:
    steps = {
        ScreenKey.UP: -1,
        ScreenKey.DOWN: 1,
        ScreenKey.PAGE_UP: -page,
        ScreenKey.PAGE_DOWN: page,
        ScreenKey.FIRST: -_FAR,
        ScreenKey.LAST: _FAR,
    }
    return min(max(offset + steps[key], 0), _FAR)
