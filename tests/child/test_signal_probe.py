"""The signal probe reports which signals were sent to other processes as well."""

from __future__ import annotations

import pytest

from tests.support.script_runner import run_source
from tunnel.child.signal_probe import is_same_cgroup

# A leader of its session with a probe, and two processes: one is in its process group, one has a group of its own.
PREPARED = """
import os, signal, subprocess, time
from pathlib import Path
from tunnel.child.signal_probe import ReceivedSignal, SignalProbe

os.setsid()
probe = SignalProbe()
first, second = pids = sorted(probe.pids)
beside = subprocess.Popen(["sleep", "600"], preexec_fn=lambda: [signal.signal(n, signal.SIG_IGN) for n in (10, 12, 34)])
apart = subprocess.Popen(["sleep", "600"], process_group=0)
USR1, USR2, RT = signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN
for number in (USR1, USR2, RT):
    signal.signal(number, signal.SIG_IGN)

def had(process, number, later=0.0, is_from_terminal=False):
    return probe.was_sent_to(process.pid, ReceivedSignal(number, time.monotonic() + later, is_from_terminal))
"""


def scene(body: str) -> None:
    """Run lines with what PREPARED has made; it ends everything."""
    indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
    run_source(f"{PREPARED}\ntry:\n{indented}\nfinally:\n    for process in (beside, apart): process.kill()\nprobe.close()\n")


def test_nothing_is_shared_that_was_sent_to_us_alone() -> None:
    scene("assert not had(beside, USR1)\nos.kill(os.getpid(), USR1)\nassert not had(beside, USR1)")


def test_a_signal_to_the_process_group_is_shared_by_who_is_in_it() -> None:
    scene("""
os.killpg(0, USR1)
os.killpg(0, USR2)
assert had(beside, USR1) and not had(beside, USR1), "it is reported once"
assert not had(apart, USR2)
assert had(beside, USR1, is_from_terminal=True) and not had(apart, USR1, is_from_terminal=True)
""")


def test_a_signal_to_everything_is_shared_by_all() -> None:
    scene("""
for process in (beside, apart):
    for pid in pids:
        os.kill(pid, USR1)
    assert had(process, USR1) and not had(process, USR1)
""")


def test_real_time_signals_are_counted() -> None:
    scene("""
for _ in range(3):
    os.killpg(0, RT)
    os.killpg(0, USR1)
assert [had(beside, RT) for _ in range(4)] == [True, True, True, False]
assert [had(beside, USR1) for _ in range(2)] == [True, False]
""")


def test_a_signal_that_the_probe_received_long_before_is_another_one() -> None:
    """It was sent to the probe, or to all but us."""
    scene("""
os.killpg(0, USR1)
assert not had(beside, USR1, later=50)
assert not had(beside, USR1)
""")


def test_the_probe_has_another_name_and_ends_when_it_is_closed() -> None:
    scene("""
for pid in pids:
    assert Path(f"/proc/{pid}/comm").read_text() == "signal-probe\\n"
    assert Path(f"/proc/{pid}/cmdline").read_bytes().strip(b"\\0") == b"signal-probe"
probe.close()
assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
assert probe.pids == set() and not had(beside, USR1)
""")


def test_one_that_cannot_be_started_has_nothing() -> None:
    run_source("""
import sys, time
sys.executable = "/nonexistent"
from tunnel.child.signal_probe import ReceivedSignal, SignalProbe
probe = SignalProbe()
assert not probe.was_sent_to(1, ReceivedSignal(15, 0.0))
while probe.pids:
    time.sleep(0.01)
probe.close()
""")


@pytest.mark.parametrize(
    ("ours", "theirs", "is_same"),
    [
        ("0::/a\n", "0::/a\n", True),
        ("0::/a\n", "0::/a/b\n", True),
        ("0::/\n", "0::/a\n", True),
        ("0::/a\n", "0::/ab\n", False),
        ("0::/a\n", "0::/\n", False),
        ("4:memory:/x\n1:name=systemd:/a:b\n0::/\n", "4:memory:/y\n1:name=systemd:/a:b\n0::/\n", True),
        ("1:name=systemd:/a\n0::/\n", "1:name=systemd:/b\n0::/\n", False),
        ("0::/a\n", "", True),
    ],
)
def test_a_control_group_holds_what_is_in_it_and_below(ours: str, theirs: str, is_same: bool) -> None:
    assert is_same_cgroup(ours.encode(), theirs.encode()) is is_same
