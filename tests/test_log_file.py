"""A log file is appended to, follows its path after a rotation, and never stops its writer."""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.processes import eventually
from tunnel.errors import ConfigError
from tunnel.log_file import LogFile, check_log_file
from tunnel.log_output import MAX_BACKLOG, DescriptorSink, LineAppender, LineOutput

LINES = b"one\ntwo\n"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def opened() -> Iterator[Callable[..., LogFile]]:
    files: list[LogFile] = []

    def open_file(path: Path, **fields: Clock) -> LogFile:
        files.append(LogFile(str(path), **fields))
        return files[-1]

    yield open_file
    for one in files:
        one.close(5)


def test_lines_are_appended(tmp_path: Path, opened: Callable[..., LogFile]) -> None:
    path = tmp_path / "access.log"
    path.write_text("before\n")
    file = opened(path)
    assert file.write(LINES, 4) == len(LINES)
    file.close(5)
    assert path.read_text() == "before\ntwo\n"
    assert file.write(LINES, 0) == 0, "nothing is taken after the end"


def test_a_new_file_is_not_readable_by_others(tmp_path: Path, opened: Callable[..., LogFile]) -> None:
    opened(tmp_path / "access.log")
    assert (tmp_path / "access.log").stat().st_mode & 0o7 == 0


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: os.mkfifo(path), "no process reads this FIFO"),
        (bind, "is a socket; expected a file"),
        (lambda _path: None, "no such file or directory"),
    ],
    ids=["directory", "fifo", "socket", "missing directory"],
)
def test_what_cannot_be_opened_is_a_mistake(make: Callable[[Path], None], problem: str, tmp_path: Path) -> None:
    path = tmp_path / "x" if "such" not in problem else tmp_path / "missing" / "x"
    make(path)
    with pytest.raises(ConfigError, match=f"^access log {path}: {problem}$"):
        LogFile(str(path))


