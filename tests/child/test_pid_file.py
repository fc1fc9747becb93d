"""The processes that a PID file may and may not signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tunnel.child.pid_file import ReloadOutcome, find_objection, signal_by_pid_file
from tunnel.config.svid_model import PidFileSignal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "service.pid"


CATCHES = "signal.signal(signal.SIGUSR2, lambda *_: os._exit(42))"
IGNORES = "signal.signal(signal.SIGUSR2, signal.SIG_IGN)"
BLOCKS = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])"
DEFAULT = "pass"


@contextmanager
def running(setup: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has run this and goes on for ever."""
    script = f"import os, signal, sys, time; {setup}; print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


@pytest.fixture
def service() -> Iterator[subprocess.Popen[str]]:
    """A process that USR2 ends with exit code 42."""
    with running(CATCHES) as process:
        yield process


def send(path: Path) -> ReloadOutcome:
    return signal_by_pid_file(PidFileSignal(str(path), signal.SIGUSR2))


@pytest.mark.parametrize("content", ["{}", "{}\n", " {} \r\n", "{}\n/var/lib/postgresql/data\n1732262400\n5432\n"])
def test_the_process_is_signalled(path: Path, service: subprocess.Popen[str], content: str) -> None:
    path.write_text(content.format(service.pid))
    assert send(path) == ReloadOutcome(True, f"sent SIGUSR2 to process {service.pid}")
    assert service.wait(60) == 42


@pytest.mark.parametrize(
    "content", ["0", "1", "00001", "-1", "+{}", "x{}", "{}x", "{} {}", "0x1f", "1e5", "99999999999", "4194305", "\n{}"]
)
def test_an_invalid_pid_file_signals_no_process(
    path: Path, service: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("signalled"))
    path.write_text(content.format(service.pid, service.pid))
    outcome = send(path)
    assert (outcome.is_done, outcome.is_transient) == (False, False)
    assert outcome.text.startswith(f"PID file {path} ")


def test_we_never_signal_ourselves(path: Path) -> None:
    path.write_text(str(os.getpid()))
    assert send(path) == ReloadOutcome(False, f"PID file {path} names process {os.getpid()}, which is never signalled")


def test_a_missing_or_empty_file_is_transient(path: Path) -> None:
    assert send(path) == ReloadOutcome(False, f"PID file {path} does not exist", is_transient=True)
    path.write_text("")
    assert send(path).is_transient


def test_a_process_that_has_ended_is_reported(path: Path, service: subprocess.Popen[str]) -> None:
    path.write_text(str(service.pid))
    service.kill()
    service.wait(60)
    detail = f"PID file {path} names process {service.pid}, which does not exist"
    assert send(path) == ReloadOutcome(False, detail, is_transient=True)


@pytest.mark.parametrize("written", [1.0, 1e9, time.time() + 1e6], ids=["1970", "2001", "future"])
def test_the_time_of_the_file_means_nothing_since_the_clock_may_have_been_set(
    path: Path, service: subprocess.Popen[str], written: float
) -> None:
    path.write_text(str(service.pid))
    os.utime(path, (written, written))
    assert send(path).is_done
    assert service.wait(60) == 42


@pytest.mark.parametrize("setup", [IGNORES, BLOCKS])
def test_a_process_that_the_signal_does_not_end_is_sent_it(path: Path, setup: str) -> None:
    with running(setup) as process:
        path.write_text(str(process.pid))
        assert send(path).is_done
        assert process.poll() is None


def test_a_process_that_the_signal_would_end_is_left_alone(path: Path) -> None:
    with running(DEFAULT) as process:
        path.write_text(str(process.pid))
        assert send(path) == ReloadOutcome(
            False,
            f"process {process.pid} of PID file {path} would be ended by SIGUSR2, which it neither catches, blocks nor ignores",
            is_transient=True,
        )
        assert signal_by_pid_file(PidFileSignal(str(path), signal.SIGWINCH)).is_done
        stopping = signal_by_pid_file(PidFileSignal(str(path), signal.SIGTSTP))
        assert "would be stopped by SIGTSTP" in stopping.text
        assert process.poll() is None


def test_a_zombie_is_reported(path: Path, service: subprocess.Popen[str]) -> None:
    path.write_text(str(service.pid))
    service.kill()
    os.waitid(os.P_PID, service.pid, os.WEXITED | os.WNOWAIT)
    assert send(path) == ReloadOutcome(False, f"process {service.pid} of PID file {path} has ended", is_transient=True)


STATUS = {"State": "S (sleeping)", "VmSize": "8 kB", "SigBlk": "0" * 16, "SigIgn": "0" * 16, "SigCgt": "0" * 16}


@pytest.mark.parametrize(
    ("status", "number", "words"),
    [
        (STATUS, signal.SIGHUP, "would be ended by SIGHUP, which it neither catches, blocks nor ignores"),
        (STATUS | {"SigCgt": "0000000000000001"}, signal.SIGHUP, ""),
        (STATUS | {"SigCgt": "0000000000000001"}, signal.SIGINT, "would be ended by SIGINT, which it neither"),
        (STATUS | {"SigIgn": "fffffffffffffffe"}, signal.SIGHUP, "would be ended by SIGHUP"),
        (STATUS | {"SigBlk": "8000000000000000"}, signal.SIGRTMAX, ""),
        (STATUS, signal.SIGRTMAX, "would be ended by SIGRTMAX"),
        ({name: value for name, value in STATUS.items() if name != "VmSize"}, signal.SIGHUP, "is a kernel thread"),
        ({}, signal.SIGHUP, ""),
        ({name: value for name, value in STATUS.items() if name != "SigBlk"}, signal.SIGHUP, ""),
    ],
)
def test_the_status_of_the_process_decides_and_a_missing_one_permits(
    status: dict[str, str], number: signal.Signals, words: str
) -> None:
    objection = find_objection(status, number)
    assert objection.startswith(words) if words else objection == ""


@pytest.mark.skipif(not Path("/proc/2/status").exists(), reason="no kernel thread is seen in this PID namespace")
def test_a_kernel_thread_is_never_signalled(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if Path("/proc/2/comm").read_text().strip() != "kthreadd":
        pytest.skip("process 2 is no kernel thread here")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("signalled"))
    path.write_text("2")
    assert send(path) == ReloadOutcome(False, f"process 2 of PID file {path} is a kernel thread", is_transient=True)


def test_if_proc_is_hidden_the_signal_is_sent(
    path: Path, service: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under hidepid, or with the /proc of another PID namespace."""
    monkeypatch.setattr("tunnel.child.pid_file.is_our_proc", lambda: False)
    path.write_text(str(service.pid))
    assert send(path).is_done
    assert service.wait(60) == 42


def test_a_fifo_or_directory_does_not_block(path: Path) -> None:
    os.mkfifo(path)
    assert not send(path).is_done
    path.unlink()
    path.mkdir()
    assert not send(path).is_done
