"""One stop is one signal for the command, however many processes its sender has signalled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command_runner import environment, is_alive
from tests.support.plain_backends import Backend, echo
from tests.support.processes import Process, eventually, tunnel_argv
from tests.support.requirements import program
from tests.support.run_line import server
from tests.support.script_runner import SCRIPTS
from tests.support.workloads import SERVER, Workloads

COUNTING = (sys.executable, str(SCRIPTS / "signal_counter.py"))
JOB_CONTROL = str(SCRIPTS / "job_control.py")
TERM, INT, HUP, QUIT, USR1 = map(int, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1))
WRAPPERS = ["exec", "run"]

Start = Callable[..., Process]


@pytest.fixture
def start(workloads: Workloads) -> Start:
    """Starts a command under one of our own; `before` is what starts that."""

    def line(wrapper: str, limit: str) -> tuple[str, ...]:
        if wrapper == "exec":
            return (
                "exec",
                f"--target={workloads.server(workloads.enter(Backend(echo)).target).target}",
                f"--verify-id={SERVER}",
            )
        if wrapper == "run":
            return ("run", limit, *server(workloads, "127.0.0.1:1"))
        return ("svid", "watch", f"--out={workloads.directory / 'tls'}", limit)

    def start(wrapper: str, *words: str, before: tuple[str, ...] = ("setsid",), limit: str = "60s") -> Process:
        argv = [*before, *tunnel_argv(*line(wrapper, f"--stop-timeout={limit}"), "--", *COUNTING, *words)]
        clean = ["env", "--default-signal", *argv]
        process = workloads.watch(Process(clean, environ=environment(workloads, SERVER), is_merged=True))
        process.wait_for(r"^up (\d+)")
        return process

    return start


def counts(process: Process) -> Counter[int]:
    return Counter(int(line.split()[1]) for line in process.matches("^got "))


def command(process: Process) -> int:
    return int(process.wait_for(r"^up (\d+)")[1])


def children(pid: int) -> list[int]:
    return [int(word) for thread in Path(f"/proc/{pid}/task").iterdir() for word in (thread / "children").read_text().split()]


def descendants(pid: int) -> Iterator[int]:
    for child in children(pid):
        yield child
        yield from descendants(child)


def wrapper_of(process: Process) -> int:
    """Our own process: the parent of the command."""
    return int(Path(f"/proc/{command(process)}/stat").read_text().rpartition(")")[2].split()[1])


def end(process: Process, wrapper: int) -> Counter[int]:
    """Have it end by a stop that is sent to us alone, behind all others; what its command has got before."""
    os.kill(wrapper, signal.SIGQUIT)
    eventually(lambda: not is_alive(wrapper), "it ends")
    process.exit_code()
    return counts(process)


def signal_everything(process: Process, number: int) -> None:
    """As systemd does by default: one process of the control group after the other."""
    wrapper = wrapper_of(process)
    for pid in (wrapper, *descendants(wrapper)):
        os.kill(pid, number)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("number", [TERM, INT, HUP])
def test_timeout_stops_the_command_once(start: Start, wrapper: str, number: int) -> None:
    """It signals its child, and then the process group."""
    process = start(wrapper, before=(program("timeout"), "--preserve-status", "600"))
    own = wrapper_of(process)
    os.kill(process.pid, number)  # which does what it does when the time is over
    process.wait_for(f"^got {number}$")
    assert end(process, own) == {number: 1}
    assert process.exit_code() == 7


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_signal_to_the_process_group_reaches_the_command_once(start: Start, wrapper: str) -> None:
    process = start(wrapper)
    for number in (TERM, INT, USR1, int(signal.SIGWINCH)):
        os.killpg(process.pid, number)
        process.wait_for(f"^got {number}$")
    assert end(process, process.pid) == {TERM: 1, INT: 1, USR1: 1, int(signal.SIGWINCH): 1}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_signal_to_the_control_group_reaches_the_command_once(start: Start, wrapper: str) -> None:
    process = start(wrapper)
    for number in (TERM, HUP):
        signal_everything(process, number)
        process.wait_for(f"^got {number}$")
    assert end(process, process.pid) == {TERM: 1, HUP: 1}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_signal_to_us_alone_is_sent_on_once(start: Start, wrapper: str) -> None:
    process = start(wrapper)
    for number in (TERM, INT, HUP, USR1):
        os.kill(process.pid, number)
        process.wait_for(f"^got {number}$")
    assert end(process, process.pid) == {TERM: 1, INT: 1, HUP: 1, USR1: 1}


def test_a_later_stop_is_another_one(start: Start) -> None:
    process = start("exec")
    for count in (1, 2):  # the second one is sent when the first one has been settled: its command has had it
        os.kill(process.pid, TERM)
        process.wait_for(f"^got {TERM}$", count=count)
    os.killpg(process.pid, INT)
    process.wait_for(f"^got {INT}$")
    os.kill(process.pid, HUP)  # behind it
    process.wait_for(f"^got {HUP}$")
    os.killpg(process.pid, INT)
    process.wait_for(f"^got {INT}$", count=2)
    assert end(process, process.pid) == {TERM: 2, INT: 2, HUP: 1}


def test_a_command_in_a_process_group_of_its_own_is_not_forgotten(start: Start) -> None:
    """It has what is sent to the control group, and not what is sent to our process group."""
    process = start("exec", "group")
    os.killpg(process.pid, TERM)
    process.wait_for(f"^got {TERM}$")
    signal_everything(process, HUP)
    process.wait_for(f"^got {HUP}$")
    assert end(process, process.pid) == {TERM: 1, HUP: 1}


def test_whoever_stops_us_by_name_stops_the_command(start: Start) -> None:
    """What we start besides it has another name."""
    process = start("exec")
    subprocess.run([program("pkill"), "-TERM", f"--session={process.pid}", "-f", "tunnel exec"], check=True)
    process.wait_for(f"^got {TERM}$")
    assert end(process, process.pid) == {TERM: 1}


def test_without_the_probe_every_signal_is_sent_on(start: Start) -> None:
    process = start("exec")
    (probe,) = set(children(process.pid)) - {command(process)}
    assert Path(f"/proc/{probe}/comm").read_text() == "signal-probe\n"
    os.kill(probe, signal.SIGKILL)
    eventually(lambda: probe not in children(process.pid), "it is reaped")
    os.kill(process.pid, TERM)
    process.wait_for(f"^got {TERM}$")
    os.killpg(process.pid, INT)
    process.wait_for(f"^got {INT}$")
    os.kill(process.pid, HUP)  # behind what is sent on of that
    process.wait_for(f"^got {HUP}$")
    counts = end(process, process.pid)
    assert counts.pop(INT) in (1, 2)  # two that come before it takes one are one
    assert counts == {TERM: 1, HUP: 1}


@pytest.mark.parametrize("wrapper", [*WRAPPERS, "watch"])
def test_the_probe_ends_with_us_and_holds_nothing_open(start: Start, wrapper: str) -> None:
    process = start(wrapper)
    probes = [pid for pid in descendants(process.pid) if pid != command(process)]
    assert len(probes) == 2
    for pid in probes:
        names = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
        assert {name.partition(":")[0] for name in names} <= {"pipe", "socket"}
        assert not {f"pipe:[{os.stat(f'/proc/{process.pid}/fd/{number}').st_ino}]" for number in (0, 1, 2)} & set(names)
    os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, probes)), "they end")


@contextmanager
def on_a_terminal(start: Start, wrapper: str, limit: str) -> Iterator[tuple[Process, int]]:
    """A command in the foreground, and our end of the terminal."""
    ours, theirs = os.openpty()
    name = os.ttyname(theirs)
    try:
        yield start(wrapper, before=(sys.executable, JOB_CONTROL, name, "--"), limit=limit), ours
    finally:
        os.close(theirs)
        os.close(ours)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_ctrl_c_reaches_the_command_once(start: Start, wrapper: str) -> None:
    with on_a_terminal(start, wrapper, "60s") as (process, terminal):
        own = wrapper_of(process)
        os.write(terminal, b"\x03")
        process.wait_for(f"^got {INT}$")
        assert end(process, own) == {INT: 1}


# -- svid watch, which ends its command by SIGTERM, and by SIGKILL after --stop-timeout


def test_ctrl_c_is_all_that_a_command_of_svid_watch_gets(start: Start) -> None:
    with on_a_terminal(start, "watch", "3s") as (process, terminal):
        os.write(terminal, b"\x03")
        process.wait_for("^ended 0$")
        assert counts(process) == {INT: 1}


@pytest.mark.parametrize("number", [TERM, INT])
def test_a_stop_of_svid_watch_alone_is_one_sigterm(start: Start, number: int) -> None:
    process = start("watch", limit="3s")
    os.kill(process.pid, number)
    assert process.exit_code() == 0
    assert counts(process) == {TERM: 1}


@pytest.mark.parametrize(
    "send", [lambda process: os.killpg(process.pid, TERM), lambda process: signal_everything(process, TERM)]
)
def test_a_stop_of_all_is_one_signal_under_svid_watch(start: Start, send: Callable[[Process], None]) -> None:
    process = start("watch", limit="3s")
    send(process)
    assert process.exit_code() == 0
    assert counts(process) == {TERM: 1}


def test_timeout_stops_the_command_of_svid_watch_once(start: Start) -> None:
    process = start("watch", limit="3s", before=(program("timeout"), "--preserve-status", "600"))
    os.kill(process.pid, TERM)
    assert process.exit_code() == 0
    assert counts(process) == {TERM: 1}


def test_a_later_stop_of_svid_watch_is_another_sigterm(start: Start) -> None:
    process = start("watch")
    for count in (1, 2):
        os.kill(process.pid, TERM)
        process.wait_for(f"^got {TERM}$", count=count)
    os.kill(command(process), signal.SIGKILL)
    assert process.exit_code() == 0
    assert counts(process) == {TERM: 2}
