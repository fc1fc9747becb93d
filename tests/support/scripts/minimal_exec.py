"""The smallest program that runs a command as ours will: everything that changes a process, then the command.

A script, and not a test: `python minimal_exec.py [WORD...] -- COMMAND [ARG...]`. It says on standard error what it does. The
words are `hold` (never give the order), `late` (look at signals, and give it, when a line has come), `trio` (wait as trio's
guest), `spawn` (start the waiting child when there are threads already, and change nothing that a child inherits).
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import sys
import threading
from functools import partial
from typing import NoReturn

import trio

from tunnel.child.inherited import command_environment, inherited
from tunnel.child.launcher import Launcher
from tunnel.child.signal_probe import SignalProbe
from tunnel.child.signals import SignalThread, block
from tunnel.child.spawn_launcher import SpawnLauncher
from tunnel.errors import CommandError
from tunnel.sandbox.landlock import apply_landlock
from tunnel.sandbox.rules import Needs


def say(*words: object) -> None:
    os.write(2, (" ".join(map(str, words)) + "\n").encode())


def main() -> int:
    cut = sys.argv.index("--")
    words, command = sys.argv[1:cut], sys.argv[cut + 1 :]
    inherited()
    for number in (signal.SIGHUP, signal.SIGUSR1):  # as __main__ does
        signal.signal(number, signal.SIG_IGN)
    block()
    probe = SignalProbe()
    launcher = spawn() if "spawn" in words else Launcher()
    say("child", launcher.pid)
    if "spawn" not in words:
        change()
    if "hold" in words:
        hold()
    if "late" in words:
        sys.stdin.readline()
    SignalThread(take, partial(settle, launcher), partial(probe.was_sent_to, launcher.pid))
    try:
        launcher.start(command, command_environment({}))
    except CommandError as error:
        say(error)
        return error.exit_code
    say("started")
    if "trio" in words:
        wait_with_trio(launcher)
    else:
        select.select([launcher], [], [])
    code = launcher.exit_code()
    assert code is not None
    launcher.close()
    probe.close()
    return code


def spawn() -> Launcher:
    threading.Thread(target=hold, daemon=True).start()
    kept.extend(socket.socketpair())
    return SpawnLauncher()


def take(number: int, is_shared: bool) -> None:
    say("signal", number, "shared" if is_shared else "ours")


def settle(launcher: Launcher, number: int, has_had: bool) -> None:
    if not has_had:
        launcher.send(number)
    say("settled", number, "had" if has_had else "sent")


def hold() -> NoReturn:
    while True:
        threading.Event().wait(3600)


def change() -> None:
    """Become a process that no command should be started from."""
    os.environ["GRPC_VERBOSITY"] = "NONE"
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kept.extend(socket.socketpair())
    apply_landlock(Needs(has_command=True), os.environ, lambda _: None)  # Landlock, where the kernel has it
    threading.Thread(target=hold, daemon=True).start()


def wait_with_trio(launcher: Launcher) -> None:

    from tunnel.relay.loop import Loop

    async def wait() -> None:
        say("waiting")
        await trio.lowlevel.wait_readable(launcher)

    Loop().run_trio(wait)


kept: list[socket.socket] = []

if __name__ == "__main__":
    sys.exit(main())
