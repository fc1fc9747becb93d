"""`/livez` and `/readyz` of real proxies, at the status port and at a health port of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from tests.support.config_files import ServedFile
from tests.support.plain_backends import Backend, connect, echo, free_port, receive_all
from tests.support.processes import SHORT_GRACE, WORKERS, Process, bare_environment, eventually, tunnel_argv, with_workers
from tests.support.run_line import client, has_echo, server
from tests.support.tls_peer import tls_connection
from tests.support.unix_status_port import status
from tests.support.workloads import CLIENT, SERVER, Workloads

Place = str | tuple[str, int]
OK = (200, ["ok"])
LIFE = timedelta(seconds=5)


def ask(place: Place, path: str, host: str = "127.0.0.1", method: str = "GET") -> tuple[int, list[str]]:
    """The code and the lines of a response."""
    with connect(place) as sock:
        sock.sendall(f"{method} {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        head, _, body = receive_all(sock).partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode().splitlines()


def failed(place: Place, path: str = "/readyz") -> list[str]:
    """The names of the checks that fail; none if the response is 200."""
    code, lines = ask(place, path)
    names = [found[1] for line in lines if (found := re.match(r"\[-\](\w+) failed: .", line))]
    assert (code == 503) == bool(names), lines
    return names


@pytest.fixture
def place(workloads: Workloads) -> str:
    return str(workloads.directory / "health")


def start(workloads: Workloads, *line: str) -> Process:
    process = workloads.watch(Process(tunnel_argv(*line), environ=bare_environment(), is_merged=True))
    process.wait_for("health port is open: address=")
    return process


def test_a_health_port_serves_nothing_else(workloads: Workloads, place: str) -> None:
    target = workloads.enter(Backend(echo)).target
    process = start(workloads, *server(workloads, target, f"--health=unix:{place}", "--metrics-prefix=x"))
    process.wait_for("listening for connections on")
    assert ask(place, "/livez") == OK
    assert ask(place, "/readyz") == OK
    assert ask(place, "/readyz?verbose&target")[1] == [
        *(f"[+]{name} ok" for name in ("ping", "shutdown", "listener", "identity", "target")),
        "readyz check passed",
    ]
    assert ask(place, "/readyz", method="HEAD") == (200, [])
    assert ask(place, "/readyz", method="POST")[0] == 405
    for path in (
        "/",
        "/_status",
        "/_metrics",
        "/_shutdown",
        "/_reload",
        "/debug/pprof/",
        "/healthz",
        "/metrics",
        "/ui",
        "/livez/x",
    ):
        assert ask(place, path) == (404, ["404 page not found"])
    assert process.stop() == 0
    assert not os.path.exists(place)


def test_before_the_first_identity_a_proxy_is_alive_and_says_why_it_is_not_ready(tmp_path: Path) -> None:
    place = str(tmp_path / "health")
    with closing(Workloads(tmp_path, agent=False)) as lonely:
        process = start(lonely, *server(lonely, "127.0.0.1:1", f"--health=unix:{place}", f"--status=unix:{tmp_path}/status"))
        process.wait_for("Workload API unavailable")
        assert ask(place, "/livez") == OK
        code, lines = ask(place, "/readyz")
        assert (code, lines[:3]) == (503, ["[+]ping ok", "[+]shutdown ok", "[-]listener failed: not open yet"])
        assert re.match(r"\[-\]identity failed: no identity yet: .*UNAVAILABLE", lines[3]), lines
        assert failed(place, "/readyz?target") == ["listener", "identity", "target"]
        assert not process.matches("closing new connections"), "no identity is lost that was never there"
        process.signal(signal.SIGTERM)
        assert process.exit_code() == 0


def test_the_status_port_answers_the_same(workloads: Workloads, place: str) -> None:
    target = workloads.enter(Backend(echo)).target
    both = f"--health=unix:{place}", f"--status=unix:{place}-status"
    start(workloads, *server(workloads, target, *both)).wait_for("listening for connections on")
    eventually(lambda: os.path.exists(f"{place}-status"), "the status port is open")
    for path in ("/livez?verbose", "/readyz?verbose", "/readyz?verbose&exclude=x", "/readyz/target", "/livez/x"):
        assert ask(f"{place}-status", path) == ask(place, path)


def has_expired(workloads: Workloads, place: str) -> bool:
    """Whether the identity has; one that comes to the proxy too late is not taken, so it is given another one in time."""
    code, document = status(Path(f"{place}-status"))
    if code == 200 and datetime.fromisoformat(document["not_after"]) > datetime.now(UTC) + 2 * LIFE:
        workloads.shorten(LIFE)
        time.sleep(LIFE.total_seconds() / 2)
    return failed(place) == ["identity"]


def test_an_expired_identity_is_not_ready_until_it_is_renewed(workloads: Workloads, place: str) -> None:
    target = workloads.enter(Backend(echo)).target
    both = f"--health=unix:{place}", f"--status=unix:{place}-status"
    start(workloads, *server(workloads, target, *both)).wait_for("listening for connections on")
    eventually(partial(has_expired, workloads, place), "the expiry is known")
    assert ask(place, "/readyz/identity")[1][0].startswith(f"[-]identity failed: identity {SERVER} has expired at ")
    assert ask(place, "/livez") == OK
    workloads.api.rotate_svids()
    eventually(lambda: ask(place, "/readyz") == OK, "a new identity is ready")


def test_after_the_grace_a_withdrawn_identity_is_not_ready(workloads: Workloads, place: str) -> None:
    line = server(workloads, workloads.enter(Backend(echo)).target, f"--health=unix:{place}")
    process = workloads.watch(Process([sys.executable, "-c", SHORT_GRACE, *with_workers(line)], environ=bare_environment()))
    process.wait_for("listening for connections on")
    assert ask(place, "/readyz") == OK
    workloads.api.withdraw(workloads.sockets[SERVER])
    eventually(lambda: failed(place) == ["identity"], "the grace is over")
    assert ask(place, "/readyz/identity")[1][0] == f"[-]identity failed: identity {SERVER} has been withdrawn"
    workloads.api.restore(workloads.sockets[SERVER])
    eventually(lambda: ask(place, "/readyz") == OK, "the identity is back")


def test_a_target_that_is_down_fails_only_where_the_request_wants_to_know(workloads: Workloads, place: str) -> None:
    line = server(workloads, f"unix:{place}-absent", f"--health=unix:{place}")
    start(workloads, *line).wait_for("listening for connections on")
    assert ask(place, "/readyz") == OK
    for path in ("/readyz?target", "/readyz?target=true", "/readyz/target"):
        assert failed(place, path) == ["target"]
    with Backend(echo, path=Path(f"{place}-absent")):
        eventually(lambda: ask(place, "/readyz?target") == OK, "the target is back")


def start_mode(workloads: Workloads, mode: str, *flags: str) -> tuple[Process, tuple[str, int]]:
    """A server or a client whose target echoes, and its address."""
    target = workloads.enter(Backend(echo)).target
    if mode == "server":
        process = start(workloads, *server(workloads, target, *flags))
    else:
        process = start(workloads, *client(workloads, workloads.server(target).target, *flags))
    host, port = process.wait_for(r"listening for connections on (\S+):(\d+)$").groups()
    return process, (host, int(port))


@pytest.mark.parametrize("mode", ["server", "client"])
def test_in_the_shutdown_delay_only_the_shutdown_fails(workloads: Workloads, place: str, mode: str) -> None:
    process, _address = start_mode(workloads, mode, f"--health=unix:{place}", "--shutdown-delay=1h")
    process.signal(signal.SIGTERM)
    process.wait_for("shutdown delay: not ready")
    code, lines = ask(place, "/readyz")
    assert (code, lines[2:]) == (503, ["[+]listener ok", "[+]identity ok", "readyz check failed"])
    assert lines[1].startswith("[-]shutdown failed: stopping: new connections are accepted until ")
    assert ask(place, "/livez") == OK
    process.signal(signal.SIGTERM)
    assert process.exit_code() == -signal.SIGTERM


@pytest.mark.parametrize("mode", ["server", "client"])
def test_in_the_drain_the_health_port_is_open_and_the_status_port_is_closed(
    workloads: Workloads, place: str, mode: str
) -> None:
    process, address = start_mode(workloads, mode, f"--health=unix:{place}", f"--status=unix:{place}-status")
    with ExitStack() as opened:
        if mode == "server":
            peer = opened.enter_context(tls_connection(address, workloads.identity(CLIENT)))
            assert has_echo(peer)
        else:
            plain = opened.enter_context(connect(address))
            plain.sendall(b"more")
            assert plain.recv(4) == b"more"
        process.signal(signal.SIGTERM)
        process.wait_for("waiting for drain of 1 connections")
        eventually(lambda: not os.path.exists(f"{place}-status"), "the status port is closed")
        assert ask(place, "/readyz")[1][:3] == ["[+]ping ok", "[-]shutdown failed: stopping", "[-]listener failed: closed"]
        assert ask(place, "/livez") == OK
    assert process.exit_code() == 0
    assert not os.path.exists(place)


def test_many_connections_to_the_status_port_do_not_delay_a_probe(workloads: Workloads, place: str) -> None:
    target = workloads.enter(Backend(echo)).target
    both = f"--health=unix:{place}", f"--status=unix:{place}-status"
    start(workloads, *server(workloads, target, *both)).wait_for("listening for connections on")
    eventually(lambda: os.path.exists(f"{place}-status"), "the status port is open")
    with ExitStack() as opened:
        for _ in range(300):
            opened.enter_context(connect(f"{place}-status")).sendall(b"GET / HTTP/1.1\r\n")
        assert ask(place, "/readyz") == OK


def test_a_port_on_loopback_refuses_foreign_hosts(workloads: Workloads) -> None:
    target, port = workloads.enter(Backend(echo)).target, free_port()
    line = server(workloads, target, f"--health=127.0.0.1:{port}", "--status-allow-host=lb.example")
    start(workloads, *line).wait_for("listening for connections on")
    for host in ("127.0.0.1", "10.1.2.3:6061", "localhost", "lb.example"):
        assert ask(("127.0.0.1", port), "/readyz", host) == OK
    assert ask(("127.0.0.1", port), "/readyz", "evil.example")[0] == 421


def test_each_line_of_run_has_a_health_port_about_its_own_listener(workloads: Workloads, place: str) -> None:
    backend = workloads.enter(Backend(echo))
    parts = (
        *server(workloads, backend.target, f"--health=unix:{place}-s", listen=f"unix:{place}-front"),
        "+",
        *client(workloads, f"unix:{place}-absent", f"--health=unix:{place}-c", listen=f"unix:{place}-back"),
    )
    process = start(workloads, "run", *parts, "--", "cat")
    process.wait_for("listening for connections on", count=2)
    assert ask(f"{place}-s", "/readyz?target") == OK
    assert failed(f"{place}-c", "/readyz?target") == ["target"]
    assert ask(f"{place}-s", "/readyz?listener=client")[0] == 404


# -- reload


@pytest.fixture
def served(workloads: Workloads) -> ServedFile:
    """A configuration file with two servers, of which one has no backend."""
    made = ServedFile(workloads)
    made.add("one", workloads.enter(Backend(echo)).target)
    made.add("two", f"unix:{made.place}/absent")
    return made


def test_a_reload_adds_moves_changes_and_removes_a_health_port(served: ServedFile) -> None:
    served.start()
    head, place = served.head, served.place
    served.head = f'{head}\n[health]\nlisten = "unix:first"\n'
    assert served.reload()[0] == 200
    assert ask(f"{place}/first", "/readyz") == OK
    inode = (place / "first").stat().st_ino
    served.head += 'allow-host = "a.test"\n'
    assert served.reload()[0] == 200
    assert ask(f"{place}/first", "/readyz") == OK
    assert (place / "first").stat().st_ino == inode, "the same socket"
    served.head = f'{head}\n[health]\nlisten = "unix:second"\n'
    assert served.reload()[0] == 200
    eventually(lambda: not (place / "first").exists(), "the old port is closed")
    assert ask(f"{place}/second", "/readyz") == OK
    assert failed(f"{place}/second", "/readyz?target") == ["target"]
    served.head = f'{head}\n[[monitor]]\nlisteners = ["one"]\nhealth = {{ listen = "unix:second" }}\n'
    assert served.reload()[0] == 200
    assert ask(f"{place}/second", "/readyz?target") == OK, "it is about one listener now"
    served.head = head
    assert served.reload()[0] == 200
    eventually(lambda: not (place / "second").exists(), "the port is closed")
    assert status(served.status, "?listener=one")[0] == 200


def test_a_change_of_the_health_port_leaves_the_status_port_alone(served: ServedFile) -> None:
    served.start()
    with connect(str(served.status)) as sock:
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")
        served.head += '\n[health]\nlisten = "unix:health"\n'
        assert served.reload()[0] == 200
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 200"), "its connections are still open"


def test_a_health_port_that_cannot_be_opened_leaves_everything_as_it_is(served: ServedFile) -> None:
    served.start()
    head = served.head
    (served.place / "file").write_text("")
    for address, words in (("unix:file", "cannot listen on unix:"), ("https://:1", "health is served in plain HTTP")):
        served.head = f'{head}\n[health]\nlisten = "{address}"\n'
        code, text = served.reload()
        assert (code, words in text) == (500, True), text
    assert "failed: " in status(served.status)[1]["config_reload"]
    assert ask(str(served.status), "/readyz") == OK


def test_the_listener_that_is_not_ready_is_named(served: ServedFile) -> None:
    served.head += '\n[health]\nlisten = "unix:health"\n'
    served.start()
    place = f"{served.place}/health"
    assert ask(place, "/readyz?listener=one&target") == OK
    assert ask(place, "/readyz/target")[1][0].startswith("[-]target failed: two: ")
    document = status(served.status)[1]
    assert (document["ok"], json.dumps(document).count("target_error")) == (False, 1)


# -- the start


def test_a_port_that_cannot_be_opened_is_one_line_and_the_end(workloads: Workloads) -> None:
    (workloads.directory / "file").write_text("")
    line = server(workloads, "127.0.0.1:1", f"--health=unix:{workloads.directory}/file")
    process = workloads.watch(Process(tunnel_argv(*line), environ=bare_environment()))
    assert process.exit_code() == 1
    assert "cannot listen on unix:" in "".join((*process.lines, *process.complaints))


def test_a_socket_of_the_service_manager_is_served(workloads: Workloads) -> None:
    listener = workloads.enter(socket.create_server(("127.0.0.1", 0)))
    passed = listener.fileno()
    script = f'LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=probes exec "$@" 3<&{passed}'
    line = server(workloads, workloads.enter(Backend(echo)).target, "--health=systemd:probes")
    argv = ["bash", "-c", script, "bash", *tunnel_argv(*line)]
    process = workloads.watch(Process(argv, environ=bare_environment(), is_merged=True, pass_fds=(passed,)))
    process.wait_for("health port is open")
    assert ask(listener.getsockname()[:2], "/livez") == OK
    assert process.stop() == 0


LOADED = """
import atexit, sys
sys.argv[0] = "tunnel"
from tunnel.cli.main import main
atexit.register(lambda: print("loaded:", *sys.modules, flush=True))
sys.exit(main(sys.argv[1:], {}))
"""


def test_a_process_with_a_health_port_only_loads_no_metrics(workloads: Workloads, place: str) -> None:
    target = workloads.enter(Backend(echo)).target
    line = server(workloads, target, f"--health=unix:{place}")
    process = workloads.watch(Process([sys.executable, "-c", LOADED, *with_workers(line)], environ=bare_environment()))
    process.wait_for("listening for connections on")
    assert ask(place, "/readyz?target") == OK
    process.signal(signal.SIGTERM)
    assert process.exit_code() == 0
    (line,) = process.matches("^loaded: ")
    loaded = set(line.split())
    assert "tunnel.proxy.health_port" in loaded
    unwanted = {"json", "prometheus_client", "tunnel.proxy.status_port", "tunnel.proxy.process_observation"}
    unwanted |= {
        f"tunnel.status.{name}" for name in ("snapshot", "durations", "encoders", "endpoints", "status_document", "pprof")
    }
    of_reports = {"tunnel.status.durations"} if WORKERS != "1" else set()  # a type in the messages of workers
    assert loaded & unwanted == of_reports
