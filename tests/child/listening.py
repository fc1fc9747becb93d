"""A command that says which signals it gets, one line each, and ends with 7 when it is told `end`: a script, and not a test."""

from __future__ import annotations

import os
import signal
import sys

for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGCONT, signal.SIGCHLD}:
    signal.signal(number, lambda number, _: os.write(1, f"got {number}\n".encode()))
os.write(1, b"listening\n")
while sys.stdin.readline() not in ("end\n", ""):
    pass
sys.exit(7)
