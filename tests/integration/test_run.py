"""`tunnel run` as process 1 of a PID namespace: orphans, signals, exit codes, and the order of an end."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from OpenSSL import SSL

from tests.support.command_runner import run_tool
from tests.support.pid1_process import NamespaceProcess, in_namespace
from tests.support.plain_backends import Backend, connect, echo
from tests.support.processes import LIMIT, Process, bare_environment, eventually, tunnel_argv
from tests.support.run_line import client, has_echo, server
from tests.support.tls_peer import TlsPeer, tls_connection
from tests.support.workloads import CLIENT, SERVER, Workloads

TERM, INT, HUP, USR1 = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1
LISTENING = r"listening for connections on (\S+):(\d+)(?: listener=\S+)?$"

# A command with orphans by the hundred; it says when none of them is left, dead or alive, and which signals have come.
BUSY = """
import os, signal, subprocess, time
from pathlib import Path

def others():
    found = [Path("/proc", name, "stat") for name in os.listdir("/proc") if name.isdecimal()]
    return [path for path in found if int(path.parent.name) not in (1, os.getpid(), *probes)]

names = {int(path.parent.name): path.read_text().strip() for path in Path("/proc").glob("[0-9]*/comm")}
workers = [pid for pid in names if b"tunnel.workers" in Path(f"/proc/{pid}/cmdline").read_bytes()]
probes = [pid for pid, name in names.items() if name == "signal-probe"] + workers
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, lambda number, _: os.write(1, b"heard %d\\n" % number))
for _ in range(3):
    subprocess.run(["sh", "-c", "for i in $(seq 100); do (sleep 0.1 &) ; done"])
while others():
    time.sleep(0.02)
print("alone", os.getppid(), flush=True)
subprocess.run(["sh", "-c", "for i in $(seq 100); do (sleep 600 &) ; done"])
told = "import signal, time; signal.signal(15, lambda *_: (print('told', flush=True), exit())); print('left', flush=True)"
subprocess.Popen(["setsid", "python3", "-c", told + "; time.sleep(600)"])
input()
raise SystemExit(7)
"""
# A command that needs its client until the very end.
PARTING = """
import signal, socket, sys, threading

