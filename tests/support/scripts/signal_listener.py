"""A command that says which signals it gets, one line each, and ends with 7 when it is told `end`: a script, and not a test."""

from __future__ import annotations

import os
import select
import signal
import sys

woken, wake = os.pipe()
os.set_blocking(wake, False)
signal.set_wakeup_fd(wake)  # a signal just before a blocking read would be told only after it
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGCONT, signal.SIGCHLD}:
    signal.signal(number, lambda number, _: os.write(1, f"got {number}\n".encode()))
os.write(1, b"listening\n")
while True:
    ready, _, _ = select.select([0, woken], [], [])
    if woken in ready:
        os.read(woken, 4096)
    if 0 in ready and os.read(0, 4096) in (b"end\n", b""):
        break
sys.exit(7)
