"""A command that runs beside this process: started, restarted if configured, signalled, and ended with this process.

It inherits our streams and terminal. The kernel kills it if we are killed.
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
from typing import Protocol

import trio

from tunnel.backoff import Backoff
from tunnel.child.exec_protocol import NOT_EXECUTABLE, NOT_FOUND
from tunnel.child.launcher import Launcher
from tunnel.child.pid_file import ReloadOutcome
from tunnel.child.reaper import Reaper
from tunnel.child.signal_probe import ReceivedSignal
from tunnel.child.signals import SETTLE
from tunnel.child.spawn_launcher import SpawnLauncher
from tunnel.config.svid_model import ChildSignal, Supervised
from tunnel.errors import CommandError

_STABLE = 10.0  # seconds a command must have run to be restarted without backoff
_FLOOR, _CAP = 1.0, 30.0  # seconds between restarts


WasSentTo = Callable[[int, ReceivedSignal], bool]  # SignalProbe.was_sent_to


class CommandObserver(Protocol):
    """Receives the events of the command; `name` is quoted for a shell."""

    def started(self, name: str, pid: int) -> None:
        """The command runs."""

    def start_failed(self, error: CommandError) -> None:
        """The command cannot be run."""

    def stop_timed_out(self, name: str, limit: float) -> None:
        """The command has not ended within the stop limit and is killed."""

    def ended(self, name: str, pid: int, exit_code: int, status: str) -> None:
        """The command has ended; `status` describes how."""


def never_sent(_command: int, _arrival: ReceivedSignal) -> bool:
    """Stand in for a probe: every stop is forwarded."""
    return False


def describe_end(code: int) -> str:
    """Return how a process ended; `code` is Python's return code, -N for signal N."""
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


class SupervisedCommand:
    """One command, started once or restarted each time it ends."""

    def __init__(
        self,
        config: Supervised,
        observer: CommandObserver,
        environ: Mapping[str, str] | None = None,
        reaper: Reaper | None = None,
        was_sent_to: WasSentTo = never_sent,
    ) -> None:
        """`environ` is the command's environment; None for our own."""
        self._was_sent_to = was_sent_to
        self._probe_limiter = trio.CapacityLimiter(1)  # its own, so that no other thread delays the probe
        self._stops, self._stops_to_forward = trio.open_memory_channel[ReceivedSignal](math.inf)
        self._is_stop = False  # a signal ends us; otherwise it is a failure, which the command has no signal of
        self._config = config
        self._environ = os.environ if environ is None else environ
        self._observer = observer
        self._reaper = reaper or Reaper()
        self._name = shlex.quote(os.path.basename(config.argv[0]))
        self._running: Launcher | None = None

    async def run(self) -> int:
        """Run it to its end; return its exit code, or 128 + N for signal N. If cancelled, end it first."""
        backoff = Backoff()
        while True:
            began = trio.current_time()
            code = await self._run_once()
            if not self._config.is_restarted or code in (NOT_FOUND, NOT_EXECUTABLE):
                return code
            if trio.current_time() - began >= _STABLE:
                backoff.reset()
            await trio.sleep(backoff.next(floor=_FLOOR, cap=_CAP))

    def stop(self, number: int) -> None:
        """Record a signal that ends us, which may have been sent to the command too. The caller then cancels `run`."""
        self._is_stop = True
        self._stops.send_nowait(ReceivedSignal(number, monotonic()))

    async def send(self, reload: ChildSignal) -> ReloadOutcome:
        """Send it a signal; a command that does not run needs none: it reads the new files when it starts."""
        if self._running is None:
            return ReloadOutcome(True, f"{self._name} is not running: {reload.number.name} not needed")
        self._running.send(reload.number)
        return ReloadOutcome(True, f"sent {reload.number.name} to {self._name}, process {self._running.pid}")

    async def _run_once(self) -> int:
        try:
            launcher = SpawnLauncher()
            with self._reaper.exclude(launcher.pid), closing(launcher):
                await trio.to_thread.run_sync(launcher.start, self._config.argv, self._environ)
                return await self._wait_until_end(launcher)
        except CommandError as error:
            self._observer.start_failed(error)
            return error.exit_code

    async def _wait_until_end(self, launcher: Launcher) -> int:
        self._running = launcher
        self._observer.started(self._name, launcher.pid)
        try:
            await trio.lowlevel.wait_readable(launcher)
        finally:
            if (code := launcher.exit_code()) is None:
                code = await self._stop(launcher)
            self._running = None
            status = describe_end(code if launcher.ended_by is None else -launcher.ended_by)
            self._observer.ended(self._name, launcher.pid, code, status)
        return code

    async def _stop(self, launcher: Launcher) -> int:
        """End it: one signal for each stop, and SIGKILL after the stop limit."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                if not self._is_stop:
                    launcher.send(signal.SIGTERM)
                nursery.start_soon(self._forward_stops, launcher)
                await self._wait_or_kill(launcher)
                nursery.cancel_scope.cancel()
        code = launcher.exit_code()
        assert code is not None
        return code

    async def _wait_or_kill(self, launcher: Launcher) -> None:
        with trio.move_on_after(self._config.stop_limit) as waiting:
            await trio.lowlevel.wait_readable(launcher)
        if waiting.cancelled_caught:
            self._observer.stop_timed_out(self._name, self._config.stop_limit)
            launcher.send(signal.SIGKILL)
            await trio.lowlevel.wait_readable(launcher)

    async def _forward_stops(self, launcher: Launcher) -> None:
        """Send SIGTERM for each stop that was not sent to the command as well."""
        async for stop in self._stops_to_forward:
            await trio.sleep(max(stop.at + SETTLE - monotonic(), 0.0))
            was_sent = partial(self._was_sent_to, launcher.pid, stop)
            if not await trio.to_thread.run_sync(was_sent, abandon_on_cancel=True, limiter=self._probe_limiter):
                launcher.send(signal.SIGTERM)