def ask(number):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(sys.argv[1])
        sock.sendall(b"%d" % number)
        return sock.recv(9) == b"%d" % number

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
print("up", ask(0), flush=True)
stop.wait()
print("asked", sum(ask(number) for number in range(50)), flush=True)
input()
raise SystemExit(5)
"""


@pytest.fixture
def backend(workloads: Workloads) -> Backend:
    return workloads.enter(Backend(echo))


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[Workloads]:
    """Workloads without an agent."""
    with closing(Workloads(tmp_path, agent=False)) as workloads:
        yield workloads


def start_first(workloads: Workloads, *words: str) -> NamespaceProcess:
    """`tunnel run` as process 1; its log and what the command says are together."""
    argv = [*in_namespace(), *tunnel_argv("run", *words)]
    return workloads.watch(NamespaceProcess(argv, environ=bare_environment(), is_merged=True))


def address_of(process: Process) -> tuple[str, int]:
    """Where the first proxy on TCP listens."""
    host, port = process.wait_for(LISTENING).groups()
    return host, int(port)


def test_process_1_reaps_and_passes_signals_on(workloads: Workloads, backend: Backend) -> None:
    first = start_first(workloads, *server(workloads, backend.target), "--", sys.executable, "-c", BUSY)
    assert first.wait_for(r"alone (\d+)")[1] == "1"
    first.wait_for("^left$")
    for number in (HUP, USR1, INT, TERM):
        first.signal(number)
        first.wait_for(f"heard {number:d}$")
    for word in ("SIGINT", "SIGTERM"):
        first.wait_for(f"received {word}, shutting down")
    first.say("")
    assert first.exit_code() == 7
    assert first.matches("^told$"), "whoever has left the session on purpose ends with us too, and is told before"
    assert first.lines[-1].endswith("stopped")


@pytest.mark.parametrize(
    ("flags", "command", "code", "last"),
    [
        ((), ("sh", "-c", "kill -KILL $$"), 137, "stopped$"),
        ((), ("/nonexistent",), 127, "^tunnel: error: /nonexistent: no such file or directory$"),
        ((), ("/etc/passwd",), 126, "^tunnel: error: /etc/passwd: permission denied$"),
        (
            ("--wait-ready=200ms",),
            ("true",),
            125,
            "^tunnel: error: not ready within 0.2s: the proxy for 127.0.0.1:1( \\(.+\\))?$",
        ),
        (("--nonsense",), ("true",), 125, "^tunnel: error: unknown long flag '--nonsense', try --help$"),
    ],
)
def test_the_exit_code_says_who_failed(
    workloads: Workloads, flags: tuple[str, ...], command: tuple[str, ...], code: int, last: str
) -> None:
    if code == 125:
        workloads.api.withdraw(workloads.sockets[SERVER])
    line = (*flags, *server(workloads, "127.0.0.1:1"), "--", *command)
    done = run_tool(bare_environment(), "run", *line, before=in_namespace())
    assert (done.code, done.out) == (code, "")
    assert re.search(last, done.err.splitlines()[-1])


def test_a_stop_in_the_first_moment_ends_process_1(lonely: Workloads) -> None:
    first = start_first(lonely, *server(lonely, "127.0.0.1:1"), "--", "echo", "never")
    eventually(lambda: first.catches(TERM), "the first moment in which it is not lost")
    first.signal(TERM)
    assert first.exit_code() == 128 + TERM
    assert not first.matches("never")


def test_a_stop_while_proxies_are_not_ready_ends_process_1(lonely: Workloads) -> None:
    first = start_first(lonely, *server(lonely, "127.0.0.1:1"), "--", "echo", "never")
    first.wait_for("Workload API unavailable")
    first.signal(HUP)  # the command's, which is not there to take it
    first.signal(INT)
    assert first.exit_code() == 128 + INT
    assert not first.matches("never")


class Pump(threading.Thread):
    """A connection that always carries something; says how often it has, and ends in good order when it is told."""

    def __init__(self, peer: TlsPeer) -> None:
        super().__init__()
        self.rounds = 0
        self.is_well = False
        self.end = threading.Event()
        self._peer = peer

    def run(self) -> None:
        while not self.end.is_set():
            if not has_echo(self._peer, os.urandom(20_000)):
                return
            self.rounds += 1
        self._peer.end()
        self.is_well = self._peer.receive_all() == b"" and self._peer.has_ended


def test_a_stop_under_load_goes_in_its_order(workloads: Workloads, backend: Backend) -> None:
    """No more at once, the command has its client to the end, and what is carried is carried on after that."""
    remote = workloads.server(workloads.enter(Backend(echo)).target)
    door = workloads.directory / "door"
    line = (*server(workloads, backend.target), "+", *client(workloads, remote.target, listen=f"unix:{door}"))
    first = start_first(workloads, *line, "--", sys.executable, "-c", PARTING, str(door))
    first.wait_for("up True")
    with ExitStack() as stack:
        address = address_of(first)
        command_files = workloads.identity(CLIENT)
        pumps = [Pump(stack.enter_context(tls_connection(address, command_files))) for _ in range(12)]
        for pump in pumps:
            pump.start()
            stack.callback(pump.end.set)
        eventually(lambda: all(pump.rounds for pump in pumps), "all carry")
        first.signal(TERM)
        first.wait_for("received SIGTERM, shutting down")
        with pytest.raises(ConnectionRefusedError):
            connect(address)
        first.wait_for("asked 50")
        connect(str(door)).close()
        first.say("")
        first.wait_for("command ended: exit_code=5")
        first.wait_for("waiting for drain of 1[0-9] connections")
        before = [pump.rounds for pump in pumps]
        eventually(lambda: all(pump.rounds > rounds + 1 for pump, rounds in zip(pumps, before, strict=True)), "still carried")
        assert not door.exists()
        for pump in pumps:
            pump.end.set()
        for pump in pumps:
            pump.join(LIMIT)
        assert all(pump.is_well for pump in pumps), "not a byte was lost"
    assert first.exit_code() == 5
    assert first.matches(r"stopped listener=\S+ accepted=12 relayed=12 close_notify=12$")
    # The connection that was closed at once: the client proxy may or may not have reached the server before.
    knocked = "relayed=51 client_gone=1 close_notify=51|relayed=52 close_notify=52"
    assert first.matches(f"stopped listener=\\S+ accepted=52 ({knocked})$")


def test_when_the_time_is_over_everything_is_cut(workloads: Workloads, backend: Backend) -> None:
    script = "trap '' TERM; sh -c 'while :; do sleep 1; done' & echo up; while :; do sleep 1; done"
    first = start_first(workloads, "--stop-timeout=500ms", *server(workloads, backend.target), "--", "sh", "-c", script)
    first.wait_for("^up$")
    with tls_connection(address_of(first), workloads.identity(CLIENT)) as peer:
        assert has_echo(peer)
        first.signal(TERM)
        assert first.exit_code() == 137
        with pytest.raises(ConnectionResetError):
            peer.receive()
    assert first.matches("command has not ended within 0.5s: sending SIGKILL")
    assert first.matches("forcing exit connections=1")


def test_a_second_signal_cuts_what_drains(workloads: Workloads, backend: Backend) -> None:
    first = start_first(workloads, *server(workloads, backend.target), "--", "sh", "-c", "echo up; exec sleep 1000")
    first.wait_for("^up$")
    with tls_connection(address_of(first), workloads.identity(CLIENT)) as peer:
        assert has_echo(peer)
        first.signal(TERM)
        first.wait_for("waiting for drain of 1 connections")
        first.signal(HUP)
        assert has_echo(peer)
        first.signal(TERM)
        with pytest.raises(ConnectionResetError):
            peer.receive()
        assert first.exit_code() == 143


def test_what_evaluates_a_policy_is_not_the_reaper_s(workloads: Workloads, backend: Backend) -> None:
    pytest.importorskip("regopy")
    policy = workloads.directory / "policy.rego"
    policy.write_text('package p\nallow { input.certificate.URIs[_].Path == "/client" }\n')
    rules = (f"--allow-policy={policy}", "--allow-query=data.p.allow")
    line = server(workloads, backend.target, rules=rules)
    first = start_first(workloads, *line, "--", "sh", "-c", "echo up; read line; exit 4")
    first.wait_for("^up$")
    eventually(lambda: len(evaluators_of(first)) == 2, "both evaluators")
    for pid in evaluators_of(first):
        os.kill(pid, signal.SIGKILL)
    command_files = workloads.identity(CLIENT)

    def passes() -> bool:
        with suppress(SSL.Error, ConnectionError), tls_connection(address_of(first), command_files) as peer:
            return has_echo(peer)
        return False

    assert not passes()
    eventually(passes, "others have taken their places")
    first.say("")
    assert first.exit_code() == 4
    assert first.matches("the evaluator has exited: killed")
    assert not first.matches("the evaluator has exited: status")


def evaluators_of(first: NamespaceProcess) -> list[int]:
    return [pid for pid in first.children() if b"tunnel.policy.evaluator" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_proxy_alone_as_process_1_is_ended_by_a_second_signal(workloads: Workloads, backend: Backend) -> None:
    """The plain modes are fit for a sidecar's entry point."""
    argv = [*in_namespace(), *tunnel_argv(*server(workloads, backend.target))]
    first = workloads.watch(NamespaceProcess(argv, environ=bare_environment()))
    with tls_connection(address_of(first), workloads.identity(CLIENT)) as peer:
        assert has_echo(peer)
        first.signal(TERM)
        first.wait_for("waiting for drain of 1 connections")
        first.signal(TERM)
        assert first.exit_code() == 143
