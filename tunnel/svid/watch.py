"""Files that follow the Workload API, and whoever is told of them, until we are told to stop.

Knows which task does what, and how each may end all of them; must not know how files are laid out or processes told. The newest
update wins: one that could not be written is tried again until it is, or until another takes its place.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from functools import partial

import trio

from tunnel.child.environment import for_command
from tunnel.child.inherited import inherited
from tunnel.child.probe import SignalProbe
from tunnel.child.signals import SETTLE
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
from tunnel.svid.health import answer_health
from tunnel.svid.material import Material, build_material, describe_written, facts_of
from tunnel.svid.pid_file import Told, signal_by_pid_file
from tunnel.svid.reaper import Reaper
from tunnel.svid.reload_notifier import ReloadNotifier, Tell, run_reload_command
from tunnel.svid.supervised import Child, nobody_has_had
from tunnel.svid.watch_state import WatchState
from tunnel.time_format import format_time

_RETRY = 2.0  # seconds between attempts to write
_LOOK = 5.0  # seconds between looks at the clock, which may have been set, and at the files
_LOOK_LIMIT = 5.0  # seconds for a look at the files when somebody asks for health; a file system may hang
_HEADER_LIMIT = 10.0  # seconds for a request for health to arrive
_STOPPING = {signal.SIGTERM, signal.SIGINT}
_NOT_OURS = (signal.SIGHUP, signal.SIGUSR1)  # nothing to read again: every update comes by itself


def run_watch(
    config: WatchConfig,
    folder: AtomicDirectory,
    event_log: EventLog,
    environ: Mapping[str, str],
    probe: SignalProbe | None = None,
) -> int:
    """Keep the files until SIGTERM or SIGINT, or until the command ends; the exit code. A command needs a `probe`.

    Raises ConfigError when health cannot be served, IdentityError when there is no first identity, now or ever.
    """
    health = open_listener(config.health) if config.health is not None else None
    notifier = Notifier(environ, os.getpid())
    watch = Watch(config, folder, event_log, for_command({}), notifier, probe=probe)
    return trio.run(watch.run, health)


class Watch:
    """One run of `svid watch`."""

    def __init__(
        self,
        config: WatchConfig,
        folder: AtomicDirectory,
        event_log: EventLog,
        environ: Mapping[str, str],  # of what we start
        notifier: Notifier,
        *,
        probe: SignalProbe | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._folder = folder
        self._event_log = event_log
        self._environ = environ
        self._notifier = notifier
        self._wall = wall
        self.standing = WatchState()
        self._lines: list[str] = []  # what the follower has to say about the event at hand
        self._tracker = IdentityTracker(config.source.selection, self._lines.append, self._lines.append)
        self._wanted: SvidCredentials | None = None
        self._changed = trio.Event()
        self._has_written = trio.Event()
        self._reaper = Reaper(probe)
        has_had = nobody_has_had if probe is None else probe.has_had
        self._child = Child(config.child, event_log, self.standing, environ, self._reaper, has_had) if config.child else None
        self._reloader = ReloadNotifier(self._way_of(config.reload), event_log, self.standing) if config.reload else None
        self._scope = trio.CancelScope()
        self._code = 0
        self._failure: IdentityError | None = None

    async def run(self, health: Listener | None = None) -> int:
        """The exit code, once it is time; raises IdentityError."""
        with trio.open_signal_receiver(*_STOPPING, *_NOT_OURS) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey, signals)
                await self._run_all(health)
                nursery.cancel_scope.cancel()
        self._event_log.flush()
        if self._failure is not None:
            raise self._failure
        return self._code

    async def _run_all(self, health: Listener | None) -> None:
        """Everything but signals, until `_end`."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                if health is not None:
                    await nursery.start(self._serve_health, health)
                nursery.start_soon(self._follow)
                nursery.start_soon(self._keep_files)
                nursery.start_soon(self._await_first)
                nursery.start_soon(self._look_at_clock)
                nursery.start_soon(self._reaper.run_as_first)
                nursery.start_soon(self._notifier.run_watchdog, trio.sleep)
                if self._reloader is not None:
                    nursery.start_soon(self._reloader.run)
                if self._child is not None:
                    nursery.start_soon(self._run_child, self._child)

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        """End at SIGTERM or SIGINT; until the command has ended, each later one is a stop of its own for it."""
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
        self._notifier.notify(State.STOPPING, self._folder.path)
        self._scope.cancel()

    # -- the Workload API

    async def _follow(self) -> None:
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
        self.standing.trouble = self._tracker.problem
        if isinstance(event, Updated):
            self.standing.left_out += len(event.context.left_out)
        kind = self._kind_of(event)
        if outcome.credentials is not None:
            self._lines.pop()  # on the identity: what is said of the files says it all
        for line in self._lines:
            self._event_log.tell(kind, line)
        self._lines.clear()
        if outcome.credentials is not None:
            self._wanted = outcome.credentials
            self._changed.set()

    def _kind_of(self, event: WorkloadEvent) -> Event:
        if isinstance(event, Rejected):
            return Event.REJECTED
        if isinstance(event, Overdue) or (isinstance(event, Disconnected) and not isinstance(event, Denied)):
            return Event.UNAVAILABLE
        return Event.DENIED if self._tracker.problem else Event.UPDATE  # other identities than ours are none for us

    async def _await_first(self) -> None:
        limit = self._config.source.timeout
        with trio.move_on_after(limit or math.inf):
            await self._changed.wait()
            return
        why = describe_timeout(self._config.source.endpoint, limit, self._tracker.problem)
        self._end(1, IdentityError(IdentityFault.TIMEOUT, why))

    # -- the files

    async def _keep_files(self) -> None:
        await self._changed.wait()
        is_right = False
        while True:
            if self._changed.is_set() or not is_right or await self._find_fault():
                self._changed = trio.Event()
                is_right = await self._write_newest()
            with trio.move_on_after(_LOOK if is_right else _RETRY):
                await self._changed.wait()

    async def _find_fault(self) -> str:
        """Why the files are not where they were written; "" when they are, or none was written yet."""
        if self.standing.written is None:
            return ""
        return await trio.to_thread.run_sync(self._folder.find_fault, abandon_on_cancel=True)

    async def _write_newest(self) -> bool:
        """Whether what is on the disk is what is wanted."""
        assert self._wanted is not None
        try:
            with identity_errors("the update cannot be written"):
                material = build_material(self._wanted, self._config.output, datetime.fromtimestamp(self._wall(), UTC))
        except IdentityError as error:
            self._complain(str(error), "the files before it stay")
            return False
        before = self.standing.written
        is_same = before is not None and (before.files, before.combined) == (material.files, material.combined)
        fault = await self._find_fault()
        if is_same and not fault:
            self._note_recovery()
            return True  # another identity of ours has changed, which nobody has asked for
        try:
            replaced = await trio.to_thread.run_sync(self._folder.replace, material.files, material.combined)
        except OutputError as error:
            self._complain(str(error), "the files are not in place" if fault else "the files before it stay")
            return False
        self.standing.take(material, self._wall(), is_rotation=not is_same)
        self._tell_written(material, replaced)
        self._announce(is_first=before is None)
        return True

    def _note_recovery(self) -> None:
        if self.standing.write_error:
            self.standing.write_error = ""
            self._event_log.tell(Event.UPDATE, f"the files in {self._folder.path} are up to date again")

    def _complain(self, trouble: str, kept: str) -> None:
        if trouble != self.standing.write_error:
            self.standing.write_error = trouble
            kept = kept if self.standing.written else "there are no files yet"
            self._event_log.tell(Event.WRITE_FAILED, f"{trouble}; {kept}, trying again")

    def _tell_written(self, material: Material, replaced: Replaced) -> None:
        if replaced.fault:
            self._event_log.tell(Event.FILES_CHANGED, f"{replaced.fault}: written again")
        for note in material.notes:
            self._event_log.tell(Event.NOTICE, f"warning: {note}")
        for name in replaced.taken:
            self._event_log.tell(Event.NOTICE, f"{name} in {self._folder.path} was not ours, and has been replaced")
        self._event_log.tell(
            Event.WRITTEN,
            describe_written(material, self._folder.path),
            **facts_of(material, self._folder.path),
            rotation=self.standing.rotations,
        )

    def _announce(self, *, is_first: bool) -> None:
        """Tell those who use the files; a command of ours reads the first ones when it starts."""
        self._tell_manager()
        if is_first:
            self._has_written.set()
        if self._reloader is not None and not (is_first and self._child is not None):
            self._reloader.request()

    def _tell_manager(self) -> None:
        written = self.standing.written
        assert written is not None
        until = format_time(written.not_after)
        self._notifier.notify(State.KEEPING, f"{written.spiffe_id} in {self._folder.path}, valid until {until}")

    async def _look_at_clock(self) -> None:
        await self._has_written.wait()
        expired = None
        while True:
            written = self.standing.written
            left = self.standing.seconds_left(self._wall())
            if written is not None and written is not expired and left is not None and left <= 0:
                expired = written
                self._event_log.tell(
                    Event.EXPIRED,
                    f"{written.spiffe_id} in {self._folder.path} has expired at {format_time(written.not_after)}; "
                    "the files stay, and nobody should take them",
                    **facts_of(written, self._folder.path),
                )
            self._event_log.flush()
            await trio.sleep(min(_LOOK, max(left, 0.1)) if left is not None and left > 0 else _LOOK)

    # -- who is told

    def _way_of(self, reload: Reload) -> Tell:
        match reload:
            case PidFileSignal():
                return partial(trio.to_thread.run_sync, signal_by_pid_file, reload)
            case ReloadCommand():
                return partial(self._run_reload_command, reload)
            case ChildSignal():
                assert self._child is not None
                return partial(self._child.tell, reload)

    async def _run_reload_command(self, reload: ReloadCommand) -> Told:
        with self._reaper.spare():
            return await run_reload_command(reload, self._environ)

    async def _run_child(self, child: Child) -> None:
        await self._has_written.wait()
        self._end(await child.run())

    async def _look_at_files(self) -> str:
        with trio.move_on_after(_LOOK_LIMIT):
            return await self._find_fault()
        return f"{self._folder.path} does not answer within {_LOOK_LIMIT:g}s"

    async def _serve_health(
        self, listener: Listener, *, task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED
    ) -> None:
        port = HttpService(
            answer_health(self.standing, self._look_at_files, self._wall),
            HttpLimits(header=_HEADER_LIMIT),
            lambda line: self._event_log.tell(Event.NOTICE, line),
            max_connections=connection_limit(),
        )
        await serve_http(listener, port, stopping=trio.Event(), task_status=task_status)
