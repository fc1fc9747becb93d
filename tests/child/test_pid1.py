"""Signals of process 1, for which the kernel has no default action."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.support.script_runner import LIMIT, environment

# A command that takes its time and takes no signals, in the place of all commands.
SLOW = """
import sys, time, types

def run(argv, environ):
    print("up", flush=True)
    time.sleep(600)

sys.modules["tunnel.cli.main"] = types.ModuleType("tunnel.cli.main")
sys.modules["tunnel.cli.main"].main = run
from tunnel.__main__ import main
sys.exit(main())
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a PID namespace")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_before_a_command_handles_it_is_not_lost(number: int) -> None:
    argv = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", SLOW]
    with subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            with open(f"/proc/{process.pid}/task/{process.pid}/children") as children:
                os.kill(int(children.read()), number)
            assert process.wait(LIMIT / 6) == 128 + number
        finally:
            process.kill()
