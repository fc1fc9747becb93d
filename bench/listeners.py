"""The command that measures a process with many listeners: `python -m bench.listeners`.

Every listener has an access list of its own. The load generator opens connections on all listeners in turn, at a fixed rate,
and sends messages on one open connection per listener, while the process reloads, rotates its SVID, or is asked for its status.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.generator import SOURCES, Conversation, Generator, compile_load
from bench.identity import CLIENT_ID, open_identity
from bench.peers import CHECKOUT
from bench.processes import NOTHING, BenchError, read_core, read_memory, read_usage, running

WAIT_SECONDS = 30.0
PAUSE_SECONDS = 0.7  # between two actions
SETTLE_SECONDS = 2.0  # until the memory of a start is freed
_PORTS = range(20_000, 32_000)  # below those that the kernel chooses for clients

_HEAD = """\
[status]
listen = "http://127.0.0.1:{status}"
enable-reload = true

[identity.default]
workload-api = "{api}"
"""
_SERVER = """
[[server]]
name = "listener-{number}"
listen = "127.0.0.1:{port}"
target = "127.0.0.1:{backend}"
access = [{{ allow = "spiffe://example.org/only/{number}/{version}" }}, {{ allow = "{client}" }}]
"""


@dataclass(frozen=True, slots=True)
class Options:
    """The parsed command line."""

    listeners: int
    actions: int
    connections: int  # per second
    messages: int  # per second
    cores: tuple[int, int]  # of the proxy and of the load


class Served:
    """A running `tunnel serve`, and its configuration file."""

    def __init__(self, place: Path, identity: str, backend: int, listeners: int) -> None:
        self.path = place / f"{listeners}.toml"
        self.log = place / f"{listeners}.log"
        self.first = _free_ports(listeners + 1)
        self.listeners = listeners
        self.versions = [0] * listeners
        self.pid = self.core = 0
        self._head = _HEAD.format(status=self.first + listeners, api=identity)
        self._backend = backend
        self._changes = 0

    def write(self) -> None:
        """Write the configuration file."""
        servers = (
            _SERVER.format(number=number, port=self.first + number, backend=self._backend, client=CLIENT_ID, version=version)
            for number, version in enumerate(self.versions)
        )
        self.path.write_text(self._head + "".join(servers))

    def reload(self) -> None:
        """Change one listener, another one each time."""
        self._changes += 1
        self.versions[self._changes % self.listeners] += 1
        self._reload()

    def reload_all(self) -> None:
        """Change all listeners."""
        self.versions = [version + 1 for version in self.versions]
        self._reload()

    def _reload(self) -> None:
        self.write()
        if self.request("POST", "/_reload") != b"reloaded\n":
            raise BenchError("the reload failed")

    def request(self, method: str, path: str) -> bytes:
        """Return the body of a response of the status port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.first + self.listeners, timeout=WAIT_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path)
            return connection.getresponse().read()

    def cpu(self) -> float:
        """Seconds of CPU time so far."""
        return sum(read_usage(self.pid).since(NOTHING))

    def lines(self, text: str) -> int:
        """How many lines of the log contain this text."""
        return self.log.read_text(errors="replace").count(text)

    def wait_for(self, text: str, count: int) -> None:
        """Wait for so many lines of the log with this text."""
        deadline = time.monotonic() + WAIT_SECONDS
        while self.lines(text) < count:
            if time.monotonic() > deadline:
                raise BenchError(f"no line with {text!a} within {WAIT_SECONDS:g}s")
            time.sleep(0.01)


