"""`tunnel exec`: a command with a tunnel, its signals and its end, and nothing left behind."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command_runner import Done, environment, is_alive, run_tool
from tests.support.plain_backends import Backend, connect, echo
from tests.support.processes import LIMIT, Process, eventually, tunnel_argv
from tests.support.requirements import program
from tests.support.workloads import SERVER, STRANGER, Workloads

ID = f"--verify-id={SERVER}"
ASK = "import socket; s = socket.create_connection(('{host}', {port})); s.sendall(b'ping'); print(s.recv(9).decode())"
NOBODY = 65534


@pytest.fixture
def target(workloads: Workloads) -> str:
    """A server in front of an echo."""
    return workloads.server(workloads.enter(Backend(echo)).target).target


def run_exec(workloads: Workloads, *arguments: str, **more: str) -> Done:
    return run_tool(environment(workloads, **more), "exec", *arguments)


@contextmanager
def running(workloads: Workloads, target: str, script: str, *flags: str) -> Iterator[Process]:
    """`tunnel exec` with a shell script that says `up` and its process number first."""
    argv = tunnel_argv("exec", f"--target={target}", ID, *flags, "--", "sh", "-c", f"echo up $$; {script}")
    process = Process(argv, environ=environment(workloads))
    try:
        yield process
    finally:
        process.close()


def up(process: Process) -> int:
    """The command's process number, as soon as it runs."""
    return int(process.wait_for(r"up (\d+)")[1])


def test_a_command_reaches_the_server_and_its_exit_code_is_ours(workloads: Workloads, target: str) -> None:
    script = f"{ASK}; import os; print(os.environ['TUNNEL_ADDR'] == '{{addr}}', '{{x}}'); raise SystemExit(7)"
    done = run_exec(workloads, f"--target={target}", ID, "--", sys.executable, "-c", script)
    assert (done.code, done.out, done.err) == (7, "ping\nTrue {x}\n", "")


def test_a_unix_socket_has_the_name_that_is_wanted_and_goes_at_the_end(workloads: Workloads, target: str) -> None:
    script = "ls -ld {dir} | cut -c1-10; test {socket} = $TUNNEL_DIR/.s.PGSQL.5432 -a -S $TUNNEL_SOCKET && echo {dir}"
    done = run_exec(workloads, f"--target={target}", ID, "--unix=.s.PGSQL.5432", "--", "sh", "-c", script)
    mode, directory = done.out.split()
    assert (done.code, mode, done.err) == (0, "drwx------", "")
    assert directory.startswith(str(workloads.directory))
    assert not Path(directory).exists()


def test_a_directory_for_sockets_goes_wherever_temporary_files_are(workloads: Workloads, target: str) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as elsewhere:  # where Landlock lets nobody write who does not ask
        done = run_exec(workloads, f"--target={target}", ID, "--unix=x", "--", "test", "-S", "{socket}", TMPDIR=elsewhere)
        assert (done.code, done.out, done.err, os.listdir(elsewhere)) == (0, "", "", [])


def test_where_users_cannot_be_told_apart_no_port_is_opened(workloads: Workloads, target: str) -> None:
    """All whom a user namespace does not map look the same; in a private directory they are kept out all the same."""
    alone = (program("unshare"), "--user")
    done = run_tool(environment(workloads), "exec", f"--target={target}", ID, "--", "true", before=alone)
    assert (done.code, "expected --unix FILE" in done.err) == (125, True)
    ask = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('{socket}'); s.sendall(b'ping'); print(s.recv(9))"
    flags = (f"--target={target}", ID, "--unix=s")
    done = run_tool(environment(workloads), "exec", *flags, "--", sys.executable, "-c", ask, before=alone)
    assert (done.code, done.out, done.err) == (0, "b'ping'\n", "")


