"""`svid watch`: receives Workload API updates, has them written, and notifies the users of the files, until stopped."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import assert_never

import trio

from tunnel.child.inherited import command_environment, inherited
from tunnel.child.pid_file import ReloadOutcome, signal_by_pid_file
from tunnel.child.reaper import Reaper
from tunnel.child.signal_probe import SignalProbe
from tunnel.child.signals import SETTLE
from tunnel.child.supervised_command import SupervisedCommand, never_sent
from tunnel.config.svid_model import ChildSignal, PidFileSignal, Reload, ReloadCommand, WatchConfig
from tunnel.errors import IdentityError, IdentityFault
from tunnel.http.connection import HttpLimits
from tunnel.http.server import HttpService, connection_limit, serve_http
from tunnel.identity.event_channel import open_event_channel, receive_newest
from tunnel.identity.events import Denied, Disconnected, Overdue, Rejected, Updated, WorkloadEvent
from tunnel.identity.identity_tracker import IdentityTracker, describe_timeout
from tunnel.net.listen import Listener, open_listener
from tunnel.net.notify import Notifier, State
from tunnel.svid.atomic_directory import AtomicDirectory
from tunnel.svid.event_log import Event, EventLog
from tunnel.svid.reload_notifier import ReloadAction, ReloadNotifier, run_reload_command
from tunnel.svid.update_writer import UpdateWriter
from tunnel.svid.watch_state import CommandReporter, WatchState, build_health_responder
from tunnel.time_format import format_time

_HEADER_LIMIT = 10.0  # seconds for the header of a health request
_STOPPING = {signal.SIGTERM, signal.SIGINT}
_IGNORED = (signal.SIGHUP, signal.SIGUSR1)  # nothing to reload: every update arrives by itself


def run_watch(
    config: WatchConfig,
    directory: AtomicDirectory,
    event_log: EventLog,
    environ: Mapping[str, str],
    probe: SignalProbe | None = None,
) -> int:
    """Run until SIGTERM or SIGINT, or until the command ends; return the exit code. A command needs a `probe`.

    Raises ConfigError if the health address cannot be bound, IdentityError if there is no first identity.
    """
    health = open_listener(config.health) if config.health is not None else None
    notifier = Notifier(environ, os.getpid())
    watch = Watch(config, directory, event_log, command_environment({}), notifier, probe=probe)
    return trio.run(watch.run, health)


class Watch:
    """One run of `svid watch`."""

    def __init__(
        self,
        config: WatchConfig,
        directory: AtomicDirectory,
        event_log: EventLog,
        environ: Mapping[str, str],  # of the commands that we start
        notifier: Notifier,
        *,
        probe: SignalProbe | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._directory = directory
        self._event_log = event_log
        self._environ = environ
        self._notifier = notifier
        self._wall = wall
        self.state = WatchState()
        self._lines: list[str] = []  # the tracker's log lines on the current event
        self._tracker = IdentityTracker(config.source.selection, self._lines.append, self._lines.append)
        self._writer = UpdateWriter(config.output, directory, event_log, self.state, self._notify, wall)
        self._reaper = Reaper(probe)
        was_sent_to = never_sent if probe is None else probe.was_sent_to
        self._child: SupervisedCommand | None = None
        if config.child is not None:
            reporter = CommandReporter(self.state, event_log)
            self._child = SupervisedCommand(config.child, reporter, environ, self._reaper, was_sent_to)
        self._reloader = ReloadNotifier(self._action_of(config.reload), event_log, self.state) if config.reload else None
        self._scope = trio.CancelScope()
        self._code = 0
        self._failure: IdentityError | None = None

    async def run(self, health: Listener | None = None) -> int:
        """Return the exit code when stopped; raises IdentityError."""
        with trio.open_signal_receiver(*_STOPPING, *_IGNORED) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stop_on_signal, signals)
                await self._run_all(health)
                nursery.cancel_scope.cancel()
        self._event_log.flush()
        if self._failure is not None:
            raise self._failure
        return self._code

    async def _run_all(self, health: Listener | None) -> None:
        """Run every task but signals until `_end`."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                if health is not None:
                    await nursery.start(self._serve_health, health)
                nursery.start_soon(self._receive_updates)
                nursery.start_soon(self._writer.run)
                nursery.start_soon(self._await_first)
                nursery.start_soon(self._writer.report_expiry)
                nursery.start_soon(self._reaper.run)
                nursery.start_soon(self._notifier.run_watchdog, trio.sleep)
                if self._reloader is not None:
                    nursery.start_soon(self._reloader.run)
                if self._child is not None:
                    nursery.start_soon(self._run_child, self._child)

    async def _stop_on_signal(self, signals: AsyncIterator[int]) -> None:
        """End on SIGTERM or SIGINT; each later one is another stop for the command while it runs."""
        settled_at: dict[int, float] = {}
        async for number in signals:
            if number in _STOPPING - inherited().ignored and trio.current_time() >= settled_at.get(number, -math.inf):
                settled_at[number] = trio.current_time() + SETTLE
                if self._child is not None:
                    self._child.stop(number)
                if not self._scope.cancel_called:
                    self._end(0)

    def _end(self, code: int, failure: IdentityError | None = None) -> None:
        self._code, self._failure = code, failure
        self._notifier.notify(State.STOPPING, self._directory.path)
        self._scope.cancel()

    # -- the Workload API

    async def _receive_updates(self) -> None:
        async with open_event_channel(self._config.source.endpoint, self._config.source.selection) as events:
            while True:
                for event in await receive_newest(events):
                    self._take(event)

    def _take(self, event: WorkloadEvent) -> None:
        try:
            outcome = self._tracker.take(event)
        except IdentityError as error:
            self._end(1, error)
            return
        self.state.trouble = self._tracker.problem
        if isinstance(event, Updated):
            self.state.skipped += len(event.context.skipped)
        kind = self._event_kind(event)
        if outcome.credentials is not None:
            self._lines.pop()  # about the identity: the event about the written files has the same facts
        for line in self._lines:
            self._event_log.write(kind, line)
        self._lines.clear()
        if outcome.credentials is not None:
            self._writer.submit(outcome.credentials)

    def _event_kind(self, event: WorkloadEvent) -> Event:
        if isinstance(event, Rejected):
            return Event.REJECTED
        if isinstance(event, Overdue) or (isinstance(event, Disconnected) and not isinstance(event, Denied)):
            return Event.UNAVAILABLE
        return Event.DENIED if self._tracker.problem else Event.UPDATE  # an update without the selected identity is a denial

    async def _await_first(self) -> None:
        limit = self._config.source.timeout
        with trio.move_on_after(limit or math.inf):
            await self._writer.has_update.wait()
            return
        reason = describe_timeout(self._config.source.endpoint, limit, self._tracker.problem)
        self._end(1, IdentityError(IdentityFault.TIMEOUT, reason))

    # -- reload, command, health

    def _notify(self, is_first: bool) -> None:
        """Notify the users of the files; our own command reads the first ones when it starts."""
        self._notify_manager()
        if self._reloader is not None and not (is_first and self._child is not None):
            self._reloader.request()

    def _notify_manager(self) -> None:
        written = self.state.written
        assert written is not None
        until = format_time(written.not_after)
        self._notifier.notify(State.KEEPING, f"{written.spiffe_id} in {self._directory.path}, valid until {until}")

    def _action_of(self, reload: Reload) -> ReloadAction:
        match reload:
            case PidFileSignal():
                return partial(trio.to_thread.run_sync, signal_by_pid_file, reload)
            case ReloadCommand():
                return partial(self._run_reload_command, reload)
            case ChildSignal():
                assert self._child is not None
                return partial(self._child.send, reload)
            case _:
                assert_never(reload)

    async def _run_reload_command(self, reload: ReloadCommand) -> ReloadOutcome:
        with self._reaper.exclude():
            return await run_reload_command(reload, self._environ)

    async def _run_child(self, child: SupervisedCommand) -> None:
        await self._writer.has_written.wait()
        self._end(await child.run())

    async def _serve_health(
        self, listener: Listener, *, task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED
    ) -> None:
        port = HttpService(
            build_health_responder(self.state, self._writer.find_file_error, self._wall),
            HttpLimits(header=_HEADER_LIMIT),
            lambda line: self._event_log.write(Event.NOTICE, line),
            max_connections=connection_limit(),
        )
        await serve_http(listener, port, stopping=trio.Event(), task_status=task_status)
