"""A command inherits what it would without us, and ends with us."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.processes import Process, eventually
from tests.support.script_runner import environment, miniature, run, run_source
from tunnel.child.exec_protocol import ExecRequest, build_exec_request, encode_exec_request, read_exec_request

# Several commands in sequence, each with its own launcher: how each ended, and the error.
SERIES = """
import json, os, select, sys
from tunnel.child.launcher import Launcher
from tunnel.child.spawn_launcher import SpawnLauncher
from tunnel.errors import CommandError

for argv in json.loads(sys.argv[2]):
    launcher = {"fork": Launcher, "spawn": SpawnLauncher}[sys.argv[1]]()
    text = ""
    try:
        launcher.start([{"LONG": "x" * (1 << 18)}.get(word, word) for word in argv], os.environ)
        select.select([launcher], [], [])
    except CommandError as error:
        text = str(error)
        assert launcher.exit_code() == error.exit_code
    print(json.dumps([launcher.exit_code(), launcher.ended_by, text]))
    launcher.close()
assert os.listdir("/proc/self/task") == [str(os.getpid())]
assert len(os.listdir("/proc/self/fd")) == 4, os.listdir("/proc/self/fd")
try:
    os.waitpid(-1, os.WNOHANG)
    print("a child is left")
except ChildProcessError:
    pass
"""
# What a command can see of how it was started; a shell would unblock signals before it looks.
SIGNALS = ["grep", "-E", "^(Sig(Blk|Ign|Cgt|Pnd)|ShdPnd|NoNewPrivs|Umask|Seccomp):", "/proc/self/status"]
LOOK = (
    "ulimit -Sn; ulimit -Hn; ls / > /dev/null && echo free; pwd; nice; cut -d' ' -f5,6,7 /proc/$$/stat;"
    " for n in $(ls /proc/$$/fd); do [ $n -lt 3 ] || readlink /proc/$$/fd/$n; done; true"
)


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_a_command_ends_as_a_shell_says_it(how: str, tmp_path: Path) -> None:
    for name, text, mode in (
        ("text", "", 0o644),
        ("bare", 'echo "$0 $1" >&2; exit 9', 0o755),
        ("stale", "#!/no/such/sh\n", 0o755),
        ("shadow/here", "", 0o644),
        ("real/here", "#!/bin/sh\nexit 5\n", 0o755),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    cases: list[tuple[list[str], int, str]] = [
        (["true"], 0, ""),
        (["sh", "-c", "exit 7"], 7, ""),
        (["sh", "-c", "kill -9 $$"], 137, ""),
        (["sh", "-c", "kill -TERM $$"], 143, ""),
        (["sh", "-c", "kill -PIPE $$"], 141, ""),
        ([str(tmp_path / "bare"), "one"], 9, ""),  # no line says whose script it is: the shell's
        (["here"], 5, ""),  # the first of this name cannot be run, and the search goes on
        (["no\nsuch"], 127, r"no\x0asuch: command not found"),
        ([""], 127, ": command not found"),
        (["/no/such"], 127, "/no/such: no such file or directory"),
        ([str(tmp_path / "text")], 126, f"{tmp_path}/text: permission denied"),
        ([str(tmp_path)], 126, f"{tmp_path}: permission denied"),
        ([str(tmp_path / "stale")], 126, f"{tmp_path}/stale: its interpreter does not exist"),
        (["true", "LONG"], 126, "true: argument list too long"),
    ]
    path = f"{tmp_path}/none:{tmp_path}/shadow:{tmp_path}/real:{os.environ['PATH']}"
    text = run_source(SERIES, how, json.dumps([argv for argv, *_ in cases]), environ=environment(PATH=path))
    wanted = [[code, code - 128 if code > 128 else None, words] for _, code, words in cases]
    assert [json.loads(line) for line in text.splitlines()] == wanted


def as_an_odd_parent() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a background job of a shell without job control
    signal.signal(signal.SIGRTMIN + 3, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGWINCH})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (123, hard))
    os.umask(0o031)
    os.nice(1)


@pytest.mark.parametrize("words", [[], ["spawn"]], ids=["fork", "spawn"])
@pytest.mark.parametrize("start", [None, as_an_odd_parent])
def test_a_command_finds_everything_as_our_parent_left_it(start: object, words: list[str], tmp_path: Path) -> None:
    """Signals, limits, descriptors that were inherited and no other, group and terminal: as without us."""
    reader, writer = os.pipe()
    with open(reader), open(writer, "wb"):
        how = {"preexec_fn": start, "cwd": tmp_path, "pass_fds": [reader], "start_new_session": True}
        directly, through = (
            b"".join(run([*prefix, *command], **how).stdout for command in (SIGNALS, ["sh", "-c", LOOK])).decode().splitlines()
            for prefix in ([], miniature(*words))
        )
    for seen in directly, through:  # the last line: what was inherited; before it group, session and terminal
        group, session, _terminal = seen.pop(-2).split()
        assert group == session  # of the first process
        seen[:] = [without_internal(line) for line in seen]
    assert through == directly
    assert through[-1].startswith("pipe:")


def without_internal(line: str) -> str:
    """Without two signals that belong to the C library: glibc's posix_spawn(3) ignores them, and its threads set them up."""
    name, _, mask = line.partition(":\t")
    return f"{name}:\t{int(mask, 16) & ~(3 << 31):016x}" if name == "SigIgn" else line


