"""The access log of a real process: where it goes, log rotation, and readers and disks that fail."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL

from tests.support.plain_backends import Backend, echo, free_port
from tests.support.processes import LIMIT, WORKERS, Proxy, bare_environment, eventually, tunnel_argv
from tests.support.tls_peer import tls_connection
from tests.support.workloads import CLIENT, SERVER, STRANGER, Workloads
from tunnel.listener.access_event import END, START

MANY = 1000  # connections, each with two events: more than a pipe and the backlog hold


def carry(workloads: Workloads, address: tuple[str, int], identity: str = CLIENT) -> None:
    with suppress(SSL.Error, OSError), tls_connection(address, workloads.identity(identity)) as peer:
        peer.send(b"hello")
        assert peer.receive() == b"hello"


def events_of(lines: list[str]) -> list[dict[str, Any]]:
    return [event for line in lines if (event := json.loads(line)).get("event.name") in (START, END)]


def events_in(path: Path) -> list[dict[str, Any]]:
    return events_of(path.read_text().splitlines()) if path.exists() else []


@pytest.fixture
def backend(workloads: Workloads) -> str:
    return workloads.enter(Backend(echo)).target


def test_with_json_every_line_is_an_object(workloads: Workloads, backend: str) -> None:
    port = free_port()
    proxy = workloads.server(backend, "--access-log=json", "--log-format=json", listen=f"127.0.0.1:{port}")
    proxy.wait_for("listening for connections")
    carry(workloads, ("127.0.0.1", port))
    proxy.wait_for('"tunnel.outcome": ?"relayed"')  # written when the connection has ended, which may be after the client has
    carry(workloads, ("127.0.0.1", port), STRANGER)
    proxy.wait_for("no-matching-rule")
    assert proxy.stop() == 0
    lines = [json.loads(line) for line in proxy.lines]
    relayed, refused = events_of(proxy.lines)
    assert (relayed["tunnel.peer.id"], relayed["tunnel.outcome"]) == (CLIENT, "relayed")
    assert (refused["tunnel.peer.id"], refused["tunnel.reason"]) == (STRANGER, "no-matching-rule")
    others = [line for line in lines if "event.name" not in line]
    assert all(line.keys() == {"time", "severity", "pid", "message"} for line in others)
    assert not [line for line in others if "pipe" in line["message"]]


def test_a_file_is_replaced_after_it_was_moved_and_at_sighup(workloads: Workloads, backend: str, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "access.log"
    proxy = workloads.server(backend, "--access-log=json", f"--access-log-target={path}")
    carry(workloads, proxy.address)
    eventually(lambda: len(events_in(path)) == 1, "the first event")
    path.rename(folder / "access.log.1")
    proxy.signal(signal.SIGHUP)
    eventually(path.exists, "a new file")
    carry(workloads, proxy.address)
    eventually(lambda: len(events_in(path)) == 1, "the second event")
    assert proxy.stop() == 0
    assert len(events_in(folder / "access.log.1")) == 1
    assert not proxy.matches("pipe"), "the lines about connections are in the access log"


def test_a_full_disk_stops_no_traffic_and_the_log_resumes(workloads: Workloads, backend: str, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    proxy = workloads.server(backend, "--access-log=json", f"--access-log-target={path}")
    carry(workloads, proxy.address)
    eventually(lambda: len(events_in(path)) == 1, "the first event")
    size, unlimited = path.stat().st_size + 100, resource.RLIM_INFINITY
    resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE, (size, unlimited))
    for _ in range(3):
        carry(workloads, proxy.address)
    eventually(lambda: path.stat().st_size == size, "a torn line")
    resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
    carried = 4
    while not proxy.matches("dropped_lines="):
        carry(workloads, proxy.address)
        carried += 1
        assert carried < 1000
    dropped = int(proxy.wait_for(r"access log could not be written: File too large: dropped_lines=(\d+)$").group(1))
    assert proxy.stop() == 0
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
    assert len(events_of(whole)) + dropped == carried


def test_a_device_that_is_always_full_stops_no_traffic(workloads: Workloads, backend: str) -> None:
    proxy = workloads.server(backend, "--access-log=text", "--access-log-target=/dev/full")
    carried = 0
    while not proxy.matches("access log cannot be written: No space left on device; dropping events until it can$"):
        carry(workloads, proxy.address)
        carried += 1
        assert carried < 1000
    assert proxy.stop() == 0
    assert proxy.matches(f"stopped accepted={carried} relayed={carried} ")
    assert proxy.matches(f"access log could not be written: No space left on device: dropped_lines={carried}$")


def test_a_blocked_pipe_stops_no_traffic_and_the_log_resumes(workloads: Workloads, backend: str) -> None:
    port = free_port()
    api = f"--use-workload-api-addr={workloads.sockets[SERVER]}"
    flags = [
        "--access-log=json",
        "--access-log-start",
        f"--allow-id={CLIENT}",
        f"--listen=127.0.0.1:{port}",
        f"--target={backend}",
    ]
    with subprocess.Popen(
        tunnel_argv("server", api, *flags), stdout=subprocess.PIPE, env=bare_environment(), encoding="ascii"
    ) as process:
        try:
            eventually(lambda: accepts(port), "a listener")
            for _ in range(MANY):
                carry(workloads, ("127.0.0.1", port))
            lines = read_until(process, "dropped_lines=")
            carry(workloads, ("127.0.0.1", port))
            process.terminate()
            assert process.stdout is not None
            lines += process.stdout.read().splitlines()
            assert process.wait(60) == 0
        finally:
            process.kill()
    events = events_of([line for line in lines if line.startswith("{")])
    dropped = sum(int(line.rpartition("=")[2]) for line in lines if "log reader was blocked: dropped_lines=" in line)
    assert dropped > 0
    assert len(events) + dropped == 2 * (MANY + 1)
    assert events[-1]["event.name"] == END


def accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def read_until(process: subprocess.Popen[str], word: str) -> list[str]:
    """The output up to the line with this word."""
    assert process.stdout is not None
    descriptor, text = process.stdout.fileno(), ""
    while word not in text or not text.endswith("\n"):
        assert select.select([descriptor], [], [], LIMIT)[0], f"no line with {word}"
        data = os.read(descriptor, 1 << 20)
        assert data, "the process has ended"
        text += data.decode("ascii")
    return text.splitlines()


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--access-log=xml"], "--access-log: enum value must be one of text,json,off, got 'xml'"),
        (["--access-log-start"], "--access-log-start needs --access-log text or json"),
        (["--access-log-target=x"], "--access-log-target needs --access-log text or json"),
        (["--access-log=json", "--access-log-target=/missing/x"], "access log /missing/x: no such file or directory"),
        (["--log-format=xml"], "--log-format: enum value must be one of text,json, got 'xml'"),
    ],
)
def test_a_mistake_is_one_clear_line(flags: list[str], problem: str) -> None:
    line = tunnel_argv("server", "--listen=127.0.0.1:0", "--target=127.0.0.1:1", "--use-workload-api", "--allow-all", *flags)
    done = subprocess.run(line, capture_output=True, encoding="ascii", env=bare_environment(), check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert problem in done.stderr


def test_a_changed_setting_of_a_file_is_announced_for_the_next_start(
    tmp_path: Path, workloads: Workloads, backend: str
) -> None:
    config = tmp_path / "tunnel.toml"

    def write(log: str) -> None:
        config.write_text(f"""workers = {WORKERS}
[log]
{log}
[identity.default]
workload-api = "{workloads.sockets[SERVER]}"
[[server]]
name = "redis"
listen = "127.0.0.1:0"
target = "{backend}"
access = [{{ allow = "{CLIENT}" }}]
""")

    write('access-log = "json"\naccess-log-target = "access.log"')
    proxy = workloads.watch(Proxy(tunnel_argv("serve", str(config)), environ=bare_environment(), cwd=Path("/")))
    host, port = proxy.wait_for(r"listening for connections on (\S+):(\d+) ").groups()
    carry(workloads, (host, int(port)))
    path = tmp_path / "access.log"
    eventually(lambda: len(events_in(path)) == 1, "an event")
    assert events_in(path)[0]["tunnel.listener"] == "redis"
    write('access-log = "text"\nformat = "json"')
    os.kill(proxy.pid, signal.SIGHUP)
    for key in ("log.access-log", "log.format"):
        proxy.wait_for(f"warning: {key}: the change takes effect at the next start")
