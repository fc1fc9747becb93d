"""The descendants that a command leaves behind are found, ended and reaped; other processes are not."""

from __future__ import annotations

import json
import os
import sys

import pytest

from tests.support.script_runner import environment, run, run_source

# A dead child of ours is the first that the kernel shows; two orphans are behind it, and a living child.
ORPHANS = """
import os, subprocess, time
from tunnel.child.kernel import become_subreaper
from tunnel.child.reaper import reap_orphans

assert reap_orphans([]) == []
become_subreaper()
own = [subprocess.Popen(["sh", "-c", f"exit {code}"]) for code in (7, 8)]
for process in own:
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
living = subprocess.Popen(["sleep", "60"])
text = subprocess.run(["sh", "-c", "sleep 0.01 & echo $!; sleep 0.02 & echo $!"], stdout=subprocess.PIPE, text=True).stdout
orphans = {int(line) for line in text.split()}
reaped = []
while len(reaped) < 2:
    reaped += reap_orphans([process.pid for process in own])
    time.sleep(0.01)
assert set(reaped) == orphans, (reaped, orphans)
assert reap_orphans([process.pid for process in own]) == []
assert [process.wait() for process in own] == [7, 8]
assert living.poll() is None
living.kill()
living.wait()
assert reap_orphans([]) == []
"""
# One ends on SIGTERM, one with a child ignores it, one is stopped, one has left the session, and one is ours.
REMAINS = """
import json, os, subprocess, sys, time
from tunnel.child.kernel import become_subreaper
from tunnel.child.process_tree import list_descendants
from tunnel.child.reaper import end_descendants

def names(**how):
    return sorted(open(f"/proc/{one.pid}/comm").read().strip() for one in list_descendants(**how))

become_subreaper()
own = subprocess.Popen(["sleep", "60"])
script = '''
sleep 60 &
sh -c 'trap "" TERM; sleep 60' &
bash -c 'trap "echo told; exit" TERM; echo ready; kill -STOP $$; :' &
setsid tail -f /dev/null &
'''
reader, writer = os.pipe()
subprocess.run(["sh", "-c", script], stdin=subprocess.DEVNULL, stdout=writer)
os.close(writer)
output = os.fdopen(reader)
assert output.readline() == "ready\\n"
while names(is_everywhere=True) != ["bash", "sh", "sleep", "sleep", "sleep", "tail"]:
    time.sleep(0.01)
while "T" not in [open(f"/proc/{one.pid}/stat").read().rpartition(")")[2].split()[0] for one in list_descendants()]:
    time.sleep(0.01)
for pause in end_descendants(0.3, [own.pid]):
    time.sleep(pause)
assert output.readline() == "told\\n"
print(json.dumps(names()))
print(json.dumps(names(is_everywhere=True)))
for pause in end_descendants(10, [own.pid], is_everywhere=True):
    time.sleep(pause)
print(json.dumps(names(is_everywhere=True)))
own.kill()
assert own.wait() == -9
"""


def test_orphans_are_reaped_and_no_status_is_stolen() -> None:
    run_source(ORPHANS)


def test_what_remains_in_our_session_is_ended() -> None:
    """First by SIGTERM, also a stopped process; a daemon only if everything must end."""
    in_session, everywhere, at_last = map(json.loads, run_source(REMAINS).splitlines())
    assert in_session == ["sleep"]  # which is ours to end
    assert everywhere == ["sleep", "tail"]
    assert at_last == ["sleep"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a PID namespace")
def test_with_a_foreign_proc_no_process_is_found() -> None:
    """Their numbers would be our processes', or worse."""
    source = """
import os, subprocess, time
from tunnel.child.process_tree import list_descendants
from tunnel.child.reaper import end_descendants

child = subprocess.Popen(["sleep", "60"])
assert os.getpid() == 1
assert list_descendants(is_everywhere=True) == []
assert list(end_descendants(0, is_everywhere=True)) == []
assert child.poll() is None
"""
    done = run(["unshare", "--pid", "--fork", sys.executable, "-c", source], environ=environment())
    assert (done.returncode, done.stderr) == (0, b"")
