"""Metrics under the names that scripts and dashboards know, in every form, from a real process."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable

import pytest

from tests.support.installed_command import InstalledCommand, ask
from tests.support.plain_backends import Backend, connect, echo, free_port
from tests.support.processes import LIMIT, eventually
from tests.support.tls_peer import tls_connection

COUNTS = ("accept.total", "accept.success", "accept.timeout", "accept.error", "conn.open", "conn.timeout")
TIMERS = ("conn.lifetime", "conn.handshake")
FIELDS = ("count", "min", "max", "mean", "50-percentile", "75-percentile", "95-percentile", "99-percentile")
RUNTIME = ("mem.sys", "mem.heap.objects", "goroutines", "mem.gc.num-gc", "mem.gc.cpu-fraction")
JSON_NAMES = {
    *COUNTS,
    *(f"{timer}.{field}" for timer in (*TIMERS, "runtime.mem.gc.duration") for field in FIELDS),
    *(f"runtime.{name}" for name in RUNTIME),
}
GRAPHITE_TIMER = (
    *("count", "count_ps", "min", "max", "mean", "std-dev", "50-percentile", "75-percentile", "95-percentile", "99-percentile"),
    *("999-percentile", "one-minute", "five-minute", "fifteen-minute", "mean-rate"),
)


class Numbers:
    """A proxy that has carried one connection and refused another."""

    def __init__(self, installed_command: InstalledCommand, *flags: str) -> None:
        self._path = str(installed_command.directory / "status")
        self.proxy = installed_command.server(
            installed_command.enter(Backend(echo)).target, f"--status=unix:{self._path}", *flags
        )
        with tls_connection(self.proxy.address, installed_command.command_files.identity("client")) as peer:
            peer.send(b"x")
            assert peer.receive_exactly(1) == b"x"
            peer.end()
            assert peer.receive_all() == b""
        with connect(self.proxy.address) as noise:
            noise.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while noise.recv(4096):
                pass
        eventually(lambda: self.json()["proxy.conn.lifetime.count"] == 2, "both are over")

    def ask(self, path: str) -> bytes:
        status, body = ask(self._path, path)
        assert status == 200
        return body

    def json(self) -> dict[str, float]:
        return {entry["metric"]: entry["value"] for entry in json.loads(self.ask("/_metrics"))}


@pytest.fixture
def numbers(installed_command: InstalledCommand) -> Numbers:
    return Numbers(installed_command, "--metrics-prefix=proxy", "--enable-pprof")


def test_json_prometheus_and_pprof_say_what_scripts_look_for(numbers: Numbers) -> None:
    json_is_told_under_the_known_names(numbers)
    prometheus_is_told_under_the_known_names(numbers)
    assert re.match(rb"goroutine profile: total [0-9]+\n", numbers.ask("/debug/pprof/goroutine?debug=1"))


def json_is_told_under_the_known_names(numbers: Numbers) -> None:
    entries = json.loads(numbers.ask("/_metrics/json"))
    assert all(set(entry) == {"hostname", "metric", "timestamp", "value"} for entry in entries)
    values = {entry["metric"].removeprefix("proxy."): entry["value"] for entry in entries}
    assert set(values) >= JSON_NAMES
    assert [values[name] for name in COUNTS] == [2, 1, 0, 1, 0, 0]
    assert values["conn.handshake.count"] == 2
    assert values["conn.lifetime.max"] > 10_000, "in nanoseconds"


def prometheus_is_told_under_the_known_names(numbers: Numbers) -> None:
    for path in ("/_metrics?format=prometheus", "/_metrics/prometheus"):
        samples = dict(line.rsplit(" ", 1) for line in numbers.ask(path).decode().splitlines() if line[:1] != "#")
        for name, value in zip(COUNTS, [2, 1, 0, 1, 0, 0], strict=True):
            assert float(samples[f"proxy_{name.replace('.', '_')}"]) == value
        for timer in ("conn_handshake", "conn_lifetime"):
            for field in ("count", "sum", "min", "max", "mean", "std_dev", "rate1", "rate_mean"):
                assert f"proxy_{timer}_{field}" in samples


class Collector:
    """A server that keeps what each connection says, and hangs up when `is_whole` says that it was all."""

    def __init__(self, is_whole: Callable[[bytes], bool], answer: bytes = b"") -> None:
        self._is_whole = is_whole
        self._answer = answer
        self.reports: list[bytes] = []
        self.changed = threading.Condition()

    def serve(self, connection: socket.socket) -> None:
        data = b""
        while not self._is_whole(data) and (piece := connection.recv(65536)):
            data += piece
        connection.sendall(self._answer)
        with self.changed:
            self.reports.append(data)
            self.changed.notify_all()

    def wait_for(self, count: int) -> list[bytes]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.reports) >= count, LIMIT)
            return self.reports[:count]


def is_whole_request(data: bytes) -> bool:
    head, blank, body = data.partition(b"\r\n\r\n")
    return bool(blank) and len(body) >= length_of(head)


def length_of(head: bytes) -> int:
    found = re.search(rb"(?i)^content-length: ([0-9]+)\r?$", head, re.MULTILINE)
    assert found is not None, head
    return int(found[1])


def test_reports_are_sent_by_post_and_to_graphite_at_the_interval(installed_command: InstalledCommand) -> None:
    posts, lines = Collector(is_whole_request, b"HTTP/1.1 204 No Content\r\n\r\n"), Collector(lambda data: False)
    post, graphite = installed_command.enter(Backend(posts.serve)), installed_command.enter(Backend(lines.serve))
    installed_command.server(
        "127.0.0.1:1",
        f"--metrics-url=http://{post.target}/metrics",
        f"--metrics-graphite={graphite.target}",
        "--metrics-interval=200ms",
    )
    for report in posts.wait_for(2):
        head, _, body = report.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /metrics HTTP/1.1\r\n")
        assert b"application/json" in head
        assert length_of(head) == len(body)
        assert {entry["metric"].removeprefix("ghostunnel.") for entry in json.loads(body)} >= JSON_NAMES
    for report in lines.wait_for(2):
        assert_graphite(report)


def assert_graphite(report: bytes) -> None:
    assert report.endswith(b"\n")
    parts = [line.split(" ") for line in report.decode().splitlines()]
    assert all(len(part) == 3 and part[2].isdigit() for part in parts)
    names = {part[0].removeprefix("ghostunnel.") for part in parts}
    assert names >= {f"{name}.{field}" for name in ("accept.total", "accept.error") for field in ("count", "count_ps")}
    assert names >= {f"{timer}.{field}" for timer in TIMERS for field in GRAPHITE_TIMER}


def test_graphite_hears_nothing_before_the_interval_is_over(installed_command: InstalledCommand) -> None:
    """Ghostunnel writes every second whatever the flag says."""
    lines = Collector(lambda data: False)
    graphite = installed_command.enter(Backend(lines.serve))
    proxy = installed_command.server(
        "127.0.0.1:1", f"--metrics-graphite={graphite.target}", "--metrics-interval=1h", "--timed-reload=1200ms"
    )
    proxy.wait_for("reloading configuration complete$", count=1)
    assert graphite.accepted == 0


def test_a_place_for_reports_that_is_not_there_is_said_in_the_log_only(installed_command: InstalledCommand) -> None:
    proxy = installed_command.server("127.0.0.1:1", f"--metrics-url=http://127.0.0.1:{free_port()}/", "--metrics-interval=50ms")
    proxy.wait_for("error reporting metrics: ")
    assert proxy.stop() == 0
    assert not proxy.complaints
