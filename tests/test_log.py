"""The log: one line of escaped text per event, and categories that are suppressed."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.log import MAX_FOREIGN_TEXT, Category, JsonFormat, Log, escape, escape_detail, one_line
from tunnel.log_output import DescriptorSink

ESCAPED = [
    ("plain text, with (signs) = #1!", "plain text, with (signs) = #1!"),
    ("a\0b", r"a\x00b"),
    ("a\r\nb", r"a\x0d\x0ab"),
    ("a\tb", r"a\x09b"),
    ("\x1b[31mred", r"\x1b\x5b31mred"),
    ("\x7f\x9b", r"\x7f\x9b"),
    ("back\\slash", "back\\\\slash"),
    ("\\x0a", r"\\x0a"),
    ("a [b] c", r"a \x5bb\x5d c"),
    ("Z\u00fcrich", r"Z\xfcrich"),
    ("\u202egnp.exe", r"\u202egnp.exe"),
    ("\u2028\u2029\u0085", r"\u2028\u2029\x85"),
    ("\U0001f600", r"\u1f600"),
    ("\ud800", r"\ud800"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "shown"), ESCAPED, ids=[ascii(text) for text, _ in ESCAPED])
def test_hostile_text_is_escaped(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_a_very_long_text_is_cut_and_marked() -> None:
    assert escape("x" * MAX_FOREIGN_TEXT) == "x" * MAX_FOREIGN_TEXT
    assert escape("x" * (MAX_FOREIGN_TEXT + 1)) == "x" * MAX_FOREIGN_TEXT + "..."
    assert escape("x" * 99, limit=9) == "x" * 9 + "..."


@pytest.mark.parametrize("sign", ["\0", "\\", "[", "\u00fc", "\u202e", "\U0001f600"])
def test_a_text_is_cut_between_two_escapes(sign: str) -> None:
    shown = escape(sign)
    for front in range(8):
        cut = escape("x" * front + sign * 10**6)
        assert len(cut) <= MAX_FOREIGN_TEXT + len("...")
        assert cut.startswith("x" * front)
        assert cut[front:].removesuffix("...") == shown * ((MAX_FOREIGN_TEXT - front) // len(shown))


def test_one_line_keeps_printable_text_and_escapes_the_rest() -> None:
    assert one_line("error: [::1]:80 \\ Z\u00fcrich") == "error: [::1]:80 \\ Z\u00fcrich"
    assert one_line("a\r\nb\x1b[2J\u202e\udcff\0") == r"a\r\nb\x1b[2J\u202e\udcff\x00"


@given(st.text())
def test_escaped_text_is_printable_ascii_without_brackets(text: str) -> None:
    shown = escape(text)
    assert shown.isascii()
    assert not shown or shown.isprintable()
    assert not set("[]") & set(shown)


def test_in_a_detail_only_brackets_are_kept() -> None:
    assert escape_detail("tcp:[::1]:80: connection refused") == "tcp:[::1]:80: connection refused"
    assert escape_detail("\x1b[2J\\ \u00fc") == r"\x1b[2J\\ \xfc"
    assert len(escape_detail("\u202e" * 10**6)) <= MAX_FOREIGN_TEXT + len("...")


@given(st.text(st.characters(max_codepoint=0xFF), max_size=40), st.text(st.characters(max_codepoint=0xFF), max_size=40))
def test_different_texts_are_shown_differently(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)


def new_log(*, descriptor: int, **fields: Any) -> Log:
    return Log(sink=DescriptorSink(descriptor), **{"schedule": lambda _delay: None, **fields})


@pytest.fixture
def pipe() -> Iterator[tuple[Callable[[], str], int]]:
    """The written text, and the descriptor to write to."""
    read, write = os.pipe()
    os.set_blocking(read, False)

    def text() -> str:
        try:
            return os.read(read, 1 << 20).decode("ascii")
        except BlockingIOError:
            return ""

    yield text, write
    os.close(read)
    os.close(write)


def test_a_line_has_the_process_the_time_and_the_message(pipe: tuple[Callable[[], str], int]) -> None:
    text, descriptor = pipe
    moment = 1795309702.25
    log = new_log(clock=lambda: moment, descriptor=descriptor)
    log.write("hello")
    log.flush()
    stamp = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(moment))
    assert text() == f"[{os.getpid()}] {stamp}.250000 hello\n"


def test_the_stamp_follows_the_clock(pipe: tuple[Callable[[], str], int]) -> None:
    text, descriptor = pipe
    moments = iter([10.0, 10.5, 11.999999, 12.0, 9.0])
    log = new_log(clock=lambda: next(moments), descriptor=descriptor)
    for word in "abcde":
        log.write(word)
    log.flush()
    stamps = [re.fullmatch(r"\[\d+\] \S+ \d\d:\d\d:(\d\d\.\d{6}) (.)", line) for line in text().splitlines()]
    assert [match.groups() for match in stamps if match] == [
        ("10.000000", "a"),
        ("10.500000", "b"),
        ("11.999999", "c"),
        ("12.000000", "d"),
        ("09.000000", "e"),
    ]


def test_lines_are_written_at_the_flush_in_order_and_once(pipe: tuple[Callable[[], str], int]) -> None:
    text, descriptor = pipe
    log = new_log(descriptor=descriptor)
    log.write("one")
    log.write("two")
    assert text() == ""
    log.flush()
    assert [line.split()[-1] for line in text().splitlines()] == ["one", "two"]
    log.flush()
    assert text() == ""


@pytest.mark.parametrize(
    ("quiet", "silent"),
    [
        ((), set()),
        ((Category.CONNS,), {Category.CONNS}),
        ((Category.CONN_ERRORS,), {Category.CONN_ERRORS}),
        ((Category.HANDSHAKE_ERRORS,), {Category.HANDSHAKE_ERRORS}),
        ((Category.CONNS, Category.CONN_ERRORS), {Category.CONNS, Category.CONN_ERRORS}),
        ((Category.OTHER,), set(Category)),
    ],
)
def test_quiet_suppresses_its_categories_only(
    quiet: tuple[Category, ...], silent: set[Category], pipe: tuple[Callable[[], str], int]
) -> None:
    text, descriptor = pipe
    log = new_log(quiet=quiet, descriptor=descriptor)
    for category in Category:
        log.write(category.value, category)
        assert log.is_enabled(category) is (category not in silent)
    log.flush()
    assert {line.split()[-1] for line in text().splitlines()} == {one.value for one in Category if one not in silent}


def test_the_values_of_quiet_are_those_of_ghostunnel() -> None:
    assert {category.value for category in Category if category is not Category.INFO} == {
        "conns",
        "conn-errs",
        "handshake-errs",
        "all",
    }


def test_unescaped_text_is_still_one_line_of_ascii(pipe: tuple[Callable[[], str], int]) -> None:
    text, descriptor = pipe
    log = new_log(descriptor=descriptor)
    log.write("Z\u00fcrich \ud800 [x]\r\n\x1b[2J")
    log.flush()
    assert text().endswith(" Z\\xfcrich \\ud800 [x]\\r\\n\\x1b[2J\n")


def test_the_first_line_after_a_flush_schedules_the_next(pipe: tuple[Callable[[], str], int]) -> None:
    _, descriptor = pipe
    asked: list[str] = []
    log = new_log(descriptor=descriptor, schedule=lambda _delay: asked.append("flush"), quiet=(Category.CONNS,))
    log.write("silent", Category.CONNS)
    assert asked == []
    log.write("one")
    log.write("two")
    assert asked == ["flush"]
    log.flush()
    log.write("three")
    assert asked == ["flush"] * 2


def test_a_log_that_cannot_be_written_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    log = new_log(descriptor=write)
    log.write("lost")
    log.flush()
    os.close(write)
    log.write("lost")
    log.flush()


def test_a_log_without_a_reader_does_not_block() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    log = new_log(descriptor=write)
    for _ in range(100):
        log.write("x" * 4000)
    log.flush()
    os.close(read)
    os.close(write)


def test_a_blocked_reader_never_blocks_the_log_and_gets_all_lines_later() -> None:
    """The pipe is in blocking mode, as the program finds it."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    asked: list[float] = []
    log = new_log(descriptor=writer, schedule=asked.append)
    for number in range(100):
        log.write(f"line {number} {'x' * 200}")
        log.flush()
    assert asked[-1] > 0, "it is to be tried again later"
    seen = b""
    while seen.count(b"\n") < 100:
        seen += os.read(reader, 65536)
        log.flush()
    assert [int(line.split()[4]) for line in seen.decode().splitlines()] == list(range(100))
    os.close(reader)
    os.close(writer)


