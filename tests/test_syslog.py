"""The syslog sink: one message per line; it never blocks, and reconnects to a restarted daemon."""

from __future__ import annotations

import re
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tunnel.errors import ConfigError
from tunnel.log import Log
from tunnel.syslog import SyslogSink, open_syslog

FORM = re.compile(r"<30>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d tunnel\[7\]: \[\d+\] \d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6} (.*)")


class Daemon:
    """The socket of a daemon, of either type."""

    def __init__(self, path: Path, kind: socket.SocketKind) -> None:
        self._path = path
        self._kind = kind
        self._seen = b""
        self._connection: socket.socket | None = None
        self._socket = socket.socket(socket.AF_UNIX, kind)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        if kind == socket.SOCK_STREAM:
            self._socket.listen()

    def messages(self) -> list[str]:
        """The messages since the last call, without their headers."""
        found = self._datagrams() if self._kind == socket.SOCK_DGRAM else self._lines()
        matches = [FORM.fullmatch(message.decode("ascii")) for message in found]
        assert all(matches), found
        return [match[1] for match in matches if match]

    def _datagrams(self) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(self._socket.recv(1 << 20))
            except BlockingIOError:
                return found

    def _lines(self) -> list[bytes]:
        with suppress(BlockingIOError):
            while True:
                if self._connection is None:
                    self._connection = self._socket.accept()[0]
                    self._connection.setblocking(False)
                if data := self._connection.recv(1 << 20):
                    self._seen += data
                else:
                    self._connection.close()
                    self._connection = None
        *lines, self._seen = self._seen.split(b"\n")
        return lines

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._socket.close()
        self._path.unlink(missing_ok=True)


KINDS = [socket.SOCK_DGRAM, socket.SOCK_STREAM]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> socket.SocketKind:
    assert isinstance(request.param, socket.SocketKind)
    return request.param


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def daemon(path: Path, kind: socket.SocketKind) -> Iterator[Daemon]:
    daemon = Daemon(path, kind)
    yield daemon
    daemon.close()


@pytest.fixture
def sink(daemon: Daemon, path: Path) -> Iterator[SyslogSink]:
    sink = open_syslog("tunnel", 7, (str(path.parent / "none"), str(path)))
    yield sink
    sink.close()


def test_each_line_is_a_message_of_facility_daemon_and_priority_info(daemon: Daemon, sink: SyslogSink) -> None:
    log = Log(sink=sink)
    log.write("one")
    log.write("Z\u00fcrich\n<0>two")
    assert daemon.messages() == ["one", "Z\\xfcrich\\n<0>two"]


def test_each_line_of_a_flush_is_its_own_message(daemon: Daemon, sink: SyslogSink) -> None:
    log = Log(sink=sink, schedule=lambda _delay: None)
    for word in "abc":
        log.write(word)
    log.flush()
    assert daemon.messages() == ["a", "b", "c"]


def test_a_blocked_daemon_never_blocks_the_log_and_gets_all_lines_later(daemon: Daemon, sink: SyslogSink) -> None:
    asked: list[float] = []
    log = Log(sink=sink, schedule=asked.append)
    for number in range(2000):
        log.write(f"{number} {'x' * 300}")
    log.flush()
    assert asked[-1] > 0, "it is to be tried again later"
    seen = []
    while len(seen) < 2000:
        seen += daemon.messages()
        log.flush()
    assert [int(message.split()[0]) for message in seen] == list(range(2000))


def test_a_restarted_daemon_gets_the_lines_of_the_meantime(
    daemon: Daemon, sink: SyslogSink, path: Path, kind: socket.SocketKind
) -> None:
    log = Log(sink=sink, schedule=lambda _delay: None)
    log.write("before")
    log.flush()
    assert daemon.messages() == ["before"]
    daemon.close()
    for word in ("while", "away"):
        log.write(word)
        log.flush()
    successor = Daemon(path, kind)
    log.write("after")
    log.flush()
    assert successor.messages() == ["while", "away", "after"]
    successor.close()


def test_a_daemon_may_restart_with_the_other_socket_type(
    daemon: Daemon, sink: SyslogSink, path: Path, kind: socket.SocketKind
) -> None:
    daemon.close()
    (other,) = (one for one in KINDS if one != kind)
    successor = Daemon(path, other)
    log = Log(sink=sink, schedule=lambda _delay: None)
    log.write("hello")
    for _ in range(2):
        log.flush()
    assert successor.messages() == ["hello"]
    successor.close()


def test_a_line_interrupted_by_a_restart_is_sent_again_completely(path: Path) -> None:
    daemon = Daemon(path, socket.SOCK_STREAM)
    sink = open_syslog("tunnel", 7, (str(path),))
    log = Log(sink=sink, schedule=lambda _delay: None)
    log.write("x" * 1_000_000)
    log.flush()  # as much as there is room for
    assert daemon.messages() == []
    daemon.close()
    log.flush()
    successor = Daemon(path, socket.SOCK_STREAM)
    seen: list[str] = []
    while not seen:
        log.flush()
        seen = successor.messages()
    assert [len(message) for message in seen] == [1_000_000]
    successor.close()
    sink.close()


def test_an_oversized_message_does_not_block_later_ones(path: Path) -> None:
    daemon = Daemon(path, socket.SOCK_DGRAM)
    sink = open_syslog("tunnel", 7, (str(path),))
    log = Log(sink=sink, schedule=lambda _delay: None)
    log.write("x" * 1_000_000)
    log.write("next")
    log.flush()
    assert daemon.messages() == ["next"]
    daemon.close()
    sink.close()


def test_no_daemon_at_start_is_an_error_that_names_the_paths(tmp_path: Path) -> None:
    paths = (str(tmp_path / "a"), str(tmp_path / "b"))
    with pytest.raises(ConfigError) as refused:
        open_syslog("tunnel", 7, paths)
    assert str(refused.value) == (
        f"unable to set up logger: no syslog daemon at {paths[0]} or {paths[1]}: no such file or directory"
    )


def test_a_dead_daemons_socket_is_named_as_the_cause(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(path))
    with pytest.raises(ConfigError, match=r"connection refused$"):
        open_syslog("tunnel", 7, (str(path), str(path.parent / "none")))


def test_without_a_free_descriptor_lines_wait(daemon: Daemon, sink: SyslogSink) -> None:
    sink.close()
    log = Log(sink=sink, schedule=lambda _delay: None)
    log.write("hello")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        log.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    log.flush()
    assert daemon.messages() == ["hello"]


def test_a_tag_is_ascii_for_any_program_name(path: Path) -> None:
    daemon = Daemon(path, socket.SOCK_DGRAM)
    sink = open_syslog("t\u00fcnnel\udcff", 7, (str(path),))
    assert sink.write(b"hello\n", 0) == 6
    (message,) = daemon._datagrams()
    assert message.endswith(b" t\\xfcnnel\\udcff[7]: hello")
    daemon.close()
    sink.close()
