"""What a shell does for a job in the foreground.

A script, and not a test: `python job_control.py TERMINAL [lead] -- COMMAND [ARG...]`. With `lead` the command is the leader
of the session itself, as in a container with a terminal.
"""

from __future__ import annotations

import os
import signal
import sys


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


cut = sys.argv.index("--")
words, command = sys.argv[2:cut], sys.argv[cut + 1 :]
os.setsid()
os.dup2(os.open(sys.argv[1], os.O_RDWR), 0)  # the first terminal that the leader of a session opens is that of the session
if "lead" in words:
    os.execv(command[0], command)
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(command[0], command)
say("job", job)
status = os.waitpid(job, os.WUNTRACED)[1]
while os.WIFSTOPPED(status):
    say("stopped")
    status = os.waitpid(job, os.WUNTRACED)[1]
say("ended", os.waitstatus_to_exitcode(status))
