"""Under a service manager: sockets that it hands over, what it is told, signals, and the end."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.installed_command import InstalledCommand, ask, status_of
from tests.support.plain_backends import Backend, connect, echo
from tests.support.processes import LIMIT, Proxy
from tests.support.tls_peer import TlsPeer, tls_connection

DRAINING = "shutdown proxy, waiting for drain"


@pytest.fixture
def backend(installed_command: InstalledCommand) -> Backend:
    return installed_command.enter(Backend(echo))


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a service manager, bound to `notify`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(LIMIT)
        yield sock


def told(manager: socket.socket, *, beats: bool = False) -> str:
    """The next datagram, of those about the watchdog or of the others."""
    while True:
        datagram = manager.recv(4096).decode()
        if (datagram == "WATCHDOG=1") == beats:
            return datagram


def notified(installed_command: InstalledCommand, backend: Backend, **environ: str) -> Proxy:
    return installed_command.server(backend.target, NOTIFY_SOCKET=str(installed_command.directory / "notify"), **environ)


def wait_for_echo(installed_command: InstalledCommand, proxy: Proxy) -> None:
    with tls_connection(proxy.address, installed_command.command_files.identity("client")) as peer:
        assert has_echo(peer)


def has_echo(peer: TlsPeer) -> bool:
    peer.send(b"more")
    return peer.receive_exactly(4) == b"more"


# -- what a manager is told


def test_a_manager_is_told_of_each_step_in_datagrams_of_their_own(
    installed_command: InstalledCommand, backend: Backend, manager: socket.socket
) -> None:
    proxy = notified(installed_command, backend)
    summary = f"server proxying 127.0.0.1:0 => {backend.target}"
    assert [told(manager), told(manager)] == ["READY=1", f"STATUS=listening | {summary}"]
    before = time.monotonic_ns() // 1000
    proxy.signal(signal.SIGHUP)
    reloading, _, moment = told(manager).partition("\nMONOTONIC_USEC=")
    assert reloading == "RELOADING=1"
    assert before <= int(moment) <= time.monotonic_ns() // 1000
    assert [told(manager) for _ in range(3)] == [
        f"STATUS=reloading | {summary}",
        "READY=1",
        f"STATUS=listening | {summary}",
    ]
    proxy.signal(signal.SIGTERM)
    assert [told(manager), told(manager)] == ["STOPPING=1", f"STATUS=stopping | {summary}"]
    assert proxy.exit_code() == 0


def test_the_watchdog_is_fed_while_the_process_serves(
    installed_command: InstalledCommand, backend: Backend, manager: socket.socket
) -> None:
    notified(installed_command, backend, WATCHDOG_USEC="20000")
    assert [told(manager, beats=True) for _ in range(3)] == ["WATCHDOG=1"] * 3


def test_the_watchdog_of_another_process_is_not_fed(
    installed_command: InstalledCommand, backend: Backend, manager: socket.socket
) -> None:
    proxy = notified(installed_command, backend, WATCHDOG_USEC="2000", WATCHDOG_PID="1")
    wait_for_echo(installed_command, proxy)
    assert proxy.stop() == 0
    seen = []
    while not seen or not seen[-1].startswith(b"STATUS=stopping"):
        seen.append(manager.recv(4096))
    assert seen[0] == b"READY=1"
    assert b"WATCHDOG=1" not in seen


def test_a_socket_that_no_manager_has_handed_over_ends_the_start(installed_command: InstalledCommand, backend: Backend) -> None:
    proxy = installed_command.server(backend.target, listen="systemd:web")
    assert proxy.exit_code() == 1
    assert "web" in proxy.reason()


# -- reload


def test_a_signal_reloads_and_the_log_and_the_status_say_so(installed_command: InstalledCommand, backend: Backend) -> None:
    path = installed_command.directory / "status"
    proxy = installed_command.server(backend.target, f"--status=unix:{path}")
    assert proxy.address
    since = len(proxy.lines)
    proxy.signal(signal.SIGUSR1)
    proxy.wait_for("reloading configuration complete$", since)
    words = [line.partition(" ")[2].split(" ", 2)[2] for line in proxy.lines[since:]]
    assert words == [
        "received user defined signal 1, reloading TLS configuration",
        "loaded certificate: CN=server",
        "reloading configuration complete",
    ]
    document = status_of(str(path))
    assert document["last_reload"] > "2026"
    assert (document["message"], document["ok"]) == ("listening", True)
    wait_for_echo(installed_command, proxy)


# -- the end


def test_http_can_ask_for_the_end(installed_command: InstalledCommand, backend: Backend) -> None:
    path = installed_command.directory / "status"
    proxy = installed_command.server(backend.target, f"--status=unix:{path}", "--enable-shutdown")
    assert proxy.address
    assert ask(str(path), "/_shutdown")[0] == 405
    assert ask(str(path), "/_shutdown", "POST") == (200, b"")
    assert proxy.exit_code() == 0
    assert proxy.matches("shutdown was requested via status endpoint$")
    assert proxy.matches("shutdown request processing")
    assert not path.exists()


@pytest.mark.parametrize("limit", ["0", "100ms"])
def test_the_limit_of_the_drain_forces_exit_1_and_no_file_is_left(
    installed_command: InstalledCommand, backend: Backend, limit: str
) -> None:
    listen, status = installed_command.directory / "listen", installed_command.directory / "status"
    proxy = installed_command.server(
        backend.target, f"--status=unix:{status}", f"--shutdown-timeout={limit}", listen=f"unix:{listen}"
    )
    proxy.wait_for("listening for")
    with connect(str(listen)) as sock:
        peer = TlsPeer(sock, installed_command.command_files.identity("client"))
        peer.shake_hands()
        assert has_echo(peer)
        proxy.signal(signal.SIGTERM)
        assert proxy.exit_code() == 1
    assert proxy.matches("graceful shutdown timeout: forcing exit")
    assert not listen.exists()
    assert not status.exists()


def test_in_the_drain_a_hangup_is_nothing_and_a_second_signal_kills(
    installed_command: InstalledCommand, backend: Backend
) -> None:
    listen = installed_command.directory / "listen"
    proxy = installed_command.server(backend.target, listen=f"unix:{listen}")
    proxy.wait_for("listening for")
    with connect(str(listen)) as sock:
        peer = TlsPeer(sock, installed_command.command_files.identity("client"))
        peer.shake_hands()
        assert has_echo(peer)
        proxy.signal(signal.SIGINT)
        proxy.wait_for("received interrupt, shutting down")
        proxy.wait_for(DRAINING)
        assert not listen.exists()
        proxy.signal(signal.SIGHUP)
        proxy.wait_for("received hangup, ignored")
        assert has_echo(peer)
        proxy.signal(signal.SIGTERM)
        assert proxy.exit_code() == -signal.SIGTERM