def test_a_check_finds_what_would_prevent_the_start_and_creates_nothing(tmp_path: Path) -> None:
    check_log_file(str(tmp_path / "new.log"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old.log").write_text("kept\n")
    check_log_file(str(tmp_path / "old.log"))
    assert (tmp_path / "old.log").read_text() == "kept\n"
    for path, detail in ((tmp_path / "none" / "a.log", "no such file or directory"), (tmp_path, "is a directory")):
        with pytest.raises(ConfigError, match=f"^access log {path}: {detail}$"):
            check_log_file(str(path))


def test_a_check_finds_a_directory_in_which_nothing_can_be_created(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)  # root may write everywhere
    with pytest.raises(ConfigError, match=r"a\.log: permission denied$"):
        check_log_file(str(tmp_path / "a.log"))


def test_a_file_that_was_moved_is_replaced_by_a_new_one(tmp_path: Path, opened: Callable[..., LogFile]) -> None:
    clock, path = Clock(), tmp_path / "access.log"
    file = opened(path, clock=clock)
    file.write(b"first\n", 0)
    eventually(lambda: path.read_text() == "first\n", "the log file")
    path.rename(tmp_path / "access.log.1")
    clock.now += 2
    file.write(b"second\n", 0)
    eventually(lambda: path.exists() and path.read_text() == "second\n", "the log file")
    assert (tmp_path / "access.log.1").read_text() == "first\n"


def test_reopen_follows_the_path_at_once(tmp_path: Path, opened: Callable[..., LogFile]) -> None:
    path = tmp_path / "access.log"
    file = opened(path, clock=Clock())
    file.write(b"first\n", 0)
    eventually(lambda: path.read_text() == "first\n", "the log file")
    path.rename(tmp_path / "access.log.1")
    file.reopen()
    eventually(path.exists, "the log file")
    file.write(b"second\n", 0)
    eventually(lambda: path.read_text() == "second\n", "the log file")


def test_a_file_that_cannot_be_opened_again_stays_in_use(tmp_path: Path, opened: Callable[..., LogFile]) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    path, moved = folder / "access.log", tmp_path / "moved"
    file = opened(path, clock=Clock())
    folder.rename(moved)
    for text in (b"one\n", b"two\n"):
        file.reopen()
        file.write(text, 0)
    eventually(lambda: (moved / "access.log").read_text() == "one\ntwo\n", "the log file")
    why = "no such file or directory; keeping the previous file"
    assert list(file.warnings) == [f"cannot open access log again: {path}: {why}"]
    folder.mkdir()
    file.reopen()
    eventually(path.exists, "the log file")


def test_errors_of_a_network_file_system_do_not_end_the_log(
    tmp_path: Path, opened: Callable[..., LogFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> os.stat_result:
        raise OSError(errno.ESTALE, "Stale file handle")

    def close(descriptor: int) -> None:
        real_close(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    clock, path, real_close = Clock(), tmp_path / "access.log", os.close
    file = opened(path, clock=clock)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", fail)
        patched.setattr(os, "close", close)
        clock.now += 2
        file.write(b"one\n", 0)
        eventually(lambda: path.read_bytes() == b"one\n", "the log file")
        file.reopen()
        file.write(b"two\n", 0)
        eventually(lambda: path.read_bytes() == b"one\ntwo\n", "the log file")
        file.close(5)


def test_lines_wait_while_there_can_be_no_thread(
    tmp_path: Path, opened: Callable[..., LogFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    path = tmp_path / "access.log"
    file = opened(path)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        file.reopen()
        assert file.write(LINES, 0) == 0, "to be tried again"
    assert file.write(LINES, 0) == len(LINES)
    eventually(lambda: path.read_bytes() == LINES, "the log file")


def test_a_full_disk_loses_lines_and_counts_them(opened: Callable[..., LogFile]) -> None:
    file = opened(Path("/dev/full"))
    file.write(LINES, 0)
    eventually(lambda: file.lost == 2, "the log file")
    assert file.problem == "No space left on device"


def test_a_reader_that_stops_fills_the_sink_and_blocks_nobody(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = LogFile(str(path))
    line = b"x" * 65535 + b"\n"
    taken = 0
    while file.write(line, 0):
        taken += len(line)
        assert taken <= 2 * MAX_BACKLOG + len(line)
    file.close(0)  # the thread is blocked, and is left behind
    got = bytearray()
    os.set_blocking(reader, True)
    while len(got) < taken:
        got += os.read(reader, 1 << 20)
    assert bytes(got) == line * (taken // len(line))
    os.close(reader)
    for thread in threading.enumerate():
        if thread.name == "access-log":
            thread.join(5)
            assert not thread.is_alive()


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Files cannot grow further, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_after_a_torn_line_the_next_one_begins_on_a_new_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    appender = LineAppender(descriptor)
    with file_size_limit(6):
        assert appender.write(LINES, 0, len(LINES)) == 6, "`tw` of the second line"
        assert appender.write(LINES, 6, len(LINES)) == len(LINES)
        assert (appender.lost, appender.problem) == (1, "File too large")
    assert appender.write(b"three\n", 0, 6) == 6
    assert path.read_bytes() == b"one\ntw\nthree\n"
    assert not appender.is_failing
    os.close(descriptor)


def test_the_end_of_a_torn_line_is_within_the_bytes_that_do_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = list[int]()

    def write(_descriptor: int, data: bytes) -> int:
        sizes.append(len(data))
        if len(sizes) == 2:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        return len(data)

    reader, writer = os.pipe()
    sink, line = DescriptorSink(writer), b"x" * 3 * select.PIPE_BUF + b"\n"
    monkeypatch.setattr(os, "write", write)
    assert sink.write(line, sink.write(line, 0)) == len(line), "the rest is lost"
    sink.write(line, 0)
    assert len(sizes) == 3
    assert max(sizes) <= select.PIPE_BUF
    monkeypatch.undo()
    os.close(reader)
    os.close(writer)


class BrokenSink:
    """A sink that loses everything while it is broken."""

    def __init__(self) -> None:
        self.lost, self.problem, self.is_broken = 0, "", True
        self.is_failing = False
        self.written = b""

    def write(self, data: bytes, start: int) -> int:
        self.is_failing = self.is_broken
        if self.is_broken:
            self.lost, self.problem = self.lost + data.count(b"\n", start), "No space left on device"
        else:
            self.written += data[start:]
        return len(data)


def test_lost_lines_are_reported_once_when_lines_can_be_written_again() -> None:
    sink, reports = BrokenSink(), list[tuple[int, str]]()
    output = LineOutput(sink, lambda _delay: None)
    output.on_dropped = lambda dropped, cause: reports.append((dropped, cause))
    for _ in range(3):
        output.write("lost\n")
        output.flush()
    assert (output.dropped, reports) == (3, [])
    sink.is_broken = False
    for _ in range(2):
        output.write("kept\n")
        output.flush()
    assert (output.dropped, reports, sink.written) == (3, [(3, "No space left on device")], b"kept\nkept\n")


def test_a_failure_is_reported_once_when_it_begins() -> None:
    sink, causes = BrokenSink(), list[str]()
    output = LineOutput(sink, lambda _delay: None)
    output.on_failed = causes.append
    for is_broken in (False, True, True, False, True):
        sink.is_broken = is_broken
        output.write("line\n")
        output.flush()
    assert causes == ["No space left on device"] * 2


def test_a_line_that_can_wait_is_written_with_the_next_one_that_cannot() -> None:
    delays = list[float]()
    sink = BrokenSink()
    sink.is_broken = False
    output = LineOutput(sink, delays.append)
    output.write("opening 1\n", 0.1)
    output.write("closed 1\n", 0.1)
    assert delays == [0.1]
    output.write("error\n")
    output.write("error\n")
    output.write("opening 2\n", 0.1)
    assert delays == [0.1, 0.0]
    output.flush()
    assert sink.written == b"opening 1\nclosed 1\nerror\nerror\nopening 2\n"
    output.flush()
    output.write("closed 2\n", 0.1)
    assert delays == [0.1, 0.0, 0.1], "the flush that was scheduled first has found nothing"