@contextlib.contextmanager
def serving(served: Served, core: int) -> Iterator[Served]:
    """Start `tunnel serve`, wait until it listens, and report its cost."""
    served.write()
    command = [sys.executable, "-m", "tunnel", "serve", f"--config={served.path}"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    began = time.monotonic()
    with (
        served.log.open("wb") as output,
        running(command, cores=[core], stdout=output, stderr=output, environment=environment, directory=CHECKOUT) as process,
    ):
        served.pid, served.core = process.pid, core
        served.wait_for("listening for connections on", served.listeners)
        print(f"start: listeners={served.listeners} seconds={time.monotonic() - began:.2f} cpu={served.cpu():.2f}")
        yield served
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(WAIT_SECONDS)
        print(f"stop: listeners={served.listeners} seconds={time.monotonic() - began:.2f} exit={process.returncode}")


def measure_size(served: Served) -> int:
    """Report descriptors and memory; return the memory in KiB."""
    time.sleep(SETTLE_SECONDS)
    memory = read_memory(served.pid)
    descriptors = len(os.listdir(f"/proc/{served.pid}/fd"))
    print(f"size: listeners={served.listeners} memory={memory / 1024:.1f}MiB descriptors={descriptors}")
    return memory


def measure_actions(name: str, served: Served, action: Callable[[], object], times: int) -> None:
    """Report the time and the CPU time of an action without load."""
    seconds, cpu = [], []
    for _ in range(times):
        before, began = served.cpu(), time.monotonic()
        action()
        seconds.append(time.monotonic() - began)
        time.sleep(PAUSE_SECONDS / 2)  # what the action has begun belongs to it
        cpu.append(served.cpu() - before)
    print(
        f"without load: {name}: seconds={statistics.median(seconds):.3f} most={max(seconds):.3f}"
        f" cpu={statistics.median(cpu):.3f} least={min(cpu):.3f}"
    )


def measure_load(name: str, served: Served, load: Conversation, action: Callable[[], object], times: int) -> None:
    """Report the durations under load while an action is repeated."""
    load.tell("forget")
    load.expect("PACED")
    seconds, cpu, core, start = [], served.cpu(), read_core(served.core), time.monotonic()
    for _ in range(times):
        began = time.monotonic()
        action()
        seconds.append(time.monotonic() - began)
        time.sleep(PAUSE_SECONDS)
    load.tell("report")
    late, failed, *values = load.expect("PACED")
    elapsed, own = time.monotonic() - start, served.cpu() - cpu
    others = max(read_core(served.core) - core - own, 0.0)
    print(
        f"under load: {name}: action={statistics.median(seconds):.3f}s most={max(seconds):.3f}s;"
        f" connections {_describe(values[:5])} failed={failed}; messages {_describe(values[5:])};"
        f" generator late by at most {late} ms;"
        f" core {own / elapsed:.0%} busy, others {others / elapsed:.0%}",
        flush=True,
    )


def _describe(values: Sequence[str]) -> str:
    return "count={} median={} p99={} p99.9={} most={} ms".format(*values)


def measure(options: Options, place: Path) -> None:
    """Measure one listener, then all of them."""
    binary = compile_load(SOURCES / "build")
    with open_identity(place) as identity:
        generator = Generator(binary, identity, options.cores[1:])
        with generator.backend() as backend:
            with serving(Served(place, identity.workload_api, backend, 1), options.cores[0]) as one:
                small = measure_size(one)
            many = Served(place, identity.workload_api, backend, options.listeners)
            with serving(many, options.cores[0]):
                per_listener = (measure_size(many) - small) / (options.listeners - 1)
                print(f"memory per listener: {per_listener:.1f} KiB")
                measure_served(options, many, generator, identity.rotate)


def measure_served(options: Options, served: Served, generator: Generator, renew: Callable[[], None]) -> None:
    """Measure every action without load and under load."""

    def rotate() -> None:
        """Renew the SVID, and wait until it is in use."""
        count = served.lines("identity updated")
        renew()
        served.wait_for("identity updated", count + 1)

    actions: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "reload that changes one listener": served.reload,
        "reload that changes all listeners": served.reload_all,
        "rotation of the SVID": rotate,
        "GET /_status": lambda: served.request("GET", "/_status"),
        "GET /_metrics/prometheus": lambda: served.request("GET", "/_metrics/prometheus"),
    }
    for name, action in list(actions.items())[1:]:
        measure_actions(name, served, action, options.actions)
    counts = served.listeners, served.listeners, options.connections, options.messages
    with generator.client("paced", served.first, counts) as load:
        load.expect("READY")
        time.sleep(SETTLE_SECONDS)
        for name, action in actions.items():
            measure_load(name, served, load, action, options.actions)
        load.hang_up()
    print(f"memory after the load: {read_memory(served.pid) / 1024:.1f} MiB")


def _free_ports(count: int) -> int:
    """Return the first of so many consecutive free ports."""
    for first in range(_PORTS.start + os.getpid() % 1000, _PORTS.stop - count, count):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise BenchError(f"no {count} consecutive free ports")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if there is no result."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes are stopped
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="bench.listeners", description="Cost of many listeners in one process.")
    parser.add_argument("--listeners", type=int, default=200)
    parser.add_argument("--actions", type=int, default=10, metavar="N", help="times that each action is repeated")
    parser.add_argument("--connections", type=int, default=100, metavar="N", help="new connections per second")
    parser.add_argument("--messages", type=int, default=1000, metavar="N", help="messages per second on open connections")
    given = parser.parse_args(argv)
    options = Options(given.listeners, given.actions, given.connections, given.messages, (cores[-1], cores[0]))
    os.sched_setaffinity(0, {options.cores[1]})  # this process serves the Workload API
    try:
        with tempfile.TemporaryDirectory(prefix="tunnel-bench-") as place:
            measure(options, Path(place))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
