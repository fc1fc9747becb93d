"""Tables of text: widths of columns, and what is left out if the table is wider than the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from tunnel.lazy_dataclass import dataclass

_GAP = 2  # blanks between two columns
_MARK = ".."  # where a text was cut


@dataclass(frozen=True, slots=True)
class Column:
    """One column; if there is no room, columns are first cut to `least` characters, then the highest `rank` is left out."""

    title: str
    least: int = 0  # 0: the column is never cut
    rank: int = 0
    is_number: bool = False  # at the right


def lay_out_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None = None) -> tuple[str, list[str]]:
    """The header and the rows, each of at most `width` characters; None is any width."""
    naturals = [max(map(len, (column.title, *(row[index] for row in rows)))) for index, column in enumerate(columns)]
    if width is None:
        kept, widths = list(range(len(columns))), naturals
    else:
        kept = _kept(columns, naturals, width)
        widths = _shrink([columns[index] for index in kept], [naturals[index] for index in kept], width)
    shown = [columns[index] for index in kept]
    header = _join(shown, [cut_end(column.title, room) for column, room in zip(shown, widths, strict=True)], widths, width)
    return header, [_join(shown, [row[index] for index in kept], widths, width) for row in rows]


def cut(text: str, width: int) -> str:
    """The end of the text in at most `width` characters: in names and addresses it tells more than the beginning."""
    if len(text) <= width:
        return text
    return _MARK + text[len(text) - width + len(_MARK) :] if width > len(_MARK) else text[: max(width, 0)]


def cut_end(text: str, width: int) -> str:
    """The beginning of the text in at most `width` characters."""
    return (
        text if len(text) <= width else f"{text[: width - len(_MARK)]}{_MARK}" if width > len(_MARK) else text[: max(width, 0)]
    )


def _kept(columns: Sequence[Column], naturals: Sequence[int], width: int) -> list[int]:
    """The indices of the columns that have room."""
    least = [min(natural, column.least or natural) for column, natural in zip(columns, naturals, strict=True)]
    kept = list(range(len(columns)))
    while len(kept) > 1 and sum(least[index] + _GAP for index in kept) - _GAP > width:
        kept.remove(max(kept, key=lambda index: (columns[index].rank, index)))
    return kept


def _shrink(columns: Sequence[Column], naturals: Sequence[int], width: int) -> list[int]:
    """The widths of the columns: the widest of those that can be cut lose first."""
    widths = [min(natural, width) if column.least else natural for column, natural in zip(columns, naturals, strict=True)]
    excess = sum(widths) + _GAP * (len(widths) - 1) - width
    while excess > 0:
        widest = max(range(len(columns)), key=lambda index: widths[index] if widths[index] > columns[index].least > 0 else 0)
        if not widths[widest] > columns[widest].least > 0:
            break
        widths[widest] -= 1
        excess -= 1
    return widths


def _join(columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int], width: int | None) -> str:
    shown = (
        cut(cell, room).rjust(room) if column.is_number else cut(cell, room).ljust(room)
        for column, cell, room in zip(columns, cells, widths, strict=True)
    )
    line = (" " * _GAP).join(shown).rstrip()
    return line if width is None else cut_end(line, width)