def test_of_several_targets_each_has_its_own_server(workloads: Workloads, target: str) -> None:
    """Both stand at one address here: what is admitted for the one is not for the other."""
    say = (
        "import socket\n"
        "for port in ({good.port}, {bad.port}):\n"
        "    s = socket.create_connection(('127.0.0.1', port)); s.settimeout(60)\n"
        "    try: s.sendall(b'x'); print(s.recv(1))\n"
        "    except ConnectionError: print(b'')"
    )
    flags = (f"--target=good={target}", f"--verify-id=good={SERVER}", f"--target=bad={target}", f"--verify-id=bad={STRANGER}")
    done = run_exec(workloads, *flags, "--", sys.executable, "-c", say)
    assert (done.code, done.out) == (0, "b'x'\nb''\n")
    (line,) = done.err.splitlines()  # what was refused is said at the end
    assert line.startswith("tunnel: error on dial: TLS handshake with")
    assert "no-matching-rule" in line


def test_targets_with_sockets_have_a_place_each(workloads: Workloads, target: str) -> None:
    flags = (f"--target={target}", ID, "--unix=a", f"--target=a={target}", f"--verify-id=a={SERVER}", "--unix=a=a")
    done = run_exec(workloads, *flags, "--", "sh", "-c", "test -S {socket} -a -S {a.socket} && echo {dir} {a.dir}")
    unnamed, named = done.out.split()
    assert (done.code, done.err, unnamed == named) == (0, "", False)


def test_the_environment_is_without_what_is_ours(workloads: Workloads, target: str) -> None:
    more = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "WATCHDOG_USEC": "1", "KEYSTORE_PASS": "secret", "KEPT": "yes"}
    done = run_exec(workloads, f"--target={target}", ID, "--", "env", **more)
    names = {line.partition("=")[0] for line in done.out.splitlines()}
    assert {"TUNNEL_HOST", "TUNNEL_PORT", "TUNNEL_ADDR", "KEPT", "SPIFFE_ENDPOINT_SOCKET"} <= names
    assert not names & {"LISTEN_PID", "LISTEN_FDS", "WATCHDOG_USEC", "KEYSTORE_PASS", "GRPC_VERBOSITY"}


@pytest.mark.parametrize(
    ("flags", "command", "code", "words"),
    [
        ((ID,), ("/nonexistent",), 127, "/nonexistent: no such file or directory"),
        ((ID,), ("/etc/passwd",), 126, "/etc/passwd: permission denied"),
        ((ID,), ("sh", "-c", "kill -KILL $$"), 137, ""),
        ((), ("true",), 125, "no access rule for the server"),
        ((ID, "--wait=1s", "--use-workload-api-addr=unix:///nonexistent"), ("true",), 125, "no identity from unix:///nonexist"),
        ((ID,), ("echo", "{socket}"), 125, "{socket} needs --unix SOCKET"),
        ((ID, "--unix=a/b"), ("true",), 125, '--unix: invalid file name "a/b"'),
        ((ID, "--cert=/nonexistent", "--key=/nonexistent"), ("true",), 125, "mutually exclusive"),
    ],
)
def test_the_exit_code_says_who_failed(
    workloads: Workloads, target: str, flags: tuple[str, ...], command: tuple[str, ...], code: int, words: str
) -> None:
    done = run_exec(workloads, f"--target={target}", *flags, "--", *command)
    assert done.code == code
    assert len(done.err.splitlines()) == bool(words)
    assert words in done.err


def test_a_signal_is_the_commands_and_it_may_ignore_it(workloads: Workloads, target: str) -> None:
    with running(
        workloads, target, "trap 'echo heard' TERM USR1; echo ready; read line; read line; read line; exit 3"
    ) as process:
        process.wait_for("ready")
        for number in (signal.SIGTERM, signal.SIGUSR1):
            since = len(process.lines)
            process.signal(number)
            process.wait_for("heard", since)
        assert process.is_running
        process.hush()  # which ends as many of its reads as a signal has not
        assert process.exit_code() == 3


def test_a_signal_that_ends_the_command_ends_us(workloads: Workloads, target: str) -> None:
    with running(workloads, target, "exec sleep 1000", "--unix=x") as process:
        child = up(process)
        process.signal(signal.SIGTERM)
        assert process.exit_code() == 128 + signal.SIGTERM
        assert not is_alive(child)
        assert not list(workloads.directory.glob("tunnel-*"))


