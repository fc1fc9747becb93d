"""Notifies the users of the files at each update, by a signal or a command, and retries for a minute."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Awaitable, Callable, Mapping

import trio

from tunnel.child.kernel import inherited_core_limit
from tunnel.child.pid_file import ReloadOutcome
from tunnel.child.supervised_command import describe_end
from tunnel.config.svid_model import ReloadCommand
from tunnel.errors import describe_os_error
from tunnel.log import STDERR
from tunnel.svid.event_log import Event, EventLog
from tunnel.svid.watch_state import WatchState

_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds between retries: a process may be about to start

ReloadAction = Callable[[], Awaitable[ReloadOutcome]]


class ReloadNotifier:
    """Runs the reload action once for each request, or once for several that arrive meanwhile; never two at a time."""

    def __init__(self, reload: ReloadAction, event_log: EventLog, state: WatchState) -> None:
        self._reload = reload
        self._event_log = event_log
        self._state = state
        self._requested = trio.Event()

    def request(self) -> None:
        """Request a reload: there are new files."""
        self._requested.set()

    async def run(self) -> None:
        """Serve requests until cancelled."""
        while True:
            await self._requested.wait()
            self._requested = trio.Event()
            if not await self._attempt(is_first=True):
                await self._retry()

    async def _retry(self) -> None:
        for pause in _PAUSES:
            with trio.move_on_after(pause):
                await self._requested.wait()
                return
            if await self._attempt(is_first=False):
                return

    async def _attempt(self, *, is_first: bool) -> bool:
        """Return whether no retry is needed; of the attempts for one request, only the first failure is reported."""
        outcome = await self._reload()
        if outcome.is_done:
            self._state.reloads += 1
            self._state.reload_error = ""
            self._event_log.write(Event.RELOADED, outcome.text)
        elif is_first or not outcome.is_transient:
            self._state.reload_failures += 1
            self._state.reload_error = outcome.text
            retry = "; retrying for a minute" if outcome.is_transient else ""
            self._event_log.write(Event.RELOAD_FAILED, f"reload failed: {outcome.text}{retry}")
        return outcome.is_done or not outcome.is_transient


async def run_reload_command(reload: ReloadCommand, environ: Mapping[str, str] | None = None) -> ReloadOutcome:
    """Run the program to its end, in this environment or in ours; its output goes to our standard error."""
    name = shlex.quote(os.path.basename(reload.argv[0]))
    with trio.move_on_after(reload.limit):
        try:
            with inherited_core_limit():
                ended = await trio.run_process(
                    list(reload.argv), stdin=subprocess.DEVNULL, stdout=STDERR, check=False, env=environ
                )
        except OSError as error:
            return ReloadOutcome(False, f"cannot run {name}: {describe_os_error(error)}")
        except ValueError:
            return ReloadOutcome(False, f"cannot run {name}: an argument has a null byte")
        if ended.returncode == 0:
            return ReloadOutcome(True, f"{name} succeeded")
        return ReloadOutcome(False, f"{name} {describe_end(ended.returncode)}")
    return ReloadOutcome(False, f"{name} did not end within {reload.limit:g}s and was killed")
