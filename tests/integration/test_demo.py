"""The demonstration, as a new user runs it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.processes import tunnel_argv


def _demo(*flags: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "SPIFFE_ENDPOINT_SOCKET": "unix:///nowhere/agent.sock"}  # a machine's own agent is left alone
    return subprocess.run(tunnel_argv("demo", *flags), capture_output=True, text=True, timeout=120, env=environ, check=False)


def test_it_shows_both_peers_a_rotation_and_a_refusal() -> None:
    result = _demo("--rotate=1s")
    assert (result.returncode, result.stderr) == (0, "")
    assert "server proxy admitted spiffe://demo.test/client" in result.stdout
    assert "client proxy reached spiffe://demo.test/service" in result.stdout
    assert "server proxy refused spiffe://demo.test/other inside the handshake: no-matching-rule" in result.stdout
    assert "generation 2" in result.stdout


def test_it_leaves_no_process_and_fits_one_screen() -> None:
    result = _demo("--rotate=1s")
    assert len(result.stdout.splitlines()) <= 40
    assert [line for line in _command_lines() if "tunnel-demo-" in line] == []


def _command_lines() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has ended meanwhile
    return found
