"""The command that measures this checkout beside other proxies: `python -m bench.run`.

Every round starts new processes and measures each workload on all peers one after the other, in rotating order, so that a slow
minute of the machine affects all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.generator import SOURCES, Generator, compile_load
from bench.identity import open_identity
from bench.other_peers import OTHER_PEERS
from bench.peers import DEFAULT_PEERS, PEERS, Peer, Proxy, Tunnel, started
from bench.processes import BenchError, raise_descriptor_limit
from bench.profile import profile_work
from bench.report import Result, encode_result, format_result
from bench.sample import Sample
from bench.workloads import (
    DEFAULT,
    WORKLOADS,
    Workload,
    is_traffic,
    needs_fresh,
    sample_fresh,
    sample_scaling,
    sample_tool,
    sample_work,
)

Take = Callable[[Workload, Generator, Proxy, int], Sample]

QUICK_DIVISOR, QUICK_ROUNDS = 5, 2
FRESH_ROUNDS = 3  # memory varies by one percent only, and sampling is slow
FLUSH_SECONDS = 0.5  # until the line of the last connection is in the log


@dataclass(frozen=True, slots=True)
class Options:
    """The parsed command line."""

    peers: Mapping[str, Peer]
    versions: Mapping[str, tuple[str, str]]
    workloads: Sequence[Workload]
    rounds: int
    divisor: int
    proxy_core: int
    load_core: int
    json: Path | None
    profile: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if there is no result. A missed target is a result, not an error."""
    raise_descriptor_limit()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes are stopped
    try:
        options = _parse(argv)
        result = _measure(options)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(format_result(result))
    if options.json:
        options.json.write_text(json.dumps(encode_result(result), indent=1) + "\n")
    return 0


def _parse(argv: Sequence[str] | None) -> Options:
    names = [workload.name for workload in WORKLOADS]
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="bench.run", description="Cost and latency of this checkout beside other proxies.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds of a fifth of the work: rough")
    parser.add_argument("--divisor", type=int, default=1, metavar="N", help="a fraction of the work of each sample")
    parser.add_argument("--only", default=",".join(DEFAULT), metavar="LIST", help=f"of {', '.join(names)}, or all")
    parser.add_argument("--peer", metavar="LIST", help=f"of {', '.join(PEERS)} (default: what is installed)")
    parser.add_argument("--cores", default=f"{cores[-1]},{cores[0]}", metavar="PROXY,LOAD")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every sample")
    parser.add_argument("--profile", action="store_true", help="one more pass under perf: the symbols that cost most")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="another checkout, as the peer `before`")
    given = parser.parse_args(argv)
    proxy_core, _, load_core = given.cores.partition(",")
    if proxy_core == load_core:
        print("bench: proxy and load share a core, so the ratios differ from those of two cores", file=sys.stderr)
    known = dict(PEERS)
    if given.before:
        known["before"] = Tunnel("before", checkout=given.before.resolve())
    peers, versions = _peers(given.peer, known)
    return Options(
        peers=peers,
        versions=versions,
        workloads=[WORKLOADS[names.index(name)] for name in (names if given.only == "all" else _choice(given.only, names))],
        rounds=min(given.rounds, QUICK_ROUNDS) if given.quick else given.rounds,
        divisor=QUICK_DIVISOR if given.quick else given.divisor,
        proxy_core=int(proxy_core),
        load_core=int(load_core or proxy_core),
        json=given.json,
        profile=given.profile,
    )


def _peers(chosen: str | None, known: Mapping[str, Peer]) -> tuple[dict[str, Peer], dict[str, tuple[str, str]]]:
    """Return the peers to measure with their versions: the chosen ones, else those that are installed."""
    names = _choice(chosen, list(known)) if chosen else [name for name in (*DEFAULT_PEERS, "before") if name in known]
    versions = {}
    for name in names:
        try:
            versions[name] = known[name].versions()
        except BenchError as error:
            if chosen:
                raise
            print(f"bench: not measured: {name}: {error}", file=sys.stderr)
    return {name: known[name] for name in versions}, versions


def is_measured(workload: Workload, peer: Peer) -> bool:
    """Return whether a workload is measured for a peer: it applies, and is not equal to that of another peer."""
    workers = peer.workers if isinstance(peer, Tunnel) else 0
    if workload.mode == "scaling" or workers:
        return workload.mode == "scaling" and workers > 0
    if workload.mode == "rotations":
        return peer.name == "ghostunnel" or (isinstance(peer, Tunnel) and not peer.is_on_disk and not peer.flags)
    return not peer.adds_to or workload.mode in ("handshakes", "start")


def _choice(text: str, known: Sequence[str]) -> list[str]:
    chosen = text.split(",")
    for name in chosen:
        if name not in known:
            raise BenchError(f"unknown name {name!a}; expected one of {', '.join(known)}")
    return chosen


def _measure(options: Options) -> Result:
    binary = compile_load(SOURCES / "build")
    result = Result(_machine(options), options.versions, options.workloads)
    os.sched_setaffinity(
        0, {options.load_core}
    )  # this process serves the Workload API and must not run on the core of the proxy
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tunnel-bench-")))
        generator = Generator(binary, stack.enter_context(open_identity(directory)), [options.load_core])
        run = _Run(options, generator, directory, stack.enter_context(generator.backend()), result)
        for number in range(options.rounds):
            order = list(options.peers.values())[:: 1 if number % 2 == 0 else -1]
            run.work_round(number, order)
            if number < FRESH_ROUNDS:
                run.fresh_round(number, order)
            run.scaling_round(number, order)
            run.tool_round(number, order)
        if options.profile:
            run.profile()
    return result


