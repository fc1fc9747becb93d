"""The tests run with default signal dispositions and output buffers, whatever they inherit."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 120
STOPS = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}


def signals_of_child(field: str) -> set[int]:
    """The signals in a mask of /proc/PID/status, of a process that a test starts."""
    text = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True, timeout=LIMIT).stdout
    (mask,) = (int(line.split()[1], 16) for line in text.splitlines() if line.startswith(f"{field}:"))
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def test_a_process_that_a_test_starts_ignores_and_blocks_nothing() -> None:
    assert signals_of_child("SigIgn") == signals_of_child("SigBlk") == set()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_python_child_writes_a_line_at_once() -> None:
    """Otherwise the lines of two processes with one standard output mix."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # keeps the borders of what is written
    with ours, theirs:
        subprocess.run([sys.executable, "-c", "print('told', 1, flush=True)"], stdout=theirs, check=True, timeout=LIMIT)
        assert ours.recv(100) == b"told 1\n"


def test_that_holds_under_a_parent_that_ignores_blocks_and_sets_variables() -> None:
    def ignore() -> None:
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGCHLD])

    tests = (test_a_process_that_a_test_starts_ignores_and_blocks_nothing, test_a_python_child_writes_a_line_at_once)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"{__file__}::{test.__name__}" for test in tests)],
        cwd=ROOT,
        env={**os.environ, "PYTEST_ADDOPTS": "", "PYTHONUNBUFFERED": "1"},
        preexec_fn=ignore,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
