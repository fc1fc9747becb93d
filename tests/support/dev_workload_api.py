"""A real `tunnel dev` process."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.support.processes import tunnel_argv

LIMIT = 60.0  # of every wait: generous, and never reached when things work


@contextmanager
def tunnel_dev(*flags: str, environ: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Start the process, and kill it at exit if it still runs."""
    with subprocess.Popen(
        tunnel_argv("dev", *flags),
        env={**os.environ, **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_sockets(process: subprocess.Popen[str], count: int = 1) -> list[str]:
    """The first `count` addresses that the process prints; it serves them when they are printed."""
    assert process.stdout is not None
    found = []
    while len(found) < count:
        line = process.stdout.readline()
        assert line, "the process ended before it was ready"
        if line.startswith("SPIFFE_ENDPOINT_SOCKET="):
            found.append(line.strip().partition("=")[2])
    return found


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> int:
    """Exit status of the process after a signal."""
    process.send_signal(number)
    process.communicate(timeout=LIMIT)
    return process.returncode
