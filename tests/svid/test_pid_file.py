"""Whom a pid file leads to, and whom it must never lead to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunnel.config.svid_model import PidFileSignal
from tunnel.svid.pid_file import Told, signal_by_pid_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "service.pid"


@pytest.fixture
def service() -> Iterator[subprocess.Popen[str]]:
    """A process that USR2 ends."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def send(path: Path) -> Told:
    return signal_by_pid_file(PidFileSignal(str(path), signal.SIGUSR2))


@pytest.mark.parametrize("content", ["{}", "{}\n", " {} \r\n", "{}\n/var/lib/postgresql/data\n1732262400\n5432\n"])
def test_the_process_is_signalled(path: Path, service: subprocess.Popen[str], content: str) -> None:
    path.write_text(content.format(service.pid))
    assert send(path) == Told(True, f"sent SIGUSR2 to process {service.pid}")
    assert service.wait(60) == -signal.SIGUSR2


@pytest.mark.parametrize(
    "content", ["0", "1", "00001", "-1", "+{}", "x{}", "{}x", "{} {}", "0x1f", "1e5", "99999999999", "4194305", "\n{}"]
)
def test_nobody_else_is_ever_signalled(
    path: Path, service: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("signalled"))
    path.write_text(content.format(service.pid, service.pid))
    told = send(path)
    assert (told.is_done, told.may_come) == (False, False)
    assert told.text.startswith(f"pid file {path} ")


def test_we_never_signal_ourselves(path: Path) -> None:
    path.write_text(str(os.getpid()))
    assert send(path) == Told(False, f"pid file {path} says {os.getpid()}, which is never signalled")


def test_a_file_that_is_not_there_or_empty_may_come_to_be(path: Path) -> None:
    assert send(path) == Told(False, f"pid file {path} is not there", may_come=True)
    path.write_text("")
    assert send(path).may_come


def test_a_process_that_has_gone_is_said(path: Path, service: subprocess.Popen[str]) -> None:
    path.write_text(str(service.pid))
    service.kill()
    service.wait(60)
    assert send(path) == Told(False, f"pid file {path} says {service.pid}, and there is no such process", may_come=True)


def test_a_process_that_has_the_number_of_another_one_is_left_alone(path: Path, service: subprocess.Popen[str]) -> None:
    path.write_text(str(service.pid))
    os.utime(path, (time.time() - 3600, time.time() - 3600))  # written long before this process was there
    told = send(path)
    assert told == Told(
        False, f"pid file {path} is much older than process {service.pid}, so that is another one", may_come=True
    )
    assert service.poll() is None


def test_a_clock_that_was_set_since_is_no_reason(path: Path, service: subprocess.Popen[str]) -> None:
    path.write_text(str(service.pid))
    os.utime(path, (time.time() - 120, time.time() - 120))
    assert send(path).is_done


def test_what_is_no_file_keeps_nobody_waiting(path: Path) -> None:
    os.mkfifo(path)
    assert not send(path).is_done
    path.unlink()
    path.mkdir()
    assert not send(path).is_done
