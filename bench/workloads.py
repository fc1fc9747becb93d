"""The workloads, their units, and how one sample of each is taken."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.generator import Conversation, Generator
from bench.peers import Proxy, Tunnel, run_tool
from bench.processes import BenchError, read_core, read_memory, read_usage
from bench.sample import Sample

IDLE_FROM, IDLE_TO = 100, 2000
SETTLE_SECONDS = 2.0  # until idle buffers are released
ROTATIONS, ROTATION_SECONDS = 100, 0.05
RECORD = 16384


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of the table."""

    name: str
    title: str
    mode: str  # of load.c; "start" is measured when the process is ready, "tool" when it ends
    counts: tuple[int, ...]  # the amount of one sample, then the number of connections if that varies
    unit: str
    per_unit: float  # printed units per second of CPU and per unit of work

    def scaled(self, divisor: int) -> tuple[int, ...]:
        """Return the counts of a shorter sample."""
        return (max(self.counts[0] // divisor, 1), *self.counts[1:])

    def connections(self, divisor: int) -> int:
        """Return the minimum number of connections of one sample."""
        match self.mode:
            case "handshakes" | "rotations":
                return self.scaled(divisor)[0]
            case "echo" | "bulk":
                return self.counts[1]
            case "paced":
                seconds, connections, opened, _messages = self.scaled(divisor)
                return connections + seconds * opened
            case _:
                return 1


_IDLE_ONES = 9900
WORKLOADS = (
    Workload("handshake", "full handshake, 1 byte echoed, close", "handshakes", (2000, 1), "us", 1e6),
    Workload("handshake16", "full handshake, 16 at once", "handshakes", (2000, 16), "us", 1e6),
    Workload("echo1", "64-byte echo, 1 connection", "echo", (40_000, 1, 64), "us", 1e6),
    Workload("echo32", "64-byte echo, 32 connections", "echo", (160_000, 32, 64), "us", 1e6),
    Workload("echo256", "64-byte echo, 256 connections", "echo", (160_000, 256, 64), "us", 1e6),
    Workload("record", "16 KiB request and response", "echo", (20_000, 1, RECORD), "us", 1e6),
    Workload("upload", "upload (TLS to plain), per GB", "upload", (2_000_000_000,), "s", 1e9),
    Workload("download", "download (plain to TLS), per GB", "download", (2_000_000_000,), "s", 1e9),
    Workload("bulk256", "128 uploads and 128 downloads at once, per GB", "bulk", (2_000_000_000, 256), "s", 1e9),
    Workload("open-echo", "64-byte echo, 32 connections, 8,000 per second", "paced", (5, 32, 0, 8000), "us", 1e6),
    Workload("open-handshake", "full handshakes, 200 per second", "paced", (5, 0, 200, 0), "us", 1e6),
    Workload("rotations", f"full handshake during {ROTATIONS} rotations", "rotations", (4000, 4), "us", 1e6),
    Workload("busy", f"64-byte echo, 1 connection, {_IDLE_ONES:,} idle ones beside it", "busy", (40_000, 1, 64), "us", 1e6),
    Workload("scaling-handshake", "full handshake, 16 at once for each core", "scaling", (4000, 16), "us", 1e6),
    Workload(
        "scaling-bulk", "64 uploads and 64 downloads at once for each core, per GB", "scaling", (4_000_000_000, 128), "s", 1e9
    ),
    Workload("idle", f"memory per idle connection, {IDLE_FROM} to {IDLE_TO}", "idle", (), "KiB", 1.0),
    Workload("after", "memory after 20,000 more connections", "after", (20_000, 16), "MiB", 1.0),
    Workload("memory", "memory after the first connections", "start", (), "MiB", 1.0),
    Workload("start", "CPU from start to listening", "start", (), "ms", 1e3),
    Workload("exec-cpu", "tunnel exec -- true, CPU", "tool", (), "ms", 1e3),
    Workload("exec", "tunnel exec -- true, from start to end", "tool", (), "ms", 1e3),
    Workload("flag", "tunnel server with a wrong flag, from start to end", "tool", (), "ms", 1e3),
)
SLOW = ("rotations", "busy", "after", "scaling-handshake", "scaling-bulk")
DEFAULT = tuple(workload.name for workload in WORKLOADS if workload.name not in SLOW)


def needs_fresh(workload: Workload) -> bool:
    """Whether the process must not have relayed anything before."""
    return workload.mode in ("idle", "start", "busy", "after")


def is_traffic(workload: Workload) -> bool:
    """Whether it measures relayed traffic of a process that other workloads use too."""
    return not needs_fresh(workload) and workload.mode not in ("tool", "scaling")


def sample_tool(workload: Workload, peer: Tunnel, generator: Generator, core: int) -> Sample:
    """One command, from start to exit."""
    if workload.name == "flag":
        seconds, user, system = run_tool(peer, peer.wrong_flag(), core, status=1)
    else:
        seconds, user, system = run_tool(peer, peer.tool(generator.identity), core)
    if workload.name == "exec-cpu":
        return Sample(user * workload.per_unit, system * workload.per_unit)
    return Sample(seconds * workload.per_unit, 0.0)


def sample_fresh(workload: Workload, generator: Generator, proxy: Proxy, divisor: int) -> Sample:
    """One measurement of a process that has relayed a few bytes."""
    match workload.mode:
        case "idle":
            return sample_idle(generator, proxy)
        case "busy":
            with _idle_connections(generator, proxy, _IDLE_ONES // divisor):
                return _sample_units(workload, "echo", generator, proxy, divisor)
        case "after":
            _sample_units(workload, "handshakes", generator, proxy, divisor)
            time.sleep(SETTLE_SECONDS)
            return Sample(read_memory(proxy.pid) / 1024, 0.0)
    if workload.name == "memory":
        return Sample(read_memory(proxy.pid) / 1024, 0.0)
    user, system = proxy.start
    return Sample(user * workload.per_unit, system * workload.per_unit)


def sample_work(workload: Workload, generator: Generator, proxy: Proxy, divisor: int) -> Sample:
    """CPU per unit of work; connections are open and used before it starts, unless opening them is the workload."""
    match workload.mode:
        case "paced":
            return _sample_paced(workload, generator, proxy, divisor)
        case "rotations":
            return _sample_units(workload, "handshakes", generator, proxy, divisor, is_rotating=True)
    return _sample_units(workload, workload.mode, generator, proxy, divisor)


class _Meter:
    """What a proxy uses from now on."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._usage = read_usage(proxy.pid)
        self._cores = sum(map(read_core, proxy.cores))

    def sample(self, workload: Workload, units: float, seconds: float, session: str, times: list[float], errors: int) -> Sample:
        user, system = read_usage(self._proxy.pid).since(self._usage)
        others = max(sum(map(read_core, self._proxy.cores)) - self._cores - user - system, 0.0)
        scale = workload.per_unit / units
        return Sample(
            user * scale,
            system * scale,
            (user + system) / seconds / len(self._proxy.cores),
            others / seconds / len(self._proxy.cores),
            session,
            units / seconds,
            *times[:3],
            errors,
        )


def _sample_units(
    workload: Workload, mode: str, generator: Generator, proxy: Proxy, divisor: int, *, is_rotating: bool = False
) -> Sample:
    with generator.client(mode, proxy.port, workload.scaled(divisor), is_plain=proxy.is_plain) as client:
        session = " ".join(client.expect("READY"))
        meter = _Meter(proxy)
        client.tell("go")
        if is_rotating:
            for _ in range(ROTATIONS // divisor):
                generator.identity.rotate()
                time.sleep(ROTATION_SECONDS)
        units, seconds, *times, errors = map(float, client.expect("DONE"))
        return meter.sample(workload, units, seconds, session, times, int(errors))


def _sample_paced(workload: Workload, generator: Generator, proxy: Proxy, divisor: int) -> Sample:
    seconds, connections, opened, messages = workload.scaled(divisor)
    with generator.client("paced", proxy.port, (1, connections, opened, messages), is_plain=proxy.is_plain) as client:
        client.expect("READY")
        time.sleep(1.0)
        client.tell("forget")
        client.expect("PACED")
        meter = _Meter(proxy)
        time.sleep(seconds)
        client.tell("report")
        _late, errors, *values = map(float, client.expect("PACED"))
        units, *times = values[:5] if opened else values[5:]
        if not units:
            raise BenchError("nothing was answered")
        return meter.sample(workload, units, float(seconds), "", times, int(errors))


def sample_scaling(workload: Workload, generator: Generator, proxy: Proxy, divisor: int) -> Sample:
    """Put the load of one generator per core on a proxy that shares these cores with them."""
    mode = "bulk" if workload.name == "scaling-bulk" else "handshakes"
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(generator.client(mode, proxy.port, workload.scaled(divisor), is_plain=proxy.is_plain))
            for _ in proxy.cores
        ]
        sessions = [" ".join(client.expect("READY")) for client in clients]
        meter = _Meter(proxy)
        for client in clients:
            client.tell("go")
        done = [list(map(float, client.expect("DONE"))) for client in clients]
    units, seconds = sum(one[0] for one in done), max(one[1] for one in done)
    return meter.sample(workload, units, seconds, sessions[0], done[0][2:], int(sum(one[-1] for one in done)))


@contextlib.contextmanager
def _idle_connections(generator: Generator, proxy: Proxy, count: int) -> Iterator[Conversation]:
    """Keep that many connections open, each of which has relayed a byte and still does at the end."""
    with generator.client("idle", proxy.port, is_plain=proxy.is_plain) as client:
        client.tell(str(count))
        client.expect("OPEN")
        time.sleep(SETTLE_SECONDS)
        yield client
        client.hang_up()
        client.expect("DONE")


def sample_idle(generator: Generator, proxy: Proxy) -> Sample:
    """KiB per connection after it has relayed a byte; at the end each one must relay another byte."""
    with generator.client("idle", proxy.port, is_plain=proxy.is_plain) as client:
        memory = []
        for count in (IDLE_FROM, IDLE_TO):
            client.tell(str(count))
            client.expect("OPEN")
            time.sleep(SETTLE_SECONDS)
            memory.append(read_memory(proxy.pid))
        client.hang_up()
        client.expect("DONE")
    return Sample((memory[1] - memory[0]) / (IDLE_TO - IDLE_FROM), 0.0)