def test_a_blocked_reader_costs_bounded_memory_and_dropped_lines_are_counted() -> None:
    reader, writer = os.pipe()
    log = new_log(descriptor=writer)
    for _ in range(3000):
        log.write("x" * 1000)
        log.flush()
    seen = b""
    os.set_blocking(reader, False)
    for _ in range(3000):
        with suppress(BlockingIOError):
            seen += os.read(reader, 65536)
        log.flush()
    lines = seen.decode().splitlines()
    missing = [line for line in lines if "log reader was blocked: dropped_lines=" in line]
    assert len(missing) == 1
    assert len(lines) - 1 + int(missing[0].rpartition("=")[2]) == 3000
    assert len(seen) < 2 * 1024 * 1024
    os.close(reader)
    os.close(writer)


# -- before the event loop runs


def test_without_a_loop_each_line_is_written_at_once(pipe: tuple[Callable[[], str], int]) -> None:
    text, descriptor = pipe
    log = new_log(descriptor=descriptor, schedule=None)
    log.write("one")
    assert text().endswith(" one\n")
    log.write("two")
    assert text().endswith(" two\n")
    log.flush()
    assert text() == ""


def test_the_loop_takes_over_the_backlog(pipe: tuple[Callable[[], str], int]) -> None:
    text, descriptor = pipe
    fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 4096)
    asked: list[float] = []
    log = new_log(descriptor=descriptor, schedule=None)
    for number in range(3):
        log.write(f"{number} {'x' * 3000}")
    log.defer(asked.append)
    assert asked == [0]
    log.write("last")
    assert asked == [0], "it has been asked for"
    seen = ""
    for _ in range(4):
        seen += text()
        log.flush()
    assert [line.split()[3] for line in seen.splitlines()] == ["0", "1", "2", "last"]


