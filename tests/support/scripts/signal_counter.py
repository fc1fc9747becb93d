"""A command that counts its signals and takes long to end: a script, and not a test.

`python signal_counter.py [group]` says `got N` for each signal and ends with 7 at SIGQUIT. With `group` it makes a
process group of its own first, as timeout(1) and shells with job control do.
"""

from __future__ import annotations

import os
import signal
import sys

if "group" in sys.argv:
    os.setpgid(0, 0)
numbers = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
os.write(1, f"up {os.getpid()}\n".encode())
while (number := signal.sigwait(numbers)) != signal.SIGQUIT:
    os.write(1, f"got {int(number)}\n".encode())
sys.exit(7)