def test_what_a_command_leaves_behind_ends_with_it(workloads: Workloads, target: str) -> None:
    """Save what has left our session on purpose, as a daemon does."""
    stubborn = "trap '' TERM; echo left $$; while :; do sleep 1; done"
    script = f'sh -c "{stubborn.replace("$", chr(92) + "$")}" & setsid sh -c "echo daemon \\$\\$; exec sleep 1000" & sleep 0.5'
    with running(workloads, target, script) as process:
        left = int(process.wait_for(r"left (\d+)")[1])
        daemon = int(process.wait_for(r"daemon (\d+)")[1])
        eventually(lambda: not process.is_running, "the end")
        try:
            assert not is_alive(left)
            assert is_alive(daemon)
        finally:
            os.kill(daemon, signal.SIGKILL)


def test_a_kill_of_ours_is_the_commands_end(workloads: Workloads, target: str) -> None:
    with running(workloads, target, "exec sleep 1000", "--unix=x") as process:
        pid = up(process)
        process.signal(signal.SIGKILL)
        eventually(lambda: not is_alive(pid), "the command is killed too")
        assert len(list(workloads.directory.glob("tunnel-*"))) == 1, "as documented, the socket's directory stays"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("kind", ["port", "socket"])
def test_a_process_of_another_user_is_refused(workloads: Workloads, target: str, kind: str) -> None:
    flags = ["--unix=x"] if kind == "socket" else []
    place = "{socket}" if kind == "socket" else "{port}"
    argv = tunnel_argv("exec", f"--target={target}", ID, *flags, "--", "sh", "-c", f"echo up {place}; read line")
    public = workloads.enter(tempfile.TemporaryDirectory())  # pytest's own directories are closed to other users
    process = Process(argv, environ=environment(workloads, TMPDIR=public))
    try:
        where = process.wait_for(r"up (\S+)")[1]
        address = where if flags else ("127.0.0.1", int(where))
        if flags:
            for path in (public, Path(where).parent, where):
                os.chmod(path, 0o777)
        script = (
            "import socket, sys\n"
            f"s = socket.socket(socket.AF_{'UNIX' if flags else 'INET'})\n"
            f"s.connect({address!r})\n"
            "try:\n    s.sendall(b'x'); print(s.recv(1))\nexcept ConnectionError: print(b'')"
        )
        done = subprocess.run(["python3", "-c", script], user=NOBODY, capture_output=True, timeout=LIMIT, check=True, cwd="/")
        assert done.stdout == b"b''\n"
        with connect(address) as own:
            own.sendall(b"x")
            assert own.recv(1) == b"x"
        process.say("")
        assert process.exit_code() == 0
        (line,) = process.complaints
        assert line.startswith(
            f"tunnel: refused local connection: it is from user {NOBODY}; expected user 0 reason=another-user from="
        )
    finally:
        process.close()


