"""The screen of `tunnel top` as a value: sizes, tables, keys and rates."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.overview_documents import NOW, later_document, sample_document
from tunnel.commands.overview.keys import ScreenKey, ScreenView, TableView, parse_keys, press
from tunnel.commands.overview.live_tables import Feed
from tunnel.commands.overview.quantities import (
    describe_age,
    describe_byte_rate,
    describe_bytes,
    describe_moment,
    describe_rate,
    describe_seconds,
)
from tunnel.commands.overview.rates import NO_RATE, NO_RATES, LagRate, TrafficRate, measure_rates
from tunnel.commands.overview.screen import FIRST_VIEW, KEYS_LINE, Frame, draw_screen, share_room
from tunnel.commands.overview.styled import Line, LineStyle, encode_line, is_dumb, wants_colour
from tunnel.commands.overview.table import Column, cut, cut_end, lay_out_table
from tunnel.commands.overview.terminal import encode_changes
from tunnel.status.overview_reading import parse_overview

PAGE = Path(__file__).parents[2] / "docs/top.md"
PLACE = "http://127.0.0.1:6060"


def feed_of(document: dict[str, Any], before: dict[str, Any] | None = None, **more: Any) -> Feed:
    overview = parse_overview(document)
    rates = measure_rates(parse_overview(before), overview) if before else NO_RATES
    return Feed(PLACE, overview, rates, **more)


def texts(frame: Frame) -> list[str]:
    return [line.text for line in frame.lines]


def row_of(frame: Frame, start: str) -> list[str]:
    """The words of the first line that begins so."""
    return next(text for text in texts(frame) if text.startswith(start)).split()


def many(count: int) -> dict[str, Any]:
    """A document with this many listeners, peers and refusals."""
    document = sample_document(more_peers=7)
    document["listeners"] = [{**document["listeners"][0], "name": f"l{n:03}", "open": n} for n in range(count)]
    document["peers"] = [
        {**document["peers"][0], "peer": f"spiffe://example.org/p{n:03}", "open": count - n} for n in range(count)
    ]
    document["refusals"] = [
        {**document["refusals"][0], "peer": f"spiffe://example.org/r{n:03}", "time": NOW - n} for n in range(count)
    ]
    return document


LIVE = feed_of(later_document(), sample_document())


# -- content


def test_the_screen_shows_the_state_and_the_rates() -> None:
    frame = draw_screen(LIVE, FIRST_VIEW, 120, 40)
    lines = texts(frame)
    assert lines[0] == f"tunnel top {PLACE}: cache1, tunnel 0.1.0, pid 4711, up 3 hours"
    assert lines[1] == "ready: listening"
    assert lines[2].startswith(
        "open 6, conn/s 2.5, refused/s 1.0, failed/s 0, lag 0.6 ms (<=1 ms), forwarded 2.0 kB/s, returned 1.0"
    )
    assert lines[3].startswith("spiffe://example.org/redis expires in 53 minutes, rotated 6 minutes ago, bundle of example.org")
    assert row_of(frame, "redis")[:6] == ["redis", "ready", "5/1000", "2.5", "1.0", "0"]
    assert "    target db2.example.org:8443: connection refused" in lines
    assert row_of(frame, "spiffe://example.org/web")[1:6] == ["redis", "4", "1.5", "1.5", "kB/s"]
    assert "    to admit this peer: --allow-id spiffe://example.org/cron" in lines
    assert "    the client does not use TLS" in lines
    assert lines[-1] == KEYS_LINE


def test_a_peer_without_an_ended_connection_was_not_seen_long_ago() -> None:
    document = sample_document()
    for peer in document["peers"]:
        peer["last_seen"] = 0.0
    document["peers"][1]["open"] = 0
    frame = draw_screen(feed_of(document), FIRST_VIEW, 150, 40)
    assert row_of(frame, "spiffe://example.org/web")[-1] == "now"
    assert row_of(frame, "spiffe://example.org/billing")[-1] == "-"


def test_the_page_shows_the_screen_of_the_program() -> None:
    shown = re.search(r"^```text\n(tunnel top .*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert shown is not None
    assert shown.group(1).splitlines() == texts(draw_screen(LIVE, FIRST_VIEW, 110, 24))


def test_the_page_has_every_key() -> None:
    table = PAGE.read_text().partition("| key | action |")[2].partition("\n\n")[0]
    assert all(key.value in table for key in ScreenKey)


def test_the_first_screen_has_no_rates() -> None:
    frame = draw_screen(feed_of(sample_document()), FIRST_VIEW, 120, 40)
    assert "conn/s -, refused/s -, failed/s -, lag -, forwarded -, returned -" in texts(frame)[2]
    assert row_of(frame, "redis")[3:8] == ["-"] * 5


def test_what_is_wrong_is_in_the_second_line() -> None:
    document = sample_document(ready=False, problem="redis: identity has expired", dropped_log_lines=5)
    document["identities"][0]["problem"] = "the stream is down"
    document["listeners"][0].update(ready=False, problem="identity has expired")
    frame = draw_screen(feed_of(document), FIRST_VIEW, 120, 40)
    assert texts(frame)[1] == "not ready: redis: identity has expired; identity: the stream is down; 5 log lines dropped"
    assert frame.lines[1].style is LineStyle.BAD
    assert "    identity has expired" in texts(frame)
    assert any(line.text.startswith("redis ") and line.style is LineStyle.BAD for line in frame.lines)


def test_a_proxy_without_identity_and_traffic_has_a_screen() -> None:
    bare = draw_screen(feed_of({"listeners": []}), FIRST_VIEW, 80, 24)
    assert texts(bare)[3] == "no identity"
    assert [text for text in texts(bare) if text.endswith(": none")] == [
        "> Listeners: none",
        "  Peers: none",
        "  Recent refusals: none",
    ]


def test_several_identities_are_counted() -> None:
    document = sample_document(trust_domains=[])
    document["identities"].append({"subject": "spiffe://example.org/late", "not_after": NOW + 9000, "rotations": []})
    line = texts(draw_screen(feed_of(document), FIRST_VIEW, 200, 24))[3]
    assert line == "spiffe://example.org/redis expires in 53 minutes, rotated 6 minutes ago, first of 2 identities"


def test_a_silence_is_shown_with_the_time_of_the_last_answer() -> None:
    feed = feed_of(sample_document(), fault="connection refused", answered="10:40:00", silence=41.0)
    frame = draw_screen(feed, FIRST_VIEW, 120, 30)
    assert texts(frame)[0] == f"NO ANSWER since 10:40:00 (41 seconds): connection refused; {PLACE}"
    assert row_of(frame, "redis")[1:3] == ["ready", "3/1000"], "the last numbers stay"


def test_a_pause_is_shown() -> None:
    view = press(FIRST_VIEW, ScreenKey.PAUSE, 1)
    assert texts(draw_screen(LIVE, view, 80, 24))[0].startswith("PAUSED")
    assert not press(view, ScreenKey.PAUSE, 1).is_paused


def test_the_help_shows_every_key_and_any_key_returns() -> None:
    view = press(FIRST_VIEW, ScreenKey.HELP, 1)
    shown = "\n".join(texts(draw_screen(LIVE, view, 80, 24)))
    assert all(key.value in shown for key in ScreenKey)
    assert press(view, ScreenKey.DOWN, 1) == FIRST_VIEW
    assert press(view, ScreenKey.QUIT, 1) == view


# -- sizes


SIZES = [(1, 1), (2, 1), (1, 50), (3, 3), (10, 5), (20, 8), (40, 12), (60, 20), (80, 24), (132, 43), (300, 100), (300, 1)]


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("count", [0, 1, 3, 200])
def test_the_screen_fits_every_size(width: int, height: int, count: int) -> None:
    for active in range(3):
        for view in (ScreenView(FIRST_VIEW.tables, active), ScreenView(FIRST_VIEW.tables, active, has_help=True)):
            lines = texts(draw_screen(feed_of(many(count)), view, width, height))
            assert len(lines) <= height
            assert max(map(len, lines)) <= width


@given(st.integers(1, 300), st.integers(1, 100), st.text(max_size=200), st.integers(0, 1 << 62), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_no_document_breaks_the_screen(width: int, height: int, text: str, number: int, order: int) -> None:
    def replace(values: dict[str, Any]) -> dict[str, Any]:
        kinds = {str: text, int: number, float: float(number)}
        return {key: kinds.get(type(value), value) for key, value in values.items()}

    document = json.loads(json.dumps(sample_document()), object_hook=replace)
    tables = tuple(TableView(number, order, bool(order % 2)) for _ in FIRST_VIEW.tables)
    frame = draw_screen(feed_of(document, sample_document(), fault=""), ScreenView(tables, order % 3), width, height)
    assert len(frame.lines) <= height
    for line in texts(frame):
        assert len(line) <= width
        assert line.isascii()
        assert line.isprintable()


@given(st.integers(-5, 120), st.lists(st.integers(1, 300), min_size=1, max_size=4), st.data())
def test_tables_share_the_room(room: int, wanted: list[int], data: st.DataObject) -> None:
    active = data.draw(st.integers(0, len(wanted) - 1))
    sizes = share_room(room, wanted, active)
    assert sum(sizes) <= max(room, 0)
    assert all(0 <= size <= want for size, want in zip(sizes, wanted, strict=True))
    assert sizes[active] >= min(wanted[active], max(room, 0) // 2)
    if room >= sum(wanted):
        assert sizes == wanted


# -- scrolling and sorting


def test_a_table_scrolls_by_lines_and_pages_and_stops_at_its_ends() -> None:
    feed, view = feed_of(many(100)), FIRST_VIEW

    def shown_after(key: ScreenKey) -> str:
        nonlocal view
        page = draw_screen(feed, view, 100, 40).page
        frame = draw_screen(feed, press(view, key, page), 100, 40)
        view = frame.view
        assert frame.page == page > 10
        return texts(frame)[6].split()[0]

    assert shown_after(ScreenKey.UP) == "l000"
    assert shown_after(ScreenKey.DOWN) == "l001"
    page = draw_screen(feed, view, 100, 40).page
    assert shown_after(ScreenKey.PAGE_DOWN) == f"l{page + 1:03}"
    assert shown_after(ScreenKey.PAGE_UP) == "l001"
    assert shown_after(ScreenKey.LAST) == f"l{100 - page:03}"
    assert shown_after(ScreenKey.DOWN) == f"l{100 - page:03}"
    assert shown_after(ScreenKey.UP) == f"l{99 - page:03}", "keys behind the end are not counted"
    assert shown_after(ScreenKey.FIRST) == "l000"


def test_the_title_says_which_part_is_shown() -> None:
    frame = draw_screen(feed_of(many(100)), FIRST_VIEW, 100, 40)
    assert texts(frame)[4] == f"> Listeners: 100, lines 1-{frame.page} of 100"
    assert any(text.startswith("  Peers: 100 and 7 more, lines 1-") for text in texts(frame))


def test_tab_selects_the_table_that_gets_most_room() -> None:
    view = FIRST_VIEW
    for title in ("Peers", "Recent refusals", "Listeners", "Peers"):
        view = press(view, ScreenKey.NEXT, 1)
        frame = draw_screen(feed_of(many(100)), view, 100, 40)
        assert any(text.startswith(f"> {title}") for text in texts(frame))
        assert frame.page > 10
    assert press(view, ScreenKey.PREVIOUS, 1).active == 0


def test_tables_are_sorted_by_the_marked_column() -> None:
    view, feed = FIRST_VIEW, feed_of(many(100))
    assert "NAME*" in texts(draw_screen(feed, view, 100, 40))[5]
    view = press(view, ScreenKey.SORT, 1)
    frame = draw_screen(feed, view, 100, 40)
    assert "OPEN*" in texts(frame)[5]
    assert texts(frame)[6].split()[0] == "l099"
    frame = draw_screen(feed, press(view, ScreenKey.REVERSE, 1), 100, 40)
    assert texts(frame)[6].split()[0] == "l000"
    for _ in range(6):
        view = press(view, ScreenKey.SORT, 1)
    assert "NAME*" in texts(draw_screen(feed, view, 100, 40))[5]


def test_every_order_is_that_of_a_column() -> None:
    for index in range(3):
        titles = set()
        for order in range(7):
            tables = tuple(TableView(order=order) for _ in FIRST_VIEW.tables)
            lines = texts(draw_screen(feed_of(many(2)), ScreenView(tables, index), 300, 60))
            (header,) = (lines[number + 1] for number, text in enumerate(lines) if text.startswith("> "))
            titles |= {word for word in header.split() if word.endswith("*")}
        assert len(titles) == (7, 6, 4)[index]


def test_the_fastest_listener_is_first_and_an_unknown_rate_is_last() -> None:
    view = ScreenView((TableView(order=2), *FIRST_VIEW.tables[1:]))
    later = later_document()
    later["listeners"].append({"name": "added"})
    names = [text.split()[0] for text in texts(draw_screen(feed_of(later, sample_document()), view, 150, 40))[6:10]]
    assert names == ["redis", "db", "target", "added"]


# -- keys


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", [ScreenKey.QUIT]),
        (b"\x03", [ScreenKey.QUIT]),
        (b"\x1b[A\x1bOB", [ScreenKey.UP, ScreenKey.DOWN]),
        (b"\x1b[5~\x1b[6~", [ScreenKey.PAGE_UP, ScreenKey.PAGE_DOWN]),
        (b"\x1b[H\x1b[4~", [ScreenKey.FIRST, ScreenKey.LAST]),
        (b"\t\x1b[Z", [ScreenKey.NEXT, ScreenKey.PREVIOUS]),
        (b"sr p?", [ScreenKey.SORT, ScreenKey.REVERSE, ScreenKey.PAUSE, ScreenKey.PAUSE, ScreenKey.HELP]),
        (b"\x1bq", [ScreenKey.OTHER, ScreenKey.QUIT]),
        (b"\x1b[1;5A\x1b[200~x\x1b[?1;2c\xff\x00", [ScreenKey.OTHER] * 6),
        (b"\x0c", [ScreenKey.REDRAW]),
    ],
)
def test_keys_are_found_at_every_split(data: bytes, keys: list[ScreenKey]) -> None:
    for split in range(len(data) + 1):
        first, rest = parse_keys(data[:split])
        second, _ = parse_keys(rest + data[split:])
        assert [*first, *second] == keys


@given(st.binary(max_size=2000))
def test_any_input_leaves_little_behind(data: bytes) -> None:
    assert len(parse_keys(data)[1]) <= 16


def test_an_endless_sequence_is_dropped() -> None:
    assert parse_keys(b"\x1b[" + b"1;" * 500) == ((), b"")


# -- rates


def test_rates_are_per_second_of_the_proxys_clock() -> None:
    rates = LIVE.rates
    assert rates.listeners["redis"] == TrafficRate(2.5, 1.0, 0.0, 2000.0, 1_000_000.0)
    assert rates.peers["redis", "spiffe://example.org/web"] == TrafficRate(1.5, forwarded=1500.0, returned=0.0)
    assert rates.total.connections == 2.5
    assert rates.lag == LagRate(pytest.approx(0.0006, rel=1e-6), 0.001)


@pytest.mark.parametrize("change", [{"pid": 4712}, {"started": NOW}, {"time": NOW}, {"time": NOW - 5}])
def test_two_processes_and_a_clock_that_goes_back_have_no_rates(change: dict[str, Any]) -> None:
    assert measure_rates(parse_overview(sample_document()), parse_overview({**later_document(), **change})) == NO_RATES
    assert measure_rates(None, parse_overview(sample_document())) == NO_RATES


def test_a_count_that_has_begun_again_has_no_rate() -> None:
    later = later_document()
    later["listeners"][0]["accepted"] = 1
    later["listeners"].append({"name": "added", "accepted": 5})
    later["peers"].append({"listener": "redis", "peer": "x", "connections": 5})
    rates = measure_rates(parse_overview(sample_document()), parse_overview(later))
    assert rates.listeners["redis"].connections is None
    assert rates.listeners["redis"].refusals == 1.0
    assert rates.listeners["added"] == rates.peers["redis", "x"] == NO_RATE
    assert rates.total.connections == 0.0, "the sum of what is known"


def test_the_lag_is_that_of_the_interval() -> None:
    def lag(**now: Any) -> LagRate:
        before = sample_document(loop_lag={"count": 10, "seconds": 0.1, "buckets": [[0.001, 4], [0.1, 9]]})
        return measure_rates(parse_overview(before), parse_overview({**later_document(), "loop_lag": now})).lag

    assert lag(count=10, seconds=0.1, buckets=[[0.001, 4], [0.1, 9]]) == LagRate()
    assert lag(count=12, seconds=0.1, buckets=[[0.001, 6], [0.1, 11]]).most == 0.001
    assert lag(count=12, seconds=2.1, buckets=[[0.001, 5], [0.1, 10]]) == LagRate(1.0, 0.1, True)
    assert lag(count=1, seconds=0.01, buckets=[]) == LagRate()


def test_quantities_are_short() -> None:
    assert [describe_bytes(n) for n in (0, 999, 1000, 9_950, 12_345_678, 10**18)] == [
        "0 B", "999 B", "1.0 kB", "9.9 kB", "12 MB", "1.0 EB",
    ]  # fmt: skip
    assert [describe_rate(n) for n in (None, 0.0, 0.25, 9.9, 1234.0)] == ["-", "0", "0.2", "9.9", "1.2 k"]
    assert [describe_byte_rate(n) for n in (None, 0.0, 2e6)] == ["-", "0 B/s", "2.0 MB/s"]
    assert [describe_seconds(n) for n in (None, 0.0, 0.00061, 1.5)] == ["-", "0 ms", "0.61 ms", "1.5 s"]
    assert [describe_moment(n, 1000.0) for n in (None, 4600.0, 880.0)] == ["-", "in 60 minutes", "2 minutes ago"]
    assert [describe_age(n, 1000.0) for n in (None, 1001.0, 880.0)] == ["-", "0 seconds ago", "2 minutes ago"]


# -- the terminal

LINES = st.lists(st.builds(Line, st.text("ab ", max_size=20), st.sampled_from(LineStyle)), max_size=8)


@given(LINES, LINES, st.booleans())
def test_changes_turn_one_screen_into_the_other(before: list[Line], now: list[Line], has_colour: bool) -> None:
    screen = pyte.Screen(20, 8)
    stream = pyte.Stream(screen)
    screen.reset_mode(7, private=True)  # no autowrap
    stream.feed(encode_changes([], before, has_colour=has_colour))
    stream.feed(encode_changes(before, now, has_colour=has_colour))
    assert [line.rstrip() for line in screen.display] == [line.text.rstrip() for line in now] + [""] * (8 - len(now))


def test_an_equal_line_is_not_written_again() -> None:
    lines = [Line("a"), Line("b")]
    assert encode_changes(lines, lines, has_colour=True) == ""
    assert encode_changes(lines, [Line("a"), Line("c")], has_colour=True) == "\x1b[2;1H\x1b[Kc"


# -- tables and styles


def test_a_table_is_cut_to_its_width() -> None:
    columns = (Column("NAME", 6), Column("OPEN", is_number=True, rank=1), Column("WHERE", 6, rank=2))
    rows = [("spiffe://a.test/web", "12", "tcp:10.0.0.1:8443")]
    assert lay_out_table(columns, rows) == (
        "NAME                 OPEN  WHERE",
        ["spiffe://a.test/web    12  tcp:10.0.0.1:8443"],
    )
    assert lay_out_table(columns, rows, 30) == ("NAME         OPEN  WHERE", ["...test/web    12  ...0.1:8443"])
    assert lay_out_table(columns, rows, 12) == ("NAME    OPEN", ["../web    12"])
    assert lay_out_table(columns, rows, 3) == ("N..", ["..b"])
    assert lay_out_table(columns[1:2], [("123456",)], 3) == (" ..", ["1.."]), "a part of a number is marked"
    assert lay_out_table(columns, [], 80) == ("NAME  OPEN  WHERE", [])


def test_texts_are_cut_at_either_end() -> None:
    assert [cut("abcdef", width) for width in (6, 5, 3, 2, 0)] == ["abcdef", "..def", "..f", "ab", ""]
    assert [cut_end("abcdef", width) for width in (6, 5, 3, 2, 0, -1)] == ["abcdef", "abc..", "a..", "ab", "", ""]


def test_styles_are_escape_sequences_only_where_they_are_wanted() -> None:
    assert encode_line(Line("x", LineStyle.BAD)) == "\x1b[1;31mx\x1b[0m"
    assert encode_line(Line("x", LineStyle.BAD), has_colour=False) == "\x1b[1mx\x1b[0m"
    assert encode_line(Line("x", LineStyle.GOOD), has_colour=False) == encode_line(Line("x")) == "x"
    assert encode_line(Line("", LineStyle.BAD)) == ""
    assert wants_colour({"TERM": "xterm"})
    for environ in ({"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}, {}):
        assert not wants_colour(environ)
    assert is_dumb({})
