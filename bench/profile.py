"""Where the CPU time goes: one more pass of a workload, with perf recording the proxy.

Do not use its numbers in the table: recording costs time.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

from bench.generator import Generator
from bench.peers import Proxy
from bench.processes import BenchError, process_tree
from bench.workloads import Workload

TOP = 25
_FREQUENCY = 1999  # per second; a prime, so that it does not align with a timer


def profile_work(workload: Workload, generator: Generator, proxy: Proxy, directory: Path, divisor: int) -> str:
    """Return the most expensive symbols of the proxy during `workload`, one per line, with their objects."""
    perf = shutil.which("perf")
    if not perf:
        raise BenchError("no perf in the PATH; on Debian: apt-get install linux-perf")
    data = directory / "perf.data"
    with generator.client(workload.mode, proxy.port, workload.scaled(divisor)) as client:
        client.expect("READY")
        pids = ",".join(map(str, process_tree(proxy.pid)))
        record = [perf, "record", "-q", "-F", str(_FREQUENCY), "-o", str(data), "-p", pids]
        recorder = subprocess.Popen(record, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            client.tell("go")
            client.expect("DONE")
        finally:
            recorder.send_signal(signal.SIGINT)
            _, complaint = recorder.communicate()
    if not data.exists():
        raise BenchError(f"perf recorded nothing: {complaint.decode(errors='replace').strip()}")
    return f"{_report(perf, data, 'dso', 8)}\n\n{_report(perf, data, 'dso,symbol', TOP)}"


def _report(perf: str, data: Path, keys: str, count: int) -> str:
    command = [perf, "report", "-i", str(data), "--stdio", "-q", "--sort", keys]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    lines = [line.rstrip() for line in said.splitlines() if line.strip() and not line.startswith("#")]
    return "\n".join(lines[:count])