@dataclass(frozen=True, slots=True)
class _Run:
    options: Options
    generator: Generator
    directory: Path
    backend: int
    result: Result

    def _start(self, peer: Peer) -> contextlib.AbstractContextManager[Proxy]:
        return started(peer, self.generator, self.directory, cores=[self.options.proxy_core], backend=self.backend)

    def work_round(self, number: int, order: Sequence[Peer]) -> None:
        """Measure every workload on every peer, all peers before the next workload."""
        workloads = [workload for workload in self.options.workloads if is_traffic(workload)]
        measured = {peer.name: [workload for workload in workloads if is_measured(workload, peer)] for peer in order}
        with contextlib.ExitStack() as stack:
            proxies = [stack.enter_context(self._start(peer)) for peer in order if measured[peer.name]]
            for workload in workloads:
                for proxy in proxies:
                    if workload in measured[proxy.name]:
                        self._take(number, workload, proxy, sample_work)
            for proxy in proxies:
                self._check_log(proxy, measured[proxy.name])

    def fresh_round(self, number: int, order: Sequence[Peer]) -> None:
        """Measure what needs processes without earlier connections."""
        for workload in filter(needs_fresh, self.options.workloads):
            for peer in order:
                if is_measured(workload, peer):
                    with self._start(peer) as proxy:
                        self._take(number, workload, proxy, sample_fresh)

    def scaling_round(self, number: int, order: Sequence[Peer]) -> None:
        """Measure one worker, generator and backend on one core, and two workers and generators on two."""
        for workload in self.options.workloads:
            for peer in order:
                if workload.mode == "scaling" and is_measured(workload, peer) and isinstance(peer, Tunnel):
                    cores = [self.options.proxy_core, self.options.load_core][: peer.workers]
                    generator = replace(self.generator, cores=cores)
                    with (
                        generator.backend() as backend,
                        started(peer, generator, self.directory, cores=cores, backend=backend) as proxy,
                    ):
                        sample = sample_scaling(workload, generator, proxy, self.options.divisor)
                        self._note(number, workload, proxy.name, sample)

    def tool_round(self, number: int, order: Sequence[Peer]) -> None:
        """Measure processes that end by themselves."""
        for workload in self.options.workloads:
            for peer in order:
                if workload.mode == "tool" and isinstance(peer, Tunnel) and peer.has_tools():
                    self._note(
                        number, workload, peer.name, sample_tool(workload, peer, self.generator, self.options.proxy_core)
                    )

    def profile(self) -> None:
        """Print a profile per workload and peer, which is not part of the table."""
        for workload in self.options.workloads:
            for peer in self.options.peers.values() if is_traffic(workload) else ():
                with self._start(peer) as proxy:
                    print(f"\n{workload.title}: {peer.name}")
                    print(profile_work(workload, self.generator, proxy, self.directory, self.options.divisor))

    def _take(self, number: int, workload: Workload, proxy: Proxy, take: Take) -> None:
        """Take a sample; another proxy that cannot do a workload is left out of it, ours may not fail."""
        if (workload.name, proxy.name) in self.result.failures:
            return
        try:
            self._note(number, workload, proxy.name, take(workload, self.generator, proxy, self.options.divisor))
        except BenchError as error:
            if proxy.name not in (peer.name for peer in OTHER_PEERS):
                raise BenchError(f"{workload.name} through {proxy.name}: {error}") from error
            print(f"bench: {workload.name} through {proxy.name}: {error}", file=sys.stderr)
            self.result.failures[workload.name, proxy.name] = str(error)
            self.result.samples.pop((workload.name, proxy.name), None)

    def _note(self, number: int, workload: Workload, peer: str, sample: Sample) -> None:
        self.result.samples.setdefault((workload.name, peer), []).append(sample)
        busy = f", core {sample.busy:.0%} busy, others {sample.others:.0%}" if sample.busy else ""
        print(
            f"round {number + 1}: {workload.name:14} {peer:10} {sample.total:9.2f} {workload.unit}{busy}",
            file=sys.stderr,
        )

    def _check_log(self, proxy: Proxy, workloads: Sequence[Workload]) -> None:
        """Check that a proxy logs its connections, which is part of the role."""
        if not proxy.has_log:
            return
        time.sleep(FLUSH_SECONDS)
        opened = sum(workload.connections(self.options.divisor) for workload in workloads)
        lines = proxy.log_lines() / opened
        if lines < 1:
            raise BenchError(f"{proxy.name} logged {lines:.2f} lines per connection; the connection log is disabled")
        self.result.log_lines[proxy.name] = lines


def _machine(options: Options) -> dict[str, str]:
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "cores": f"proxy on {options.proxy_core}, load and backend on {options.load_core}",
        "interpreter": f"{_yardstick():.0f} ns for a turn of a plain loop",
        "rounds": f"{options.rounds}{f', 1/{options.divisor} of the work each' if options.divisor > 1 else ''}",
    }


def _yardstick() -> float:
    """Return nanoseconds per `len(str(i))`, the best of five: shows a slow build or a slow machine."""
    turns, best = 100_000, float("inf")
    for _ in range(5):
        before = time.process_time()
        for number in range(turns):
            len(str(number))
        best = min(best, time.process_time() - before)
    return best / turns * 1e9


if __name__ == "__main__":
    sys.exit(main())
