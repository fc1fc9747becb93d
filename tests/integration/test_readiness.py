"""Whether a proxy says the truth about whether it serves: to the status port, to `tunnel health`, to a service manager."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from backends import Backend, connect, echo, receive_all
from disk import Disk
from processes import LIMIT, Process, bare_environment, eventually, tunnel_argv
from run_line import client, server
from test_identity_life import SHORT_GRACE
from tls_peer import tls_connection
from tool import run_tool
from world import CLIENT, SERVER, World

from tunnel.config.dev_model import Issuing

DAY = timedelta(days=1)


@pytest.fixture
def fleeting(tmp_path: Path) -> Iterator[World]:
    """A world of SVIDs that live for five seconds."""
    with closing(World(tmp_path, issuing=Issuing(ttl=timedelta(seconds=5)))) as world:
        yield world


def healthy(connection: socket.socket) -> None:
    """A backend that answers every request with 200."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def status(place: Path) -> tuple[int, dict[str, Any]]:
    """The code and the document of a status port at a Unix socket."""
    with connect(str(place)) as sock:
        sock.sendall(b"GET /_status HTTP/1.0\r\n\r\n")
        head, _, body = receive_all(sock).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def metric(place: Path, name: str) -> float:
    with connect(str(place)) as sock:
        sock.sendall(b"GET /_metrics/prometheus HTTP/1.0\r\n\r\n")
        lines = receive_all(sock).decode().splitlines()
    (value,) = (float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))
    return value


def told_until(manager: socket.socket, wanted: str) -> None:
    """Read what a service manager is told until it is told that."""
    while wanted not in manager.recv(4096).decode():
        pass


def open_manager(world: World) -> socket.socket:
    manager = world.enter(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    manager.bind(str(world.directory / "notify"))
    manager.settimeout(LIMIT)
    return manager


def start_server(world: World, place: Path) -> Process:
    return start(world, *server(world, world.enter(Backend(echo)).target, f"--status=unix:{place}"))


def start_asking_server(world: World, place: Path) -> Process:
    target = world.enter(Backend(healthy)).target
    return start(world, *server(world, target, f"--status=unix:{place}", "--target-status=http://localhost/"))


def start_client(world: World, place: Path) -> Process:
    other = world.server(world.enter(Backend(echo)).target)
    return start(world, *client(world, other.target, f"--status=unix:{place}"))


def start_run(world: World, place: Path) -> Process:
    line = server(world, world.enter(Backend(echo)).target, f"--status=unix:{place}")
    return start(world, "run", *line, "--", "sh", "-c", "echo up; read line")


def start(world: World, *line: str) -> Process:
    environ = {**bare_environment(), "NOTIFY_SOCKET": str(world.directory / "notify")}
    return world.watch(Process(tunnel_argv(*line), environ=environ, is_merged=True))


@pytest.mark.parametrize("start_proxy", [start_server, start_asking_server, start_client, start_run])
def test_an_expired_identity_is_not_ready_until_it_is_renewed(
    fleeting: World, start_proxy: Callable[[World, Path], Process]
) -> None:
    """The status is asked alone: no connection comes that would find the expiry before it."""
    place, manager = fleeting.directory / "status", open_manager(fleeting)
    process = start_proxy(fleeting, place)
    process.wait_for("listening for connections on|^up$")
    told_until(manager, "STATUS=listening")
    fleeting.api.stop()
    eventually(lambda: "identity_error" in status(place)[1], "the expiry is in the status")
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

    def is_well() -> bool:
        fleeting.api.rotate_svids()
        return status(place)[0] == 200

    fleeting.api.start()
    eventually(is_well, "a new identity is ready")
    told_until(manager, "STATUS=listening")


def test_after_the_grace_a_withdrawn_identity_is_not_ready(world: World) -> None:
    place = world.directory / "status"
    line = server(world, world.enter(Backend(healthy)).target, f"--status=unix:{place}", "--target-status=http://localhost/")
    process = world.watch(Process([sys.executable, "-c", SHORT_GRACE, *line], environ=bare_environment()))
    process.wait_for("listening for connections on")
    assert status(place)[0] == 200
    world.api.withdraw(world.sockets[SERVER])
    eventually(lambda: status(place)[0] == 503, "the grace is over")
    code, document = status(place)
    assert (code, document["backend_ok"]) == (503, True)
    assert document["identity_error"] == f"identity {SERVER} has been withdrawn"
    world.api.restore(world.sockets[SERVER])
    eventually(lambda: status(place)[0] == 200, "the identity is back")


@pytest.mark.parametrize(
    ("start_after", "end_after", "why"), [(-2 * DAY, -DAY, "has expired at"), (DAY, 2 * DAY, "is not valid before")]
)
def test_a_certificate_from_a_file_whose_dates_peers_refuse_is_not_ready(
    disk: Disk, start_after: timedelta, end_after: timedelta, why: str
) -> None:
    place, now = disk.directory / "status", datetime.now(UTC)
    old = disk.pki.leaf("server", dns=("localhost",), file="old", start=now + start_after, end=now + end_after)
    proxy = disk.serve(disk.enter(Backend(echo)).target, f"--status=unix:{place}", files=old)
    assert proxy.address
    code, document = status(place)
    assert (code, document["ok"]) == (503, False)
    assert document["identity_error"].startswith(f"certificate CN=server {why} ")
    with tls_connection(proxy.address, disk.client_files) as peer:
        peer.send(b"x")
        assert peer.receive_exactly(1) == b"x", "a peer that does not look at dates is served as before"
