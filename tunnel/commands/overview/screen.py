"""The screen of `tunnel top`: the lines for an overview, a view and a size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunnel.commands.overview.keys import ScreenView, TableView
from tunnel.commands.overview.live_tables import PEERS, TABLES, Feed, LiveRow, LiveTable
from tunnel.commands.overview.quantities import (
    UNKNOWN,
    describe_age,
    describe_byte_rate,
    describe_moment,
    describe_rate,
    describe_seconds,
)
from tunnel.commands.overview.rates import LagRate
from tunnel.commands.overview.report import describe_readiness, last_rotation
from tunnel.commands.overview.styled import Line, LineStyle
from tunnel.commands.overview.table import cut_end, lay_out_table
from tunnel.lazy_dataclass import dataclass, replace
from tunnel.status.overview_reading import ProxySummary
from tunnel.time_format import describe_span

KEYS_LINE = "q quit  Tab table  Up/Down scroll  s sort  r reverse  p pause  ? help"
HELP = (
    "Keys",
    "",
    "  q, Ctrl-C            quit",
    "  Tab, Shift-Tab       choose a table: the other keys are about this one",
    "  Up, Down, k, j       scroll by one line",
    "  PgUp, PgDn           scroll by one page",
    "  Home, End            first line, last line",
    "  s                    sort by the next column, which has a * in its title",
    "  r                    reverse the order",
    "  p, Space             pause, and continue",
    "  Ctrl-L               draw the screen again",
    "  ?, h                 this help; any key returns",
)
_HEAD = 4  # lines above the tables
_FRAME = 2  # title and header of a table


@dataclass(frozen=True, slots=True)
class Frame:
    """The lines of one screen, the view with offsets that exist, and how many lines the active table shows."""

    lines: tuple[Line, ...]
    view: ScreenView
    page: int


def draw_screen(feed: Feed, view: ScreenView, width: int, height: int) -> Frame:
    """The screen: at most `height` lines of at most `width` characters."""
    if view.has_help:
        return Frame(tuple(Line(cut_end(text, width)) for text in HELP[:height]), view, 1)
    head = _head(feed, view)[: max(min(_HEAD, height - _FRAME - 1), 1)]
    foot = [Line(KEYS_LINE, LineStyle.DIM)] if height >= _HEAD + _FRAME + 2 else []
    tables, view, page = _draw_tables(feed, view, width, height - len(head) - len(foot))
    filler = [Line("")] * (height - len(head) - len(tables) - len(foot))
    lines = [*head, *tables, *filler, *foot][: max(height, 0)]
    return Frame(tuple(replace(line, text=cut_end(line.text, width)) for line in lines), view, page)


# -- above the tables


def _head(feed: Feed, view: ScreenView) -> list[Line]:
    overview = feed.overview
    up = describe_span(max(overview.time - overview.started, 0.0))
    title = f"tunnel top {feed.place}: {overview.hostname}, tunnel {overview.version}, pid {overview.pid}, up {up}"
    state = describe_readiness(overview)
    return [
        _message(feed, view) or Line(title, LineStyle.TITLE),
        Line("; ".join((state.text, *_warnings(overview))), state.style),
        Line(_totals(feed)),
        Line(_identities(overview)),
    ]


def _message(feed: Feed, view: ScreenView) -> Line | None:
    """What is shown instead of the title: that the numbers are old."""
    if feed.fault:
        silence = f"since {feed.answered} ({describe_span(feed.silence)})"
        return Line(f"NO ANSWER {silence}: {feed.fault}; {feed.place}", LineStyle.BAD)
    return Line(f"PAUSED: {feed.place}, p continues", LineStyle.WARNING) if view.is_paused else None


def _warnings(overview: ProxySummary) -> Iterator[str]:
    """The problems of the identities, and the number of dropped log lines."""
    yield from (f"identity{f' {one.name}' if one.name else ''}: {one.problem}" for one in overview.identities if one.problem)
    if overview.dropped_log_lines:
        yield f"{overview.dropped_log_lines} log lines dropped"


def _totals(feed: Feed) -> str:
    total, opened = feed.rates.total, sum(one.open for one in feed.overview.listeners)
    return ", ".join(
        (
            f"open {opened}",
            f"conn/s {describe_rate(total.connections)}",
            f"refused/s {describe_rate(total.refusals)}",
            f"failed/s {describe_rate(total.failures)}",
            f"lag {_describe_lag(feed.rates.lag)}",
            f"forwarded {describe_byte_rate(total.forwarded)}",
            f"returned {describe_byte_rate(total.returned)}",
        )
    )


def _describe_lag(lag: LagRate) -> str:
    """The mean lag of the event loop, and a bound of the longest one."""
    if lag.mean is None:
        return UNKNOWN
    return f"{describe_seconds(lag.mean)} ({'>' if lag.is_above else '<='}{describe_seconds(lag.most)})"


def _identities(overview: ProxySummary) -> str:
    """The identity that expires first, and the first expiry of a trust domain."""
    dated = [(one.not_after, one) for one in overview.identities if one.not_after is not None]
    if not dated:
        return "no identity"
    expiry, first = min(dated, key=lambda pair: pair[0])
    rotated = last_rotation(first)
    parts = [f"{first.subject or 'certificate'} expires {describe_moment(expiry, overview.time)}"]
    parts += [f"rotated {describe_age(rotated, overview.time)}"] if rotated is not None else []
    parts += [f"first of {len(dated)} identities"] if len(dated) > 1 else []
    ends = [(one.expires, one.name) for one in overview.trust_domains if one.expires is not None]
    parts += [f"bundle of {min(ends)[1]} expires {describe_moment(min(ends)[0], overview.time)}"] if ends else []
    return ", ".join(parts)


# -- the tables


FIRST_VIEW = ScreenView(tuple(TableView() for _ in TABLES))


def _draw_tables(feed: Feed, view: ScreenView, width: int, room: int) -> tuple[list[Line], ScreenView, int]:
    """The lines of the tables in `room` lines, the view with offsets that exist, and the lines that the active table shows."""
    found = [table.rows(feed) for table in TABLES]
    bodies = [_lay_out(*parts, width) for parts in zip(TABLES, found, view.tables, strict=True)]
    sizes = share_room(room, [len(body) + _FRAME if body else 1 for _, body in bodies], view.active)
    lines: list[Line] = []
    views: list[TableView] = []
    for index, (table, (header, body), size) in enumerate(zip(TABLES, bodies, sizes, strict=True)):
        shown = max(size - _FRAME, 0)
        offset = min(view.tables[index].offset, max(len(body) - shown, 0))
        views.append(replace(view.tables[index], offset=offset, order=view.tables[index].order % len(table.orders)))
        more = feed.overview.more_peers if table is PEERS else 0
        title = f"{'>' if index == view.active else ' '} {table.title}: {len(found[index]) or 'none'}"
        title += (f" and {more} more" if more else "") + _describe_part(offset, shown, len(body))
        lines += [Line(title, LineStyle.TITLE), header, *body[offset : offset + shown]][:size]
    return lines, replace(view, tables=tuple(views)), max(sizes[view.active] - _FRAME, 1)


def _describe_part(offset: int, shown: int, lines: int) -> str:
    return f", lines {offset + 1}-{offset + shown} of {lines}" if 0 < shown < lines else ""


def _lay_out(table: LiveTable, rows: Sequence[LiveRow], view: TableView, width: int) -> tuple[Line, list[Line]]:
    """The header and the sorted rows with their notes."""
    order = view.order % len(table.orders)
    rows = sorted(rows, key=lambda row: row.keys[order], reverse=view.is_reversed)
    titles = [replace(one, title=f"{one.title}*") if one.title == table.orders[order] else one for one in table.columns]
    header, texts = lay_out_table(titles, [row.cells for row in rows], width)
    lines: list[Line] = []
    for row, text in zip(rows, texts, strict=True):
        lines += [Line(text, row.style), *row.notes]
    return Line(header, LineStyle.HEADER), lines


def share_room(room: int, wanted: Sequence[int], active: int) -> list[int]:
    """The lines of each table: if there is not enough room, the active one gets what the others leave, at least half."""
    room = max(room, 0)
    rest = room // 2 // max(len(wanted) - 1, 1)
    sizes = [0 if index == active else _useful(rest, want) for index, want in enumerate(wanted)]
    sizes[active] = min(wanted[active], room - sum(sizes))
    for index, want in enumerate(wanted):  # what the active one does not need
        if index != active:
            sizes[index] = _useful(sizes[index] + room - sum(sizes), want)
    return sizes


def _useful(room: int, wanted: int) -> int:
    """The lines of a table in this room; none if it would show no row."""
    return min(room, wanted) if room >= min(wanted, _FRAME + 1) else 0
