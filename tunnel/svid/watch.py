"""`svid watch`: writes the files at every Workload API update, and notifies their users, until stopped.

The newest update wins: if writing fails it is retried until it succeeds or a newer update replaces it.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
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
from tunnel.errors import IdentityError, IdentityFault, OutputError, identity_errors
from tunnel.http.connection import HttpLimits
from tunnel.http.server import HttpService, connection_limit, serve_http
from tunnel.identity.credentials import SvidCredentials
from tunnel.identity.event_channel import open_event_channel, receive_newest
from tunnel.identity.events import Denied, Disconnected, Overdue, Rejected, Updated, WorkloadEvent
from tunnel.identity.identity_tracker import IdentityTracker, describe_timeout
from tunnel.net.listen import Listener, open_listener
from tunnel.net.notify import Notifier, State
from tunnel.svid.atomic_directory import AtomicDirectory, Replaced
from tunnel.svid.event_log import Event, EventLog
from tunnel.svid.material import Material, build_material, describe_written, facts_of
from tunnel.svid.reload_notifier import ReloadAction, ReloadNotifier, run_reload_command
from tunnel.svid.watch_state import CommandReporter, WatchState, build_health_responder
from tunnel.time_format import format_time

_RETRY = 2.0  # seconds between attempts to write
_CHECK_INTERVAL = 5.0  # seconds between checks of the files, and of the clock, which may have been set
_CHECK_LIMIT = 5.0  # seconds for a check of the files for a health request; a file system may hang
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
        self._wanted: SvidCredentials | None = None
        self._changed = trio.Event()
        self._has_written = trio.Event()
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
                nursery.start_soon(self._write_updates)
                nursery.start_soon(self._await_first)
                nursery.start_soon(self._check_expiry)
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
            self.state.left_out += len(event.context.left_out)
        kind = self._event_kind(event)
        if outcome.credentials is not None:
            self._lines.pop()  # on the identity: the event on the files includes it
        for line in self._lines:
            self._event_log.write(kind, line)
        self._lines.clear()
        if outcome.credentials is not None:
            self._wanted = outcome.credentials
            self._changed.set()

    def _event_kind(self, event: WorkloadEvent) -> Event:
        if isinstance(event, Rejected):
            return Event.REJECTED
        if isinstance(event, Overdue) or (isinstance(event, Disconnected) and not isinstance(event, Denied)):
            return Event.UNAVAILABLE
        return Event.DENIED if self._tracker.problem else Event.UPDATE  # an update without the selected identity is a denial

    async def _await_first(self) -> None:
        limit = self._config.source.timeout
        with trio.move_on_after(limit or math.inf):
            await self._changed.wait()
            return
        reason = describe_timeout(self._config.source.endpoint, limit, self._tracker.problem)
        self._end(1, IdentityError(IdentityFault.TIMEOUT, reason))

    # -- the files

    async def _write_updates(self) -> None:
        await self._changed.wait()
        is_written = False
        while True:
            if self._changed.is_set() or not is_written or await self._find_fault():
                self._changed = trio.Event()
                is_written = await self._write_newest()
            with trio.move_on_after(_CHECK_INTERVAL if is_written else _RETRY):
                await self._changed.wait()

    async def _find_fault(self) -> str:
        """Return why the files are not where they were written; "" if they are, or if none was written yet."""
        if self.state.written is None:
            return ""
        return await trio.to_thread.run_sync(self._directory.find_fault, abandon_on_cancel=True)

    async def _write_newest(self) -> bool:
        """Write the newest update; return whether it is on the disk."""
        assert self._wanted is not None
        try:
            with identity_errors("the update cannot be written"):
                material = build_material(self._wanted, self._config.output, datetime.fromtimestamp(self._wall(), UTC))
        except IdentityError as error:
            self._report_write_error(str(error), "keeping the previous files")
            return False
        before = self.state.written
        is_same = before is not None and (before.files, before.combined) == (material.files, material.combined)
        fault = await self._find_fault()
        if is_same and not fault:
            self._report_recovery()
            return True  # the update changed an identity that is not the selected one
        try:
            replaced = await trio.to_thread.run_sync(self._directory.replace, material.files, material.combined)
        except OutputError as error:
            self._report_write_error(str(error), "the files are not in place" if fault else "keeping the previous files")
            return False
        self.state.record_written(material, self._wall(), is_rotation=not is_same)
        self._report_written(material, replaced)
        self._notify(is_first=before is None)
        return True

    def _report_recovery(self) -> None:
        if self.state.write_error:
            self.state.write_error = ""
            self._event_log.write(Event.UPDATE, f"the files in {self._directory.path} are up to date again")

    def _report_write_error(self, error: str, consequence: str) -> None:
        if error != self.state.write_error:
            self.state.write_error = error
            consequence = consequence if self.state.written else "there are no files yet"
            self._event_log.write(Event.WRITE_FAILED, f"{error}; {consequence}, retrying")

    def _report_written(self, material: Material, replaced: Replaced) -> None:
        if replaced.fault:
            self._event_log.write(Event.FILES_CHANGED, f"{replaced.fault}: written again")
        for note in material.notes:
            self._event_log.write(Event.NOTICE, f"warning: {note}")
        for notice in replaced.describe_foreign(self._directory.path):
            self._event_log.write(Event.NOTICE, notice)
        self._event_log.write(
            Event.WRITTEN,
            describe_written(material, self._directory.path),
            **facts_of(material, self._directory.path),
            rotation=self.state.rotations,
        )

    def _notify(self, *, is_first: bool) -> None:
        """Notify the users of the files; our own command reads the first ones when it starts."""
        self._notify_manager()
        if is_first:
            self._has_written.set()
        if self._reloader is not None and not (is_first and self._child is not None):
            self._reloader.request()

    def _notify_manager(self) -> None:
        written = self.state.written
        assert written is not None
        until = format_time(written.not_after)
        self._notifier.notify(State.KEEPING, f"{written.spiffe_id} in {self._directory.path}, valid until {until}")

    async def _check_expiry(self) -> None:
        await self._has_written.wait()
        expired = None
        while True:
            written = self.state.written
            left = self.state.seconds_left(self._wall())
            if written is not None and written is not expired and left is not None and left <= 0:
                expired = written
                self._event_log.write(
                    Event.EXPIRED,
                    f"{written.spiffe_id} in {self._directory.path} expired at {format_time(written.not_after)}; "
                    "keeping the files, peers will refuse them",
                    **facts_of(written, self._directory.path),
                )
            self._event_log.flush()
            await trio.sleep(min(_CHECK_INTERVAL, max(left, 0.1)) if left is not None and left > 0 else _CHECK_INTERVAL)

    # -- reload, command, health

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
        await self._has_written.wait()
        self._end(await child.run())

    async def _find_file_error(self) -> str:
        with trio.move_on_after(_CHECK_LIMIT):
            return await self._find_fault()
        return f"{self._directory.path}: no answer within {_CHECK_LIMIT:g}s"

    async def _serve_health(
        self, listener: Listener, *, task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED
    ) -> None:
        port = HttpService(
            build_health_responder(self.state, self._find_file_error, self._wall),
            HttpLimits(header=_HEADER_LIMIT),
            lambda line: self._event_log.write(Event.NOTICE, line),
            max_connections=connection_limit(),
        )
        await serve_http(listener, port, stopping=trio.Event(), task_status=task_status)