@contextmanager
def on_a_terminal(argv: list[str], environ: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process whose controlling terminal is ours to type on."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(["setsid", "-c", *argv], stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal: int, words: bytes) -> bytes:
    seen = b""
    while words not in seen:
        ready, _, _ = select.select([terminal], [], [], LIMIT)
        assert ready, f"no {words!r} within {LIMIT:g}s in {seen!r}"
        seen += os.read(terminal, 4096)
    return seen


def test_a_command_on_a_terminal_is_as_without_us(workloads: Workloads, target: str) -> None:
    """Ctrl-C reaches it once, the terminal's state is left alone, and no shared descriptor is made non-blocking."""
    script = (
        "import os, signal, sys, time\n"
        "heard = []\n"
        "signal.signal(signal.SIGINT, lambda *_: heard.append(1))\n"
        "print('up', os.get_blocking(0), os.get_blocking(1), os.tcgetpgrp(0) == os.getpgrp(), flush=True)\n"
        "sys.stdin.readline()\n"
        "time.sleep(0.3)\n"
        "print('heard', len(heard), 'and typed', flush=True)\n"
    )
    argv = tunnel_argv("exec", f"--target={target}", ID, "--", sys.executable, "-c", script)
    with on_a_terminal(argv, environment(workloads)) as (process, terminal):
        assert b"up True True True" in read_until(terminal, b"True\r\n")
        before = termios.tcgetattr(terminal)
        os.write(terminal, b"\x03")
        read_until(terminal, b"^C")
        os.write(terminal, b"line\n")
        assert b"heard 1 and typed" in read_until(terminal, b"typed\r\n")
        assert process.wait(LIMIT) == 0
        assert termios.tcgetattr(terminal) == before


def commands_below(pid: int, name: str) -> list[int]:
    """The descendants of a process that have this name."""
    children = [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    found = [child for child in children if Path(f"/proc/{child}/comm").read_text() == f"{name}\n"]
    return found + [one for child in children for one in commands_below(child, name)]


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_ctrl_z_stops_both_and_fg_continues(workloads: Workloads, target: str) -> None:
    argv = tunnel_argv("exec", f"--target={target}", ID, "--", "sh", "-c", "echo up; read line; echo got $line")
    shell = ["bash", "--norc", "-im"]
    with on_a_terminal(shell, {**environment(workloads), "PS1": "$ ", "PS0": "", "HISTFILE": "", "TERM": "xterm"}) as (
        process,
        terminal,
    ):
        os.write(terminal, " ".join(f"'{word}'" for word in argv).encode() + b"\n")
        read_until(terminal, b"\rup\r\n")
        assert commands_below(process.pid, "sh")
        os.write(terminal, b"\x1a")
        if b"$ " not in read_until(terminal, b"Stopped").partition(b"Stopped")[2]:
            read_until(terminal, b"$ ")  # before its prompt the shell may lose what is typed
        # The shell waits for its own child only. A reader that has not stopped yet would take what is typed.
        eventually(lambda: all(is_stopped(pid) for pid in commands_below(process.pid, "sh")), "a stopped command")
        os.write(terminal, b"fg\n")
        time.sleep(0.1)
        os.write(terminal, b"more\n")
        read_until(terminal, b"\ngot more\r\n")
        os.write(terminal, b"exit\n")
        process.wait(LIMIT)


def test_somebody_at_a_terminal_is_told_what_we_wait_for(workloads: Workloads, target: str) -> None:
    argv = tunnel_argv("exec", f"--target={target}", ID, "--use-workload-api-addr=unix:///nonexistent", "--", "true")
    with on_a_terminal(argv, environment(workloads)) as (process, terminal):
        seen = read_until(terminal, b"\r\n")
        assert b"tunnel: waiting for an identity from unix:///nonexistent: Workload API unavailable" in seen
        os.write(terminal, b"\x03")
        assert process.wait(LIMIT) == 128 + signal.SIGINT


def test_what_was_said_last_reaches_the_server(workloads: Workloads) -> None:
    # More than socket buffers hold: the owner of a connection whose process has exited before it is accepted is unknown.
    size = 30_000_000
    received: list[bytes] = []

    def take(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            received.append(data)

    backend = workloads.enter(Backend(take))
    target = workloads.server(backend.target).target
    script = f"import socket; s = socket.create_connection(('{{host}}', {{port}})); s.sendall(bytes({size}))"
    assert run_exec(workloads, f"--target={target}", ID, "--", sys.executable, "-c", script).code == 0
    eventually(lambda: sum(map(len, received)) == size, "all of it")


def test_a_last_line_that_nobody_reads_does_not_keep_us_from_ending(workloads: Workloads, target: str) -> None:
    read, write = os.pipe()
    with open(read, "rb"), open(write, "wb", buffering=0) as full:
        os.set_blocking(write, False)
        while full.write(bytes(select.PIPE_BUF)) is not None:
            pass
        os.set_blocking(write, True)
        argv = tunnel_argv("exec", f"--target={target}", ID, "--unix=x", "--", "/nonexistent")
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=full, env=environment(workloads)) as process:
            eventually(lambda: list(workloads.directory.glob("tunnel-*")) != [], "a start")
            eventually(lambda: list(workloads.directory.glob("tunnel-*")) == [], "an end")
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT) == 128 + signal.SIGTERM
