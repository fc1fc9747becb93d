"""Whether a proxy says the truth about whether it serves: to the status port, to `tunnel health`, to a service manager."""

from __future__ import annotations

import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from OpenSSL import SSL

from tests.support.command_runner import run_tool
from tests.support.file_identities import FileIdentities
from tests.support.plain_backends import Backend, connect, echo, free_port, receive_all
from tests.support.processes import LIMIT, SHORT_GRACE, Process, bare_environment, eventually, tunnel_argv, with_workers
from tests.support.run_line import client, has_echo, server
from tests.support.tls_peer import tls_connection
from tests.support.unix_status_port import metric, status
from tests.support.workloads import CLIENT, SERVER, Workloads

DAY = timedelta(days=1)
LIFE = timedelta(seconds=5)


def healthy(connection: socket.socket) -> None:
    """A backend that answers every request with 200."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def told_until(manager: socket.socket, wanted: str) -> None:
    """Read what a service manager is told until it is told that."""
    while wanted not in manager.recv(4096).decode():
        pass


def open_manager(workloads: Workloads) -> socket.socket:
    manager = workloads.enter(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    manager.bind(str(workloads.directory / "notify"))
    manager.settimeout(LIMIT)
    return manager


def start_server(workloads: Workloads, place: Path) -> Process:
    return start(workloads, *server(workloads, workloads.enter(Backend(echo)).target, f"--status=unix:{place}"))


def start_asking_server(workloads: Workloads, place: Path) -> Process:
    target = workloads.enter(Backend(healthy)).target
    return start(workloads, *server(workloads, target, f"--status=unix:{place}", "--target-status=http://localhost/"))


def start_client(workloads: Workloads, place: Path) -> Process:
    other = workloads.server(workloads.enter(Backend(echo)).target)
    return start(workloads, *client(workloads, other.target, f"--status=unix:{place}"))


def start_run(workloads: Workloads, place: Path) -> Process:
    line = server(workloads, workloads.enter(Backend(echo)).target, f"--status=unix:{place}")
    return start(workloads, "run", "--wait-ready=1m", *line, "--", "sh", "-c", "echo up; read line")


def has_expired(workloads: Workloads, place: Path) -> bool:
    """Whether the identity has; one that comes to the proxy too late is not taken, so it is given another one in time."""
    code, document = status(place)
    if code == 200 and datetime.fromisoformat(document["not_after"]) > datetime.now(UTC) + 2 * LIFE:
        workloads.shorten(LIFE)
        time.sleep(LIFE.total_seconds() / 2)
    return "identity_error" in document


def start(workloads: Workloads, *line: str) -> Process:
    environ = {**bare_environment(), "NOTIFY_SOCKET": str(workloads.directory / "notify")}
    return workloads.watch(Process(tunnel_argv(*line), environ=environ, is_merged=True))


@pytest.mark.parametrize("start_proxy", [start_server, start_asking_server, start_client, start_run])
def test_an_expired_identity_is_not_ready_until_it_is_renewed(
    workloads: Workloads, start_proxy: Callable[[Workloads, Path], Process]
) -> None:
    """The status is asked alone: no connection comes that would find the expiry before it."""
    place, manager = workloads.directory / "status", open_manager(workloads)
    process = start_proxy(workloads, place)
    process.wait_for("listening for connections on|^up$")
    told_until(manager, "STATUS=listening")
    eventually(partial(has_expired, workloads, place), "the expiry is in the status")
    code, document = status(place)
    assert (code, document["ok"], document["status"]) == (503, False, "critical")
    assert document["message"] == "listening"
    who = CLIENT if start_proxy is start_client else SERVER
    assert document["identity_error"].startswith(f"identity {who} has expired at ")
    assert metric(place, "ghostunnel_identity_usable") == 0
    done = run_tool(bare_environment(), "health", f"unix:{place}")
    assert done.code == 1
    assert f"identity {who} has expired at " in done.err
    told_until(manager, f"STATUS=not ready | identity {who} has expired at ")
    workloads.api.rotate_svids()
    eventually(lambda: status(place)[0] == 200, "a new identity is ready")
    told_until(manager, "STATUS=listening")


def test_after_the_grace_a_withdrawn_identity_is_not_ready(workloads: Workloads) -> None:
    place = workloads.directory / "status"
    line = server(
        workloads, workloads.enter(Backend(healthy)).target, f"--status=unix:{place}", "--target-status=http://localhost/"
    )
    process = workloads.watch(Process([sys.executable, "-c", SHORT_GRACE, *with_workers(line)], environ=bare_environment()))
    process.wait_for("listening for connections on")
    assert status(place)[0] == 200
    workloads.api.withdraw(workloads.sockets[SERVER])
    eventually(lambda: status(place)[0] == 503, "the grace is over")
    code, document = status(place)
    assert (code, document["backend_ok"]) == (503, True)
    assert document["identity_error"] == f"identity {SERVER} has been withdrawn"
    workloads.api.restore(workloads.sockets[SERVER])
    eventually(lambda: status(place)[0] == 200, "the identity is back")


@pytest.mark.parametrize(
    ("start_after", "end_after", "why"), [(-2 * DAY, -DAY, "has expired at"), (DAY, 2 * DAY, "is not valid before")]
)
def test_a_certificate_from_a_file_whose_dates_peers_refuse_is_not_ready(
    file_identities: FileIdentities, start_after: timedelta, end_after: timedelta, why: str
) -> None:
    place, now = file_identities.directory / "status", datetime.now(UTC)
    old = file_identities.pki.leaf("server", dns=("localhost",), file="old", start=now + start_after, end=now + end_after)
    proxy = file_identities.serve(file_identities.enter(Backend(echo)).target, f"--status=unix:{place}", files=old)
    assert proxy.address
    code, document = status(place)
    assert (code, document["ok"]) == (503, False)
    assert document["identity_error"].startswith(f"certificate CN=server {why} ")
    with tls_connection(proxy.address, file_identities.client_files) as peer:
        peer.send(b"x")
        assert peer.receive_exactly(1) == b"x", "a peer that does not look at dates is served as before"


# -- the shutdown delay


class Callers:
    """Threads that open connections, one after the other, until one is not served."""

    def __init__(self, workloads: Workloads, address: tuple[str, int], count: int = 4) -> None:
        self.served = 0
        self.failed_at: list[float] = []
        self._address, self._papers = address, workloads.identity(CLIENT)
        self._threads = [threading.Thread(target=self._call) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(LIMIT)

    def _call(self) -> None:
        try:
            while True:
                with tls_connection(self._address, self._papers) as peer:
                    assert has_echo(peer)
                self.served += 1
                time.sleep(0.005)
        except (OSError, SSL.Error, AssertionError):
            self.failed_at.append(time.monotonic())


DELAY = 3.0  # seconds; no connection may fail before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_shutdown_delay_every_new_connection_is_served(workloads: Workloads, number: signal.Signals) -> None:
    proxy = workloads.server(workloads.enter(Backend(echo)).target, f"--shutdown-delay={DELAY:g}s")
    callers = Callers(workloads, proxy.address)
    eventually(lambda: callers.served > 10, "the callers are served")
    before, start = callers.served, time.monotonic()
    proxy.signal(number)
    callers.join()
    assert min(callers.failed_at) >= start + DELAY
    assert callers.served > before + 10
    assert proxy.exit_code() == 0
    said = [line.rpartition("] ")[2] for line in proxy.lines if re.search("shut|drain", line)]
    assert proxy.matches("shutdown delay: not ready, accepting connections for 3s more"), said
    assert proxy.matches("shutdown delay is over"), said
    assert proxy.matches("shutdown proxy, waiting for drain of"), said


# An echo service that ends at once when it is told to.
SERVICE = """
import socket, sys, threading

