"""`tunnel connect`: standard input and output on one connection, and one line when that does not come about."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.command_runner import Done, environment, run_tool
from tests.support.plain_backends import Backend, echo, receive_all
from tests.support.processes import LIMIT, tunnel_argv
from tests.support.workloads import SERVER, STRANGER, Workloads

ID = f"--verify-id={SERVER}"


@pytest.fixture
def target(workloads: Workloads) -> str:
    """A server in front of an echo."""
    return workloads.server(workloads.enter(Backend(echo)).target).target


def connect(workloads: Workloads, *arguments: str, given: bytes = b"", who: str | None = None) -> Done:
    return run_tool(environment(workloads, *([who] if who else [])), "connect", *arguments, given=given)


def test_what_goes_in_comes_back_and_both_ends_are_passed_on(workloads: Workloads, target: str, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "data").write_bytes(data)
    with (tmp_path / "data").open("rb") as source, (tmp_path / "back").open("wb") as sink:
        done = subprocess.run(
            tunnel_argv("connect", ID, target),
            stdin=source,
            stdout=sink,
            stderr=subprocess.PIPE,
            env=environment(workloads),
            timeout=LIMIT,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "back").read_bytes() == data


def test_it_ends_when_the_server_has_ended_though_the_input_goes_on(workloads: Workloads) -> None:
    def greet(connection: socket.socket) -> None:
        connection.sendall(b"hello\n")

    target = workloads.server(workloads.enter(Backend(greet)).target).target
    with subprocess.Popen(
        tunnel_argv("connect", ID, target), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(workloads)
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"hello\n"
        assert process.wait(LIMIT) == 0


def test_a_reader_that_goes_is_no_error(workloads: Workloads, target: str) -> None:
    line = f"yes | {' '.join(tunnel_argv('connect', ID, target))} | head -1; echo ${{PIPESTATUS[1]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, env=environment(workloads), timeout=LIMIT, check=False)
    assert (done.stdout, done.stderr) == (b"y\n0\n", b"")


def test_what_cannot_be_written_or_read_is_an_error(workloads: Workloads, target: str) -> None:
    script = "echo x | {tool} >/dev/full; echo $?; {tool} </proc/self/mem; echo $?"
    tool = shlex.join(tunnel_argv("connect", ID, target))
    argv = ["sh", "-c", script.format(tool=tool)]
    done = subprocess.run(argv, env=environment(workloads), capture_output=True, text=True, timeout=LIMIT, check=True)
    assert done.stdout == "1\n1\n"
    assert done.stderr.splitlines() == [
        "tunnel: error: standard output: no space left on device",
        "tunnel: error: standard input: input/output error",
    ]


def test_it_says_who_answered_when_asked(workloads: Workloads, target: str) -> None:
    done = connect(workloads, "-v", ID, target, given=b"x")
    assert (done.code, done.out) == (0, "x")
    assert f"peer={SERVER} rule=id:{SERVER}" in done.err
    assert all(line.startswith("tunnel: ") for line in done.err.splitlines())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((f"--verify-id={STRANGER}", "TARGET"), "no-matching-rule: unauthorized"),
        ((ID, "127.0.0.1:1"), "tcp:127.0.0.1:1: connection refused"),
        ((ID, "nowhere.invalid:1"), "nowhere.invalid"),
        (("TARGET",), "no access rule for the server"),
        ((ID,), "HOST:PORT is missing: Address of the server, which accepts mutual TLS"),
        ((ID, "TARGET", "more"), "unexpected more"),
        ((ID, "TARGET", "--wait=1s", "--use-workload-api-addr=unix:///nonexistent"), "no identity from unix:///nonexistent"),
    ],
)
def test_what_goes_wrong_is_one_line_and_exit_1(
    workloads: Workloads, target: str, arguments: tuple[str, ...], words: str
) -> None:
    done = connect(workloads, *(target if word == "TARGET" else word for word in arguments), given=b"x")
    assert (done.code, done.out) == (1, "")
    (line,) = done.err.splitlines()
    assert line.startswith("tunnel: ")
    assert words in line


def test_a_refusal_by_the_server_is_told(workloads: Workloads, target: str) -> None:
    done = connect(workloads, ID, target, given=b"x", who=STRANGER)
    assert (done.code, done.out) == (1, "")
    assert "the peer refused us" in done.err


def test_a_cut_is_no_end(workloads: Workloads) -> None:
    """Bytes that came before a connection was cut are passed on, and the exit code says that they are not all."""

    def cut(connection: socket.socket) -> None:
        connection.sendall(b"half")
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    target = workloads.server(workloads.enter(Backend(cut)).target).target
    done = connect(workloads, ID, target, given=b"x")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_ssh_ends_it_by_a_hangup_and_a_person_by_an_interrupt(workloads: Workloads, number: signal.Signals) -> None:
    target = workloads.server(workloads.enter(Backend(lambda connection: receive_all(connection) and None)).target).target
    with subprocess.Popen(
        tunnel_argv("connect", "-v", ID, target),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(workloads),
        text=True,
    ) as process:
        assert process.stderr is not None
        while "opening pipe" not in process.stderr.readline():
            pass
        process.send_signal(number)
        assert process.wait(LIMIT) == -number
        assert "Traceback" not in process.stderr.read()


def test_a_hangup_that_nobody_wants_to_hear_is_not_heard(workloads: Workloads, target: str) -> None:
    argv = ["nohup", *tunnel_argv("connect", ID, target)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(workloads), bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")
        assert process.stdout.read(1) == b"x"
        process.send_signal(signal.SIGHUP)
        process.stdin.write(b"y")
        process.stdin.close()
        assert (process.stdout.read(), process.wait(LIMIT)) == (b"y", 0)


def test_a_shared_descriptor_stays_as_it_was(workloads: Workloads, target: str) -> None:
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        subprocess.Popen(
            tunnel_argv("connect", ID, target), stdin=theirs, stdout=theirs, env=environment(workloads)
        ) as process,
    ):
        ours.sendall(b"x")
        assert ours.recv(1) == b"x"
        assert os.get_blocking(theirs.fileno())
        ours.shutdown(socket.SHUT_WR)
        assert process.wait(LIMIT) == 0