def test_a_status_is_known_though_our_parent_ignores_its_children() -> None:
    def start() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    done = run([*miniature(), "grep", "-c", "^SigIgn:.*1....$", "/proc/self/status"], preexec_fn=start)
    assert (done.returncode, done.stdout) == (0, b"1\n")


def test_arguments_and_environment_are_bytes(tmp_path: Path) -> None:
    """Without a locale the interpreter adds to the environment; and what is no UTF-8 goes through."""
    environ = {b"PATH": os.environb[b"PATH"], b"PYTHONPATH": environment()["PYTHONPATH"].encode(), b"ODD": b"\xff=\n\xc3"}
    command = ["sh", "-c", 'printf "%s\\0" "$1"; exec env -0', "sh", os.fsdecode(b"\xfe\n")]
    direct = run(command, environ=environ)  # type: ignore[arg-type]
    for words in ([], ["spawn"]):
        done = run([*miniature(*words), *command], environ={**environ, b"NOTIFY_SOCKET": b"@x", b"KEYSTORE_PASS": b"y"})  # type: ignore[dict-item]
        assert set(done.stdout.split(b"\0")) == set(direct.stdout.split(b"\0"))


@pytest.mark.parametrize(
    ("words", "is_running"), [(["hold"], False), ([], True), (["spawn"], True)], ids=["waiting", "running", "spawned"]
)
def test_nothing_outlives_a_process_that_is_killed(words: list[str], is_running: bool) -> None:
    process = Process([*miniature(*words), "sleep", "3600"], environ=environment(), is_merged=True)
    with closing(process):
        child = int(process.wait_for(r"^child (\d+)")[1])
        if is_running:
            process.wait_for("^started")
        process.signal(signal.SIGKILL)
        try:
            eventually(lambda: not is_alive(child), "the child ends")
        finally:
            if is_alive(child):
                os.kill(child, signal.SIGKILL)
        assert process.exit_code() == -signal.SIGKILL


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_child_that_is_given_no_order_runs_nothing() -> None:
    """Neither when it is abandoned nor when its parent ends in good order; and being killed is not an error of the command."""
    source = """
import os, signal, sys
from tunnel.child.launcher import Launcher

first = Launcher()
first.abandon()
first.abandon()
assert first.exit_code() == 137
first.close()
second = Launcher()
second.send(signal.SIGKILL)
second.start(["true"], os.environ)
os.waitid(os.P_PID, second.pid, os.WEXITED | os.WNOWAIT)
assert second.exit_code() == 137
second.send(signal.SIGTERM)  # no process
second.close()
second.close()
second.send(signal.SIGTERM)
print(Launcher().pid)
"""
    pid = int(run_source(source))
    eventually(lambda: not is_alive(pid), "the child ends with its parent")


def test_what_comes_while_it_waits_ends_the_command_at_once() -> None:
    """Ctrl-C before the command has begun: the waiting child has it as well."""
    with closing(Process([*miniature("late"), "sleep", "60"], environ=environment(), is_merged=True)) as process:
        os.kill(int(process.wait_for(r"^child (\d+)")[1]), signal.SIGINT)
        process.say("go")
        assert process.exit_code() == 130


@pytest.mark.parametrize(
    "order",
    [
        ExecRequest((), (), ()),
        ExecRequest((b"/bin/x", b""), (b"x", b"", b"\xff" * 70_000), (b"A=", b"B=\n=")),
    ],
)
def test_an_order_arrives_as_it_was_sent(order: ExecRequest, tmp_path: Path) -> None:
    file = tmp_path / "order"
    file.write_bytes(encode_exec_request(order))
    with file.open("rb", buffering=0) as stream:
        assert read_exec_request(stream.fileno()) == order


def test_half_an_order_is_none(tmp_path: Path) -> None:
    whole = encode_exec_request(build_exec_request(["x", "y"], {"A": "B"}))
    file = tmp_path / "order"
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with file.open("rb", buffering=0) as stream:
            assert read_exec_request(stream.fileno()) is None


@pytest.mark.parametrize(
    ("name", "environ", "paths"),
    [
        ("a/b", {"PATH": "/x"}, [b"a/b"]),
        ("x", {"PATH": "/a::/b"}, [b"/a/x", b"./x", b"/b/x"]),
        ("x", {}, [b"/bin/x", b"/usr/bin/x"]),
        ("", {"PATH": "/a"}, []),
    ],
)
def test_a_name_without_a_slash_is_searched_for(name: str, environ: dict[str, str], paths: list[bytes]) -> None:
    assert list(build_exec_request([name], environ).paths) == paths


def test_a_launcher_is_made_before_there_are_threads() -> None:
    source = """
import threading
from tunnel.child.launcher import Launcher

threading.Thread(target=threading.Event().wait, daemon=True).start()
Launcher()
"""
    assert b"a fork copies one thread" in run([sys.executable, "-c", source]).stderr
