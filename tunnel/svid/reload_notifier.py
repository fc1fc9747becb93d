"""Telling whoever uses the files that there are new ones.

Knows when to tell, never twice at once, and when to try again; must not know files. A failure is said and counted, and stops
nothing.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Awaitable, Callable, Mapping

import trio

from tunnel.child.core_dumps import inherited_core_limit
from tunnel.config.svid_model import ReloadCommand
from tunnel.errors import describe_os_error
from tunnel.log import STDERR
from tunnel.svid.event_log import Event, EventLog
from tunnel.svid.pid_file import Told
from tunnel.svid.watch_state import WatchState

_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds: for a minute a process may be about to start

Tell = Callable[[], Awaitable[Told]]


class ReloadNotifier:
    """Tells once for each request, or once for all that came meanwhile."""

    def __init__(self, tell: Tell, event_log: EventLog, standing: WatchState) -> None:
        self._tell = tell
        self._event_log = event_log
        self._standing = standing
        self._requested = trio.Event()

    def request(self) -> None:
        """There are new files."""
        self._requested.set()

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            await self._requested.wait()
            self._requested = trio.Event()
            if not await self._attempt(is_first=True):
                await self._try_again()

    async def _try_again(self) -> None:
        for pause in _PAUSES:
            with trio.move_on_after(pause):
                await self._requested.wait()
                return
            if await self._attempt(is_first=False):
                return

    async def _attempt(self, *, is_first: bool) -> bool:
        """Whether that is all that can be done for now; of attempts at one thing the first failure is told."""
        told = await self._tell()
        if told.is_done:
            self._standing.reloads += 1
            self._standing.reload_error = ""
            self._event_log.tell(Event.RELOADED, told.text)
        elif is_first or not told.may_come:
            self._standing.reload_failures += 1
            self._standing.reload_error = told.text
            later = "; trying again for a minute" if told.may_come else ""
            self._event_log.tell(Event.RELOAD_FAILED, f"reload failed: {told.text}{later}")
        return told.is_done or not told.may_come


async def run_reload_command(way: ReloadCommand, environ: Mapping[str, str] | None = None) -> Told:
    """Run the program to its end, in this environment or in ours; what it prints goes to our standard error."""
    name = shlex.quote(os.path.basename(way.argv[0]))
    with trio.move_on_after(way.limit):
        try:
            with inherited_core_limit():
                ended = await trio.run_process(
                    list(way.argv), stdin=subprocess.DEVNULL, stdout=STDERR, check=False, env=environ
                )
        except OSError as error:
            return Told(False, f"cannot run {name}: {describe_os_error(error)}")
        except ValueError:
            return Told(False, f"cannot run {name}: an argument has a null byte")
        if ended.returncode == 0:
            return Told(True, f"{name} has run")
        return Told(False, f"{name} {describe_end(ended.returncode)}")
    return Told(False, f"{name} has not ended within {way.limit:g}s, and was stopped")


def describe_end(code: int) -> str:
    """How a process ended, by the number that Python has for it."""
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
