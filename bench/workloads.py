"""The workloads, their units, and how one sample of each is taken.

Targets are ratios to HAProxy in the same run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench.generator import Generator
from bench.peers import Proxy, Tunnel, run_tool
from bench.processes import read_core, read_memory, read_usage

IDLE_FROM, IDLE_TO = 100, 2000
SETTLE_SECONDS = 2.0  # until idle buffers are released


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of the table."""

    name: str
    title: str
    mode: str  # the mode of load.c; "start" is measured when the process is ready, "tool" when it ends
    counts: tuple[int, ...]  # the amount of one sample, then the number of connections if that varies
    unit: str
    per_unit: float  # printed units per second of CPU and per unit of work
    target: float | None

    def scaled(self, divisor: int) -> tuple[int, ...]:
        """Return the counts of a shorter sample."""
        return (max(self.counts[0] // divisor, 1), *self.counts[1:])

    def connections(self, divisor: int) -> int:
        """Return the minimum number of connections of one sample."""
        return self.scaled(divisor)[0] if self.mode == "handshakes" else self.counts[1] if self.mode == "echo" else 1


WORKLOADS = (
    Workload("handshake", "full handshake, 1 byte echoed, close", "handshakes", (2000, 1), "us", 1e6, 1.0),
    Workload("echo1", "64-byte echo, 1 connection", "echo", (40_000, 1), "us", 1e6, 1.3),
    Workload("echo32", "64-byte echo, 32 connections", "echo", (160_000, 32), "us", 1e6, 1.15),
    Workload("upload", "upload (TLS to plain), per GB", "upload", (2_000_000_000,), "s", 1e9, 0.75),
    Workload("download", "download (plain to TLS), per GB", "download", (2_000_000_000,), "s", 1e9, 0.75),
    Workload("idle", f"memory per idle connection, {IDLE_FROM} to {IDLE_TO}", "idle", (), "KiB", 1.0, 1.6),
    Workload("start", "CPU from start to listening", "start", (), "ms", 1e3, None),
    Workload("memory", "memory after the first connections", "start", (), "MiB", 1.0, None),
    Workload("exec-cpu", "tunnel exec -- true, CPU", "tool", (), "ms", 1e3, None),
    Workload("exec", "tunnel exec -- true, from start to end", "tool", (), "ms", 1e3, None),
    Workload("handshake16", "full handshake, 16 at once", "handshakes", (2000, 16), "us", 1e6, None),
)
DEFAULT = ("handshake", "echo1", "echo32", "upload", "download", "idle", "start", "memory", "exec-cpu", "exec")


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement in the workload's unit; memory has no system part."""

    user: float
    system: float
    busy: float  # the share of its core that the proxy used
    others: float  # the share that other processes used: a large value makes the sample unreliable
    session: str = ""  # the negotiated parameters

    @property
    def total(self) -> float:
        return self.user + self.system


def needs_fresh(workload: Workload) -> bool:
    """Whether the process must not have relayed anything before."""
    return workload.mode in ("idle", "start")


def is_traffic(workload: Workload) -> bool:
    """Whether it measures relayed traffic."""
    return workload.mode not in ("idle", "start", "tool")


def sample_tool(workload: Workload, peer: Tunnel, generator: Generator, core: int) -> Sample:
    """One command with one tunnel, from start to exit."""
    seconds, user, system = run_tool(peer, generator.identity, core)
    if workload.name == "exec":
        return Sample(seconds * workload.per_unit, 0.0, 0.0, 0.0)
    return Sample(user * workload.per_unit, system * workload.per_unit, 0.0, 0.0)


def sample_fresh(workload: Workload, generator: Generator, proxy: Proxy) -> Sample:
    """One measurement of a process that has relayed a few bytes."""
    if workload.mode == "idle":
        return sample_idle(generator, proxy)
    if workload.name == "memory":
        return Sample(read_memory(proxy.pid) / 1024, 0.0, 0.0, 0.0)
    user, system = proxy.start
    return Sample(user * workload.per_unit, system * workload.per_unit, 0.0, 0.0)


def sample_work(workload: Workload, generator: Generator, proxy: Proxy, divisor: int) -> Sample:
    """CPU per unit of work; connections are open and used before it starts, unless opening them is the workload."""
    counts = workload.scaled(divisor)
    with generator.client(workload.mode, proxy.port, counts) as client:
        session = " ".join(client.expect("READY"))
        before, core_before = read_usage(proxy.pid), read_core(proxy.core)
        client.tell("go")
        units, seconds = map(float, client.expect("DONE"))
        user, system = read_usage(proxy.pid).since(before)
        others = max(read_core(proxy.core) - core_before - user - system, 0.0)
    scale = workload.per_unit / units
    return Sample(user * scale, system * scale, (user + system) / seconds, others / seconds, session)


def sample_idle(generator: Generator, proxy: Proxy) -> Sample:
    """KiB per connection after it has relayed a byte; at the end each one must relay another byte."""
    with generator.client("idle", proxy.port) as client:
        memory = []
        for count in (IDLE_FROM, IDLE_TO):
            client.tell(str(count))
            client.expect("OPEN")
            time.sleep(SETTLE_SECONDS)
            memory.append(read_memory(proxy.pid))
        client.hang_up()
        client.expect("DONE")
    return Sample((memory[1] - memory[0]) / (IDLE_TO - IDLE_FROM), 0.0, 0.0, 0.0)