def echo(sock):
    with sock:
        while data := sock.recv(65536):
            sock.sendall(data)

with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096) as server:
    print("up", flush=True)
    while True:
        threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()
"""


def test_in_the_shutdown_delay_of_run_the_command_serves(workloads: Workloads) -> None:
    port = str(free_port())
    line = (
        "run",
        f"--shutdown-delay={DELAY:g}s",
        *server(workloads, f"127.0.0.1:{port}"),
        "--",
        sys.executable,
        "-c",
        SERVICE,
        port,
    )
    process = start(workloads, *line)
    process.wait_for("^up$")
    host, number = process.wait_for(r"listening for connections on (\S+):(\d+)$").groups()
    callers = Callers(workloads, (host, int(number)))
    eventually(lambda: callers.served > 10, "the callers are served")
    before, begun = callers.served, time.monotonic()
    process.signal(signal.SIGTERM)
    callers.join()
    assert min(callers.failed_at) >= begun + DELAY
    assert callers.served > before + 10
    assert process.exit_code() == 128 + signal.SIGTERM
    assert process.matches("shutdown delay is over")


@pytest.mark.parametrize("mode", ["server", "client"])
def test_in_the_shutdown_delay_all_are_told_and_a_second_signal_ends_the_process(workloads: Workloads, mode: str) -> None:
    place, manager = workloads.directory / "status", open_manager(workloads)
    other = workloads.server(workloads.enter(Backend(echo)).target)
    flags = f"--status=unix:{place}", "--shutdown-delay=1h"
    line = (
        server(workloads, workloads.enter(Backend(echo)).target, *flags)
        if mode == "server"
        else client(workloads, other.target, *flags)
    )
    process = start(workloads, *line)
    host, port = process.wait_for(r"listening for connections on (\S+):(\d+)$").groups()
    assert status(place)[0] == 200
    process.signal(signal.SIGTERM)
    process.wait_for("shutdown delay: not ready, accepting connections for 3600s more")
    told_until(manager, "STOPPING=1")
    told_until(manager, f"STATUS=stopping | accepting connections for 3600s more: {mode} proxying ")
    code, document = status(place)
    assert (code, document["ok"], document["status"], document["backend_ok"]) == (503, False, "critical", True)
    assert document["message"] == "stopping: new connections are accepted until the shutdown delay is over"
    done = run_tool(bare_environment(), "health", f"unix:{place}")
    assert (done.code, "until the shutdown delay is over" in done.err) == (1, True)
    if mode == "server":
        with tls_connection((host, int(port)), workloads.identity(CLIENT)) as peer:
            assert has_echo(peer)
    else:
        with connect((host, int(port))) as plain:
            plain.sendall(b"more")
            assert plain.recv(4) == b"more"
    process.signal(signal.SIGTERM)
    assert process.exit_code() == -signal.SIGTERM


def test_who_asks_for_the_end_by_http_gets_the_shutdown_delay(workloads: Workloads) -> None:
    place = workloads.directory / "status"
    target = workloads.enter(Backend(echo)).target
    proxy = workloads.server(target, f"--status=unix:{place}", "--enable-shutdown", "--shutdown-delay=1h")
    assert proxy.address
    for _ in range(2):
        with connect(str(place)) as sock:
            sock.sendall(b"POST /_shutdown HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
            assert b" 200 " in receive_all(sock)
    proxy.wait_for("shutdown delay: not ready")
    with tls_connection(proxy.address, workloads.identity(CLIENT)) as peer:
        assert has_echo(peer)
    proxy.signal(signal.SIGTERM)
    assert proxy.exit_code() == -signal.SIGTERM


def test_who_serves_nobody_yet_has_no_shutdown_delay(tmp_path: Path) -> None:
    with closing(Workloads(tmp_path, agent=False)) as lonely:
        proxy = lonely.server("127.0.0.1:1", "--shutdown-delay=1h")
        proxy.wait_for("Workload API unavailable")
        proxy.signal(signal.SIGTERM)
        assert proxy.exit_code() == 0
