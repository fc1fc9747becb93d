"""Each signal reaches the command once, from the terminal or from `kill`."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import sys
import termios
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.processes import Process, eventually
from tests.support.script_runner import LISTENING, SCRIPTS, environment, miniature, run_source
from tunnel.child.signals import forwarded, is_from_terminal

BY_KILL, BY_KERNEL = 0, 0x80  # si_code
SENT = [
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGALRM, signal.SIGWINCH, signal.SIGIO, signal.SIGRTMIN + 1, signal.SIGRTMAX),
]


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """Our end of a terminal, and the name of the other."""
    ours, theirs = os.openpty()
    name = os.ttyname(theirs)
    with open(ours, "rb+", buffering=0) as stream:
        yield stream.fileno(), name
    os.close(theirs)


def started(*argv: str) -> closing[Process]:
    """With no signal ignored, which it may be for these tests themselves (nohup, a job in the background)."""
    return closing(Process(["env", "--default-signal", *argv], environ=environment(), is_merged=True))


def count(process: Process, word: str) -> Counter[int]:
    """How often each signal is in lines that begin with this word."""
    return Counter(int(line.split()[1]) for line in process.matches(f"^{word} "))


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_what_kill_sends_is_sent_on_while_trio_waits() -> None:
    """SIGINT included, for which trio and the interpreter have handlers: none of them runs."""
    with started(*miniature("trio"), *LISTENING) as process:
        process.wait_for("^listening")
        process.wait_for("^waiting")
        for number in SENT:
            os.kill(process.pid, number)
            process.wait_for(f"^got {int(number)}$")
        process.say("end")
        assert process.exit_code() == 7
        assert count(process, "got") == count(process, "signal") == Counter(map(int, SENT))
        assert not process.matches("shared")


def test_what_a_terminal_sends_is_not_sent_twice(terminal: tuple[int, str]) -> None:
    """Ctrl-Z stops both processes, and continuing the group continues both."""
    ours, name = terminal
    with started(sys.executable, str(SCRIPTS / "job_control.py"), name, "--", *miniature(), *LISTENING) as process:
        process.wait_for("^listening")
        job, child = (int(process.wait_for(rf"^{word} (\d+)")[1]) for word in ("job", "child"))
        for key, number in ((b"\x03", signal.SIGINT), (b"\x1c", signal.SIGQUIT)):
            os.write(ours, key)
            process.wait_for(f"^got {int(number)}$")
            process.wait_for(f"^settled {int(number)} had$")
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 20, 0, 0))
        process.wait_for(f"^got {int(signal.SIGWINCH)}$")
        process.wait_for(f"^settled {int(signal.SIGWINCH)} had$")
        os.kill(job, signal.SIGINT)
        process.wait_for(f"^signal {int(signal.SIGINT)} ours$")
        process.wait_for(f"^got {int(signal.SIGINT)}$", count=2)

        os.write(ours, b"\x1a")
        process.wait_for("^stopped")
        eventually(lambda: state(job) == state(child) == "T", "both are stopped")
        os.killpg(job, signal.SIGCONT)
        eventually(lambda: state(job) != "T" != state(child), "both go on")
        os.write(ours, b"end\n")
        process.wait_for("^ended 7")
        wanted = {int(signal.SIGINT): 2, int(signal.SIGQUIT): 1, int(signal.SIGWINCH): 1}
        assert count(process, "got") == count(process, "signal") == wanted


def test_the_end_of_the_line_is_sent_on_where_we_lead_the_session() -> None:
    """The kernel signals the leader only."""
    ours, theirs = os.openpty()
    name = os.ttyname(theirs)
    os.close(theirs)
    command = "trap 'exit 3' HUP; echo ready; while :; do sleep 0.05; done"
    with started(
        sys.executable, str(SCRIPTS / "job_control.py"), name, "lead", "--", *miniature(), "sh", "-c", command
    ) as process:
        process.wait_for("^ready")
        os.close(ours)
        assert process.exit_code() == 3
        process.wait_for("^signal 1 ours$")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a PID namespace")
def test_process_1_loses_nothing_that_comes_while_it_is_still_starting() -> None:
    with started("unshare", "--pid", "--fork", "--mount-proc", *miniature("late"), "sleep", "60") as process:
        process.wait_for(r"^child (\d+)")
        first = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
        os.kill(first, signal.SIGTERM)
        process.say("go")
        assert process.exit_code() == 128 + signal.SIGTERM


def test_what_we_were_told_to_ignore_stays_ignored() -> None:
    """As under nohup: neither we nor the command receive it."""
    with started("sh", "-c", 'trap "" HUP; exec "$@"', "sh", *miniature(), "sh", "-c", "echo ready; cat; exit 4") as process:
        process.wait_for("^ready")
        os.kill(process.pid, signal.SIGHUP)
        os.kill(process.pid, signal.SIGWINCH)  # behind it
        process.wait_for(f"^signal {int(signal.SIGWINCH)} ours")
        process.hush()
        assert process.exit_code() == 4
        assert count(process, "signal") == {int(signal.SIGWINCH): 1}


def test_what_was_inherited_is_noted_before_the_program_changes_it() -> None:
    """Which makes SIGHUP and SIGUSR1 harmless at once."""
    source = """
import signal, sys
from tunnel.__main__ import main
from tunnel.child.inherited import inherited

before = {n for n in signal.valid_signals() if signal.getsignal(n) == signal.SIG_IGN} - {signal.SIGPIPE, signal.SIGXFSZ}
sys.argv = ["tunnel", "--version"]
main()
print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, inherited().ignored == before)
"""
    assert run_source(source).splitlines()[-1] == "True True"


@pytest.mark.parametrize(
    ("number", "code", "is_shared"),
    [
        (signal.SIGINT, BY_KERNEL, True),
        (signal.SIGQUIT, BY_KERNEL, True),
        (signal.SIGWINCH, BY_KERNEL, True),
        (signal.SIGINT, BY_KILL, False),
        (signal.SIGINT, -1, False),  # sigqueue(3)
        (signal.SIGINT, -6, False),  # tgkill(2)
        (signal.SIGALRM, BY_KERNEL, False),  # `perl -e "alarm 5; exec @ARGV"`: the timer is ours
        (signal.SIGTERM, BY_KERNEL, False),
    ],
)
def test_a_terminal_s_signal_is_known_by_its_code(number: int, code: int, is_shared: bool) -> None:
    assert is_from_terminal(number, code) is is_shared


def test_what_is_sent_on_is_all_that_can_be() -> None:
    kept = {n.name for n in signal.Signals if n not in forwarded()}
    assert kept == set(
        "SIGKILL SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGCONT SIGCHLD SIGPIPE SIGSEGV SIGBUS SIGFPE SIGILL SIGABRT SIGTRAP SIGSYS"
        " SIGPROF SIGVTALRM SIGXCPU SIGXFSZ".split()
    )