def test_an_empty_backlog_schedules_nothing(pipe: tuple[Callable[[], str], int]) -> None:
    asked: list[float] = []
    log = new_log(descriptor=pipe[1], schedule=None)
    log.write("one")
    log.defer(asked.append)
    assert asked == []
    log.write("two")
    assert asked == [0]


def test_lines_dropped_before_the_loop_runs_are_counted_too() -> None:
    reader, writer = os.pipe()
    log = new_log(descriptor=writer, schedule=None)
    for _ in range(3000):
        log.write("x" * 1000)
    seen = b""
    os.set_blocking(reader, False)
    for _ in range(3000):
        with suppress(BlockingIOError):
            seen += os.read(reader, 65536)
        log.flush()
    assert "log reader was blocked: dropped_lines=" in seen.decode().splitlines()[-1]
    os.close(reader)
    os.close(writer)


# -- what a sink does


class Slow:
    """A sink that accepts a number of bytes per call, and is full at every second call."""

    lost = 0
    problem = ""
    is_failing = False

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = b""
        self.is_full = False

    def write(self, data: bytes, start: int) -> int:
        self.is_full = not self.is_full
        if self.is_full:
            return start
        end = min(start + self.size, len(data))
        self.taken += data[start:end]
        return end


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_a_sink_gets_all_data_once_and_in_order_for_any_write_size(size: int) -> None:
    sink = Slow(size)
    asked: list[float] = []
    log = Log(schedule=asked.append, sink=sink, clock=lambda: 0.0)
    for number in range(20):
        log.write(f"line {number}")
        log.flush()
    while asked:
        asked.clear()
        log.flush()
    assert [int(line.split()[-1]) for line in sink.taken.splitlines()] == list(range(20))


@pytest.mark.parametrize(
    ("category", "message", "severity"),
    [
        (Category.INFO, "listening", "info"),
        (Category.CONNS, "opening pipe: a", "info"),
        (Category.HANDSHAKE_ERRORS, "error on TLS handshake from a", "warn"),
        (Category.CONN_ERRORS, "error on dial: a", "warn"),
        (Category.OTHER, "warning: a", "warn"),
        (Category.OTHER, "error: a", "error"),
        (Category.OTHER, "error reloading TLS configuration: a", "error"),
        (Category.OTHER, "internal error: a", "error"),
    ],
)
def test_a_line_has_a_severity_as_json(category: Category, message: str, severity: str) -> None:
    line = json.loads(JsonFormat()(1.5, category, message, "listener=redis"))
    assert line == {
        "time": "1970-01-01T00:00:01.500000Z",
        "severity": severity,
        "pid": os.getpid(),
        "message": message,
        "listener": "redis",
    }
