"""A short real run measures every peer that Debian has, beside ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from bench.peers import CHECKOUT
from tests.support.requirements import program

PEERS = ("haproxy", "nginx", "hitch", "stunnel", "tcp", "tcp-nginx", "tunnel", "workers1", "workers2")


def test_a_short_run_measures_every_peer(tmp_path: Path) -> None:
    for name in ("haproxy", "nginx", "hitch", "stunnel"):
        program(name)
    cores = sorted(os.sched_getaffinity(0))
    output = tmp_path / "results.json"
    command = [
        sys.executable,
        "-m",
        "bench.run",
        "--rounds=1",
        "--divisor=100",
        f"--json={output}",
        f"--peer={','.join(PEERS)}",
    ]
    command += [
        "--only=handshake,echo32,bulk256,open-echo,rotations,scaling-handshake,scaling-bulk,start,flag",
        f"--cores={cores[-1]},{cores[0]}",
    ]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=CHECKOUT, check=False)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    document = json.loads(output.read_text())
    measured = {(row["workload"], row["peer"]): row["samples"][0] for row in document["results"]}
    for workload in ("handshake", "echo32", "bulk256", "open-echo"):
        for peer in PEERS[:-2]:
            assert measured[workload, peer]["rate"] > 0
            assert measured[workload, peer]["errors"] == 0
            assert workload == "bulk256" or measured[workload, peer]["p50"] > 0
    assert {peer for workload, peer in measured if workload == "rotations"} == {"tunnel"}
    assert {workload for workload, peer in measured if peer == "workers2"} == {"scaling-handshake", "scaling-bulk"}
    assert measured["flag", "tunnel"]["user"] > 0
    assert {goal["workload"] for goal in document["goals"]} >= {"handshake", "echo32", "rotations", "start", "flag"}
