"""A command that lives beside the files.

Knows how it is started, signalled and ended; must not know what it is told for. Its streams and terminal are ours. The kernel
kills it when we are killed.
"""

from __future__ import annotations

import math
import os
import shlex
import signal
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from time import monotonic

import trio

from tunnel.child.exec_protocol import NOT_EXECUTABLE, NOT_FOUND
from tunnel.child.launcher import Launcher
from tunnel.child.probe import Arrival
from tunnel.child.signals import SETTLE
from tunnel.child.spawned import SpawnedLauncher
from tunnel.config.svid_model import ChildSignal, Supervised
from tunnel.errors import CommandError
from tunnel.identity.backoff import Backoff
from tunnel.svid.event_log import Event, EventLog
from tunnel.svid.pid_file import Told
from tunnel.svid.reaper import Reaper
from tunnel.svid.reload_notifier import describe_end
from tunnel.svid.watch_state import WatchState

_STEADY = 10.0  # seconds that a command must have lived to be started again at once
_PAUSE, _LONGEST_PAUSE = 1.0, 30.0


HasHad = Callable[[int, Arrival], bool]  # SignalProbe.has_had


def nobody_has_had(_command: int, _arrival: Arrival) -> bool:
    """Without a probe: every stop is sent on."""
    return False


class Child:
    """One command, started once or again and again."""

    def __init__(
        self,
        config: Supervised,
        event_log: EventLog,
        standing: WatchState,
        environ: Mapping[str, str] | None = None,
        reaper: Reaper | None = None,
        has_had: HasHad = nobody_has_had,
    ) -> None:
        """`environ` is what the command is given; None for all that we have."""
        self._has_had = has_had
        self._one_question = trio.CapacityLimiter(1)  # whatever else waits on threads
        self._stops, self._stops_to_pass_on = trio.open_memory_channel[Arrival](math.inf)
        self._is_stop = False  # a signal ends us; else it is a failure, of which the command cannot know
        self._config = config
        self._environ = os.environ if environ is None else environ
        self._event_log = event_log
        self._standing = standing
        self._reaper = reaper or Reaper()
        self._name = shlex.quote(os.path.basename(config.argv[0]))
        self._running: Launcher | None = None
        standing.has_child = True

    async def run(self) -> int:
        """See it to its end; its exit code, 128 and the number for one that a signal ended. Ended with us when cancelled."""
        backoff = Backoff()
        while True:
            began = trio.current_time()
            code = await self._run_once()
            if not self._config.is_restarted or code in (NOT_FOUND, NOT_EXECUTABLE):
                return code
            if trio.current_time() - began >= _STEADY:
                backoff.reset()
            await trio.sleep(backoff.next(floor=_PAUSE, cap=_LONGEST_PAUSE))

    def stop(self, number: int) -> None:
        """A signal that ends us has come, and the command may have had it too. The caller then cancels `run`."""
        self._is_stop = True
        self._stops.send_nowait(Arrival(number, monotonic()))

    async def tell(self, way: ChildSignal) -> Told:
        """Send it a signal; one that does not run finds the new files when it starts."""
        if self._running is None:
            return Told(True, f"{self._name} is not running, and needs no {way.number.name}")
        self._running.send(way.number)
        return Told(True, f"sent {way.number.name} to {self._name}, process {self._running.pid}")

    async def _run_once(self) -> int:
        try:
            launcher = SpawnedLauncher()
            with self._reaper.spare(launcher.pid), closing(launcher):
                await trio.to_thread.run_sync(launcher.start, self._config.argv, self._environ)
                return await self._see_to_end(launcher)
        except CommandError as error:
            self._standing.child_exit_code = error.exit_code
            self._event_log.tell(Event.ENDED, f"cannot start {error}", exit_code=error.exit_code)
            return error.exit_code

    async def _see_to_end(self, launcher: Launcher) -> int:
        self._running = launcher
        self._standing.child_pid = launcher.pid
        self._standing.child_starts += 1
        self._event_log.tell(Event.STARTED, f"started {self._name}, process {launcher.pid}", pid=launcher.pid)
        try:
            await trio.lowlevel.wait_readable(launcher)
        finally:
            if (code := launcher.exit_code()) is None:
                code = await self._stop(launcher)
            self._note_end(launcher, code)
        return code

    def _note_end(self, launcher: Launcher, code: int) -> None:
        self._running = None
        self._standing.child_pid, self._standing.child_exit_code = None, code
        how = describe_end(code if launcher.ended_by is None else -launcher.ended_by)
        self._event_log.tell(Event.ENDED, f"{self._name} {how}", pid=launcher.pid, exit_code=code)

    async def _stop(self, launcher: Launcher) -> int:
        """Have it end: by one signal for each stop, and by SIGKILL when the time is over."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                if not self._is_stop:
                    launcher.send(signal.SIGTERM)
                nursery.start_soon(self._pass_on_stops, launcher)
                await self._await_end(launcher)
                nursery.cancel_scope.cancel()
        code = launcher.exit_code()
        assert code is not None
        return code

    async def _await_end(self, launcher: Launcher) -> None:
        with trio.move_on_after(self._config.stop_limit) as waiting:
            await trio.lowlevel.wait_readable(launcher)
        if waiting.cancelled_caught:
            self._event_log.tell(
                Event.NOTICE, f"{self._name} has not ended within {self._config.stop_limit:g}s of the stop: killed"
            )
            launcher.send(signal.SIGKILL)
            await trio.lowlevel.wait_readable(launcher)

    async def _pass_on_stops(self, launcher: Launcher) -> None:
        """SIGTERM for each stop that was not sent to the command as well."""
        async for arrival in self._stops_to_pass_on:
            await trio.sleep(max(arrival.at + SETTLE - monotonic(), 0.0))
            had = partial(self._has_had, launcher.pid, arrival)
            if not await trio.to_thread.run_sync(had, abandon_on_cancel=True, limiter=self._one_question):
                launcher.send(signal.SIGTERM)
