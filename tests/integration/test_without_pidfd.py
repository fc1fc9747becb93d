"""Commands run where there are no pidfds: before Linux 5.3, and under older seccomp profiles of container runtimes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command_runner import environment, is_alive
from tests.support.plain_backends import Backend, echo
from tests.support.processes import LIMIT, Process, eventually, tunnel_argv
from tests.support.run_line import server
from tests.support.script_runner import SCRIPTS
from tests.support.workloads import SERVER, Workloads

PIDFD_SEND_SIGNAL, PIDFD_OPEN = "424", "434"  # the same on every architecture
REFUSALS = [
    (errno.ENOSYS, PIDFD_OPEN, PIDFD_SEND_SIGNAL),
    (errno.EPERM, PIDFD_OPEN, PIDFD_SEND_SIGNAL),
    (errno.EPERM, PIDFD_SEND_SIGNAL),
]
TERM, USR1 = signal.SIGTERM, signal.SIGUSR1
# Leaves a process behind that takes its time; ends with 5 at SIGUSR1, and says what has come before.
COMMAND = """
trap 'echo got TERM' TERM
trap 'echo got USR1; exit 5' USR1
sh -c 'trap "" TERM; echo left $$; while :; do sleep 1; done' &
echo up $$
while :; do sleep 0.05; done
"""
Start = Callable[..., Process]


@pytest.fixture(params=REFUSALS, ids=["ENOSYS", "EPERM", "EPERM-send-signal"])
def start(workloads: Workloads, request: pytest.FixtureRequest) -> Start:
    before = [sys.executable, str(SCRIPTS / "seccomp_filter.py"), *map(str, request.param), "--"]

    def start(*words: str, script: str = COMMAND) -> Process:
        argv = ["env", "--default-signal", *before, *tunnel_argv(*words, "--", "sh", "-c", script)]
        return workloads.watch(Process(argv, environ=environment(workloads, SERVER), is_merged=True))

    return start


def line(workloads: Workloads, wrapper: str) -> tuple[str, ...]:
    if wrapper == "run":
        return ("run", *server(workloads, "127.0.0.1:1"))
    return ("exec", f"--target={workloads.server(workloads.enter(Backend(echo)).target).target}", f"--verify-id={SERVER}")


def test_the_calls_are_really_refused() -> None:
    for error, *calls in REFUSALS:
        source = "import os, signal; fd = os.pidfd_open(os.getpid()); signal.pidfd_send_signal(fd, 0)"
        argv = [
            sys.executable,
            str(SCRIPTS / "seccomp_filter.py"),
            str(error),
            *map(str, calls),
            "--",
            sys.executable,
            "-c",
            source,
        ]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 1
        assert os.strerror(error) in done.stderr


@pytest.mark.parametrize("wrapper", ["exec", "run"])
def test_signals_reach_the_command_and_nothing_is_left_behind(workloads: Workloads, start: Start, wrapper: str) -> None:
    process = start(*line(workloads, wrapper))
    left = int(process.wait_for(r"^left (\d+)")[1])
    process.wait_for("^up")
    process.signal(TERM)
    process.wait_for("^got TERM$")
    process.signal(USR1)
    process.wait_for("^got USR1$")
    assert process.exit_code() == 5
    assert not is_alive(left)


@pytest.mark.parametrize("wrapper", ["exec", "run"])
@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -KILL $$", 137)])
def test_the_exit_code_is_the_commands(workloads: Workloads, start: Start, wrapper: str, script: str, code: int) -> None:
    assert start(*line(workloads, wrapper), script=script).exit_code() == code


def test_a_command_that_cannot_be_run_is_known(workloads: Workloads, start: Start) -> None:
    process = start(*line(workloads, "exec"), script="exec /nonexistent")
    assert process.exit_code() == 127


def test_svid_watch_starts_its_command_again_and_ends_it(workloads: Workloads, start: Start) -> None:
    script = f"echo up $$; test -e {workloads.directory}/seen && exec sleep 600; : > {workloads.directory}/seen; exit 1"
    process = start("svid", "watch", f"--out={workloads.directory / 'tls'}", "--restart", script=script)
    process.wait_for("sh ended with exit code 1")
    second = int(process.wait_for(r"^up (\d+)", count=2)[1])
    eventually(lambda: "sleep" in Path(f"/proc/{second}/comm").read_text(), "it sleeps")
    process.signal(TERM)
    assert process.exit_code() == 0
    assert process.matches("sh was ended by signal 15")
    assert not is_alive(second)


def test_svid_watch_kills_a_command_that_does_not_end(workloads: Workloads, start: Start) -> None:
    script = "trap 'echo got TERM' TERM; echo up; while :; do sleep 0.05; done"
    process = start("svid", "watch", f"--out={workloads.directory / 'tls'}", "--stop-timeout=5s", script=script)
    process.wait_for("^up")
    process.signal(TERM)
    process.wait_for("^got TERM$")
    assert process.exit_code() == 0
    assert process.matches("sh has not ended within 5s of the stop: killed")
