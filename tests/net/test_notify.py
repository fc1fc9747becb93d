"""sd_notify: the datagrams of each state, to a real socket; a notification never blocks or fails."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tunnel.errors import ConfigError
from tunnel.net.notify import Notifier, State, encode_state, watchdog_interval

SUMMARY = "server proxying :8443 => localhost:80"


@pytest.mark.parametrize(
    ("state", "datagrams"),
    [
        (State.LISTENING, (b"READY=1", b"STATUS=listening | server proxying :8443 => localhost:80")),
        (
            State.RELOADING,
            (b"RELOADING=1\nMONOTONIC_USEC=1234567", b"STATUS=reloading | server proxying :8443 => localhost:80"),
        ),
        (State.NOT_READY, (b"STATUS=not ready | server proxying :8443 => localhost:80",)),
        (State.KEEPING, (b"READY=1", b"STATUS=keeping | server proxying :8443 => localhost:80")),
        (State.STOPPING, (b"STOPPING=1", b"STATUS=stopping | server proxying :8443 => localhost:80")),
    ],
)
def test_each_state_has_its_datagrams(state: State, datagrams: tuple[bytes, ...]) -> None:
    assert encode_state(state, SUMMARY, 1234567) == datagrams


def test_no_summary_can_add_an_assignment() -> None:
    _, status = encode_state(State.LISTENING, "unix:/a\nMAINPID=1\udcff", 0)
    assert status == b"STATUS=listening | unix:/a\\nMAINPID=1\\udcff"


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 0.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ""}, 0.0),
        ({"WATCHDOG_USEC": "0"}, 0.0),
        ({"WATCHDOG_USEC": "-5"}, 0.0),
        ({"WATCHDOG_USEC": "1e6"}, 0.0),
        ({"WATCHDOG_USEC": "\u0663"}, 0.0),
        ({"WATCHDOG_USEC": "9" * 5000}, 0.0),
        ({"WATCHDOG_PID": "7"}, 0.0),
    ],
)
def test_the_keep_alive_interval_is_half_of_the_limit(environ: dict[str, str], interval: float) -> None:
    assert watchdog_interval(environ, 7) == interval


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A manager's socket, and its name in the environment."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@tunnel-notify-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0") if name.startswith("@") else name)
        sock.settimeout(60)
        yield sock, name


def waiting(sock: socket.socket) -> list[bytes]:
    """Everything that has arrived."""
    sock.setblocking(False)
    found = []
    try:
        while True:
            found.append(sock.recv(4096))
    except BlockingIOError:
        return found


def test_the_manager_gets_each_datagram(manager: tuple[socket.socket, str]) -> None:
    sock, name = manager
    with closing(Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "4000000"}, 7, clock_ns=lambda: 42_999)) as notifier:
        assert notifier.interval == 2.0
        for state in (State.LISTENING, State.RELOADING, State.LISTENING, State.STOPPING):
            assert notifier.notify(state, "client proxying a => b")
        notifier.keep_alive()
    assert waiting(sock) == [
        b"READY=1",
        b"STATUS=listening | client proxying a => b",
        b"RELOADING=1\nMONOTONIC_USEC=42",
        b"STATUS=reloading | client proxying a => b",
        b"READY=1",
        b"STATUS=listening | client proxying a => b",
        b"STOPPING=1",
        b"STATUS=stopping | client proxying a => b",
        b"WATCHDOG=1",
    ]


def test_a_manager_that_does_not_read_never_blocks(manager: tuple[socket.socket, str]) -> None:
    sock, name = manager
    with closing(Notifier({"NOTIFY_SOCKET": name}, 7)) as notifier:
        for _ in range(10_000):
            notifier.keep_alive()
        assert not notifier.notify(State.LISTENING, SUMMARY), "it is worth telling again"
        assert set(waiting(sock)) == {b"WATCHDOG=1"}
        assert notifier.notify(State.LISTENING, SUMMARY)
        assert waiting(sock)[0] == b"READY=1"


def test_a_restarted_manager_is_notified(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with closing(Notifier({"NOTIFY_SOCKET": str(path)}, 7)) as notifier:
        for _ in range(2):
            notifier.keep_alive()  # nobody there yet, or nobody any more
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.bind(str(path))
                notifier.keep_alive()
                assert waiting(sock) == [b"WATCHDOG=1"]
            path.unlink()


@pytest.mark.parametrize(
    "name", ["", "relative", "vsock:2:1234", "/nobody/there", "@nobody-there", "/a\0b", "/" + "x" * 106, "@"]
)
def test_without_a_manager_nothing_is_sent(name: str) -> None:
    for environ in ({"NOTIFY_SOCKET": name}, {}):
        with closing(Notifier(environ, 7)) as notifier:
            assert notifier.notify(State.LISTENING, SUMMARY)
            notifier.keep_alive()
        notifier.keep_alive()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/" + "x" * 107, "socket path has 108 bytes; expected at most 107"),
        ("/" + "\u00e4" * 60, "socket path has 121 bytes; expected at most 107"),
        ("@" + "x" * 108, "socket name has 108 bytes; expected at most 107"),
    ],
)
def test_an_invalid_notify_socket_is_refused_at_start(name: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Notifier({"NOTIFY_SOCKET": name}, 7)
    assert str(refused.value).startswith('NOTIFY_SOCKET: invalid address "')
    assert str(refused.value).endswith(f'": {words}')


def test_the_timestamp_uses_the_clock_of_the_manager() -> None:
    """MONOTONIC_USEC is CLOCK_MONOTONIC, to which Python's monotonic clock need not be equal."""
    import time

    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    seen = time.monotonic_ns()
    assert before <= seen <= time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def test_a_notification_needs_no_free_descriptor(manager: tuple[socket.socket, str]) -> None:
    sock, name = manager
    with closing(Notifier({"NOTIFY_SOCKET": name}, 7)) as notifier:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
        try:
            notifier.keep_alive()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert waiting(sock) == [b"WATCHDOG=1"]
